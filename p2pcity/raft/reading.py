"""Read indexes (Raft's dissertation, section 6.4); no leases, so no trust in clocks."""

from p2pcity.errors import NotLeader, Unavailable
from p2pcity.raft.raft import Raft, Role
from p2pcity.raft.reads import LocalRead, PeerRead, Read, ReadState
from p2pcity.wire.raft import NodeId, ReadAnswer, ReadRequest


def read_index(raft: Raft, context: bytes) -> None:
    """Begin a read; the answer comes as a ReadState, or its context among the dropped ones.

    Asked again under the same `context`, it begins anew and the older read gets no answer.
    Raises NotLeader when no leader is known, Unavailable when too many reads are under way.
    """
    if raft.leader is None:
        raise NotLeader("no leader is known that could confirm a read")
    if len(raft.leader_reads) + len(raft.asked_reads) >= raft.config.reads_max:
        raise Unavailable("too many reads are under way", remedy="Read again in a moment.")
    if raft.read_states:
        raft.read_states = [state for state in raft.read_states if state.context != context]
    if raft.role is Role.LEADER:
        _begin(raft, LocalRead(context))
        return
    number = raft.asked_reads.ask(context, raft.leader, raft.ticks)
    raft.send(raft.leader, ReadRequest(raft.term, number))


def handle_read_request(raft: Raft, sender: NodeId, message: ReadRequest) -> None:
    """Begin a read that a peer forwarded."""
    if raft.role is not Role.LEADER:
        raft.ignore("not-leader")
        return
    if len(raft.leader_reads) >= raft.config.reads_max:
        raft.ignore("too-many-reads")
        return
    _begin(raft, PeerRead(sender, message.number))


def handle_read_answer(raft: Raft, sender: NodeId, message: ReadAnswer) -> None:
    """Take the leader's answer to a read of ours."""
    context = raft.asked_reads.answer(message.number, sender)
    if context is None:
        raft.ignore("read-not-asked")
        return
    raft.read_states.append(ReadState(context, message.index))


def release(raft: Raft) -> None:
    """Begin the rounds of reads that waited for the leader's own first entry."""
    if raft.has_own_commit and raft.leader_reads.release(raft.raft_log.commit):
        _open(raft)


def confirm(raft: Raft) -> None:
    """Answer the reads whose round a quorum has answered."""
    rounds = {peer: progress.round for peer, progress in raft.progress.items()}
    rounds[raft.id] = raft.leader_reads.round
    for confirmed in raft.leader_reads.confirm(raft.configuration.committed(rounds)):
        read = confirmed.read
        if isinstance(read, LocalRead):
            raft.read_states.append(ReadState(read.context, confirmed.index))
        else:
            raft.send(read.peer, ReadAnswer(raft.term, read.number, confirmed.index))


def tick_reads(raft: Raft) -> None:
    """Give up on reads that a leader left unanswered for an election time-out."""
    oldest = raft.ticks - raft.config.election_ticks
    raft.reads_dropped += raft.asked_reads.drop_older(oldest)


def _begin(raft: Raft, read: Read) -> None:
    if not raft.has_own_commit:
        raft.leader_reads.hold(read)
        return
    raft.leader_reads.open_round(read, raft.raft_log.commit)
    _open(raft)


def _open(raft: Raft) -> None:
    if raft.configuration.is_alone:
        # One voter is its own quorum; learners are not asked.
        confirm(raft)
    else:
        raft.is_round_due = True
