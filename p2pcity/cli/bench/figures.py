"""What a phase measured, as numbers, as JSON and as a row of the table."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from p2pcity.cli.bench.job import Result

_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class NodeReading:
    """One node's counters at one moment; `syncs` are the log's, `sync_ms_p50` of the last 1,000.

    `head` and `root` are hex; etcd has neither, nor a log that grows by what is in it.
    """

    name: str
    is_leader: bool
    height: int
    head: str
    root: str
    transactions: int
    events: int
    cpu_s: float
    rss_bytes: int
    syncs: int
    sync_ms_p50: float | None = None
    log_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class NodeFigures:
    """What one node spent on a phase, from its start until all nodes had everything."""

    name: str
    is_leader: bool
    cpu_s_per_1000_events: float
    rss_bytes: int
    syncs_per_s: float
    sync_ms_p50: float | None
    log_bytes_per_event: float | None


@dataclass(frozen=True, slots=True)
class PhaseFigures:
    """A phase, measured. Rates are per second from the first request until all is committed.

    `p50_ms` and `p99_ms` are of the answers, None without any; in an open loop they count from
    the time at which the request should have been sent. `answered_per_s` is the rate of taken
    transactions as the clients saw it: above `transactions_per_s` where accepting is faster
    than ordering. `problems` are sentences; a phase without them lost and doubled nothing.
    """

    name: str
    wait: str
    rate: float
    connections: int
    transactions_per_request: int
    events_per_transaction: int
    transactions: int
    events: int
    refused: int
    unanswered: int
    seconds: float
    settle_s: float
    transactions_per_s: float
    events_per_s: float
    answered_per_s: float
    p50_ms: float | None
    p99_ms: float | None
    clients_cpu_s: float
    nodes: tuple[NodeFigures, ...]
    reasons: Mapping[str, int]
    problems: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the figures as a JSON document."""
        return asdict(self)


def percentile(values: Sequence[float], fraction: float) -> float | None:
    """Return the nearest-rank percentile (0.99: p99), None without values."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, math.ceil(fraction * len(ordered)) - 1)]


def node_figures(
    before: NodeReading, after: NodeReading, events: int, seconds: float
) -> NodeFigures:
    """Return what a node spent between two readings that lie `seconds` apart."""

    def per_event(first: int | None, last: int | None) -> float | None:
        return None if first is None or last is None or not events else (last - first) / events

    return NodeFigures(
        after.name,
        after.is_leader,
        (after.cpu_s - before.cpu_s) * 1000 / events if events else 0.0,
        after.rss_bytes,
        (after.syncs - before.syncs) / seconds if seconds > 0 else 0.0,
        after.sync_ms_p50,
        per_event(before.log_bytes, after.log_bytes),
    )


def judge(
    before: Sequence[NodeReading],
    after: Sequence[NodeReading],
    result: Result,
    events_per_transaction: int,
) -> tuple[str, ...]:
    """Return what is wrong with the ledgers after a phase; nothing when all is well.

    Each node's ledger must have grown by what was taken, and by nothing that was not sent; all
    must be equal. What went unanswered may or may not be there.
    """
    problems = []
    least, most = result.taken, result.taken + result.unanswered
    for old, new in zip(before, after, strict=True):
        grown = new.transactions - old.transactions
        if grown < least:
            problems.append(f"{new.name} lost {least - grown} of {least} transactions")
        if grown > most:
            problems.append(f"{new.name} has {grown - most} transactions that nobody sent")
        if new.events - old.events != grown * events_per_transaction:
            problems.append(f"{new.name} has {new.events - old.events} events of {grown} such")
    if len({(item.height, item.head, item.root, item.events) for item in after}) > 1:
        where = ", ".join(f"{item.name} {item.height} {item.head[:12]}" for item in after)
        problems.append(f"the nodes do not have one ledger: {where}")
    return tuple(problems)


def directory_bytes(path: Path) -> int:
    """Return the size of a directory's files, or of a file with its SQLite companions."""
    files = list(path.iterdir()) if path.is_dir() else list(path.parent.glob(path.name + "*"))
    return sum(file.stat().st_size for file in files if file.is_file())


def disk_per_event(directories: Sequence[Path], events: int) -> dict[str, float]:
    """Return the mean bytes an event of log, views and outbox in data directories.

    To be asked once the nodes have stopped: SQLite's WAL is in its database only then.
    """
    parts = {"log": "log", "views": "views.db", "outbox": "outbox.db"}
    return {
        name: round(_mean([directory_bytes(one / part) / max(1, events) for one in directories]), 1)
        for name, part in parts.items()
    }


HEADS: Final = (
    "PHASE",
    "TX/S",
    "EVENTS/S",
    "P50 MS",
    "P99 MS",
    "CPU S/1000",
    "RSS MIB",
    "LOG B/EVENT",
    "SYNCS/S",
    "SYNC MS",
)


def row(phase: PhaseFigures) -> tuple[object, ...]:
    """Return the phase's row under `HEADS`; CPU and disk are one node's share, an event."""
    nodes = phase.nodes
    return (
        phase.name,
        round(phase.transactions_per_s),
        round(phase.events_per_s),
        phase.p50_ms,
        phase.p99_ms,
        f"{_mean([node.cpu_s_per_1000_events for node in nodes]):10.3f}",
        round(max(node.rss_bytes for node in nodes) / _MIB),
        _rounded(_mean_known([node.log_bytes_per_event for node in nodes])),
        round(_mean([node.syncs_per_s for node in nodes])),
        _mean_known([node.sync_ms_p50 for node in nodes]),
    )


def ratio_line(ours: PhaseFigures, theirs: PhaseFigures) -> str:
    """Return one line that compares a phase of ours with etcd's."""
    if ours.rate:
        if not ours.p50_ms or not theirs.p50_ms:
            return f"{ours.name}: nothing to compare with {theirs.name}"
        return (
            f"{ours.name}: p50 {ours.p50_ms:.1f} ms, etcd {theirs.p50_ms:.1f} ms: "
            f"{ours.p50_ms / theirs.p50_ms:.2f} times as long"
        )
    if not theirs.events_per_s:
        return f"{ours.name}: nothing to compare with {theirs.name}"
    return (
        f"{ours.name}: {ours.events_per_s:.0f} events/s, {theirs.name} "
        f"{theirs.events_per_s:.0f} values/s: {ours.events_per_s / theirs.events_per_s:.2f} times"
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _mean_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return _mean(known) if known else None


def _rounded(value: float | None) -> int | None:
    return None if value is None else round(value)
