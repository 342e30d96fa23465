"""How long the ledger is, how far behind, and how the disk below it does."""

from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from p2pcity.node.metrics.families import counter, durations, gauge, gauges
from p2pcity.node.metrics.observed import Observed
from p2pcity.node.status import file_bytes


def families(parts: Observed) -> Iterator[Metric]:
    """Give the figures of this module."""
    yield from _ledger(parts)
    yield from _files(parts)
    yield from _syncs(parts)


def _ledger(parts: Observed) -> Iterator[Metric]:
    meta = parts.stores.views.meta
    yield gauge("ledger_height", "The height of the newest applied block.", meta.tip.height)
    yield gauge(
        "ledger_base_height",
        "Up to this height blocks were pruned: only the base knows of them.",
        parts.pruning.first_height - 1,
    )
    yield gauge(
        "ledger_time_seconds",
        "The time in the newest applied block, since the Unix epoch.",
        meta.tip.time_ms / 1000,
    )
    yield counter(
        "ledger_transactions",
        "Transactions on the ledger: the tree's leaves, so changes of who orders count too.",
        meta.tip.frontier.size,
    )
    yield counter("ledger_events", "Events on the ledger.", meta.events)
    yield counter(
        "ledger_dropped_transactions",
        "Ordered transactions that were not applied: expired or duplicates.",
        meta.dropped,
    )
    yield gauge(
        "ledger_lag_blocks",
        "How far the ledger here is behind the highest that a peer told of.",
        parts.status.lag_blocks(),
    )
    yield gauge(
        "ledger_lag_seconds",
        "How old the newest block here is while the node is behind, else 0.",
        parts.status.lag_s(),
    )


def _files(parts: Observed) -> Iterator[Metric]:
    directory = parts.directory
    yield gauge("ledger_log_bytes", "Size of the segment log.", parts.stores.raft_log.size_bytes)
    yield gauge("ledger_base_bytes", "Size of the base.", file_bytes(directory.base / "records"))
    yield gauge("ledger_views_bytes", "Size of views.db.", file_bytes(directory.views))
    yield gauge("ledger_outbox_bytes", "Size of outbox.db.", file_bytes(directory.outbox))
    yield gauge("disk_free_bytes", "What may still be written to the disk.", directory.free_bytes())
    yield gauge(
        "disk_free_limit_bytes",
        "Below so much free space the node takes no transactions.",
        parts.config.ledger.disk_free_bytes_min,
    )


def _syncs(parts: Observed) -> Iterator[Metric]:
    stores, log = parts.stores, parts.stores.raft_log.statistics()
    yield durations(
        "ledger_sync_duration_seconds",
        "How long syncs of the segment log took.",
        log.sync_durations,
    )
    yield gauge(
        "ledger_sync_hang_seconds",
        "How long the disk has not finished a write; 0 below an election time-out.",
        parts.ordering.hang_s,
    )
    yield counter("ledger_log_written_bytes", "Bytes written to the log.", log.bytes_written)
    yield gauges(
        "ledger_thread_jobs",
        "Calls that wait for a disk thread, or run in it.",
        "thread",
        {
            "log": stores.log_writer.under_way,
            "outbox": stores.outbox_writer.under_way,
            "reader": stores.reader_thread.under_way,
            "views": stores.views_writer.under_way,
        },
    )
