"""The network of a seed: links with two planes, each message lost, doubled, held or late.

The raft plane has two lanes (appends, and the rest), each in order unless reordering is on; the
gossip plane carries transactions. A link is one direction; what is done to it is counted under
the name of the fault when it really strikes a message.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from tests.sim.world import World

RAFT: Final = 0
GOSSIP: Final = 1


@dataclass(slots=True)
class Link:
    """One direction between two nodes, on one plane; times in microseconds, shares in 1/1000."""

    loss: int = 0
    duplication: int = 0
    reorder: int = 0
    delay: int = 0
    cuts: list[str] = field(default_factory=list)
    clogs: list[str] = field(default_factory=list)
    held: list[tuple[int, Callable[[], None]]] = field(default_factory=list)
    last_arrival: list[int] = field(default_factory=lambda: [0, 0])
    is_quiet: bool = True

    def settle(self) -> None:
        """Note whether anything is done to this link at all."""
        self.is_quiet = not (
            self.loss or self.duplication or self.reorder or self.delay or self.cuts or self.clogs
        )


class SimulatedNetwork:
    """All links between `size` nodes, which may grow to `size_max`, on two planes."""

    def __init__(self, world: World, size: int, size_max: int, latency: int) -> None:
        self._world = world
        self._random = world.random("network")
        self._latency = latency
        self.size = size
        ends = range(size_max)
        self.links = [[[Link() for _ in ends] for _ in ends] for _ in (RAFT, GOSSIP)]
        self.sent = 0

    def pairs(self) -> list[tuple[int, int]]:
        """Every direction between two nodes."""
        return [(a, b) for a in range(self.size) for b in range(self.size) if a != b]

    def send(
        self, plane: int, lane: int, sender: int, receiver: int, deliver: Callable[[], None]
    ) -> bool:
        """Carry one message; False when its connection is cut."""
        self.sent += 1
        link = self.links[plane][sender][receiver]
        arrival = self._world.now + self._latency + int(self._random.random() * self._latency)
        if link.is_quiet:
            # In order within the lane, as bytes on a stream are.
            arrival = max(arrival, link.last_arrival[lane])
            link.last_arrival[lane] = arrival
            self._world.after(arrival - self._world.now, self._arrive, link, deliver)
            return True
        return self._send_disturbed(link, lane, arrival, deliver)

    def _send_disturbed(
        self, link: Link, lane: int, arrival: int, deliver: Callable[[], None]
    ) -> bool:
        random, struck = self._random, self._world.struck
        if link.cuts:
            struck[link.cuts[-1]] += 1
            return False
        if random.random() * 1000 < link.loss:
            struck["loss"] += 1
            return True
        copies = 1
        if random.random() * 1000 < link.duplication:
            struck["duplication"] += 1
            copies = 2
        for _ in range(copies):
            due = arrival
            if link.delay:
                struck["delay"] += 1
                due += int(random.expovariate(1 / link.delay))
            if random.random() * 1000 < link.reorder or copies == 2:
                if due < link.last_arrival[lane]:
                    struck["reorder"] += 1
            else:
                due = max(due, link.last_arrival[lane])
                link.last_arrival[lane] = due
            self._world.after(due - self._world.now, self._arrive, link, deliver)
        return True

    def _arrive(self, link: Link, deliver: Callable[[], None]) -> None:
        if not link.is_quiet:
            if link.cuts:
                self._world.struck[link.cuts[-1]] += 1
                return
            if link.clogs:
                self._world.struck[link.clogs[-1]] += 1
                link.held.append((self._world.now, deliver))
                return
        deliver()

    def cut(self, kind: str, pairs: list[tuple[int, int]], planes: tuple[int, ...]) -> None:
        """Lose everything on these links."""
        for plane in planes:
            for a, b in pairs:
                link = self.links[plane][a][b]
                link.cuts.append(kind)
                link.settle()

    def mend(self, kind: str, pairs: list[tuple[int, int]], planes: tuple[int, ...]) -> None:
        """Undo one `cut`."""
        for plane in planes:
            for a, b in pairs:
                link = self.links[plane][a][b]
                if kind in link.cuts:
                    link.cuts.remove(kind)
                link.settle()

    def clog(self, kind: str, pairs: list[tuple[int, int]]) -> None:
        """Hold everything on these links of the raft plane."""
        for a, b in pairs:
            link = self.links[RAFT][a][b]
            link.clogs.append(kind)
            link.settle()

    def unclog(self, kind: str, pairs: list[tuple[int, int]]) -> None:
        """Undo one `clog`: what was held goes on, in order."""
        for a, b in pairs:
            link = self.links[RAFT][a][b]
            if kind in link.clogs:
                link.clogs.remove(kind)
            link.settle()
            if not link.clogs:
                held, link.held = link.held, []
                for _, deliver in held:
                    self._world.after(1, deliver)

    def heal(self) -> None:
        """Undo everything that is done to any link."""
        for plane in self.links:
            for a, row in enumerate(plane):
                for b, link in enumerate(row):
                    link.loss = link.duplication = link.reorder = link.delay = 0
                    link.cuts.clear()
                    while link.clogs:
                        self.unclog(link.clogs[0], [(a, b)])
                    link.settle()
