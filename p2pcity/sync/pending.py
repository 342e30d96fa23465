"""Anti-entropy of pending transactions: which admissions of a peer this node has not seen.

Every node numbers its admissions from 1 within a session (16 random bytes drawn at its start).
A node asks each peer for the ids since the last number it has seen, at most `SYNC_IDS_MAX` a
turn, and fetches those that it lacks; it never asks for whole sets (protocol/04-gossip.md,
"Anti-entropy").
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from p2pcity.wire.limits import SYNC_IDS_MAX
from p2pcity.wire.sync import PendingAnswer, PendingQuery


@dataclass(slots=True)
class _Cursor:
    """How far this node has read one peer's admissions."""

    session: bytes
    number: int


class PendingSync:
    """Remembers, per peer, the last admission seen; bounded by the number of peers."""

    def __init__(self, peers_max: int = 1024) -> None:
        self._cursors: dict[str, _Cursor] = {}
        self._peers_max = peers_max

    def query(self, peer: str) -> PendingQuery:
        """The next question for `peer`."""
        cursor = self._cursors.get(peer)
        if cursor is None:
            return PendingQuery(session=bytes(16), since=0, limit=SYNC_IDS_MAX)
        return PendingQuery(session=cursor.session, since=cursor.number, limit=SYNC_IDS_MAX)

    def missing(
        self, peer: str, answer: PendingAnswer, is_known: Callable[[bytes], bool]
    ) -> tuple[bytes, ...]:
        """The ids of `answer` that this node lacks, and the cursor moved past the answer.

        A session other than the one asked for means that the peer started anew: its answer
        counts from its beginning. A `last` below the cursor is not believed.
        """
        cursor = self._cursors.get(peer)
        if cursor is None or cursor.session != answer.session:
            if cursor is None and len(self._cursors) >= self._peers_max:
                self._cursors.pop(next(iter(self._cursors)))
            cursor = _Cursor(answer.session, 0)
            self._cursors[peer] = cursor
        cursor.number = max(cursor.number, answer.last)
        return tuple(_unique(id_ for id_ in answer.ids if not is_known(id_)))

    def rewind(self, peer: str, query: PendingQuery) -> None:
        """Ask the same question again: there was no room here for what it brought."""
        cursor = self._cursors.get(peer)
        if cursor is not None:
            # In another session than the one asked about, counting began at zero.
            cursor.number = query.since if query.session == cursor.session else 0

    def forget(self, peer: str) -> None:
        """Drop what is remembered of `peer`: the next question starts from its beginning."""
        self._cursors.pop(peer, None)


def _unique(ids: Iterable[bytes]) -> Iterable[bytes]:
    return dict.fromkeys(ids)
