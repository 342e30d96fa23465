"""What the kinds of fault share: whom to strike, for how long, and how it is undone."""

from collections.abc import Callable

from tests.sim.checkers import check
from tests.sim.clients import Clients
from tests.sim.cluster import Cluster
from tests.sim.node import Node
from tests.sim.world import SECOND


class Storm:
    """The seed as its faults see it; `kind` is the name of the one that strikes."""

    def __init__(self, cluster: Cluster, clients: Clients) -> None:
        self.cluster = cluster
        self.clients = clients
        self.world = cluster.world
        self.network = cluster.network
        self.operator = cluster.operator
        self.random = self.world.random("storm")
        self.kind = ""
        self.is_over = False
        self._undo: dict[int, Callable[[], None]] = {}
        self._number = 0

    def duration(self, mean_s: float) -> int:
        """How long a fault lasts, in microseconds."""
        return 1 + int(self.random.expovariate(1 / (mean_s * SECOND)))

    def later(self, delay: int, undo: Callable[[], None]) -> None:
        """Undo something after `delay`, or when the storm ends."""
        self._number += 1
        self._undo[self._number] = undo
        self.world.after(delay, self._undo_one, self._number)

    def _undo_one(self, number: int) -> None:
        undo = self._undo.pop(number, None)
        if undo is not None:
            undo()

    def victim(self) -> Node:
        """A node to strike: often the leader."""
        leader = self.cluster.leader()
        if leader is not None and self.random.random() < 0.4:
            return leader
        return self.random.choice(self.cluster.nodes)

    def victim_up(self) -> Node | None:
        """A node that runs and is not paused."""
        node = self.victim()
        return node if node.is_up and not node.is_paused else None

    def struck(self) -> None:
        """The fault hit somebody."""
        self.world.struck[self.kind] += 1

    def start(self, node: Node) -> None:
        """Start a node; one whose disk is still full or bad is tried again later."""
        if not node.is_up and not node.start() and not self.is_over:
            self.start_later(node, 2)

    def start_later(self, node: Node, mean_s: float) -> None:
        """Start a node after a while."""
        self.later(self.duration(mean_s), lambda: self.start(node))

    def is_bad_disk_allowed(self) -> bool:
        """Whether one more disk may go bad: a minority of them, at most."""
        bad = sum(node.is_corrupt for node in self.cluster.nodes)
        return bad < self.cluster.minority

    def heal(self) -> None:
        """Undo everything, then restart every node, however it stood."""
        self.is_over = True
        self.world.note("heal")
        while self._undo:
            self._undo_one(next(iter(self._undo)))
        self.network.heal()
        for node in self.cluster.nodes:
            node.clock.set(0)
            node.clock_rate = 1000
            node.sync_delay = 0
            node.disk.is_full = node.disk.is_sync_failing = False
            node.dies_pruning, node.answers_until_crash = None, 0
            if node.is_paused:
                node.resume()
            (node.stop, node.crash, node.lose_power)[self.random.randrange(3)]()
        for node in self.cluster.nodes:
            check(node.start(), f"{node} does not start in peace: {node.refusals}")
