"""What strikes is drawn from the seed alone; a run that shows nothing fails."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest

from p2pcity.cli.chaos.checker import check
from p2pcity.cli.chaos.course import Outcome
from p2pcity.cli.chaos.nemeses import ACTS
from p2pcity.cli.chaos.plan import NEMESES, draw, draw_again
from p2pcity.cli.chaos.report import make_report
from p2pcity.errors import ConfigError
from tests.chaos_histories import make

ALL = tuple(NEMESES)


def test_every_nemesis_has_its_act() -> None:
    assert list(ACTS) == list(NEMESES)


def test_the_same_seed_draws_the_same_strikes() -> None:
    assert draw(5, ALL, 120) == draw(5, tuple(reversed(ALL)), 120)
    assert draw(5, ALL, 120) != draw(6, ALL, 120)
    assert draw_again(5, ["kill"], 0) != draw_again(5, ["kill"], 1)


def test_all_strike_and_end_in_time() -> None:
    overlaps = 0
    for seed in range(200):
        strikes = draw(seed, ALL, 120)
        assert {strike.nemesis for strike in strikes} == set(ALL)
        assert all(0.5 < strike.lasts_s <= 4 for strike in strikes)
        assert max(strike.at_s + strike.lasts_s for strike in strikes) <= 120 + 4
        ordered = sorted(strikes, key=lambda strike: strike.at_s)
        overlaps += sum(one.at_s + one.lasts_s > other.at_s for one, other in pairwise(ordered))
    assert overlaps > 200, "faults never meet"


def test_a_wrong_name_and_too_short_a_time() -> None:
    with pytest.raises(ConfigError, match="no nemesis flood") as caught:
        draw(1, ["kill", "flood"], 60)
    assert "kill" in caught.value.remedy
    with pytest.raises(ConfigError, match="too short for"):
        draw(1, ALL, 5)


def _outcome(seed: int) -> Outcome:
    """A run with a right history, in the middle third of which a node was killed."""
    operations, ledgers = make(seed)
    begin = min(o.called_ns for o in operations)
    end = max(o.returned_ns or 0 for o in operations)
    third = (end - begin) // 3
    return Outcome(
        operations=operations,
        ledgers=ledgers,
        findings=check(operations, ledgers),
        strikes=1,
        struck=Counter({"kill": 1}),
        spans_ns=[(begin + third, end - third)],
        began_ns=begin + third,
        mended_ns=end - third,
        resumed=3,
    )


def test_what_a_report_counts() -> None:
    outcome = _outcome(1)
    report = make_report(outcome, ["kill"], 1, 3)
    acknowledged = report["acknowledged"]
    assert acknowledged["total"] == sum(
        acknowledged[phase] for phase in ("before", "during", "after")
    )
    assert acknowledged["during"] > 0
    assert report["longest_gap_s"] > 0
    assert report["ledger"]["height"] == outcome.ledgers[0].height
    # Too few acknowledgements for a real run, and nothing else.
    assert all("vacuous" in failure for failure in report["failures"])


def _failures(outcome: Outcome, names: tuple[str, ...] = ("kill",)) -> str:
    return "\n".join(make_report(outcome, names, 1, 3)["failures"])


def test_a_run_that_shows_nothing_fails() -> None:
    outcome = _outcome(2)
    assert "vacuous: pause never struck" in _failures(outcome, ("kill", "pause"))
    assert "vacuous: 0 resumptions" in _failures(replace(outcome, resumed=0))
    nothing = replace(outcome, operations=[], findings=check([], outcome.ledgers))
    for what in (
        "0 acknowledgements before",
        "0 acknowledgements during",
        "0 acknowledgements after",
        "0 linearizable reads",
        "0 local reads",
        "0 events of streams",
    ):
        assert f"vacuous: {what}" in _failures(nothing)
    assert not make_report(nothing, ["kill"], 1, 3)["is_ok"]


def test_findings_and_problems_fail_a_run() -> None:
    outcome = _outcome(3)
    lost = replace(outcome, findings=check(outcome.operations, []), problems=["node1 is odd"])
    assert "1 times unequal" in _failures(lost)
    assert "node1 is odd" in _failures(lost)
