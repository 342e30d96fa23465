"""What comes in and goes out: peers, gossip, admission, the mempool and HTTP."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from prometheus_client.metrics_core import Metric

from p2pcity.admission.rules import ACCEPTED, KIND_BY_REASON
from p2pcity.node.metrics.families import counter, counters, gauge, gauges
from p2pcity.node.metrics.observed import Observed

_STATES: Final = (
    "banned", "connected", "connecting", "disconnected", "refused", "unknown-address",
)  # fmt: skip
# Why a gossip message went no further: the counter of `net.gossip`, and the label's value.
_GOSSIP_DROPS: Final = {
    "gossip_badly_signed": "badly-signed",
    "gossip_dropped_out": "queue-full",
    "gossip_other_topic": "other-topic",
    "gossip_rate_limited": "rate-limited",
    "gossip_rejected": "rejected",
    "gossip_unknown_origin": "unknown-origin",
}


def families(parts: Observed) -> Iterator[Metric]:
    """Give the figures of this module."""
    statistics = parts.network.statistics()
    yield from _peers(parts, statistics)
    yield from _gossip(parts, statistics)
    yield from _admission(parts)
    yield from _waiting(parts)
    yield from _http(parts)
    yield from _telemetry(parts)


def _peers(parts: Observed, statistics: dict[str, int]) -> Iterator[Metric]:
    peers = parts.network.peers()
    states = Counter(peer.state for peer in peers)
    yield gauges(
        "net_peers", "Peers by state.", "state", {state: states[state] for state in _STATES}
    )
    yield gauge(
        "gossip_mesh_peers",
        "Peers that gossip goes to directly.",
        sum(peer.is_in_mesh for peer in peers),
    )
    yield gauge("net_connections", "Open connections.", statistics.get("connections", 0))
    yield counter(
        "net_connections_refused",
        "Connections of peers that are not allowed or banned.",
        statistics.get("refused", 0),
    )
    yield counter(
        "net_handshakes_evicted",
        "Handshakes that had to make room for others.",
        statistics.get("handshakes_evicted", 0),
    )
    yield counter(
        "net_faults", "What peers did wrong, each at a cost of score.", statistics.get("faults", 0)
    )
    yield counter(
        "net_raft_messages_dropped",
        "Raft messages that found no connection, or a full queue.",
        statistics.get("dropped", 0),
    )


def _gossip(parts: Observed, statistics: dict[str, int]) -> Iterator[Metric]:
    yield counter(
        "gossip_messages_received",
        "New messages from others that were judged.",
        statistics.get("gossip_received", 0),
    )
    yield counter(
        "gossip_messages_published",
        "Messages with what this node's clients brought.",
        parts.gossiping.messages_out,
    )
    yield counter(
        "gossip_messages_sent",
        "Copies of messages that went to peers, forwarded ones included.",
        statistics.get("gossip_sent", 0),
    )
    yield counters(
        "gossip_messages_dropped",
        "Messages that went no further.",
        ("reason",),
        {(reason,): statistics.get(name, 0) for name, reason in _GOSSIP_DROPS.items()},
    )
    yield counter(
        "gossip_transactions_dropped",
        "Transactions of clients for which gossip had no room: they go by stream alone.",
        parts.gossiping.dropped_out,
    )


def _admission(parts: Observed) -> Iterator[Metric]:
    judged = parts.intake.verdicts
    kinds = {ACCEPTED: "accept", **KIND_BY_REASON}
    yield counters(
        "admission_verdicts",
        "Transactions that were judged, wherever they came from.",
        ("verdict", "reason"),
        {(kind, reason): judged.get((kind, reason), 0) for reason, kind in kinds.items()},
    )


def _waiting(parts: Observed) -> Iterator[Metric]:
    pool, limits = parts.mempool.statistics(), parts.config.mempool
    yield gauge("mempool_transactions", "Transactions that wait to be ordered.", pool.transactions)
    yield gauge(
        "mempool_limit_transactions", "How many the mempool takes.", limits.transactions_max
    )
    yield gauge("mempool_bytes", "Their bytes.", pool.bytes)
    yield gauge("mempool_limit_bytes", "How many bytes the mempool takes.", pool.bytes_max)
    yield gauge("mempool_authors", "Whose they are.", pool.authors)
    yield gauge(
        "outbox_transactions",
        "Accepted here and neither committed nor expired.",
        parts.outbox.pending_count,
    )
    yield gauge("http_awaited_transactions", "Whose commit clients wait for.", len(parts.waiters))


def _http(parts: Observed) -> Iterator[Metric]:
    yield counters(
        "http_requests",
        "Answers by method, route and status.",
        ("method", "route", "status"),
        {
            (method, route, str(status)): count
            for (method, route, status), count in sorted(parts.http.requests.items())
        },
    )
    yield gauge("http_streams", "Clients that follow /v1/stream.", parts.http.streams_open)


def _telemetry(parts: Observed) -> Iterator[Metric]:
    yield counter(
        "telemetry_spans_exported",
        "Spans that the collector of telemetry.otlp_endpoint took.",
        parts.telemetry.exported,
    )
    yield counter(
        "telemetry_spans_dropped",
        "Spans that it did not take, or for which the queue had no room.",
        parts.telemetry.dropped,
    )
