"""`python -m tests.scenarios`: which test shows which fault; writes tests/scenarios.md.

A test says what it shows by `@pytest.mark.scenario("A1", "A4", tier="P")`, on itself, on its
class, on one `pytest.param`, or as the module's `pytestmark`; a story of the core by the ids
that begin its first line (`# D4: ...`). Both are read from the source, so nothing is run here.
What a test needs of the machine shows in its marks: a skip without root (`os.geteuid`), a mark
named `needs_strace`, or `needs="root"` in the scenario mark when a part of it does.
The last results of long tests are those that `TESTS_RECORD=1 make test-long` wrote down.
"""

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from tests.scenario_ids import REQUIRED, SCENARIOS

TESTS: Final = Path(__file__).resolve().parent
TABLE: Final = TESTS / "scenarios.md"
RESULTS: Final = TESTS / "long_results.json"

_STORY: Final = re.compile(r"# ([A-H]\d+(?:, [A-H]\d+)*): ")
_ROOT: Final = re.compile(r"geteuid")
_NEEDS: Final = re.compile(r"\bneeds_(\w+)")


@dataclass(frozen=True, slots=True)
class Shown:
    """One test that shows a scenario at a tier, and where it runs."""

    scenario: str
    tier: str
    test: str
    runs: str
    needs: tuple[str, ...] = ()


def find_shown() -> list[Shown]:
    """Everything that tests and stories say they show; raises ValueError for an unknown id."""
    found = [shown for path in sorted(TESTS.rglob("test_*.py")) for shown in _of_module(path)]
    for path in sorted((TESTS / "raft" / "testdata").glob("*.txt")):
        match = _STORY.match(path.read_text(encoding="utf-8"))
        for scenario in match.group(1).split(", ") if match else ():
            name = path.relative_to(TESTS).as_posix()
            found.append(Shown(scenario, "S", name, "make test"))
    for shown in found:
        if shown.scenario not in SCENARIOS or shown.tier not in ("S", "T", "P", "U"):
            raise ValueError(f"{shown.test}: no scenario {shown.scenario}, tier {shown.tier}")
    return found


def find_missing(found: list[Shown]) -> dict[str, str]:
    """The tiers of required ids that nothing shows, as scenario_ids.MISSING has them."""
    missing = {}
    for scenario in REQUIRED:
        tiers = {shown.tier for shown in found if shown.scenario == scenario}
        asked = SCENARIOS[scenario][1].split(",")
        lacking = [one for one in asked if not tiers & set(one.split("/"))]
        if lacking:
            missing[scenario] = ",".join(lacking)
    return missing


def _of_module(path: Path) -> Iterator[Shown]:
    module = ast.parse(path.read_text(encoding="utf-8"), str(path))
    marks = [
        node.value
        for node in module.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
    ]
    # A skip for want of root may have a name of its own.
    root_names = [
        re.escape(ast.unparse(node.targets[0]))
        for node in module.body
        if isinstance(node, ast.Assign) and _ROOT.search(ast.unparse(node.value))
    ]
    root = re.compile("|".join([_ROOT.pattern, *(rf"\b{name}\b" for name in root_names)]))
    name = path.relative_to(TESTS).as_posix()
    yield from _of_body(module.body, name, marks, root)


def _of_body(
    body: list[ast.stmt], name: str, marks: list[ast.expr], root: re.Pattern[str]
) -> Iterator[Shown]:
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            own = [*marks, *node.decorator_list]
            yield from _of_body(node.body, f"{name}::{node.name}", own, root)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith(
            "test_"
        ):
            yield from _of_test(f"{name}::{node.name}", [*marks, *node.decorator_list], root)


def _of_test(test: str, marks: list[ast.expr], root: re.Pattern[str]) -> Iterator[Shown]:
    cases: list[ast.expr] = []
    plain: list[ast.expr] = []
    for mark in marks:
        is_table = isinstance(mark, ast.Call) and ast.unparse(mark.func).endswith("parametrize")
        if not is_table:
            plain.append(mark)
            continue
        for node in ast.walk(mark):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.param":
                cases += [word.value for word in node.keywords if word.arg == "marks"]
    common = " ".join(ast.unparse(mark) for mark in plain)
    # Some cases of such a test run with the others; the rest take long and have their own line.
    is_half_long = any("mark.long" in ast.unparse(case) for case in cases)
    for group in ([one] for one in (*plain, *cases)):
        text = f"{common} {ast.unparse(group[0])}"
        runs = "make test"
        for word in ("long", "interop", "systemd"):
            if f"mark.{word}" in text:
                runs = f"make test-{word}"
        needs = {*_NEEDS.findall(text), *(["root"] if root.search(text) else [])}
        for scenario, words in _scenario_marks(group[0]):
            named = {words["needs"]} if "needs" in words else set()
            shown = Shown(scenario, words.get("tier", ""), test, runs, tuple(sorted(needs | named)))
            yield shown
            if is_half_long and group[0] in plain and runs == "make test":
                yield replace(shown, runs="make test-long")


