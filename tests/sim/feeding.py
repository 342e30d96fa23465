"""A simulated node far behind asks other voters for committed entries, like `node/feeding.py`."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from p2pcity.errors import LedgerError
from p2pcity.wire.limits import BLOCK_BYTES_MAX
from p2pcity.wire.sync import EntriesAnswer, EntriesQuery

if TYPE_CHECKING:
    from tests.sim.node import Node

_TICKS: Final = 2
_ENTRIES_MAX: Final = 8

Carry = Callable[[int, Callable[["Node"], None]], None]


class Feeding:
    """One question every few ticks, to anybody but the leader; questions and answers get lost."""

    def __init__(self, node: "Node", carry: Carry) -> None:
        self._node = node
        self._carry = carry
        self._ticks = 0

    def tick(self) -> None:
        """One tick passed."""
        me = self._node
        self._ticks += 1
        if self._ticks % _TICKS or not me.raw_node.sync_target:
            return
        number = me.random.randrange(me.cluster.network.size)
        name = me.cluster.city.names[number]
        if name in (me.name, me.raw_node.leader) or not me.raw_node.configuration.is_voter(name):
            return
        known = me.members.state.nodes.get(me.cluster.nodes[number].key)
        if known is None or known.incarnation != me.cluster.nodes[number].incarnation:
            return  # A wiped node is somebody else, as hello says.
        question = EntriesQuery(me.raw_node.commit + 1)
        self._carry(number, lambda peer: peer.gossip.feeding.answer(me.number, question))

    def answer(self, asker: int, question: EntriesQuery) -> None:
        """A peer asks; whoever finds its own log damaged gives no answer."""
        log = self._node.log
        if not log.first_index <= question.index <= log.last_index:
            return
        hard_state = log.hard_state
        end = min(log.last_index, question.index + _ENTRIES_MAX - 1) + 1
        try:
            entries = log.entries(question.index, end, BLOCK_BYTES_MAX)
        except LedgerError:
            return
        count = max(0, hard_state.commit - question.index + 1)
        found = EntriesAnswer(
            question.index,
            hard_state.term,
            hard_state.commit,
            tuple(entries[:count]),
            log.first_index,
        )
        self._carry(asker, lambda peer: peer.gossip.feeding.take(found))

    def take(self, found: EntriesAnswer) -> None:
        """The answer, perhaps long after it was asked for, perhaps twice."""
        me = self._node
        if me.raw_node.adopt(found.term, found.entries):
            me.world.struck["fed by others"] += 1
            me.turn()
