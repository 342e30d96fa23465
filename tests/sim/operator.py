"""Who changes the city: adds, removes, promotes, demotes, and replaces logs that are gone.

The operator sees everything, and keeps one promise: after a change, and after every promotion
that may follow by itself, a majority of the voters still has its log.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from p2pcity.city.membership import State
from p2pcity.errors import LocalError
from p2pcity.ordering.members import apply_change
from p2pcity.wire.block import peek_change
from p2pcity.wire.change import ChangeVoters, NewNode, Operation, Step
from tests.sim.city import BASE_INTERVAL
from tests.sim.node import Node

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster

_ALL = 1 << 40


class Operator:
    """Proposes changes on the leader; each may be refused, get lost, or take effect."""

    def __init__(self, cluster: "Cluster") -> None:
        self._cluster = cluster
        self.voters_min = 3

    @property
    def state(self) -> State:
        """The city after the newest block that anybody applied."""
        chain = self._cluster.checkers.chain
        return chain[-1].state if chain else State.from_genesis(self._cluster.city.genesis)

    def nodes_in(self, keys: Sequence[bytes]) -> list[Node]:
        """The nodes with these keys."""
        return [node for node in self._cluster.nodes if node.key in keys]

    def strangers(self) -> list[Node]:
        """Nodes that the city does not know."""
        known = self.state.nodes
        return [node for node in self._cluster.nodes if node.key not in known]

    def lost(self) -> list[Node]:
        """Nodes that the city knows with a log that is gone."""
        known = self.state.nodes
        return [
            node
            for node in self._cluster.nodes
            if node.key in known and known[node.key].incarnation != node.incarnation
        ]

    def adding(self, node: Node, operation: Operation = "learner") -> Step:
        """The step that adds a node with its present log."""
        card = NewNode("works", f"node {node.number}", node.incarnation, ())
        return Step(operation, node.key, card)

    def propose(self, steps: Sequence[Step]) -> bool:
        """Propose one change; whether the leader took it."""
        leader = self._cluster.leader()
        if leader is None or leader.is_paused:
            return False
        change = ChangeVoters(tuple(steps))
        try:
            if not self._is_safe(apply_change(leader.members.state, change)):
                return False
            _, block = leader.proposer.propose_change(change, leader.clock.now_ms)
            self._cluster.proposed(leader, block)
        except LocalError:
            return False
        leader.turn()
        return True

    def _is_safe(self, state: State, without: Node | None = None) -> bool:
        """Whether the voters, with all that may be promoted, outlive the logs that are gone."""
        alive = {
            node.key
            for node in self._cluster.nodes
            if node is not without
            and node.key in state.nodes
            and state.nodes[node.key].incarnation == node.incarnation
            # Its log may be mended by others alone.
            and not node.is_corrupt
        }
        sets, keeper = state.sets, self._cluster.keeper
        if keeper is not None and (keeper is without or keeper.key not in sets.voters):
            return False
        soon = [key for key in sets.learners if state.nodes[key].role == "orderer"]
        # A leader that has not noticed may promote just those whose logs are gone.
        gone = [key for key in soon if key not in alive]
        return len(sets.voters) >= self.voters_min and all(
            sum(key in alive for key in keys) > len(keys) // 2
            for keys in (
                sets.voters,
                (*sets.voters, *soon),
                (*sets.voters, *gone),
                sets.voters_outgoing,
            )
            if keys
        )

    def may_wipe(self, node: Node) -> bool:
        """Whether this log may be lost: no change is under way, and enough others remain."""
        cluster = self._cluster
        applied = cluster.checkers.chain[-1].index if cluster.checkers.chain else 0
        for other in cluster.nodes:
            if not other.is_up:
                if other.durable.written_index > applied:
                    return False
                continue
            raft_log = other.raw_node._raft.raft_log
            if raft_log.last_index > applied:
                for entry in raft_log.entries(applied + 1, raft_log.last_index + 1, _ALL):
                    if entry.payload and peek_change(entry.payload) is not None:
                        return False
        return self._is_safe(self.state, without=node)

    def may_damage(self, node: Node) -> bool:
        """Whether this log may need the others to be whole: a majority of the voters has to be."""
        return self._is_safe(self.state, without=node)

    @staticmethod
    def let_go(node: Node) -> None:
        """A node that is to keep all blocks may go on without its older ones."""
        node.keep_blocks = node.keep_blocks or BASE_INTERVAL

    def settle(self) -> None:
        """One step towards a city of whose nodes none has lost its log."""
        for node in self._cluster.nodes:
            if node.mending is not None:
                self.let_go(node)
                if node.mending.is_given_up and self.may_wipe(node):
                    # As its log says: it joins again, with a new one.
                    node.world.struck["log given up"] += 1
                    node.wipe()
                    node.start()
        strangers = [node for node in self.strangers() if node.was_wiped]
        for node in self.lost():
            if self.propose([Step("remove", node.key)]):
                return
        for node in strangers:
            if self.propose([self.adding(node)]):
                return
