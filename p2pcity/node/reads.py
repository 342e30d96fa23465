"""Linearizable reads: a read index confirmed after the read arrived, and applied here.

One confirmed round serves all reads that arrived before it was asked for, never one that
arrived after (protocol/05-ordering.md, "Reads"). A round that was lost is asked for again
under a new context; a read that finds no leader within its time is refused, never answered
from a state that may be stale.
"""

from collections.abc import Callable, Sequence

import trio

from p2pcity.errors import NotLeader, Unavailable
from p2pcity.raft.raw_node import RawNode
from p2pcity.raft.reads import ReadState


class _Round:
    """The reads that one read index answers."""

    __slots__ = ("done", "index")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.index: int | None = None


class Reads:
    """Collects reads into rounds; one round is under way at a time."""

    def __init__(
        self,
        raw_node: RawNode,
        *,
        wake: Callable[[], None],
        applied_index: Callable[[], int],
        retry_s: float,
    ) -> None:
        self._raw_node = raw_node
        self._wake = wake
        self._applied_index = applied_index
        self._retry_s = retry_s
        self._number = 0
        self._contexts: dict[bytes, _Round] = {}
        self._next: _Round | None = None
        self._has_reads = trio.Event()
        self._has_applied = trio.Event()

    async def wait_linearizable(self, timeout_s: float) -> None:
        """Return when this node has applied all that was committed when the call began.

        Raises Unavailable when no leader confirms it in time.
        """
        if self._next is None:
            self._next = _Round()
            self._has_reads.set()
        round_ = self._next
        with trio.move_on_after(timeout_s):
            await round_.done.wait()
            assert round_.index is not None
            while self._applied_index() < round_.index:
                await self._has_applied.wait()
            return
        raise Unavailable(
            "no leader confirmed the read in time",
            remedy="Ask again, ask another node, or read with consistency=local.",
        )

    def answer(self, states: Sequence[ReadState], dropped: Sequence[bytes]) -> None:
        """Take the read states of a `Ready`, and the contexts that lost their leader."""
        for context in dropped:
            self._contexts.pop(context, None)
        for state in states:
            round_ = self._contexts.pop(state.context, None)
            if round_ is not None and round_.index is None:
                round_.index = state.index
                round_.done.set()

    def applied(self) -> None:
        """Say that the applied index moved."""
        self._has_applied.set()
        self._has_applied = trio.Event()

    async def run(self) -> None:
        """Ask for one round after the other, as long as reads wait."""
        while True:
            await self._has_reads.wait()
            round_, self._next = self._next, None
            self._has_reads = trio.Event()
            assert round_ is not None
            # Reads that arrive from here on belong to the next round. A round nobody can confirm
            # is given up after ten tries; its reads have timed out by then.
            for _ in range(10):
                self._ask(round_)
                with trio.move_on_after(self._retry_s):
                    await round_.done.wait()
                if round_.done.is_set():
                    break
            self._contexts.clear()

    def _ask(self, round_: _Round) -> None:
        self._number += 1
        context = self._number.to_bytes(8, "big")
        self._contexts[context] = round_
        try:
            self._raw_node.read_index(context)
        except (NotLeader, Unavailable):
            # Nobody leads right now, or too many reads are under way: the next try may be luckier.
            del self._contexts[context]
            return
        self._wake()
