"""The demo's closing report: the figures, and whether the network kept its word."""

from collections.abc import Sequence
from typing import Any, Final

from p2pcity.cli.demo.course import Fall, Outcome
from p2pcity.cli.demo.ledgers import Comparison, Ledger
from p2pcity.cli.demo.loader import Acknowledged
from p2pcity.cli.output import print_pairs, print_table, show_bytes

_DISK: Final = ("log_bytes", "views_bytes", "outbox_bytes")


def make_report(
    outcome: Outcome, ledgers: Sequence[Ledger], comparison: Comparison
) -> dict[str, Any]:
    """Return the report as a JSON-able document; `is_ok` says whether all of it holds."""
    failures = _failures(outcome, comparison)
    events = sum(len(item.signed.names) for item in outcome.acknowledged)
    return {
        "is_ok": not failures,
        "failures": failures,
        "load_s": round(outcome.load_s, 2),
        "events": {
            "sent": outcome.sent,
            "accepted": outcome.accepted,
            "committed": events,
            "lost": comparison.lost,
            "duplicated": comparison.duplicated,
            "misplaced": comparison.misplaced,
            "unexpected": comparison.unexpected,
        },
        "transactions": len(outcome.acknowledged),
        "is_equal": comparison.is_equal,
        "nodes": [
            {
                "name": ledger.name,
                "role": ledger.role,
                "height": ledger.height,
                "head": ledger.head,
                "tree_size": ledger.tree_size,
                "root": ledger.root,
                "events": ledger.events.total(),
                "events_sha256": ledger.digest,
            }
            for ledger in ledgers
        ],
        "latency_ms": _latency(outcome),
        "election": None if outcome.fall is None else _election(outcome.fall),
        "cost_per_thousand_events": _cost(outcome, max(1, events)),
    }


def choose_followed(outcome: Outcome) -> Acknowledged | None:
    """Return the transaction worth following: the last one acknowledged before the kill."""
    fall = outcome.fall
    before = [
        item
        for item in outcome.acknowledged
        if fall is None or item.acknowledged_s <= fall.killed_s
    ]
    return before[-1] if before else None


def print_report(report: dict[str, Any]) -> None:
    """Print the report for people."""
    events, latency, election = report["events"], report["latency_ms"], report["election"]
    print(
        f"\n{events['committed']:,} events in {report['transactions']:,} transactions "
        f"and {report['nodes'][0]['height']:,} blocks, loaded in {report['load_s']:.1f} s.\n"
    )
    counts = ("accepted", "committed", "lost", "duplicated")
    print_pairs([(name, f"{events[name]:,}") for name in counts])
    print()
    columns = ("name", "role", "height", "events", "head", "tree_size", "root")
    print_table(
        ["NODE", "ROLE", "HEIGHT", "EVENTS", "HEAD", "TREE", "ROOT"],
        [
            [node[name][:16] if name in ("head", "root") else node[name] for name in columns]
            for node in report["nodes"]
        ],
    )
    print("equal on all nodes, to the last event" if report["is_equal"] else "NOT EQUAL")
    print()
    cost = report["cost_per_thousand_events"]
    pairs: list[tuple[str, object]] = [
        (
            "commit latency",
            f"p50 {latency['p50']:.0f} ms, p99 {latency['p99']:.0f} ms; "
            f"outside the election p99 {latency['p99_outside_election']:.0f} ms",
        )
    ]
    if election is not None:
        pairs += _election_pairs(election)
    pairs += [
        ("CPU", f"{cost['cpu_s']:.2f} s per thousand events, all nodes together"),
        (
            "disk",
            f"{show_bytes(cost['disk_bytes_per_node'])} per thousand events and node (ledger "
            f"{show_bytes(cost['log_bytes'])}, views with WAL {show_bytes(cost['views_bytes'])})",
        ),
    ]
    print_pairs(pairs)
    _print_followed(report.get("followed"))
    for failure in report["failures"]:
        print(f"\nFAILED: {failure}")


