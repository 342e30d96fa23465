"""What the leader proposes, sends and commits.

Nothing is sent when it is proposed: `flush` runs when a Ready is due and sends, to each peer,
all that its window allows. So proposals made between two Readys share one append.
"""

from p2pcity.errors import ChangeRefused, NotLeader, ProposalDropped
from p2pcity.raft import reading, transfer
from p2pcity.raft.configuration import Configuration
from p2pcity.raft.progress import Progress, ProgressState
from p2pcity.raft.raft import Raft, Role
from p2pcity.wire.raft import (
    Append,
    AppendAnswer,
    Behind,
    CommitNotice,
    Entry,
    Heartbeat,
    HeartbeatAnswer,
    NodeId,
    TimeoutNow,
)


def begin(raft: Raft) -> None:
    """Open a new leader's term with an empty entry of its own (Raft sections 5.4.2 and 8)."""
    _append(raft, b"")


def propose(raft: Raft, payload: bytes, *, is_change: bool) -> tuple[int, int]:
    """Append an entry and return its term and index.

    Raises NotLeader, and ProposalDropped while leadership moves or when too much is
    uncommitted; one proposal always fits when nothing is. ChangeRefused for a second change
    before the first is in effect, and before an entry of the own term is committed (the bug of
    2015 in single-server changes).
    """
    if raft.role is not Role.LEADER:
        raise NotLeader("only the leader proposes", leader=raft.leader)
    if is_change and raft.settled_index < raft.change_index:
        raise ChangeRefused(
            "an earlier change, or this leader's first entry, is not in effect yet",
            remedy="Ask again in a moment.",
        )
    if raft.lead_transferee is not None:
        raise ProposalDropped(f"leadership is moving to {raft.lead_transferee}")
    size = len(payload)
    limit = raft.config.uncommitted_bytes_max
    if size and raft.uncommitted_bytes and raft.uncommitted_bytes + size > limit:
        raise ProposalDropped(f"{raft.uncommitted_bytes} bytes are uncommitted")
    term, index = _append(raft, payload)
    if is_change:
        raft.change_index = index
    return term, index


def flush(raft: Raft) -> None:
    """Queue every message that is due: appends, commit notices, heartbeats of a new round."""
    if raft.role is not Role.LEADER:
        return
    if raft.is_flush_due:
        raft.is_flush_due = False
        for peer in raft.peers:
            _send_due(raft, peer, raft.progress[peer])
    if raft.is_round_due:
        send_heartbeats(raft)


def send_heartbeats(raft: Raft) -> None:
    """Queue a heartbeat with the newest round for every peer; observers do with fewer.

    An observer confirms no read and never campaigns: it only has to know that its leader is there.
    """
    raft.is_round_due = False
    raft.heartbeat_elapsed = 0
    for peer in raft.peers:
        progress = raft.progress[peer]
        if peer in raft.configuration.observers and not progress.is_heartbeat_due(
            raft.ticks, raft.config
        ):
            continue
        progress.heartbeat_tick = raft.ticks
        commit = min(raft.raft_log.commit, progress.match)
        raft.send(peer, Heartbeat(raft.term, commit, raft.leader_reads.round))


def handle_append_answer(raft: Raft, sender: NodeId, message: AppendAnswer) -> None:
    """Move a peer's progress; commit what a quorum has."""
    if raft.role is not Role.LEADER:
        raft.ignore("not-leader")
        return
    progress = raft.progress[sender]
    progress.contact_tick = raft.ticks
    if message.is_rejected:
        hint = raft.raft_log.last_index_below(message.hint_index, message.hint_term)
        # It may end below what is kept here; then nothing is sent until it was helped by others.
        hint = min(hint, message.hint_index)
        if progress.note_rejected(message.index, hint, raft.ticks):
            raft.is_flush_due = True
        else:
            raft.ignore("old-answer")
        return
    if message.index > raft.raft_log.last_index:
        raft.ignore("acknowledged-beyond-log")
        return
    if progress.note_accepted(message.index, raft.ticks):
        _commit(raft)
    raft.is_flush_due = True
    transfer.continue_transfer(raft, sender)


