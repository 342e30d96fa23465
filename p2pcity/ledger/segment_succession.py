"""Ends a hole that nobody can fill: what stood there was never committed, and something else was.

A leader writes an entry, and its log is damaged there before anybody else has it; or it was cut
off with it. The others went on with another entry at that index. They can't give what is lost,
and nobody needs it: what a quorum of them holds as committed takes its place, as if their leader
had sent it, which truncates a follower's log in the same way (Raft, section 5.3).
"""

from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.wire.raft import Entry, HardState


def supersede(log: SegmentLog, entries: list[Entry]) -> bool:
    """Put `entries` where the first hole begins; BLOCKING, in the log's writer thread.

    The caller knows that a quorum of other voters holds them as committed, and that the log could
    not be mended with them. All that stood behind goes too. False, and nothing changes, when that
    is not allowed: what is lost was committed, or was this very entry as far as is known, so that
    what stands behind it may have been acknowledged; or a vote may be lost with it. Raises
    SyncFailedError.
    """
    old, first = log.hard_state, entries[0]
    if not log.is_vote_known or first.index != log.holes[0][0] or first.index <= old.commit:
        return False
    if first.term < log.term(first.index - 1) or not _may_go(log, first, entries[-1]):
        return False
    term = max(old.term, entries[-1].term)
    vote = old.vote if term == old.term else None
    log.save(HardState(term, vote, old.commit), entries, must_sync=True)
    return True


def _may_go(log: SegmentLog, first: Entry, last: Entry) -> bool:
    """Whether what is lost was another entry than `first`, or everything behind it is given too.

    Terms never fall along a log: what follows `first` has its term at least.
    """
    if last.index >= log.last_index:
        return True
    lost = {at for low, high in log.holes for at in range(low, high + 1)}
    behind = (at for at in range(first.index + 1, log.last_index + 1) if at not in lost)
    following = next(behind, None)
    return following is not None and log.term(following) < first.term
