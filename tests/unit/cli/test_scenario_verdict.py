"""The verdict on a scenario: a line for each expectation, with what was seen."""

import re
import tomllib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from p2pcity.cli.chaos import checker
from p2pcity.cli.chaos.checker import check
from p2pcity.cli.chaos.course import Met, Outcome
from p2pcity.cli.scenario.reading import parse
from p2pcity.cli.scenario.verdict import GROUPS, make_verdict, print_verdict
from tests.chaos_histories import make
from tests.json_schemas import check as check_schema

TEXT: Final = """
title = "Leaders die."
[load]
lasts = "20s"
[[fault]]
kind = "kill"
on = 2
at = "1s"
lasts = "2s"
[expect]
acknowledged_min = 10
acknowledged_during_faults_min = 5
longest_gap_max = "3s"
ready_again_max = "4s"
logged = ["base_installed"]
"""
SCENARIO: Final = parse(Path("city.toml"), tomllib.loads(TEXT))
SECOND_NS: Final = 1_000_000_000


def an_outcome() -> Outcome:
    """A run with a right history, in the middle third of which two nodes were killed."""
    operations, ledgers = make(1)
    begin = min(o.called_ns for o in operations)
    end = max(o.returned_ns or 0 for o in operations)
    third = (end - begin) // 3
    return Outcome(
        operations=operations,
        ledgers=ledgers,
        findings=check(operations, ledgers),
        strikes=1,
        met={0: Met(("node1", "node3"), 2)},
        spans_ns=[(begin + third, end - third)],
        began_ns=begin + third,
        mended_ns=end - third,
        ready_ns=end - third + 2 * SECOND_NS,
        resumed=3,
        logged={"node1": Counter(opened=2), "node2": Counter(base_installed=1)},
    )


def lines(outcome: Outcome) -> dict[str, dict[str, Any]]:
    report = make_verdict(SCENARIO, outcome, 7)
    check_schema({"schema": "p2pcity/testnet-scenario/1", **report})
    assert report["is_ok"] == all(line["is_met"] for line in report["expectations"])
    return {line["name"]: line for line in report["expectations"]}


def missed(outcome: Outcome) -> set[str]:
    """The names of what does not hold; a history of 25 blocks is too short to be worth much."""
    return {name for name, line in lines(outcome).items() if not line["is_met"]} - {
        "clients answered"
    }


def test_every_finding_of_the_checker_has_its_line() -> None:
    kinds = re.findall(r"^\| (\w+) \|", checker.__doc__ or "", re.MULTILINE)
    assert len(kinds) > 10
    assert sorted(kind for _, group in GROUPS.values() for kind in group) == sorted(
        kind for kind in kinds if kind != "finding"
    )


def test_all_holds_but_that_the_history_is_short() -> None:
    outcome = an_outcome()
    assert missed(outcome) == set()
    found = lines(outcome)
    assert found["fault 1 struck"]["wanted"] == "kill on 2 at 1 s for 2 s"
    assert found["fault 1 struck"]["seen"] == "node1, node3"
    assert found["ready again"]["seen"] == "2.0 s"
    assert found["logged base_installed"]["seen"] == "node2"
    assert "are needed" in found["clients answered"]["seen"]


@pytest.mark.parametrize("kind", [kind for _, group in GROUPS.values() for kind in group])
def test_a_finding_fails_its_line(kind: str) -> None:
    outcome = an_outcome()
    outcome.findings.add(kind, "it is so")
    [name] = [name for name, (_, group) in GROUPS.items() if kind in group]
    assert missed(outcome) == {name}
    assert lines(outcome)[name]["seen"] == f"1 times {kind}"


def test_what_else_does_not_hold() -> None:
    right = an_outcome()
    later_ns = right.mended_ns + 5 * SECOND_NS
    wrong: dict[str, Outcome] = {
        "nodes sound": replace(right, problems=["node1 is odd"]),
        "ready again": replace(right, ready_ns=later_ns),
        "longest gap": replace(right, began_ns=right.began_ns - 4 * SECOND_NS),
        "logged base_installed": replace(right, logged={}),
        "acknowledged during faults": replace(right, spans_ns=[]),
        "fault 1 struck": replace(right, met={0: Met(("node1", "node3"), 1)}),
    }
    for name, outcome in wrong.items():
        assert missed(outcome) == {name}, name
    assert lines(wrong["nodes sound"])["nodes sound"]["seen"] == "node1 is odd"
    assert lines(wrong["fault 1 struck"])["fault 1 struck"]["seen"].endswith("struck 1 times")
    nobody = replace(right, met={})
    assert "too few" in lines(nobody)["fault 1 struck"]["seen"]


def test_nothing_is_vouched_for_without_a_ledger() -> None:
    outcome = an_outcome()
    outcome = replace(outcome, ledgers=[], findings=check(outcome.operations, []), ready_ns=0)
    assert missed(outcome) == {*GROUPS, "ready again"}
    assert lines(outcome)["ready again"]["seen"] == "never"


def test_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = an_outcome()
    outcome.findings.add("lost", "0c1a is gone")
    print_verdict(make_verdict(SCENARIO, outcome, 7))
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("FAIL  nothing lost: ")
    assert printed[1].startswith("PASS  nothing twice: ")
    assert "FOUND lost: 0c1a is gone" in printed
    assert printed[-1] == f"FAIL: 2 of {len(lines(outcome))}"
