"""A picture of the core for operators, metrics and tests."""

from collections.abc import Mapping
from dataclasses import dataclass

from p2pcity.raft.progress import ProgressState
from p2pcity.raft.quorum import VoteResult
from p2pcity.raft.raft import Raft, Role
from p2pcity.wire.raft import NodeId


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """One member as the leader sees it."""

    match: int
    next: int
    state: ProgressState
    recent_active: bool
    contact_ticks: int
    """Ticks since the last answer; 0 for the leader itself."""
    in_flight_messages: int
    in_flight_bytes: int
    is_learner: bool
    lacks_pruned: bool = False
    """Whether the leader's log does not have any more what comes next for it."""


@dataclass(frozen=True, slots=True)
class RaftStatus:
    """The state of one node's Raft at one moment."""

    id: NodeId
    role: Role
    is_voter: bool
    term: int
    vote: NodeId | None
    leader: NodeId | None
    commit: int
    applied: int
    stable: int
    last_index: int
    progress: Mapping[NodeId, PeerStatus]
    """Every member, on a leader; empty elsewhere."""
    lead_transferee: NodeId | None
    has_quorum: bool
    """On a leader: a quorum answered within the election time-out; else: a leader is heard."""
    uncommitted_bytes: int
    ignored: Mapping[str, int]
    """How many messages were left alone, by reason."""
    elections: int
    """How often this node began a term and asked for votes."""
    elections_won: int


def take_status(raft: Raft) -> RaftStatus:
    """Take the picture; it does not change afterwards."""
    active = raft.active_voters()
    if raft.role is Role.LEADER:
        has_quorum = raft.configuration.vote(active) is VoteResult.WON
    else:
        has_quorum = raft.is_leader_alive
    progress = {
        peer: PeerStatus(
            match=known.match,
            next=raft.raft_log.last_index + 1 if peer == raft.id else known.next,
            state=ProgressState.REPLICATE if peer == raft.id else known.state,
            recent_active=active[peer],
            contact_ticks=0 if peer == raft.id else raft.ticks - known.contact_tick,
            in_flight_messages=known.in_flight_messages,
            in_flight_bytes=known.in_flight_bytes,
            is_learner=not raft.configuration.is_voter(peer),
            lacks_pruned=peer != raft.id and known.next < raft.raft_log.first_index,
        )
        for peer, known in raft.progress.items()
    }
    return RaftStatus(
        id=raft.id,
        role=raft.role,
        is_voter=raft.is_voter,
        term=raft.term,
        vote=raft.vote,
        leader=raft.leader,
        commit=raft.raft_log.commit,
        applied=raft.raft_log.applied,
        stable=raft.raft_log.stable,
        last_index=raft.raft_log.last_index,
        progress=progress,
        lead_transferee=raft.lead_transferee,
        has_quorum=has_quorum,
        uncommitted_bytes=raft.uncommitted_bytes,
        ignored=dict(raft.ignored),
        elections=raft.elections,
        elections_won=raft.elections_won,
    )