def handle_heartbeat_answer(raft: Raft, sender: NodeId, message: HeartbeatAnswer) -> None:
    """A peer is there: confirm reads, and ask again where an append seems lost."""
    if raft.role is not Role.LEADER:
        raft.ignore("not-leader")
        return
    if message.round > raft.leader_reads.round:
        raft.ignore("round-not-begun")
        return
    progress = raft.progress[sender]
    progress.contact_tick = raft.ticks
    progress.round = max(progress.round, message.round)
    reading.confirm(raft)
    if progress.is_held and raft.ticks - progress.news_tick >= 2 * raft.config.election_ticks:
        progress.give_up()
        raft.is_flush_due = True
    elif progress.is_held:
        if progress.is_retry_due(raft.ticks, raft.config, raft.raft_log.first_index):
            _send_behind(raft, sender, progress)
    elif progress.is_retry_due(raft.ticks, raft.config, raft.raft_log.first_index):
        if progress.next < raft.raft_log.first_index:
            # What it lacks was pruned here: it has it from others by now, or says so again.
            progress.probe_again(raft.raft_log.last_index + 1)
        # Without entries: if the peer is only slow, megabytes would not help it.
        progress.append_tick = raft.ticks
        _send_append(raft, sender, progress, ())
    elif progress.match < raft.raft_log.last_index:
        raft.is_flush_due = True
    elif progress.state is ProgressState.PROBE:
        # It has everything: there is nothing to probe with, and nothing to find out.
        progress.become_replicate()
        raft.is_flush_due = True


def note_unreachable(raft: Raft, peer: NodeId) -> None:
    """What was sent to this peer is probably lost: find out where it stands."""
    if raft.role is Role.LEADER and peer in raft.progress and peer != raft.id:
        progress = raft.progress[peer]
        if progress.state is ProgressState.REPLICATE:
            progress.become_probe()
            raft.is_flush_due = True


def note_lost_log(raft: Raft, peer: NodeId, last_index: int) -> None:
    """A learner or observer came back with an older copy of its log: begin with it anew.

    It counts for nothing, so nothing was promised. A voter can't be helped this way.
    """
    if raft.role is not Role.LEADER or raft.configuration.is_voter(peer):
        return
    progress = raft.progress.get(peer)
    if progress is not None and last_index < progress.match:
        next_index = raft.raft_log.last_index
        raft.progress[peer] = Progress(match=0, next_index=next_index, tick=raft.ticks)
        raft.is_flush_due = True


def configure(raft: Raft, configuration: Configuration) -> None:
    """Put a committed configuration into effect.

    A leader that no longer votes tells the others what is committed, asks the voter with the
    longest log to campaign, and follows.
    """
    assert configuration.voters, "somebody votes"
    raft.configuration = configuration
    if raft.role is not Role.LEADER:
        if raft.role is not Role.FOLLOWER:
            # The votes that it has are those of other voters.
            raft.become_follower(raft.term, None)
        return
    if not raft.is_voter:
        _resign(raft)
        return
    for name, known in raft.progress.items():
        if not configuration.is_member(name):
            # Its last chance to learn that it is out; it hears no more of this leader.
            raft.send(name, CommitNotice(raft.term, min(raft.raft_log.commit, known.match)))
    raft.progress = {
        name: raft.progress.get(name)
        # The newest entry is the probe: an idle leader has nothing else to find out with.
        or Progress(match=0, next_index=raft.raft_log.last_index, tick=raft.ticks)
        for name in configuration.members
    }
    if raft.lead_transferee is not None and not configuration.is_voter(raft.lead_transferee):
        raft.lead_transferee = None
    raft.is_flush_due = True
    # Another quorum may have what the one before lacked.
    _commit(raft)
    reading.confirm(raft)


def _resign(raft: Raft) -> None:
    known = {peer: one.match for peer, one in raft.progress.items() if peer != raft.id}
    for peer, match in known.items():
        raft.send(peer, CommitNotice(raft.term, min(raft.raft_log.commit, match)))
    voters = [peer for peer in known if raft.configuration.is_voter(peer)]
    if voters:
        raft.send(max(voters, key=lambda peer: known[peer]), TimeoutNow(raft.term))
    raft.become_follower(raft.term, None)


