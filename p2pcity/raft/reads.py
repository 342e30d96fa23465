"""Reads under way: those the leader confirms, and those a follower asked the leader for.

A read is current once the leader has shown that it still led after the read arrived. So every
read gets a number of its own, the leader's next round, and only answers to heartbeats of that
round or a later one confirm it: those heartbeats left after the read came in. A number is
never used again, and a read asked again under the same context takes the place of the older
one, so that no answer to the older one can confirm it.
"""

from collections import deque
from dataclasses import dataclass

from p2pcity.wire.raft import NodeId


@dataclass(frozen=True, slots=True)
class ReadState:
    """The read `context` is current once the entry at `index` is applied here."""

    context: bytes
    index: int


@dataclass(frozen=True, slots=True)
class LocalRead:
    """A read of this node's own caller."""

    context: bytes


@dataclass(frozen=True, slots=True)
class PeerRead:
    """A read that a peer forwarded; it knows it as `number`."""

    peer: NodeId
    number: int


Read = LocalRead | PeerRead


@dataclass(frozen=True, slots=True)
class ConfirmedRead:
    """A read whose round was confirmed, with the commit index of when it arrived."""

    read: Read
    index: int


class LeaderReads:
    """The reads of one leadership, in order of arrival."""

    def __init__(self) -> None:
        self.round = 0
        self._early: deque[Read] = deque()
        self._rounds: deque[tuple[int, ConfirmedRead]] = deque()
        self._newest: dict[bytes, LocalRead] = {}

    def __len__(self) -> int:
        return len(self._early) + len(self._rounds)

    def hold(self, read: Read) -> None:
        """Keep a read until the leader's own first entry is committed."""
        self._note_newest(read)
        self._early.append(read)

    def open_round(self, read: Read, index: int) -> None:
        """Give a read the next round; `index` is the commit index now."""
        self._note_newest(read)
        self.round += 1
        self._rounds.append((self.round, ConfirmedRead(read, index)))

    def release(self, index: int) -> bool:
        """Open rounds for all held reads; returns whether there were any."""
        has_any = bool(self._early)
        while self._early:
            self.open_round(self._early.popleft(), index)
        return has_any

    def confirm(self, up_to: int) -> list[ConfirmedRead]:
        """A quorum answered round `up_to`: take out the reads of it and of earlier rounds."""
        confirmed = []
        while self._rounds and self._rounds[0][0] <= up_to:
            found = self._rounds.popleft()[1]
            if self._is_current(found.read):
                confirmed.append(found)
                if isinstance(found.read, LocalRead):
                    del self._newest[found.read.context]
        return confirmed

    def local_contexts(self) -> list[bytes]:
        """The contexts of this node's own unanswered reads."""
        return list(self._newest)

    def _note_newest(self, read: Read) -> None:
        if isinstance(read, LocalRead):
            self._newest[read.context] = read

    def _is_current(self, read: Read) -> bool:
        """False for a read that was asked again under the same context since."""
        return isinstance(read, PeerRead) or self._newest.get(read.context) is read


@dataclass(frozen=True, slots=True)
class _AskedRead:
    context: bytes
    leader: NodeId
    tick: int


class AskedReads:
    """The reads that this node asked a leader for and that have no answer yet."""

    def __init__(self, first_number: int) -> None:
        self._number = first_number
        self._asked: dict[int, _AskedRead] = {}
        self._number_of: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._asked)

    def ask(self, context: bytes, leader: NodeId, tick: int) -> int:
        """Note a read and return the number to ask under; numbers never come twice."""
        older = self._number_of.get(context)
        if older is not None:
            del self._asked[older]
        self._number += 1
        self._asked[self._number] = _AskedRead(context, leader, tick)
        self._number_of[context] = self._number
        return self._number

    def answer(self, number: int, leader: NodeId) -> bytes | None:
        """The context asked of this leader under this number; None for anything else."""
        asked = self._asked.get(number)
        if asked is None or asked.leader != leader:
            return None
        self._forget(number, asked)
        return asked.context

    def drop_older(self, tick: int) -> list[bytes]:
        """Give up on reads asked at `tick` or before; returns their contexts."""
        dropped = []
        while self._asked:
            number, asked = next(iter(self._asked.items()))
            if asked.tick > tick:
                break
            self._forget(number, asked)
            dropped.append(asked.context)
        return dropped

    def drop_all(self) -> list[bytes]:
        """Give up on all reads; returns their contexts."""
        dropped = [asked.context for asked in self._asked.values()]
        self._asked.clear()
        self._number_of.clear()
        return dropped

    def _forget(self, number: int, asked: _AskedRead) -> None:
        del self._asked[number]
        del self._number_of[asked.context]
