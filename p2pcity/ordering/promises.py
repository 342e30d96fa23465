"""What this node knows that voters promised, so that one with less is recognised.

A voter syncs before it acknowledges or speaks in a term (protocol/05-ordering.md, "Duties"). What
it acknowledged and is committed never goes from an honest disk again. A voter that comes back
with less, or in an older term, runs on an older copy of its disk: it may have voted, and not
know it. It is treated as a wiped one is, until it comes back under another incarnation.
"""

from collections.abc import Iterable
from dataclasses import replace

from p2pcity.raft.raft import Role
from p2pcity.raft.status import RaftStatus
from p2pcity.wire.promise import PROMISES_MAX, Promise
from p2pcity.wire.raft import Message, VoteAnswer, VoteRequest

_Key = tuple[str, bytes]


class Promises:
    """The highest promise of each (peer, incarnation); bounded, the oldest known goes first."""

    def __init__(self, known: Iterable[Promise] = ()) -> None:
        self._known: dict[_Key, Promise] = {}
        # Counts what became known: whoever saves it compares.
        self.version = 0
        for promise in known:
            self.add(promise)
        self.version = 0

    def of(self, peer: str, incarnation: bytes) -> Promise:
        """What this voter promised, as far as is known here."""
        return self._known.get((peer, incarnation)) or Promise(peer, incarnation)

    def listed(self) -> tuple[Promise, ...]:
        """Everything that is known."""
        return tuple(self._known.values())

    def add(self, promise: Promise) -> None:
        """Take note; what is known already is never lowered."""
        key = (promise.peer, promise.incarnation)
        known = self.of(*key)
        index, term = max(known.index, promise.index), max(known.term, promise.term)
        if (index, term) == (known.index, known.term):
            return
        if key not in self._known and len(self._known) >= PROMISES_MAX:
            del self._known[next(iter(self._known))]
        self._known[key] = replace(known, index=index, term=term)
        self.version += 1

    def spoke(self, peer: str, incarnation: bytes, message: Message) -> None:
        """A voter said this: the term in it is on its disk (not that of a pre-vote)."""
        if isinstance(message, VoteRequest | VoteAnswer) and message.is_pre:
            return
        if message.term > self.of(peer, incarnation).term:
            self.add(Promise(peer, incarnation, 0, message.term))

    def leads(self, status: RaftStatus, incarnations: dict[str, bytes]) -> None:
        """This node leads: it knows what each voter acknowledged; only what is committed counts.

        `incarnations` has the voters that are heard, with the incarnation of each.
        """
        if status.role is not Role.LEADER:
            return
        for peer, progress in status.progress.items():
            incarnation = incarnations.get(peer)
            if incarnation is not None and peer != status.id and not progress.is_learner:
                self.add(Promise(peer, incarnation, min(progress.match, status.commit)))

    def is_broken(self, peer: str, incarnation: bytes, last_index: int, term: int) -> bool:
        """Whether a voter whose log ends at `last_index`, in this term, has less than promised."""
        known = self.of(peer, incarnation)
        return last_index < known.index or term < known.term
