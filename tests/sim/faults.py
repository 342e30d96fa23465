"""What is done to a seed's nodes: the table of fault kinds, and who draws from it.

Each seed switches a random part of the kinds on (swarm), 20 or more. A kind strikes at random
moments, for a while; what it really did to somebody is counted where it happens, under the kind's
name.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import Final

from tests.sim import (
    faults_clock,
    faults_disk,
    faults_members,
    faults_network,
    faults_people,
    faults_pruning,
)
from tests.sim.clients import Clients
from tests.sim.cluster import Cluster
from tests.sim.storm import Storm
from tests.sim.world import SECOND, World

Fault = Callable[[Storm], None]
_DRAWN: Final[dict[str, Fault]] = {
    **faults_network.KINDS,
    **faults_disk.KINDS,
    **faults_people.KINDS,
    **faults_members.KINDS,
    **faults_clock.KINDS,
}
KINDS: Final = {**_DRAWN, **faults_pruning.KINDS}
"""Every kind of fault by its name; the order is part of what a seed means."""
DRAWN_MIN: Final = 20
"""How many kinds every seed draws at least."""
_COUNTS: Final = (DRAWN_MIN, 26, 32)
_CHANGING: Final = frozenset({"wiped", *faults_members.KINDS})
_WILD: Final = frozenset({"clock years off", "clock strobe"})


class Nemesis:
    """Draws a seed's kinds of fault, and lets them strike until it is told to stop.

    `kinds` are those of a scenario, which needs them to strike often.
    """

    def __init__(
        self, cluster: Cluster, clients: Clients, kinds: Sequence[str] | None = None
    ) -> None:
        self.storm = Storm(cluster, clients)
        self._random = cluster.world.random("nemesis")
        self.kinds = _draw(self._random)
        self._gap = self._random.choice((1, 2, 4)) * SECOND
        if kinds is not None:
            self.kinds, self._gap = list(kinds), SECOND
        else:
            self.kinds += self._draw_pruning(cluster.world)
        cluster.has_changes = not _CHANGING.isdisjoint(self.kinds)
        # Few voters may be without a quorum of right clocks, where clocks are far off.
        is_tame = _WILD.isdisjoint(self.kinds)
        cluster.operator.voters_min = 1 if is_tame and self._random.random() < 0.5 else 3
        if cluster.has_changes:
            cluster.keep_all()
        self._is_on = True

    @staticmethod
    def _draw_pruning(world: World) -> list[str]:
        """By draws of their own, beside the twenty: half of the seeds keep every block."""
        random = world.random("nemesis of bases")
        if random.random() < 0.5:
            return []
        return ["pruned", *(name for name in faults_pruning.KINDS if random.random() < 0.7)]

    def begin(self) -> None:
        """Strike from here on."""
        self._wait()

    def _wait(self) -> None:
        self.storm.world.after(int(self._random.expovariate(1 / self._gap)), self._strike)

    def _strike(self) -> None:
        if not self._is_on:
            return
        if self.kinds:
            kind = self._random.choice(self.kinds)
            self.storm.kind = kind
            self.storm.world.note("fault", list(KINDS).index(kind), text=kind)
            KINDS[kind](self.storm)
        self._wait()

    def end(self) -> None:
        """No fault from here on; what was done is undone and everybody starts anew."""
        self._is_on = False
        self.storm.heal()


def _draw(random: Random) -> list[str]:
    """Draw at least `DRAWN_MIN` kinds.

    Almost all of those would change who orders, and have a clock that is far off; some seeds go
    without, for in them the checkers ask more.
    """
    absent: set[str] = set()
    if random.random() < 0.4:
        absent |= _CHANGING
    if random.random() < 0.6:
        absent |= _WILD
    among = [name for name in _DRAWN if name not in absent]
    drawn = {*random.sample(among, random.choice(_COUNTS))}
    return [name for name in among if name in drawn]
