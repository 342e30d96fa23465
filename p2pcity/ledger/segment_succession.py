"""Ends a hole that nobody can fill: what stood there was never committed, and something else was.

A leader writes an entry, and its log is damaged there before anybody else has it; or it was cut
off with it. The others went on with another entry at that index. They can't give what is lost,
and nobody needs it: what a quorum of them holds as committed takes its place, as if their leader
had sent it, which truncates a follower's log in the same way (Raft, section 5.3).
"""

from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.wire.raft import Entry, HardState


def supersede(log: SegmentLog, entry: Entry) -> bool:
    """Put `entry` where the first hole begins; BLOCKING, in the log's writer thread.

    The caller knows that a quorum of other voters holds it as committed, and that the log could
    not be mended with it. All that stood behind it goes too. False, and nothing changes, when
    that is not allowed: what is lost was committed, or a vote may be lost with it. Raises
    SyncFailedError.
    """
    old = log.hard_state
    if not log.is_vote_known or entry.index != log.holes[0][0] or entry.index <= old.commit:
        return False
    if entry.term < log.term(entry.index - 1):
        return False
    term = max(old.term, entry.term)
    vote = old.vote if term == old.term else None
    log.save(HardState(term, vote, old.commit), [entry], must_sync=True)
    return True