def _print_followed(followed: dict[str, Any] | None) -> None:
    if followed is None:
        return
    print(
        f"\nOne transaction on all nodes: {followed['events']} events signed by "
        f"{followed['author']}, sent to {', '.join(followed['sent_to'])},"
        f"\nthe last one acknowledged before the kill: {followed['id']}"
    )
    print_table(
        ["NODE", "STATUS", "HEIGHT", "LEAF", "BLOCK TIME"],
        [
            (row["node"], row["status"], row["height"], row["leaf_index"], row["time"])
            for row in followed["nodes"]
        ],
    )


def _failures(outcome: Outcome, comparison: Comparison) -> list[str]:
    said = (
        (comparison.lost, "events were acknowledged and are absent from a node"),
        (comparison.duplicated, "events stand on a node's ledger more than once"),
        (comparison.misplaced, "events stand in another block than was acknowledged"),
        (comparison.unexpected, "events stand on a ledger and were never acknowledged"),
        (outcome.sent - outcome.accepted, "events were not accepted"),
    )
    failures = [f"{count:,} {what}" for count, what in said if count]
    if not comparison.is_equal:
        failures.append("the nodes' ledgers are not equal")
    fall = outcome.fall
    if fall is None or fall.elected is None or fall.committed_s is None:
        failures.append("no election was seen")
    elif fall.level_s is None:
        failures.append(f"{fall.name} did not come back level with the others")
    return failures


def _latency(outcome: Outcome) -> dict[str, float]:
    every = sorted(item.latency_s for item in outcome.acknowledged)
    fall = outcome.fall
    calm = every
    if fall is not None and fall.committed_s is not None:
        calm = sorted(
            item.latency_s
            for item in outcome.acknowledged
            if item.acknowledged_s < fall.killed_s or item.sent_s > fall.committed_s
        )
    return {
        "p50": _quantile_ms(every, 0.5),
        "p99": _quantile_ms(every, 0.99),
        "max": _quantile_ms(every, 1.0),
        "p50_outside_election": _quantile_ms(calm, 0.5),
        "p99_outside_election": _quantile_ms(calm, 0.99),
    }


def _quantile_ms(ordered: Sequence[float], share: float) -> float:
    if not ordered:
        return 0.0
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000, 1)


def _election(fall: Fall) -> dict[str, Any]:
    elected = fall.elected
    return {
        "killed": fall.name,
        "term": fall.term,
        "leader": None if elected is None else elected.name,
        "new_term": None if elected is None else elected.term,
        "without_leader_s": None if elected is None else round(elected.seen_s - fall.killed_s, 3),
        "until_commit_s": _between(fall.killed_s, fall.committed_s),
        "restarted_after_s": _between(fall.killed_s, fall.restarted_s),
        "level_after_restart_s": _between(fall.restarted_s, fall.level_s),
    }


def _between(start_s: float | None, end_s: float | None) -> float | None:
    return None if start_s is None or end_s is None else round(end_s - start_s, 3)


def _election_pairs(election: dict[str, Any]) -> list[tuple[str, object]]:
    if election["leader"] is None or election["until_commit_s"] is None:
        return [("without a leader", "no other leader was seen")]
    killed, level_s = election["killed"], election["level_after_restart_s"]
    back = "" if level_s is None else f"; {killed} was level {level_s:.1f} s after its restart"
    return [
        (
            "without a leader",
            f"{election['without_leader_s']:.2f} s; the next commit came "
            f"{election['until_commit_s']:.2f} s after the kill of {killed}",
        ),
        ("since then", f"{election['leader']} leads term {election['new_term']}{back}"),
    ]


def _cost(outcome: Outcome, events: int) -> dict[str, float]:
    """CPU of all nodes, and bytes that each node's disk took (their mean), per 1,000 events.

    SQLite's write-ahead log counts as views; it is emptied now and then, so a longer run shows
    less of it.
    """
    grown = {
        name: sum(
            outcome.after[node]["disk"][name] - outcome.before[node]["disk"][name]
            for node in outcome.after
        )
        / len(outcome.after)
        * 1000
        / events
        for name in _DISK
    }
    return {
        "cpu_s": round(outcome.cpu_s * 1000 / events, 3),
        "disk_bytes_per_node": round(sum(grown.values())),
        **{name: round(value) for name, value in grown.items()},
    }
