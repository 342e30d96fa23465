"""Linearizable reads of one simulated node, in rounds as `node/reads.py` makes them."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from p2pcity.raft.reads import ReadState

if TYPE_CHECKING:
    from tests.sim.node import Node

_TRIES_MAX = 10
_TICKS_A_TRY = 5
Told = Callable[[int, bytes], None]
GaveUp = Callable[[], None]


class _Round:
    """The reads that one read index answers."""

    __slots__ = ("gave_up", "index", "reads", "ticks", "tries")

    def __init__(self) -> None:
        self.reads: list[Told] = []
        self.gave_up: list[GaveUp] = []
        self.index: int | None = None
        self.tries = 0
        self.ticks = 0


class Reads:
    """One round is under way at a time; reads that come meanwhile belong to the next."""

    def __init__(self, node: "Node") -> None:
        self._node = node
        self._number = 0
        self._contexts: dict[bytes, _Round] = {}
        self._current: _Round | None = None
        self._next: _Round | None = None
        self._confirmed: list[_Round] = []

    def read(self, told: Told, gave_up: GaveUp | None = None) -> None:
        """Tell `told` the height and hash once a read from here on would be current.

        `gave_up` is told instead when nobody confirms it.
        """
        if self._next is None:
            self._next = _Round()
        self._next.reads.append(told)
        if gave_up is not None:
            self._next.gave_up.append(gave_up)
        self._begin()
        self._node.turn()

    def answer(self, states: Sequence[ReadState], dropped: Sequence[bytes]) -> None:
        """Take the read states of a `Ready`, and the contexts that lost their leader."""
        for context in dropped:
            self._contexts.pop(context, None)
        for state in states:
            round_ = self._contexts.pop(state.context, None)
            if round_ is not None and round_.index is None:
                round_.index = state.index
                self._confirmed.append(round_)
                self._current = None
                self._contexts.clear()
        self.applied()
        self._begin()

    def applied(self) -> None:
        """Answer what is confirmed and applied here."""
        index = self._node.views.applied_index
        due = [round_ for round_ in self._confirmed if (round_.index or 0) <= index]
        if due:
            self._confirmed = [round_ for round_ in self._confirmed if round_ not in due]
            tip = self._node.views.tip
            for round_ in due:
                for told in round_.reads:
                    told(tip.height, tip.hash)

    def tick(self) -> None:
        """Ask again for a round that nobody answered."""
        round_ = self._current
        if round_ is None:
            self._begin()
            return
        round_.ticks += 1
        if round_.ticks % _TICKS_A_TRY == 0:
            if round_.tries >= _TRIES_MAX:
                self._contexts.clear()
                self._current = None
                for gave_up in round_.gave_up:
                    gave_up()
            else:
                self._ask(round_)

    def _begin(self) -> None:
        if self._current is None and self._next is not None:
            self._current, self._next = self._next, None
            self._ask(self._current)

    def _ask(self, round_: _Round) -> None:
        round_.tries += 1
        self._number += 1
        context = self._number.to_bytes(8, "big")
        self._contexts[context] = round_
        if not self._node.ask_read_index(context):
            del self._contexts[context]
