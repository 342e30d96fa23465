"""How a simulated node drops old blocks (`node/pruning.py`): the real base, one step after another.

Each step is an event of its own, so that a crash comes between any two of them; `dies_in` lets one
come in the middle of a step.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from p2pcity.errors import LedgerError, Unavailable
from p2pcity.ledger.base_store import StoredBase
from p2pcity.wire import limits
from tests.sim.files import PowerLoss

if TYPE_CHECKING:
    from tests.sim.node import Node

_TICKS: Final = 5
_STEP: Final = 500


class Pruning:
    """Follows the ledger with the base of one life of a node, an interval at a time."""

    def __init__(self, node: "Node") -> None:
        self._node = node
        self._ticks = 0
        self._is_busy = False

    def tick(self) -> None:
        """One tick passed."""
        self._ticks += 1
        if self._ticks % _TICKS == 0 and not self._is_busy and self._is_due():
            self._is_busy = True
            self._node.after(_STEP, self._step, self._write)

    def _is_due(self) -> bool:
        node, keeper = self._node, self._node.cluster.keeper
        if not node.keep_blocks:
            return False
        height = node.storage.bases.base.height + limits.BASE_INTERVAL_BLOCKS
        # Who keeps all has to have it first.
        is_kept = keeper is None or keeper.views.tip.height >= height
        return is_kept and node.views.tip.height >= height + node.keep_blocks

    def _step(self, step: Callable[..., None], *arguments: Any) -> None:
        """Do one step; the disk may fail in it, or the node may die in it."""
        node = self._node
        node.disk.calls_left = node.dies_pruning
        try:
            step(*arguments)
        except PowerLoss:
            node.world.struck["crash while pruning"] += 1
            node.dies_pruning = None
            node.crash()
        except Unavailable:
            # No room: what was written counts for nothing, and it is tried again.
            node.count_full_disk()
            self._is_busy = False
        except LedgerError as error:
            node.fail(error)
        if node.dies_pruning is not None:
            node.dies_pruning = node.disk.calls_left
        node.disk.calls_left = None

    def _then(self, step: Callable[..., None], *arguments: Any) -> None:
        self._node.after(_STEP, self._step, step, *arguments)

    def _write(self) -> None:
        """Bring the next base to the disk."""
        node = self._node
        bases, views = node.storage.bases, node.views
        before = bases.base.height
        new = bases.begin(views.heads[before + limits.BASE_INTERVAL_BLOCKS])
        for records in views.records_above(before):
            new.add(records)
        self._then(self._publish, new.finish())

    def _publish(self, base: StoredBase) -> None:
        node = self._node
        node.storage.bases.publish(base)
        node.views.prune(base)
        node.log.forget(base.head.index)
        self._then(self._remove)

    def _remove(self) -> None:
        node = self._node
        node.storage.remove_files(node.log)
        node.world.struck["pruned"] += 1
        self._is_busy = False
