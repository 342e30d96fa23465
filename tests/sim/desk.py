"""Where clients of one simulated node bring transactions and wait (`node/submitting.py`)."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.sim.node import Node

Answer = Callable[[bytes, str, int, bytes], None]
"""Tells a client (id, state, height, block hash)."""


class Desk:
    """Takes transactions in, tells how they ended, and keeps what nobody waits for."""

    def __init__(self, node: "Node") -> None:
        self._node = node

    def submit(self, items: Sequence[bytes], answer: Answer) -> None:
        """A client brings transactions and waits until each of them ends."""
        node = self._node
        accepted = []
        views = node.views
        for verdict, carried in node.door.admit(items, None, node.now_ms):
            id_ = verdict.id if carried is None else carried.transaction.id
            if verdict.is_accepted and carried is not None:
                accepted.append(carried)
            elif id_ is None or verdict.reason not in ("duplicate", "known"):
                state = "expired" if verdict.reason == "expired" else "rejected"
                answer(id_ or b"", state, 0, b"")
                continue
            height = views.height_of(id_)  # type: ignore[arg-type]  # what is accepted has an id
            if height is not None:
                answer(id_ or b"", "committed", height, views.blocks[height - 1].block.hash)
            elif id_ in node.door.mempool:
                node.waiters.setdefault(id_ or b"", []).append(answer)
            else:
                answer(id_ or b"", "expired", 0, b"")
        if accepted:
            node.gossip.offer(accepted)
            node.turn()

    def accept(self, ids: Sequence[bytes]) -> list[bytes]:
        """The client goes away: from here on this node's disk answers for what still waits."""
        kept = []
        for id_ in ids:
            carried = self._node.door.mempool.get(id_)
            if carried is not None:
                self._node.outbox[id_] = carried.data
                kept.append(id_)
        return kept

    def expire(self) -> None:
        """Drop what expired from the mempool."""
        for id_ in self._node.door.mempool.expire(self._node.now_ms):
            self._node.outbox.pop(id_, None)
            for answer in self._node.waiters.pop(id_, ()):
                answer(id_, "expired", 0, b"")
