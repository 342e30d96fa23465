"""Faults of clocks: wall clocks that step, strobe or run years ahead, and rates that are off."""

from collections.abc import Callable
from typing import Final

from tests.sim.node import Node
from tests.sim.storm import Storm
from tests.sim.world import SECOND

_HOUR_MS: Final = 3_600_000
_TEN_YEARS_MS: Final = 10 * 365 * 24 * _HOUR_MS


def _set_for_a_while(storm: Storm, node: Node, offset_ms: int) -> None:
    storm.struck()
    node.clock.set(offset_ms)
    storm.cluster.note_clocks()
    storm.later(storm.duration(5), lambda: node.clock.set(0))


def _jump(storm: Storm) -> None:
    """A step by up to an hour, on any node at any time: a majority may be off at once."""
    offset_ms = storm.random.choice((-_HOUR_MS, -6000, -4000, -10, 10, 4000, 6000, _HOUR_MS))
    _set_for_a_while(storm, storm.victim(), offset_ms)


def _is_minority(storm: Storm, node: Node) -> bool:
    """Whether no more than a minority is off, or is remembered as being off, with this one."""
    others = [other for other in storm.cluster.nodes if other is not node]
    wrong = sum(not storm.cluster.is_clock_trusted(other) for other in others)
    # Who votes may change while the clock is off.
    return wrong < (1 if storm.cluster.has_changes else storm.cluster.minority)


def _jump_years(storm: Storm) -> None:
    """Ten years: in a block, this would let everything expire for ten years."""
    node = storm.victim()
    if _is_minority(storm, node):
        _set_for_a_while(storm, node, storm.random.choice((-1, 1)) * _TEN_YEARS_MS)


def _strobe(storm: Storm) -> None:
    """A clock that is right and wrong in turn, every few tenths of a second."""
    node = storm.victim()
    if not _is_minority(storm, node):
        return
    offset_ms = storm.random.choice((-_HOUR_MS, 7000, _HOUR_MS, _TEN_YEARS_MS))
    storm.struck()
    delay = 0
    for _ in range(storm.random.randint(5, 15)):
        for value in (offset_ms, 0):
            delay += storm.random.randint(50, 500) * SECOND // 1000
            storm.later(delay, _setting(storm, node, value))


def _setting(storm: Storm, node: Node, offset_ms: int) -> Callable[[], None]:
    def set_clock() -> None:
        node.clock.set(offset_ms)
        storm.cluster.note_clocks()

    return set_clock


def _drift(storm: Storm) -> None:
    node = storm.victim()
    storm.struck()
    node.clock_rate = storm.random.choice((500, 800, 1250, 2000))

    def back() -> None:
        node.clock_rate = 1000

    storm.later(storm.duration(5), back)


KINDS: Final[dict[str, Callable[[Storm], None]]] = {
    "clock jump": _jump,
    "clock years off": _jump_years,
    "clock strobe": _strobe,
    "clock rate": _drift,
}
