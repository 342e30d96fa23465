"""Who is connected with whom, and what the wires between them do to the bytes.

A connection is what libp2p makes of one TCP socket: several streams, each in order and without
loss for as long as the connection lives. A direction that is cut holds everything back (TCP
sends it again) until it is healed, or until one side has not heard the other for so long that
it gives up. A connection that ends takes with it what was on its way.

Raft and gossip stand on less than that: a way can be made to lose their messages, bring them twice
or let one pass another, as happens between connections that break and are made again.
"""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations
from random import Random
from typing import TYPE_CHECKING, Final

from tests.virtual.world import World

if TYPE_CHECKING:
    from tests.virtual.network import End, VirtualNetwork

UNSURE: Final = frozenset({"control", "bulk", "gossip"})
"""Streams of single messages, none of which need arrive: whoever sends them asks or sends again."""
_RESEND_S = 0.2
_DIAL_S = 1.0


@dataclass(slots=True)
class Way:
    """One direction between two nodes; `cuts` counts the faults that hold it shut."""

    latency_s: float
    cuts: int = 0
    extra_s: float = 0.0
    bytes_per_s: float = 0.0
    free_s: float = 0.0
    # The shares of messages of UNSURE streams that are lost, come twice, pass the one before.
    lost: float = 0.0
    twice: float = 0.0
    passing: float = 0.0


@dataclass(slots=True)
class Pipe:
    """One stream of a connection in one direction: what is on its way, in order."""

    way: Way
    receiver: "End"
    stream: str
    flying: deque[tuple[float, bytes]] = field(default_factory=deque)
    size: int = 0
    due_s: float = 0.0


class Wires:
    """All ways between the nodes of a seed, and the connections on them."""

    def __init__(self, world: World, names: tuple[str, ...], latency_s: float) -> None:
        self.world = world
        self.random: Random = world.random("wires")
        self.latency_s = latency_s
        self.networks: dict[str, VirtualNetwork] = {}
        self.messages = 0
        self.gossip_loss = 0.0
        self.struck: Counter[str] = Counter()
        self._ways = {
            (one, other): Way(latency_s) for one in names for other in names if one != other
        }
        self._dialling: set[frozenset[str]] = set()
        self._names = names

    def way(self, one: str, other: str) -> Way:
        """The direction from `one` to `other`."""
        return self._ways[(one, other)]

    def ways(self, *, to: str | None = None, of: str | None = None) -> Iterator[Way]:
        """All directions that lead to, or away from, a node."""
        for (one, other), way in self._ways.items():
            if to in (None, other) and of in (None, one):
                yield way

    def cut(self, way: Way) -> None:
        """Shut a direction; it opens when every cut is healed."""
        way.cuts += 1

    def heal(self, way: Way) -> None:
        """Undo one cut: what was held back comes a little later, in its order."""
        assert way.cuts > 0
        way.cuts -= 1
        if way.cuts:
            return
        for pipe in self._pipes(way):
            self.world.after(self.random.uniform(0, _RESEND_S), self._arrive, pipe)
        self.look_around()

    def speed_up(self, way: Way) -> None:
        """A slow direction is fast again: what piled up in front of it comes at once."""
        way.bytes_per_s = way.free_s = 0.0
        for pipe in self._pipes(way):
            pipe.due_s = self.world.now
            pipe.flying = deque((pipe.due_s, data) for _, data in pipe.flying)
            self.world.after(0.0, self._arrive, pipe)

    def _pipes(self, way: Way) -> list[Pipe]:
        ends = [end for network in self.networks.values() for end in network.ends]
        return [pipe for end in ends for pipe in end.pipes.values() if pipe.way is way]

    def join(self, network: "VirtualNetwork") -> None:
        """A node listens and dials."""
        self.networks[network.own] = network
        self.look_around()

    def leave(self, network: "VirtualNetwork") -> None:
        """A node is gone; its connections end."""
        if self.networks.get(network.own) is network:
            del self.networks[network.own]

    def look_around(self) -> None:
        """Dial wherever a connection is missing."""
        for one, other in combinations(self._names, 2):
            pair = frozenset((one, other))
            if pair not in self._dialling and self._is_missing(one, other):
                self._dialling.add(pair)
                delay_s = self.random.uniform(0.01, _DIAL_S)
                self.world.after(delay_s, self._dial, one, other)

    def _is_missing(self, one: str, other: str) -> bool:
        networks = self.networks
        if one not in networks or other not in networks:
            return False
        if not (networks[one].is_allowed(other) and networks[other].is_allowed(one)):
            return False
        return other not in networks[one].active or one not in networks[other].active

    def _dial(self, one: str, other: str) -> None:
        self._dialling.discard(frozenset((one, other)))
        if not self._is_missing(one, other):
            return
        first, second = self.networks[one], self.networks[other]
        is_shut = self.way(one, other).cuts or self.way(other, one).cuts
        if is_shut or first.is_paused or second.is_paused:
            # A cut that is healed looks around; a pause that ends likewise.
            return
        first.connect(second)

    def send(self, pipe: Pipe, data: bytes) -> None:
        """Put a message on its way; where its stream and way are unsure, not always once."""
        way = pipe.way
        if pipe.stream in UNSURE:
            if self._strikes("lost", way.lost):
                return
            if self._strikes("twice", way.twice):
                self._send(pipe, data)
        self._send(pipe, data)
        if pipe.stream in UNSURE and len(pipe.flying) > 1 and self._strikes("passed", way.passing):
            (early_s, one), (late_s, other) = pipe.flying[-2], pipe.flying[-1]
            pipe.flying[-2], pipe.flying[-1] = (early_s, other), (late_s, one)

    def _strikes(self, what: str, share: float) -> bool:
        # Ways that are sure draw nothing, and leave the course of every seed as it is.
        is_so = share > 0 and self.random.random() < share
        self.struck[what] += is_so
        return is_so

    def _send(self, pipe: Pipe, data: bytes) -> None:
        world, way = self.world, pipe.way
        self.messages += 1
        pipe.size += len(data)
        delay_s = way.latency_s * self.random.uniform(0.5, 1.5)
        if way.extra_s:
            delay_s += self.random.expovariate(1 / way.extra_s)
        if way.bytes_per_s:
            way.free_s = max(way.free_s, world.now) + len(data) / way.bytes_per_s
            delay_s += way.free_s - world.now
        pipe.due_s = max(pipe.due_s, world.now + delay_s)
        pipe.flying.append((pipe.due_s, data))
        world.at(pipe.due_s, self._arrive, pipe)

    def _arrive(self, pipe: Pipe) -> None:
        while pipe.flying and pipe.flying[0][0] <= self.world.now and not pipe.way.cuts:
            _, data = pipe.flying.popleft()
            pipe.size -= len(data)
            pipe.receiver.arrive(pipe.stream, data)
