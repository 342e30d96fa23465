"""One scenario at a time: a seed's cluster and clients, struck by a test's own hand.

All that a seed checks is checked here too; the test adds what its scenario promises.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from tests.sim.checkers import check
from tests.sim.city import memory_installed
from tests.sim.clients import Clients
from tests.sim.cluster import Cluster
from tests.sim.network import GOSSIP, RAFT
from tests.sim.node import Node
from tests.sim.run import finish, run_seed
from tests.sim.world import SECOND, World

Pairs = list[tuple[int, int]]
SEEDS: Final = (1, 2)


class Stage:
    """A cluster of `size` nodes under load, and the means to strike it."""

    def __init__(self, seed: int, size: int) -> None:
        self.world = World(seed)
        self.cluster = Cluster(self.world, size)
        self.clients = Clients(self.cluster)
        self.nodes = self.cluster.nodes
        self.checkers = self.cluster.checkers
        self.network = self.cluster.network

    @property
    def acknowledged(self) -> int:
        """How many transactions clients were told to be committed."""
        return len(self.checkers.acknowledged)

    @property
    def term(self) -> int:
        """The highest term that any running node is in."""
        return max(node.raw_node.term for node in self.nodes if node.is_up)

    @property
    def election_s(self) -> float:
        """The longest election time-out, in seconds."""
        return self.cluster.election_time / SECOND

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.world.run_until(self.world.now + int(seconds * SECOND))

    def wait(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Let time pass until `condition` holds, at most so long."""
        deadline = self.world.now + int(seconds * SECOND)
        while not condition():
            check(self.world.now < deadline, f"not within {seconds} s: {what}")
            self.world.run_until(self.world.now + SECOND // 100)

    def wait_leader(self, besides: Node | None = None) -> Node:
        """A node that leads, other than `besides`; within a few election time-outs."""

        def leaders() -> list[Node]:
            return [node for node in self.nodes if node.is_leader and node is not besides]

        self.wait(lambda: bool(leaders()), 12 * self.election_s, "a leader")
        return max(leaders(), key=lambda node: node.raw_node.term)

    def wait_acknowledged(self, count: int, seconds: float) -> None:
        """So many more transactions are acknowledged within so long."""
        goal = self.acknowledged + count
        self.wait(lambda: self.acknowledged >= goal, seconds, f"{count} acknowledgements")

    def wait_blocks(self, count: int, seconds: float) -> None:
        """So many more blocks are applied somewhere within so long."""
        goal = len(self.checkers.chain) + count
        self.wait(lambda: len(self.checkers.chain) >= goal, seconds, f"{count} blocks")

    def wait_told(self, ids: Sequence[bytes], seconds: float) -> None:
        """Clients are told that these are committed."""
        known = self.checkers.acknowledged
        self.wait(lambda: all(id_ in known for id_ in ids), seconds, "they are committed")

    def cut(self, pairs: Pairs, planes: tuple[int, ...] = (RAFT, GOSSIP)) -> None:
        """Lose everything on these links."""
        self.network.cut("cut", pairs, planes)

    def mend(self) -> None:
        """Undo all that was done to links."""
        self.network.heal()


@contextmanager
def staged(seed: int, size: int) -> Iterator[Stage]:
    """A cluster that orders already; afterwards it heals, settles, and is compared."""
    with memory_installed():
        stage = Stage(seed, size)
        stage.cluster.start()
        stage.clients.start()
        stage.wait_leader()
        stage.wait_acknowledged(3, 20 + 10 * stage.election_s)
        yield stage
        stage.mend()
        for node in stage.nodes:
            if node.is_paused:
                node.resume()
            check(node.is_up or node.start(), f"{node} does not start: {node.refusals}")
        finish(stage.world, stage.cluster, stage.clients)


def hold(kinds: tuple[str, ...], seeds: tuple[int, ...] = SEEDS) -> Counter[str]:
    """Seeds with these kinds of fault alone; each strikes, and what else happened is counted."""
    struck: Counter[str] = Counter()
    for seed in seeds:
        outcome = run_seed(seed, kinds=kinds)
        assert not outcome.failure, f"seed {seed} with {kinds}: {outcome.failure}"
        assert outcome.is_counted
        struck.update(outcome.struck)
    assert not [kind for kind in kinds if not struck[kind]], struck
    return struck
