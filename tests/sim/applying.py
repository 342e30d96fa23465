"""How a simulated node follows its log with its views (`node/apply_loop.py`)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from p2pcity.errors import DecodeError, LedgerError
from p2pcity.node.apply_loop import ended_ids, settled
from p2pcity.wire import block as block_wire
from p2pcity.wire.raft import Entry
from tests.sim.checkers import check
from tests.sim.desk import Answer

if TYPE_CHECKING:
    from tests.sim.node import Node

_APPLY_BYTES_MAX = 256 * 1024
_Told = tuple[bytes, Answer, str, int, bytes]


class Applying:
    """Applies what is committed, a batch at a time; takes its time for it."""

    def __init__(self, node: "Node") -> None:
        self._node = node
        self._target = node.views.applied_index
        self._is_applying = False

    def committed(self, entries: Sequence[Entry]) -> None:
        """Take note of what the pump handed over."""
        self._target = max(self._target, entries[-1].index)
        if not self._is_applying:
            self._is_applying = True
            time = self._node.settings.apply_time
            self._node.after(time + self._node.random.randrange(time), self._apply)

    def catch_up(self, target: int) -> None:
        """Apply everything up to `target` at once, as a start does."""
        while self._node.views.applied_index < target:
            self._apply_batch(target)

    def _apply(self) -> None:
        """`ApplyLoop.catch_up`: one batch, then what waits for it is told."""
        node = self._node
        self._is_applying = False
        try:
            done = self._apply_batch(self._target)
        except LedgerError as error:
            node.fail(error)
            return
        for id_, answer, state, height, hash_ in done:
            answer(id_, state, height, hash_)
        index = node.views.applied_index
        node.raw_node.applied(index)
        node.proposer.applied(index)
        node.reads.applied()
        if index < self._target and not self._is_applying:
            # Whoever was told may have brought the next commit already.
            self._is_applying = True
            node.after(node.settings.apply_time, self._apply)
        node.turn()

    def _apply_batch(self, target: int) -> list[_Told]:
        """Apply some entries from the log; who is to be told what."""
        node = self._node
        first = node.views.applied_index + 1
        entries = node.log.entries(first, target + 1, _APPLY_BYTES_MAX)
        told: list[_Told] = []
        for entry in entries:
            check(entry.index == node.views.applied_index + 1, f"{node} applies with a gap")
            if entry.payload:
                told += self._apply_block(entry)
            node.views.applied_index = entry.index
        if node.random.random() < 0.1:
            node.views_checkpoint = node.views.applied_index
        return told

    def _apply_block(self, entry: Entry) -> list[_Told]:
        node = self._node
        try:
            block = block_wire.decode(entry.payload)
        except DecodeError as error:
            check(False, f"the committed entry {entry.index} is no block: {error}")
            raise
        done = node.views.apply(entry.index, entry.term, block, node.cluster.city.lookup)
        node.cluster.applied(node, done)
        node.door.mempool.remove(ended_ids(done))
        told: list[_Told] = []
        for id_, end in settled(done):
            node.outbox.pop(id_, None)
            state = "committed" if end.state == "duplicate" else end.state
            for answer in node.waiters.pop(id_, ()):
                told.append((id_, answer, state, end.height or 0, block.hash))
        return told
