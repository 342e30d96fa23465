"""A simulated node far behind asks other voters for committed entries, like `node/feeding.py`.

Whom it asks, and what of an answer it takes, are the real rules (`sync.feeding`).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from p2pcity.sync import feeding
from p2pcity.wire.sync import EntriesAnswer, EntriesQuery
from tests.sim.mending import answer
from tests.sim.world import SECOND

if TYPE_CHECKING:
    from tests.sim.node import Node

_WAIT_TICKS: Final = 2

Carry = Callable[[int, Callable[["Node"], None]], None]


class Feeding:
    """One question at a time, to anybody but the leader; questions and answers get lost."""

    def __init__(self, node: "Node", carry: Carry) -> None:
        self._node = node
        self._carry = carry
        self._feeding = feeding.Feeding()
        self._asked = ""
        self._ticks_left = 0

    def tick(self) -> None:
        """One tick passed."""
        self._ticks_left -= 1
        if self._ticks_left > 0 or not self._node.raw_node.sync_target:
            return
        if self._asked:
            # No answer came.
            self._failed(self._asked)
        self._ask()

    def _failed(self, peer: str) -> None:
        self._asked = ""
        self._feeding.failed(peer, self._node.world.now / SECOND, is_wrong=False)

    def _sources(self) -> list[str]:
        """The voters but the leader whose log is the one that is known of them."""
        me, nodes = self._node, self._node.members.state.nodes
        return [
            node.name
            for node in me.cluster.nodes
            if node.name not in (me.name, me.raw_node.leader)
            and me.raw_node.configuration.is_voter(node.name)
            and node.key in nodes
            # A wiped node is somebody else, as hello says.
            and nodes[node.key].incarnation == node.incarnation
        ]

    def _ask(self) -> None:
        me = self._node
        peer = self._feeding.choose(self._sources(), me.world.now / SECOND)
        if peer is None:
            return
        self._asked, self._ticks_left = peer, _WAIT_TICKS
        question = EntriesQuery(me.raw_node.commit + 1)
        number = me.cluster.number_of[peer]
        self._carry(number, lambda other: other.gossip.feeding.answer(me.number, question))

    def answer(self, asker: int, question: EntriesQuery) -> None:
        """A peer asks; whoever finds its own log damaged gives no answer."""
        found = answer(self._node.log, question)
        if found is None:
            return
        name = self._node.name
        self._carry(asker, lambda peer: peer.gossip.feeding.take(name, question, found))

    def take(self, peer: str, question: EntriesQuery, found: EntriesAnswer) -> None:
        """The answer, perhaps long after it was asked for, perhaps twice."""
        me = self._node
        found = self._feeding.check(question, found)
        if not me.raw_node.adopt(found.term, found.entries):
            if peer == self._asked:
                self._failed(peer)
                self._ticks_left = 1
            return
        me.world.struck["fed by others"] += 1
        if peer == self._asked:
            self._asked = ""
            self._ask()
        me.turn()
