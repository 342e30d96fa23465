"""With TESTS_RECORD=1, what became of each long test goes into a file (see conftest.py).

tests/long_results.json has one line a test: outcome, date, commit and seconds of its last run. Of a
parametrized test each case has its own, and the test the worst of them, of the oldest run.
`tests/scenarios.md` shows them.
"""

import datetime
import json
import subprocess
from typing import Any, Final

import pytest

from tests.scenarios import RESULTS, TESTS, read_results

_WORST: Final = ("passed", "skipped", "failed")


class Recorder:
    """Collects reports while tests run, and writes them down at the end."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note one phase of one test."""
        if "long" not in report.keywords or (report.when != "call" and report.passed):
            return
        name, _, case = report.nodeid.removeprefix("tests/").partition("[")
        seen = self._seen.setdefault(
            (name, case.removesuffix("]")), {"outcome": "passed", "seconds": 0.0}
        )
        seen["outcome"] = max(seen["outcome"], report.outcome, key=_WORST.index)
        seen["seconds"] += report.duration

    def pytest_sessionfinish(self) -> None:
        """Write what was seen into the file, beside what others saw before."""
        if not self._seen:
            return
        results = read_results()
        now = {"date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}", "commit": _commit()}
        for (test, case), seen in self._seen.items():
            result = {**seen, "seconds": round(seen["seconds"]), **now}
            results[test] = with_case(results.get(test, {}), case, result) if case else result
        lines = [f"  {json.dumps(test)}: {json.dumps(results[test])}" for test in sorted(results)]
        RESULTS.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def with_case(known: dict[str, Any], case: str, result: dict[str, Any]) -> dict[str, Any]:
    """Return what is known of a test, with the last run of one of its cases."""
    cases = {**known.get("cases", {}), case: result}
    oldest = min(cases.values(), key=lambda one: one["date"])
    return {
        "outcome": max((one["outcome"] for one in cases.values()), key=_WORST.index),
        "seconds": sum(one["seconds"] for one in cases.values()),
        "date": oldest["date"],
        "commit": oldest["commit"],
        "cases": dict(sorted(cases.items())),
    }


def _commit() -> str:
    """The commit that is checked out; `-dirty` when files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=7"]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
