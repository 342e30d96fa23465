"""How transactions travel between simulated nodes: forwarding, gossip and anti-entropy.

As in the node's loops: straight to the leader, to everybody in batches, and every so often a
peer is asked for the admissions this node has not seen. Any of it may get lost.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from p2pcity.node.expiring import PERIOD_S
from p2pcity.sync.pending import PendingSync
from p2pcity.wire.sync import PendingAnswer, PendingQuery
from p2pcity.wire.transaction import Carried
from tests.sim.base_fetching import BaseFetching
from tests.sim.feeding import Feeding
from tests.sim.network import GOSSIP
from tests.sim.world import SECOND

if TYPE_CHECKING:
    from tests.sim.node import Node

_REOFFER_TICKS = 12
_ENTROPY_TICKS = 15


class Gossip:
    """The loops of one node around its mempool."""

    def __init__(self, node: "Node") -> None:
        self._node = node
        self._cluster = node.cluster
        self.feeding = Feeding(node, self._carry)
        self.bases = BaseFetching(node)
        self._session = node.random.randbytes(16)
        self._sync = PendingSync()
        self._own: dict[bytes, Carried] = {}
        self._again: list[bytes] = []
        self._ticks = node.random.randrange(1000)
        self._expire_ticks = int(PERIOD_S * SECOND) // node.settings.tick

    @property
    def waiting(self) -> int:
        """How many transactions that this node accepted have no end yet."""
        return len(self._again) + sum(id_ in self._node.door.mempool for id_ in self._own)

    def offer(self, accepted: Sequence[Carried]) -> None:
        """Clients brought these."""
        for item in accepted:
            self._own[item.transaction.id] = item
        items = [item.data for item in accepted]
        self._forward(items)
        for number in range(self._cluster.network.size):
            if number != self._node.number:
                self._send(number, items)

    def offer_again(self, items: list[bytes]) -> None:
        """After a start: what the outbox still holds, until each of them is in or ended."""
        node, left = self._node, []
        accepted = []
        for data, (verdict, carried) in zip(
            items, node.door.admit(items, None, node.corrected_ms), strict=True
        ):
            id_ = carried.transaction.id if carried is not None else verdict.id
            assert id_ is not None, "only whole transactions are in the outbox"
            if carried is not None and id_ in node.door.mempool:
                accepted.append(carried)
            elif node.views.has_transaction(id_):
                node.outbox.pop(id_, None)
            elif verdict.reason == "expired":
                node.desk.add_expired([id_])
            else:
                left.append(data)
        self._again = left
        if accepted:
            self.offer(accepted)

    def leader_changed(self) -> None:
        """Offer everything to a new leader at once."""
        self._node.after(1, self._reoffer)

    def tick(self) -> None:
        """One tick passed."""
        self._ticks += 1
        self.feeding.tick()
        self.bases.tick()
        if self._ticks % _REOFFER_TICKS == 0:
            self._reoffer()
            if self._again:
                self.offer_again(self._again)
        if self._ticks % _ENTROPY_TICKS == 0:
            self._ask()
        if self._ticks % (2 * self._expire_ticks) == 0:
            self._ask_clocks()
        if self._ticks % self._expire_ticks == 0:
            self._node.desk.expire()

    def receive(self, sender: str, items: Sequence[bytes]) -> None:
        """A peer sends transactions."""
        verdicts = self._node.door.admit(items, sender, self._node.corrected_ms)
        if any(verdict.is_accepted for verdict, _ in verdicts):
            self._node.turn()

    def _reoffer(self) -> None:
        mempool = self._node.door.mempool
        self._own = {id_: item for id_, item in self._own.items() if id_ in mempool}
        if self._own:
            self._forward([item.data for item in self._own.values()])

    def _forward(self, items: Sequence[bytes]) -> None:
        leader = self._node.raw_node.leader
        if leader is not None and leader != self._node.name:
            self._send(self._cluster.number_of[leader], items)

    def _send(self, number: int, items: Sequence[bytes]) -> None:
        me = self._node
        self._carry(number, lambda peer: peer.gossip.receive(me.name, items))

    def _carry(self, number: int, deliver: Callable[["Node"], None]) -> None:
        cluster = self._cluster
        cluster.network.send(
            GOSSIP, 0, self._node.number, number, lambda: cluster.hand_over(number, deliver)
        )

    def _ask(self) -> None:
        """One turn of anti-entropy with some peer."""
        me = self._node
        number = me.random.randrange(self._cluster.network.size)
        if number == me.number:
            return
        query = self._sync.query(self._cluster.city.names[number])
        self._carry(number, lambda peer: peer.gossip.answer(me.number, query))

    def _ask_clocks(self) -> None:
        """Ask everybody's status, as `node/peer_status.py` does."""
        me = self._node
        asked_ms = me.clock_rule.clocks.steady_ms()
        for number in range(self._cluster.network.size):
            if number != me.number:
                self._carry(number, lambda peer: peer.gossip.tell_clock(me.number, asked_ms))

    def tell_clock(self, asker: int, asked_ms: int) -> None:
        """A peer asks for this node's status, of which only the clock matters here."""
        me = self._node
        name, now_ms = me.name, me.clock.now_ms
        self._carry(asker, lambda other: other.clock_rule.clocks.heard(name, now_ms, asked_ms))

    def answer(self, asker: int, query: PendingQuery) -> None:
        """A peer asks which admissions are new."""
        since = query.since if query.session == self._session else 0
        last, ids = self._node.door.mempool.since(since, query.limit)
        found = PendingAnswer(session=self._session, last=last, ids=tuple(ids))
        me = self._node
        self._carry(asker, lambda peer: peer.gossip.take(me.number, found))

    def take(self, peer: int, found: PendingAnswer) -> None:
        """The answer: fetch what is missing here."""
        me = self._node
        name = self._cluster.city.names[peer]
        missing = self._sync.missing(name, found, me.door.is_known)
        if missing:
            self._carry(peer, lambda other: other.gossip.fetch(me.number, missing))

    def fetch(self, asker: int, ids: Sequence[bytes]) -> None:
        """A peer fetches transactions by id."""
        mempool = self._node.door.mempool
        items = [carried.data for carried in map(mempool.get, ids) if carried is not None]
        if items:
            self._send(asker, items)
