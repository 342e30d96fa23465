"""What a follower does with what its leader sends.

A leader that lies is outside what Raft protects from, but it must not stop this node: what
cannot come from an honest leader is counted and left alone.
"""

from collections.abc import Sequence

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
)


def handle_append(raft: Raft, sender: NodeId, message: Append) -> None:
    """Take entries that fit, or say where the logs may agree (Raft section 5.3)."""
    if not _follow(raft, sender):
        return
    if not _is_well_formed(message):
        raft.ignore("malformed-append")
        return
    raft_log = raft.raft_log
    previous = message.previous_index
    if previous < raft_log.first_index - 1:
        # Everything up to our commit index equals the leader's, and less was compacted.
        raft.send(sender, AppendAnswer(raft.term, raft_log.commit))
        return
    if raft_log.term(previous) != message.previous_term:
        if previous <= raft_log.commit:
            raft.ignore("conflict-below-commit")
            return
        hint = raft_log.last_index_below(previous, message.previous_term)
        hint_term = raft_log.term(hint) or 0
        raft.send(sender, AppendAnswer(raft.term, previous, True, hint, hint_term))
        return
    conflict = raft_log.first_conflict(message.entries)
    if conflict is not None:
        if conflict <= raft_log.commit:
            raft.ignore("conflict-below-commit")
            return
        raft_log.append(message.entries[conflict - previous - 1 :])
    last_new = previous + len(message.entries)
    raft_log.commit_to(min(message.commit, last_new))
    raft.send(sender, AppendAnswer(raft.term, last_new))


def handle_heartbeat(raft: Raft, sender: NodeId, message: Heartbeat) -> None:
    """Note that the leader lives and what is committed, and answer its round."""
    if not _follow(raft, sender):
        return
    _commit(raft, message.commit)
    raft.send(sender, HeartbeatAnswer(raft.term, message.round, message.sent))


def handle_commit_notice(raft: Raft, sender: NodeId, message: CommitNotice) -> None:
    """Note what is committed; nothing is answered."""
    if _follow(raft, sender):
        _commit(raft, message.commit)


def handle_behind(raft: Raft, sender: NodeId, message: Behind) -> None:
    """Note up to where committed entries are to be fetched, and say what is here already."""
    if _follow(raft, sender):
        raft.sync_target = message.commit
        # Everything up to our commit index equals the leader's.
        raft.send(sender, AppendAnswer(raft.term, raft.raft_log.commit))


def adopt(raft: Raft, term: int, entries: Sequence[Entry]) -> bool:
    """Take entries that another voter knew to be committed in its `term`; False: they don't fit.

    What was committed by a leader of a term up to ours is in our leader's log (Raft section
    5.4.3), so it is told that we have it.
    """
    raft_log = raft.raft_log
    if raft.role is not Role.FOLLOWER or raft.leader is None or term > raft.term:
        return False
    entries = [entry for entry in entries if entry.index > raft_log.commit]
    if not entries:
        return False
    previous_term = raft_log.term(raft_log.commit) or 0
    for index, entry in enumerate(entries, start=raft_log.commit + 1):
        if entry.index != index or not previous_term <= entry.term <= term:
            return False
        previous_term = entry.term
    conflict = raft_log.first_conflict(entries)
    if conflict is not None:
        raft_log.append(entries[conflict - entries[0].index :])
    raft_log.commit_to(entries[-1].index)
    raft.send(raft.leader, AppendAnswer(raft.term, raft_log.commit))
    return True


def _follow(raft: Raft, sender: NodeId) -> bool:
    if raft.role is Role.LEADER or raft.leader not in (None, sender):
        # Two leaders of one term: one of them lies (Raft's election safety).
        raft.ignore("second-leader")
        return False
    if raft.role is not Role.FOLLOWER or raft.leader is None:
        raft.become_follower(raft.term, sender)
    raft.election_elapsed = 0
    return True


def _commit(raft: Raft, index: int) -> None:
    if index > raft.raft_log.last_index:
        raft.ignore("commit-beyond-log")
        return
    raft.raft_log.commit_to(index)


def _is_well_formed(message: Append) -> bool:
    previous_term = message.previous_term
    index = message.previous_index
    for entry in message.entries:
        index += 1
        if entry.index != index or entry.term < previous_term:
            return False
        previous_term = entry.term
    return previous_term <= message.term
