"""Which rule a message or a tick goes to; terms are compared here, before anything else.

Whatever a peer sends, `step` raises nothing: it answers, acts, or counts and ignores.
"""

from collections.abc import Callable
from typing import Any, Final

from p2pcity.raft import election, follower, reading, replication, transfer
from p2pcity.raft.quorum import VoteResult
from p2pcity.raft.raft import Raft, Role
from p2pcity.wire.raft import (
    Append,
    AppendAnswer,
    Behind,
    CommitNotice,
    Heartbeat,
    HeartbeatAnswer,
    Message,
    NodeId,
    ReadAnswer,
    ReadRequest,
    TimeoutNow,
    VoteAnswer,
    VoteRequest,
)

TERM_MAX: Final = 2**63 - 1
"""No term beyond this is entered because a peer says so; it fits a signed 64-bit integer."""

_FROM_LEADER: Final = (Append, Heartbeat, CommitNotice, Behind)
_FROM_LEARNERS: Final = (AppendAnswer, HeartbeatAnswer, ReadRequest)

_HANDLERS: Final[dict[type[Message], Callable[[Raft, NodeId, Any], None]]] = {
    VoteRequest: election.handle_vote_request,
    VoteAnswer: election.handle_vote_answer,
    Append: follower.handle_append,
    AppendAnswer: replication.handle_append_answer,
    Heartbeat: follower.handle_heartbeat,
    HeartbeatAnswer: replication.handle_heartbeat_answer,
    CommitNotice: follower.handle_commit_notice,
    Behind: follower.handle_behind,
    TimeoutNow: election.handle_timeout_now,
    ReadRequest: reading.handle_read_request,
    ReadAnswer: reading.handle_read_answer,
}


def step(raft: Raft, sender: NodeId, message: Message) -> None:
    """Take a message from `sender`, which the transport has authenticated."""
    if not _may_say(raft, sender, message):
        is_known = sender != raft.id and raft.configuration.is_member(sender)
        raft.ignore("not-a-voter" if is_known else "unknown-sender")
        return
    if message.term > min(raft.term + raft.config.term_ahead_max, TERM_MAX):
        raft.ignore("term-too-far")
        return
    if message.term > raft.term and not _is_heard(raft, sender, message):
        return
    if message.term < raft.term:
        _answer_old_term(raft, sender, message)
        return
    _HANDLERS[type(message)](raft, sender, message)


def tick(raft: Raft) -> None:
    """One tick of the clock passed."""
    raft.ticks += 1
    if raft.role is Role.LEADER:
        _tick_leader(raft)
        return
    reading.tick_reads(raft)
    raft.election_elapsed += 1
    is_due = raft.election_elapsed >= raft.election_timeout or raft.configuration.is_alone
    if is_due and raft.is_voter:
        election.campaign(raft)


def _tick_leader(raft: Raft) -> None:
    transfer.tick_transfer(raft)
    if raft.configuration.vote(raft.active_voters()) is not VoteResult.WON:
        # Check-quorum: nobody follows, so say so instead of taking proposals for nothing.
        raft.become_follower(raft.term, None)
        return
    raft.heartbeat_elapsed += 1
    if raft.heartbeat_elapsed >= raft.config.heartbeat_ticks:
        replication.send_heartbeats(raft)


def _may_say(raft: Raft, sender: NodeId, message: Message) -> bool:
    """Whether the sender's place in the configuration allows this message.

    This node's configuration may lag: the leader, a candidate, or this node itself may vote by
    entries that it does not have yet (Raft section 6). So while no leader is heard, anybody may
    turn out to be one, but never an observer; unless this node is no member by its own
    configuration: then that is known to be old, and an observer of it may have come back as a
    voter. A learner's newer term says nothing that a majority does not know.
    """
    is_observer = raft.id in raft.configuration.observers
    if sender == raft.id or (is_observer and isinstance(message, VoteRequest)):
        return False
    if raft.configuration.is_voter(sender):
        return True
    if isinstance(message, _FROM_LEARNERS):
        return raft.configuration.is_member(sender) and message.term <= raft.term
    if isinstance(message, VoteAnswer):
        return False
    if sender in raft.configuration.observers and raft.configuration.is_member(raft.id):
        return False
    return sender == raft.leader or not raft.is_leader_alive


def _is_heard(raft: Raft, sender: NodeId, message: Message) -> bool:
    """Handle a newer term; False when the message ends here."""
    if isinstance(message, VoteRequest):
        if raft.is_leader_alive and not message.is_transfer:
            # Stickiness: somebody who lost touch must not depose a leader who works.
            raft.ignore("leader-alive")
            return False
        if message.is_pre:
            return True
    if isinstance(message, VoteAnswer) and message.is_pre and message.is_granted:
        return True
    raft.become_follower(message.term, sender if isinstance(message, _FROM_LEADER) else None)
    return True


def _answer_old_term(raft: Raft, sender: NodeId, message: Message) -> None:
    """Tell who lags behind which term it is, so that it never stays there."""
    if isinstance(message, VoteRequest):
        election.send_answer(raft, sender, raft.term, is_granted=False, is_pre=message.is_pre)
    elif isinstance(message, _FROM_LEADER):
        raft.send(sender, HeartbeatAnswer(raft.term))
    else:
        if isinstance(message, VoteAnswer) and not message.is_granted:
            # A voter that follows nobody any more may stay in its term, and is right all the same.
            election.learn_commit(raft, message.commit, message.commit_term)
        raft.ignore("old-term")
