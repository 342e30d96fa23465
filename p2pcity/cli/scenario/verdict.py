"""What came of a scenario: each expectation with what was seen, and whether all hold."""

from collections.abc import Iterator
from typing import Any, Final

from p2pcity.cli.chaos.course import Met, Outcome
from p2pcity.cli.chaos.history import fullest
from p2pcity.cli.chaos.report import find_vacuous, make_figures
from p2pcity.cli.scenario.reading import Fault, Scenario

GROUPS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "nothing lost": ("all that clients were promised is where they were told", ("lost", "moved")),
    "nothing twice": ("each transaction and event once, without a hole", ("twice", "order")),
    "nothing untrue": ("no answer and no entry that is made up", ("untrue", "invented")),
    "linearizable": (
        "no read older than what was seen before it",
        ("stale", "early", "fork", "backwards"),
    ),
    "streams whole": ("every event once and in order", ("stream",)),
    "ledgers equal": ("all nodes hold the same", ("unequal",)),
}
"""What must always hold, and the checker's findings that say that it does not."""
_AS_ONE: Final = ("partition", "delay")
"""These strike all their nodes at once, and count once."""
_SHOWN_MAX: Final = 3

Line = dict[str, Any]


def make_verdict(scenario: Scenario, outcome: Outcome, seed: int) -> dict[str, Any]:
    """Return the report as JSON; `is_ok` when every expectation holds."""
    figures = make_figures(outcome)
    lines = [
        *_always(outcome, figures),
        *_struck(scenario, outcome),
        *_asked(scenario, outcome, figures),
    ]
    faults = [
        {
            "kind": fault.strike.nemesis,
            "at_s": fault.strike.at_s,
            "lasts_s": fault.strike.lasts_s,
            "until": fault.strike.until,
            "on": fault.on,
            "nodes": list(outcome.met.get(number, Met()).nodes),
            "struck": outcome.met.get(number, Met()).struck,
        }
        for number, fault in enumerate(scenario.faults)
    ]
    return {
        "file": str(scenario.file),
        "title": scenario.title,
        "seed": seed,
        "nodes_are": outcome.nodes_are,
        "cuts": outcome.cuts,
        "is_ok": all(line["is_met"] for line in lines),
        "expectations": lines,
        "faults": faults,
        "ready_again_s": _ready_again_s(outcome),
        **figures,
    }


def print_verdict(report: dict[str, Any]) -> None:
    """Print a line for each expectation, and the verdict."""
    for line in report["expectations"]:
        word = "PASS" if line["is_met"] else "FAIL"
        print(f"{word}  {line['name']}: {line['wanted']}: {line['seen']}")
    for found in report["shown"]:
        print(f"FOUND {found}")
    missed = sum(not line["is_met"] for line in report["expectations"])
    total = len(report["expectations"])
    print(f"\nPASS: all {total} hold" if report["is_ok"] else f"\nFAIL: {missed} of {total}")


def _line(name: str, wanted: str, seen: str, is_met: bool) -> Line:
    return {"name": name, "wanted": wanted, "seen": seen, "is_met": is_met}


def _always(outcome: Outcome, figures: dict[str, Any]) -> Iterator[Line]:
    """What no file has to ask for."""
    counts = outcome.findings.counts
    is_read = bool(outcome.ledgers) and fullest(outcome.ledgers).first == 1
    looked_at = f"{len(outcome.operations):,} operations and {len(outcome.ledgers)} ledgers"
    for name, (wanted, kinds) in GROUPS.items():
        found = [f"{counts[kind]:,} times {kind}" for kind in kinds if counts[kind]]
        seen = ", ".join(found) or f"so in {looked_at}"
        if not is_read:
            seen = "no whole ledger could be read"
        yield _line(name, wanted, seen, is_read and not found)
    yield _line(
        "nodes sound",
        "no error in a log, no end that no fault explains, sound directories",
        _some(outcome.problems) or "so",
        not outcome.problems,
    )
    missing = find_vacuous(figures)
    acknowledged, reads = figures["acknowledged"], figures["operations"]
    yield _line(
        "clients answered",
        "writes, reads and streams before and after the faults",
        _some(missing)
        or f"{acknowledged['total']:,} acknowledged, {reads['linearizable_reads']:,} reads, "
        f"{reads['streamed_events']:,} streamed",
        not missing,
    )


def _struck(scenario: Scenario, outcome: Outcome) -> Iterator[Line]:
    for number, fault in enumerate(scenario.faults):
        met = outcome.met.get(number, Met())
        least = 1 if fault.strike.nemesis in _AS_ONE else max(1, len(met.nodes))
        nodes = ", ".join(met.nodes) or "there were too few to strike"
        seen = nodes if met.struck >= least else f"{nodes}: struck {met.struck} times"
        yield _line(f"fault {number + 1} struck", _says(fault), seen, met.struck >= least)


def _says(fault: Fault) -> str:
    strike = fault.strike
    lasts = f"until {strike.until}" if strike.until else f"for {strike.lasts_s:g} s"
    return f"{strike.nemesis} on {fault.on} at {strike.at_s:g} s {lasts}"


def _asked(scenario: Scenario, outcome: Outcome, figures: dict[str, Any]) -> Iterator[Line]:
    """What this file asks for."""
    expect, acknowledged = scenario.expect, figures["acknowledged"]
    for name, least, count in (
        ("acknowledged", expect.acknowledged_min, acknowledged["total"]),
        (
            "acknowledged during faults",
            expect.acknowledged_during_faults_min,
            acknowledged["during"],
        ),
    ):
        if least is not None:
            yield _line(name, f"at least {least:,}", f"{count:,}", count >= least)
    for name, most_s, seconds in (
        ("longest gap", expect.longest_gap_max_s, figures["longest_gap_s"]),
        ("ready again", expect.ready_again_max_s, _ready_again_s(outcome)),
    ):
        if most_s is not None:
            seen = "never" if seconds is None else f"{seconds:.1f} s"
            is_met = seconds is not None and seconds <= most_s
            yield _line(name, f"at most {most_s:g} s", seen, is_met)
    for event in expect.logged:
        nodes = [name for name, events in outcome.logged.items() if events[event]]
        yield _line(f"logged {event}", "by some node", ", ".join(nodes) or "by none", bool(nodes))


def _ready_again_s(outcome: Outcome) -> float | None:
    """How long after the last fault's end all nodes were ready; None: not in time."""
    if not outcome.ready_ns:
        return None
    return round((outcome.ready_ns - outcome.mended_ns) / 1e9, 3)


def _some(texts: list[str]) -> str:
    more = len(texts) - _SHOWN_MAX
    return "; ".join(texts[:_SHOWN_MAX]) + (f"; and {more} more" if more > 0 else "")
