"""What will strike, when, whom and for how long: drawn from a seed, and from nothing else."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from p2pcity.errors import ConfigError

NEMESES: Final[dict[str, str]] = {
    "kill": "SIGKILL of a node, of a minority, or of all at once; started again after a while",
    "term": "SIGTERM of a node, which must end with exit code 0; started again",
    "pause": "SIGSTOP and SIGCONT of a node; a container is frozen",
    "partition": "one node, or a minority, cut off both ways; sometimes all from all",
    "one-way": "a node that hears nothing, or is not heard",
    "flap": "a link between two nodes that comes and goes every 100 to 500 ms",
    "delay": "bytes between all nodes up to 100 ms late",
    "slow-link": "64 kbit/s to one node",
    "reset": "connections between two nodes reset again and again",
    "half-open": "connections of which only one end knows that they are over",
    "slow-disk": "each sync of a node takes 30 to 300 ms longer (strace)",
    "disk-full": "no room on a node's disk (tmpfs; needs root)",
    "clock": "a node's wall clock off by 2 s to 10 min, either way",
    "members": "a voter is demoted, and promoted again after a while",
}
"""Every nemesis and what it does."""

OPERATIONS: Final[dict[str, str]] = {
    "transfer": "the leader hands over to the orderer that is furthest",
    "replace": "a new node takes an orderer's place, which is removed and stopped",
}
"""What an operator does under load; strikes only where a scenario asks for it."""

_RELAYS: Final = "relays between the nodes"
ONLY_ON_ITS_OWN: Final[dict[str, str]] = {
    "delay": _RELAYS,
    "slow-link": _RELAYS,
    "reset": _RELAYS,
    "half-open": _RELAYS,
    "disk-full": "small disks",
    "clock": "another program around each node",
    "replace": "a new node",
}
"""What strikes only a network that the trial makes itself, and what that takes."""

CUTS: Final = ("partition", "one-way", "flap")
"""What cuts nodes off from each other."""

WAYS: Final = ("deaf", "mute")
"""The ways of one-way: a node that hears nothing, or one that is not heard."""

_SHORTEST_S: Final = 0.6
_LONGEST_S: Final = 4.0
_GAP_S: Final = (0.3, 1.2)
_PAIRED: Final = 0.3
PER_STRIKE_S: Final = 3.0
"""What a strike and the gap after it take in the mean."""


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault: begins `at_s` after the plan's start and lasts `lasts_s`.

    `target` is leader, follower, observer, any, or a node's name; `chance` is a number from 0 to
    1 from which the nemesis draws what else it needs. What is not drawn is said: `size`, how many
    nodes it must be (0: drawn), `by_s`, how much, `way`, deaf or mute; `until` is an event that
    ends it earlier when some node logs it. `nodes` are those that were found for a size.
    """

    nemesis: str
    at_s: float
    lasts_s: float
    target: str
    chance: float
    size: int = 0
    by_s: float | None = None
    way: str = ""
    until: str = ""
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Trial:
    """A network, the load on it, and what strikes it.

    `spares` are made and not started: they are for `replace`. Settings are `section.name`, for
    all nodes and then for single ones. `rate` is how many transactions a second the writers send
    at most, 0 as many as are answered. The load stays for `lasts_s` at least. With
    `strikes_again`, a nemesis that met nothing strikes a few times more.
    """

    seed: int
    plan: Sequence[Strike]
    names: Sequence[str]
    orderers: int = 3
    observers: int = 0
    spares: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    own_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    writers: int = 6
    batch: int = 16
    rate: float = 0.0
    lasts_s: float = 0.0
    strikes_again: bool = False

    @property
    def nodes(self) -> tuple[str, ...]:
        """All nodes' names: orderers, then observers, then spares."""
        return node_names(self.orderers + self.observers + self.spares)


def node_names(count: int) -> tuple[str, ...]:
    """Return the names of so many nodes."""
    return tuple(f"node{number}" for number in range(1, count + 1))


def draw(seed: int, names: Sequence[str], seconds: float) -> list[Strike]:
    """Return the strikes of a seed: every nemesis at least once, some two at a time.

    Raises ConfigError for an unknown name and for too short a time.
    """
    unknown = [name for name in names if name not in NEMESES]
    if unknown or not names:
        raise ConfigError(
            f"there is no nemesis {', '.join(unknown) or 'at all'}",
            remedy=f"Use one or more of {', '.join(NEMESES)}.",
        )
    chance = random.Random(f"p2pcity chaos {seed} {' '.join(sorted(set(names)))}")
    strikes: list[Strike] = []
    bag: list[str] = []
    now_s = 0.0

    def next_name(other_than: str = "") -> str:
        if not bag:
            bag.extend(sorted(set(names)))
            chance.shuffle(bag)
        at = next((i for i, name in enumerate(bag) if name != other_than), None)
        return "" if at is None else bag.pop(at)

    while True:
        lasts_s = chance.uniform(_SHORTEST_S, _LONGEST_S)
        if now_s + lasts_s > seconds:
            break
        name = next_name()
        strikes.append(_strike(chance, name, now_s, lasts_s))
        other = next_name(other_than=name) if chance.random() < _PAIRED else ""
        if other:
            # It begins while the first one lasts and goes on after it.
            strikes.append(_strike(chance, other, now_s + lasts_s / 2, lasts_s))
            lasts_s *= 1.5
        now_s += lasts_s + chance.uniform(*_GAP_S)
    missing = set(names) - {strike.nemesis for strike in strikes}
    if missing:
        raise ConfigError(
            f"{seconds:g} s are too short for {', '.join(sorted(missing))} to strike",
            remedy=f"Use --for {len(set(names)) * PER_STRIKE_S * 2:.0f}s, or fewer with --nemesis.",
        )
    return strikes


def draw_again(seed: int, names: Sequence[str], turn: int) -> list[Strike]:
    """Return one more strike each for nemeses that met nothing so far, one after the other."""
    chance = random.Random(f"p2pcity chaos {seed} again {turn} {' '.join(sorted(names))}")
    strikes, now_s = [], 0.0
    for name in names:
        lasts_s = chance.uniform(_LONGEST_S / 2, _LONGEST_S)
        strikes.append(_strike(chance, name, now_s, lasts_s))
        now_s += lasts_s + _GAP_S[1]
    return strikes


def _strike(chance: random.Random, name: str, at_s: float, lasts_s: float) -> Strike:
    target = chance.choice(("leader", "leader", "follower", "any"))
    return Strike(name, round(at_s, 3), round(lasts_s, 3), target, chance.random())
