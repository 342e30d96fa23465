"""Faults of the network: messages lost, doubled, late, out of order; links cut and clogged."""

from collections.abc import Callable, Sequence
from typing import Final

from tests.sim.network import GOSSIP, RAFT
from tests.sim.storm import Storm
from tests.sim.world import SECOND

Pairs = list[tuple[int, int]]
_BOTH: Final = (RAFT, GOSSIP)


def _some_links(storm: Storm) -> Pairs:
    """All links, or those from and to one node, or a random part."""
    pairs = storm.network.pairs()
    way = storm.random.randrange(3)
    if way == 0:
        return pairs
    if way == 1:
        number = storm.victim().number
        return [pair for pair in pairs if number in pair]
    return [pair for pair in pairs if storm.random.random() < 0.4]


def _disturb(storm: Storm, field: str, value: int) -> None:
    """Set `field` of some links, for a while."""
    pairs = _some_links(storm)

    def put(amount: int) -> None:
        for plane in _BOTH:
            for a, b in pairs:
                link = storm.network.links[plane][a][b]
                setattr(link, field, amount)
                link.settle()

    put(value)
    storm.later(storm.duration(3), lambda: put(0))


def _lose(storm: Storm) -> None:
    _disturb(storm, "loss", storm.random.randint(10, 400))


def _double(storm: Storm) -> None:
    _disturb(storm, "duplication", storm.random.randint(20, 500))


def _delay(storm: Storm) -> None:
    _disturb(storm, "delay", storm.random.randint(1, 200) * SECOND // 1000)


def _reorder(storm: Storm) -> None:
    _disturb(storm, "delay", storm.random.randint(1, 50) * SECOND // 1000)
    _disturb(storm, "reorder", storm.random.randint(100, 900))


def _cut(storm: Storm, pairs: Pairs, planes: tuple[int, ...] = _BOTH, mean_s: float = 3) -> None:
    kind = storm.kind
    storm.network.cut(kind, pairs, planes)
    storm.later(storm.duration(mean_s), lambda: storm.network.mend(kind, pairs, planes))


def _cut_one_way(storm: Storm) -> None:
    number = storm.victim().number
    is_mute = storm.random.random() < 0.5
    pairs = [p for p in storm.network.pairs() if p[0 if is_mute else 1] == number]
    if storm.random.random() < 0.5:
        pairs = [storm.random.choice(pairs)]
    _cut(storm, pairs)


def _isolate(storm: Storm) -> None:
    number = storm.victim().number
    _cut(storm, [pair for pair in storm.network.pairs() if number in pair])


def _halve(storm: Storm) -> None:
    sides = [storm.random.randrange(2) for _ in range(storm.network.size)]
    _cut(storm, [(a, b) for a, b in storm.network.pairs() if sides[a] != sides[b]])


def _bridge(storm: Storm) -> None:
    numbers = list(range(storm.network.size))
    storm.random.shuffle(numbers)
    middle, rest = numbers[0], numbers[1:]
    left = rest[: len(rest) // 2]
    pairs = storm.network.pairs()
    _cut(storm, [p for p in pairs if middle not in p and (p[0] in left) != (p[1] in left)])


def ring(numbers: Sequence[int], *, is_one_way: bool) -> Pairs:
    """What to cut so that each of `numbers` is left with its neighbours, a majority with itself.

    One way: each is heard by a majority and hears one, but hardly anybody answers.
    """
    size = len(numbers)
    places = [(a, b, (b - a) % size) for a in range(size) for b in range(size) if a != b]
    if is_one_way:
        return [(numbers[a], numbers[b]) for a, b, far in places if far > max(1, size // 2)]
    side = max(1, size // 4 + size % 4 // 2)
    return [(numbers[a], numbers[b]) for a, b, far in places if side < far < size - side]


def _ring(storm: Storm) -> None:
    """Everybody hears a majority, no two the same one."""
    numbers = list(range(storm.network.size))
    storm.random.shuffle(numbers)
    pairs = ring(numbers, is_one_way=storm.random.random() < 0.5)
    _cut(storm, pairs or [(numbers[0], numbers[1]), (numbers[1], numbers[0])])


def _cut_raft(storm: Storm) -> None:
    number = storm.victim().number
    _cut(storm, [p for p in storm.network.pairs() if number in p], (RAFT,))


def _cut_gossip(storm: Storm) -> None:
    _cut(storm, storm.network.pairs(), (GOSSIP,))


def _flap(storm: Storm) -> None:
    """A node's links go and come every few tenths of a second."""
    number, kind = storm.victim().number, storm.kind
    pairs = [pair for pair in storm.network.pairs() if number in pair]
    delay = 0
    for _ in range(storm.random.randint(4, 12)):
        delay += storm.random.randint(100, 500) * SECOND // 1000
        storm.later(delay, lambda: storm.network.cut(kind, pairs, _BOTH))
        delay += storm.random.randint(100, 500) * SECOND // 1000
        storm.later(delay, lambda: storm.network.mend(kind, pairs, _BOTH))


def _swizzle(storm: Storm) -> None:
    """Clog the nodes one by one, and let them go in another order (as FoundationDB does)."""
    numbers = [n for n in range(storm.network.size) if storm.random.random() < 0.7]
    storm.random.shuffle(numbers)
    kind = storm.kind
    spans: dict[int, Pairs] = {
        n: [pair for pair in storm.network.pairs() if n in pair] for n in numbers
    }
    delay = 0
    for number in numbers:
        delay += storm.duration(0.2)
        storm.later(delay, _clogging(storm, kind, spans[number]))
    storm.random.shuffle(numbers)
    delay += storm.duration(1)
    for number in numbers:
        delay += storm.duration(0.2)
        storm.later(delay, _unclogging(storm, kind, spans[number]))


def _clogging(storm: Storm, kind: str, pairs: Pairs) -> Callable[[], None]:
    return lambda: storm.network.clog(kind, pairs)


def _unclogging(storm: Storm, kind: str, pairs: Pairs) -> Callable[[], None]:
    return lambda: storm.network.unclog(kind, pairs)


def _clog(storm: Storm) -> None:
    """Some links hold everything for a while, then deliver it, old terms and all."""
    pairs = _some_links(storm)
    storm.network.clog(storm.kind, pairs)
    storm.later(storm.duration(2), _unclogging(storm, storm.kind, pairs))


KINDS: Final[dict[str, Callable[[Storm], None]]] = {
    "loss": _lose,
    "duplication": _double,
    "delay": _delay,
    "reorder": _reorder,
    "one way cut": _cut_one_way,
    "isolation": _isolate,
    "halves": _halve,
    "bridge": _bridge,
    "ring": _ring,
    "raft cut": _cut_raft,
    "gossip cut": _cut_gossip,
    "flapping": _flap,
    "swizzle clog": _swizzle,
    "clog": _clog,
}
