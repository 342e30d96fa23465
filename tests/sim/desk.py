"""Where clients of one simulated node bring transactions and wait (`node/submitting.py`)."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from p2pcity.node.expiring import GRACE_PERIODS
from p2pcity.ordering.clocks import Verdict
from tests.sim.world import SECOND

if TYPE_CHECKING:
    from tests.sim.node import Node

Answer = Callable[[bytes, str, int, bytes], None]
"""Tells a client (id, state, height, block hash); of a block that was pruned the hash is empty."""


class Desk:
    """Takes transactions in, tells how they ended, and keeps what nobody waits for."""

    def __init__(self, node: "Node") -> None:
        self._node = node
        self._dropped: deque[tuple[int, list[bytes]]] = deque()
        self._unsaid: dict[bytes, None] = {}
        self._is_saying = False

    def submit(self, items: Sequence[bytes], answer: Answer) -> None:
        """A client brings transactions and waits until each of them ends."""
        node = self._node
        accepted = []
        for verdict, carried in node.door.admit(items, None, node.corrected_ms):
            id_ = verdict.id if carried is None else carried.transaction.id
            if verdict.is_accepted and carried is not None:
                accepted.append(carried)
            elif id_ is None or verdict.reason not in ("duplicate", "known", "expired"):
                answer(id_ or b"", "rejected", 0, b"")
                continue
            assert id_ is not None, "what is whole has an id"
            if not self._answer_known(id_, answer):
                if id_ in node.door.mempool:
                    node.waiters.setdefault(id_, []).append(answer)
                else:
                    self._answer_later(id_, answer)
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
        """Drop what expired from the mempool; said later, as `node/expiring.py` does."""
        node, now = self._node, self._node.world.now
        is_known = node.clock_rule.verdict(node.clock.now_ms) is not Verdict.UNKNOWN
        dropped = node.door.mempool.expire(node.corrected_ms) if is_known else []
        self._dropped.append((now, dropped))
        while self._dropped and now - self._dropped[0][0] > GRACE_PERIODS * SECOND:
            _, expired = self._dropped.popleft()
            self.add_expired(id_ for id_ in expired if id_ in node.waiters or id_ in node.outbox)
        if not is_known:
            return
        if self._unsaid and not self._is_saying:
            self._is_saying = True
            expired = list(self._unsaid)
            node.reads.read(lambda _height, _hash: self._say(expired), self._give_up)

    def add_expired(self, ids: Iterable[bytes]) -> None:
        """Take note of ids whose time is over, and whose end was not said yet."""
        self._unsaid.update(dict.fromkeys(ids))

    def _say(self, expired: Sequence[bytes]) -> None:
        self._is_saying = False
        for id_ in expired:
            del self._unsaid[id_]
            self._node.outbox.pop(id_, None)
            for answer in self._node.waiters.pop(id_, ()):
                answer(id_, "expired", 0, b"")

    def _give_up(self) -> None:
        self._is_saying = False

    def _answer_known(self, id_: bytes, answer: Answer) -> bool:
        """Tell what the views know of `id_`; False when they know nothing."""
        height = self._node.views.height_of(id_)
        if height is not None:
            answer(id_, "committed", height, self._node.views.hash_at(height))
        return height is not None

    def _answer_later(self, id_: bytes, answer: Answer) -> None:
        """Its time is over here; on the ledger it may stand, or come there, all the same."""
        node = self._node
        is_unsaid = id_ in self._unsaid or any(id_ in ids for _, ids in self._dropped)
        if is_unsaid or node.clock_rule.verdict(node.clock.now_ms) is Verdict.UNKNOWN:
            return  # As good as `pending`: the client asks again.

        def told(_height: int, _hash: bytes) -> None:
            if not self._answer_known(id_, answer) and id_ not in node.door.mempool:
                answer(id_, "expired", 0, b"")

        node.reads.read(told)