def _scenario_marks(expression: ast.expr) -> Iterator[tuple[str, dict[str, str]]]:
    for node in ast.walk(expression):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.scenario":
            words = {word.arg or "": ast.literal_eval(word.value) for word in node.keywords}
            for argument in node.args:
                yield ast.literal_eval(argument), words


def table(found: list[Shown], results: dict[str, Any]) -> str:
    """The whole page."""
    lines = [
        "# Which test shows which fault",
        "",
        "Written by `python -m tests.scenarios`; `tests/scenarios.py` says how a test gets in.",
        "Tiers: S the core or whole ordering nodes in a loop, T whole nodes on virtual time,",
        "P real processes, U unit and property tests; `T/P` asks for one of the two.",
        "Results of long tests are those of the last `TESTS_RECORD=1 make test-long`.",
        "",
        "| id | what is done | asks for | tier | tests | run by | last result |",
        "|---|---|---|---|---|---|---|",
    ]
    missing = find_missing(found)
    shown_ids = {shown.scenario for shown in found}
    for scenario, (what, tiers) in SCENARIOS.items():
        if scenario not in REQUIRED and scenario not in shown_ids:
            continue
        rows = list(_rows([shown for shown in found if shown.scenario == scenario], results))
        rows += [
            f"{tier} | **missing** | | " for tier in missing.get(scenario, "").split(",") if tier
        ]
        for number, row in enumerate(rows):
            head = f"| {scenario} | {what} | {tiers} |" if not number else "| | | |"
            lines.append(f"{head} {row}|")
    tests = {shown.test for shown in found}
    needing = {
        need: len({shown.test for shown in found if need in shown.needs})
        for need in sorted({need for shown in found for need in shown.needs})
    }
    counts = (
        ", ".join(f"{count} need {need}" for need, count in needing.items()) or "none needs any"
    )
    lines += [
        "",
        f"{len(REQUIRED)} ids are asked for; {len(REQUIRED) - len(missing)} have a test at every "
        f"tier, {len(missing)} lack one.",
        f"{len(tests)} tests and stories show scenarios. Of the machine, {counts}; where that is "
        "missing they are skipped, with that reason.",
    ]
    return "\n".join(lines) + "\n"


def _rows(found: list[Shown], results: dict[str, Any]) -> Iterator[str]:
    groups: dict[tuple[str, str, str], list[str]] = {}
    for shown in sorted(found, key=lambda shown: ("STPU".index(shown.tier), shown.runs)):
        runs = ", ".join((f"`{shown.runs}`", *shown.needs))
        result = _result(shown, results)
        groups.setdefault((shown.tier, runs, result), []).append(f"`{shown.test}`")
    for (tier, runs, result), tests in groups.items():
        yield f"{tier} | {'<br>'.join(dict.fromkeys(tests))} | {runs} | {result} "


def _result(shown: Shown, results: dict[str, Any]) -> str:
    if shown.runs == "make test-systemd":
        return "each time it is run"
    if shown.runs != "make test-long":
        return "every run"
    known = results.get(shown.test)
    if known is None:
        return "not recorded yet"
    return f"{known['outcome']}, {known['date']}, `{known['commit']}`, {known['seconds']} s"


def read_results() -> dict[str, Any]:
    """The recorded results of long tests, by test."""
    if not RESULTS.is_file():
        return {}
    known: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return known


def main() -> None:
    """Write the table, and say what no test shows yet."""
    found = find_shown()
    TABLE.write_text(table(found, read_results()), encoding="utf-8")
    for scenario, tiers in find_missing(found).items():
        print(f"missing: {scenario} at {tiers}")


if __name__ == "__main__":
    main()
