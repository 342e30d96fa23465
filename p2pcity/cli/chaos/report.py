"""What a run of chaos showed: figures, and the verdict with its reasons."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

from p2pcity.cli.chaos.course import CALM_ACKNOWLEDGED, READS_MIN, Outcome
from p2pcity.cli.chaos.history import Operation, fullest
from p2pcity.cli.output import print_pairs, print_table

DURING_MIN: Final = 20
"""A run with fewer acknowledgements during faults, or events of streams, shows nothing."""


def make_report(outcome: Outcome, names: Sequence[str], seed: int, nodes: int) -> dict[str, Any]:
    """Return the report as JSON; `failures` is empty when the network kept its word."""
    report: dict[str, Any] = {
        "seed": seed,
        "nodes": nodes,
        "nodes_are": outcome.nodes_are,
        "cuts": outcome.cuts,
        **make_figures(outcome),
        "strikes": outcome.strikes,
        "struck": {name: outcome.struck[name] for name in names},
    }
    report["failures"] = _failures(report, outcome)
    report["is_ok"] = not report["failures"]
    return report


def make_figures(outcome: Outcome) -> dict[str, Any]:
    """Return what every report says: counts of what clients were told, gaps, and findings."""
    operations = outcome.operations
    acknowledged = _acknowledgements(operations)
    before, during, after = _by_phase(outcome, acknowledged)
    reads = [o for o in operations if o.kind in ("read", "query") and o.outcome == "ok"]
    streamed = sum(len(o.events) for o in operations if o.kind == "stream")
    findings = outcome.findings
    return {
        "acknowledged": {
            "total": len(acknowledged),
            "before": before,
            "during": during,
            "after": after,
        },
        "operations": {
            "total": len(operations),
            "unknown": sum(o.outcome == "unknown" for o in operations),
            "linearizable_reads": len(reads),
            "local_reads": sum(o.kind == "local" and o.outcome == "ok" for o in operations),
            "refused_forgeries": sum(o.kind == "forge" and o.outcome == "fail" for o in operations),
            "streamed_events": streamed,
            "streams_resumed": outcome.resumed,
        },
        "longest_gap_s": _longest_gap_s(outcome, acknowledged),
        "first_after_s": _first_after_s(outcome, acknowledged),
        "ledger": _ledger(outcome),
        "findings": dict(findings.counts),
        "shown": [f"{item.kind}: {item.says}" for item in findings.shown],
    }


def _failures(report: dict[str, Any], outcome: Outcome) -> list[str]:
    failures = [f"{count:,} times {kind}" for kind, count in report["findings"].items()]
    failures += outcome.problems
    failures += [
        f"vacuous: {name} never struck" for name, count in report["struck"].items() if not count
    ]
    return failures + [f"vacuous: {what}" for what in find_vacuous(report, during_min=DURING_MIN)]


def find_vacuous(figures: dict[str, Any], during_min: int = 0) -> list[str]:
    """Return what there was too little of for a run to show something."""
    acknowledged, operations = figures["acknowledged"], figures["operations"]
    vacuous = (
        (acknowledged["before"], CALM_ACKNOWLEDGED, "acknowledgements before the faults"),
        (acknowledged["during"], during_min, "acknowledgements during the faults"),
        (acknowledged["after"], CALM_ACKNOWLEDGED, "acknowledgements after the faults"),
        (operations["linearizable_reads"], READS_MIN, "linearizable reads"),
        (operations["local_reads"], READS_MIN, "local reads"),
        (operations["streamed_events"], DURING_MIN, "events of streams"),
        (operations["streams_resumed"], 1, "resumptions of a stream"),
    )
    return [
        f"{count} {what}, at least {least} are needed"
        for count, least, what in vacuous
        if count < least
    ]


def _acknowledgements(operations: Sequence[Operation]) -> list[int]:
    """When each transaction was acknowledged as committed for the first time, in order."""
    first: dict[str, int] = {}
    for operation in operations:
        if operation.kind != "submit" or operation.status != "committed":
            continue
        at_ns = operation.returned_ns or 0
        if operation.outcome == "ok" and at_ns < first.get(operation.id, at_ns + 1):
            first[operation.id] = at_ns
    return sorted(first.values())


def _by_phase(outcome: Outcome, acknowledged: Sequence[int]) -> tuple[int, int, int]:
    """How many came before the first fault, while at least one was under way, after the last."""
    before = sum(at_ns < outcome.began_ns for at_ns in acknowledged)
    after = sum(at_ns > outcome.mended_ns for at_ns in acknowledged)
    during, spans, at = 0, _merged(outcome.spans_ns), 0
    for at_ns in acknowledged:
        while at < len(spans) and spans[at][1] < at_ns:
            at += 1
        during += at < len(spans) and spans[at][0] <= at_ns
    return before, during, after


def _merged(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for begin, end in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((begin, end))
    return found


def _longest_gap_s(outcome: Outcome, acknowledged: Sequence[int]) -> float | None:
    """The longest time without an acknowledgement from the first fault on."""
    points = [outcome.began_ns, *(at for at in acknowledged if at > outcome.began_ns)]
    if len(points) < 2:
        return None
    return round(max(late - early for early, late in pairwise(points)) / 1e9, 3)


def _first_after_s(outcome: Outcome, acknowledged: Sequence[int]) -> float | None:
    """How long after the end of all faults the next acknowledgement came."""
    later = [at for at in acknowledged if at > outcome.mended_ns]
    return round((later[0] - outcome.mended_ns) / 1e9, 3) if later else None


def _ledger(outcome: Outcome) -> dict[str, Any]:
    if not outcome.ledgers:
        return {}
    first = fullest(outcome.ledgers)
    return {
        "height": first.height,
        "head": first.hashes[-1],
        "transactions": sum(item.outcome == "applied" for item in first.transactions),
        "events": len(first.events),
    }


def print_report(report: dict[str, Any]) -> None:
    """Print it for people."""
    acknowledged, operations = report["acknowledged"], report["operations"]
    print_table(["NEMESIS", "STRUCK"], [(name, count) for name, count in report["struck"].items()])
    print()
    print_pairs(
        [
            (
                "acknowledged",
                f"{acknowledged['total']:,}: {acknowledged['before']:,} before, "
                f"{acknowledged['during']:,} during, {acknowledged['after']:,} after the faults",
            ),
            (
                "read",
                f"{operations['linearizable_reads']:,} times linearizably, "
                f"{operations['local_reads']:,} times locally; {operations['streamed_events']:,} "
                f"events by streams that were resumed {operations['streams_resumed']} times",
            ),
            ("left open", f"{operations['unknown']:,} answers that told the client nothing"),
            ("longest gap", f"{report['longest_gap_s']} s without an acknowledgement"),
            ("recovered", f"{report['first_after_s']} s after the last fault"),
            ("ledger", ", ".join(f"{n} {v}" for n, v in report["ledger"].items())),
        ]
    )
    for line in report["shown"]:
        print(f"FOUND: {line}")
    for line in report["failures"]:
        print(f"FAILED: {line}")
    lost = sum(report["findings"].get(kind, 0) for kind in ("lost", "moved"))
    twice = report["findings"].get("twice", 0)
    stale = report["findings"].get("stale", 0)
    print(f"\n{lost} lost, {twice} twice, {stale} stale reads")
    print("the network kept its word" if report["is_ok"] else "it did NOT keep its word")