def note_stable(raft: Raft) -> None:
    """The leader's own disk counts for the quorum like any other."""
    if raft.role is Role.LEADER:
        progress = raft.progress[raft.id]
        progress.match = max(progress.match, raft.raft_log.stable)
        _commit(raft)


def _append(raft: Raft, payload: bytes) -> tuple[int, int]:
    entry = Entry(raft.term, raft.raft_log.last_index + 1, payload)
    raft.raft_log.append((entry,))
    raft.uncommitted.append((entry.index, len(payload)))
    raft.uncommitted_bytes += len(payload)
    raft.is_flush_due = True
    return entry.term, entry.index


def _commit(raft: Raft) -> None:
    matches = {peer: progress.match for peer, progress in raft.progress.items()}
    index = raft.configuration.committed(matches)
    # Only entries of the own term are committed by counting (Raft section 5.4.2, figure 8).
    if raft.raft_log.term(index) != raft.term or not raft.raft_log.commit_to(index):
        return
    while raft.uncommitted and raft.uncommitted[0][0] <= index:
        raft.uncommitted_bytes -= raft.uncommitted.popleft()[1]
    raft.is_flush_due = True
    reading.release(raft)


def _is_held(raft: Raft, peer: NodeId, progress: Progress) -> bool:
    """Whether a peer shall fetch from others what is not in this leader's memory any more."""
    raft_log = raft.raft_log
    is_pruned = progress.next < raft_log.first_index
    if progress.state is not ProgressState.REPLICATE and not is_pruned:
        return False
    if progress.next >= raft_log.memory_first and not is_pruned:
        progress.catch_up()
    elif not progress.is_held and (is_pruned or not progress.is_given_up):
        lacking = raft_log.commit - progress.match
        is_far = (
            is_pruned
            or lacking > raft.config.far_entries_max
            or progress.old_bytes > raft.config.far_bytes_max
        )
        if is_far and lacking > 0 and _has_source(raft, peer):
            progress.hold(raft.ticks)
            _send_behind(raft, peer, progress)
    return progress.is_held


def _has_source(raft: Raft, peer: NodeId) -> bool:
    active, lacking = raft.active_voters(), raft.progress[peer].match
    return any(
        name not in (raft.id, peer)
        and active[name]
        and raft.configuration.is_voter(name)
        and known.match > lacking
        for name, known in raft.progress.items()
    )


def _send_behind(raft: Raft, peer: NodeId, progress: Progress) -> None:
    progress.append_tick = raft.ticks
    raft.send(peer, Behind(raft.term, raft.raft_log.commit))


def _send_due(raft: Raft, peer: NodeId, progress: Progress) -> None:
    raft_log = raft.raft_log
    if _is_held(raft, peer, progress):
        return
    # An observer counts for no commit: it gets entries once they are committed, and learns both
    # from one message.
    is_observer = peer in raft.configuration.observers
    last = raft_log.commit if is_observer else raft_log.last_index
    while progress.next <= last and not progress.is_paused(raft.config):
        if progress.next < raft_log.first_index:
            return  # Pruned here: the peer fetches these blocks by sync, from anybody.
        entries = raft_log.entries(progress.next, last + 1, raft.config.append_bytes_max)
        _send_append(raft, peer, progress, tuple(entries))
        size = sum(len(entry.payload) for entry in entries)
        if progress.next < raft_log.memory_first:
            progress.old_bytes += size
        progress.note_sent(entries[-1].index, size, raft.ticks)
    commit = min(raft_log.commit, progress.match)
    is_idle = progress.state is ProgressState.REPLICATE and not progress.in_flight_messages
    if is_idle and commit > progress.commit_sent:
        progress.commit_sent = commit
        raft.send(peer, CommitNotice(raft.term, commit))


def _send_append(raft: Raft, peer: NodeId, progress: Progress, entries: tuple[Entry, ...]) -> None:
    previous = progress.next - 1
    previous_term = raft.raft_log.term(previous)
    if previous_term is None:
        return
    commit = raft.raft_log.commit
    raft.send(peer, Append(raft.term, previous, previous_term, commit, entries))
    progress.commit_sent = max(progress.commit_sent, min(commit, previous + len(entries)))
