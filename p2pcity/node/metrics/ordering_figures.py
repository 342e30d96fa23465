"""Whether the node is well, who leads, how fast blocks are ordered, and what the clocks say."""

from collections.abc import Iterator
from typing import Final, get_args

from prometheus_client.metrics_core import Metric

from p2pcity import __version__
from p2pcity.node.membership import Place
from p2pcity.node.metrics.families import counter, counters, durations, gauge, gauges, one_of
from p2pcity.node.metrics.observed import Observed
from p2pcity.node.status import NotReady
from p2pcity.ordering.clocks import Verdict
from p2pcity.raft.raft import Role

_PLACES: Final[tuple[str, ...]] = get_args(Place)
_NOT_READY: Final[tuple[NotReady, ...]] = get_args(NotReady)


def families(parts: Observed) -> Iterator[Metric]:
    """Give the figures of this module."""
    yield from _health(parts)
    yield from _raft(parts)
    yield from _quorum(parts)
    yield from _blocks(parts)
    yield from _clock(parts)


def _health(parts: Observed) -> Iterator[Metric]:
    reasons = parts.status.not_ready()
    place = parts.membership.place(parts.identity.peer_id)
    yield gauges("build_info", "The release that runs, as a label.", "release", {__version__: 1})
    yield gauge("node_ready", "1 while /readyz says that the node is ready.", float(not reasons))
    yield gauges(
        "node_not_ready",
        "1 for each reason that /readyz names.",
        "reason",
        {name: float(name in reasons) for name in _NOT_READY},
    )
    yield gauge(
        "node_alarms",
        "What an operator should see to: the alarms of p2pcity status.",
        len(parts.status.alarms(reasons.values())),
    )
    yield one_of("node_place", "What the node is in the voters in force.", "place", _PLACES, place)


def _raft(parts: Observed) -> Iterator[Metric]:
    raft = parts.ordering.raw_node.status()
    has_leader = raft.leader is not None and raft.has_quorum
    yield one_of("raft_role", "The role in Raft.", "role", Role, raft.role)
    yield gauge("raft_term", "Raft's term.", raft.term)
    yield gauge(
        "raft_has_leader",
        "1 while a leader is heard; on the leader, while a quorum answers.",
        float(has_leader),
    )
    yield gauge("raft_last_index", "The newest entry of the log here.", raft.last_index)
    yield gauge("raft_commit_index", "The newest entry known to be committed.", raft.commit)
    yield gauge(
        "raft_applied_index", "The newest entry in the views here.", parts.apply.applied_index
    )
    yield gauge(
        "raft_uncommitted_bytes",
        "Payload that this leader proposed and that is not committed; 0 elsewhere.",
        raft.uncommitted_bytes,
    )
    yield counter(
        "raft_leader_changes",
        "How often this node came to follow another leader, or to lead.",
        parts.ordering.leader_changes,
    )
    yield counter(
        "raft_elections", "How often this node began a term and asked for votes.", raft.elections
    )
    yield counter("raft_elections_won", "How often it was elected.", raft.elections_won)
    yield counters(
        "raft_messages_ignored",
        "Raft messages that were left alone.",
        ("reason",),
        {(reason,): count for reason, count in sorted(raft.ignored.items())},
    )


def _quorum(parts: Observed) -> Iterator[Metric]:
    quorum = parts.status.quorum()
    yield gauge("raft_voters", "Voters in force.", quorum.voters)
    yield gauge(
        "raft_voters_reachable",
        "Voters that this node is connected to, and itself where it votes.",
        quorum.reachable,
    )
    yield gauge(
        "raft_failures_tolerated",
        "How many of those may still fail, whichever they are; 0 without a quorum too.",
        quorum.tolerates,
    )


def _blocks(parts: Observed) -> Iterator[Metric]:
    proposer = parts.ordering.proposer
    yield gauge(
        "ordering_blocks_in_flight",
        "Blocks that this leader proposed and that are not applied here.",
        proposer.blocks_in_flight,
    )
    yield counter(
        "ordering_proposed_blocks", "Blocks that this node proposed.", proposer.blocks_proposed
    )
    yield counter(
        "ordering_proposed_transactions",
        "Transactions in the blocks that this node proposed.",
        proposer.transactions_proposed,
    )
    yield durations(
        "ordering_commit_duration_seconds",
        "From a leader's proposal of a block to its commit.",
        parts.ordering.commit_durations.histogram(),
    )


def _clock(parts: Observed) -> Iterator[Metric]:
    rule, now_ms = parts.ordering.clock_rule, parts.now_ms()
    yield one_of(
        "clock_verdict",
        "What the voters' clocks say of this node's.",
        "verdict",
        Verdict,
        rule.verdict(now_ms),
    )
    off_ms = rule.off_ms(now_ms)
    yield gauge(
        "clock_offset_seconds",
        "How far the clock is ahead of the median of the other voters'; absent while unheard.",
        None if off_ms is None else off_ms / 1000,
    )
    yield counter(
        "clock_hand_overs",
        "How often this leader handed over since its clock was not right.",
        rule.hand_overs,
    )
