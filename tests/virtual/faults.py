"""What is done to a seed's nodes: a table of fault kinds, and the storm that draws from it.

Each seed switches a random part of the kinds on (swarm). A kind strikes at random moments, for
a while; it is counted when it hits somebody.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final

from tests.virtual.clients import Clients
from tests.virtual.cluster import Cluster
from tests.virtual.host import Host, disk_failed, disk_full
from tests.virtual.operator import Operator
from tests.virtual.wires import Way

_STEPS_MAX: Final = 400
KILL_POINTS: Final = (
    "before append",
    "after append",
    "before vote",
    "after vote",
    "before commit",
    "after commit",
    "before apply_blocks",
    "after apply_blocks",
    "before write",
    "after write",
    "before send AppendAnswer",
    "before send VoteAnswer",
    "before send Append",
)
PRUNE_POINTS: Final = (
    "before begin",
    "after begin",
    "after base_records",
    "after add",
    "before finish",
    "after finish",
    "before publish",
    "after publish",
    "before remove_files",
    "after remove_files",
    "before prune",
    "after prune",
)
"""In the order in which they are passed (`node/pruning.py`, `node/base_fetch.py`)."""
_CLOCK_STEPS_MS: Final = (-3_600_000, -10_000, 3000, 10_000, 3_600_000)


class Storm:
    """The seed as its faults see it."""

    def __init__(
        self, cluster: Cluster, clients: Clients, changes: Mapping[str, "Fault"] | None = None
    ) -> None:
        """`changes` strike as often as all faults together do.

        So does what leaves a node behind where blocks are pruned.
        """
        self.cluster = cluster
        self.clients = clients
        self.operator = Operator(cluster)
        self.world = cluster.world
        self.wires = cluster.wires
        self.random = self.world.random("storm")
        self.kind = ""
        self.is_over = False
        self._undo: dict[int, Callable[[], None]] = {}
        self._number = 0
        share = self.random.choice((0.15, 0.3, 0.6))
        drawn = [name for name in KINDS if self.random.random() < share]
        behind = LEFT_BEHIND if cluster.is_pruning else {}
        self._tables = [{name: KINDS[name] for name in drawn}, changes or {}, behind]
        self._gap_s = self.random.choice((0.4, 0.8, 2.0))

    def begin(self) -> None:
        """Strike from here on."""
        for table in self._tables:
            if table:
                self._begin(table)

    def _begin(self, table: Mapping[str, "Fault"]) -> None:
        self.world.after(self.random.expovariate(1 / self._gap_s), self._strike, table)

    def _strike(self, table: Mapping[str, "Fault"]) -> None:
        if not self.is_over:
            self.kind = self.random.choice(list(table))
            self.world.note("fault", self.kind)
            table[self.kind](self)
            self._begin(table)

    def end(self) -> None:
        """No fault from here on; what was done is undone, and every node runs again."""
        self.is_over = True
        self.world.note("heal")
        while self._undo:
            self._undo_one(next(iter(self._undo)))
        for host in self.cluster.hosts:
            host.forgive()

    def struck(self) -> None:
        """The fault hit somebody."""
        self.world.struck[self.kind] += 1

    def duration(self, mean_s: float) -> float:
        """How long a fault lasts."""
        return self.random.expovariate(1 / mean_s)

    def later(self, delay_s: float, undo: Callable[[], None]) -> None:
        """Undo something after a while, or when the storm ends."""
        self._number += 1
        self._undo[self._number] = undo
        self.world.after(delay_s, self._undo_one, self._number)

    def _undo_one(self, number: int) -> None:
        undo = self._undo.pop(number, None)
        if undo is not None:
            undo()

    def victim(self) -> Host | None:
        """A node that runs and is not paused; often the leader."""
        leader = self.cluster.leader()
        host = leader if leader is not None and self.random.random() < 0.4 else None
        host = host or self.random.choice(self.cluster.hosts)
        return host if host.is_up and not host.is_paused else None

    def start_later(self, host: Host, mean_s: float = 1.0) -> None:
        """Start a node that is about to end; however long that takes."""
        self.later(self.duration(mean_s), partial(self.start, host))

    def start(self, host: Host) -> None:
        """Start a node, once it has ended."""
        if host.ended.is_set():
            self.cluster.start(host)
        elif not self.is_over and (not host.is_up or host.is_dead):
            self.start_later(host)

    def shut(self, ways: Iterable[Way], mean_s: float = 1.5) -> None:
        """Cut directions for a while."""
        chosen = list(ways)
        for way in chosen:
            self.wires.cut(way)
            self.later(self.duration(mean_s), partial(self.wires.heal, way))
        if chosen:
            self.struck()

    def both_ways(self, host: Host) -> list[Way]:
        """All directions to and from a node."""
        return [*self.wires.ways(to=host.name), *self.wires.ways(of=host.name)]

    def pair(self) -> tuple[str, str]:
        """Two nodes, by name."""
        one, other = self.random.sample(self.cluster.names, 2)
        return one, other


# -- wires -------------------------------------------------------------------------------------


def _cut_pair(storm: Storm) -> None:
    one, other = storm.pair()
    storm.shut([storm.wires.way(one, other), storm.wires.way(other, one)])


def _cut_one_way(storm: Storm) -> None:
    storm.shut([storm.wires.way(*storm.pair())])


def _isolate_leader(storm: Storm) -> None:
    leader = storm.cluster.leader()
    if leader is not None:
        storm.shut(storm.both_ways(leader), 2.5)


def _deafen(storm: Storm) -> None:
    host = storm.victim()
    if host is not None:
        storm.shut(storm.wires.ways(to=host.name))


def _silence(storm: Storm) -> None:
    host = storm.victim()
    if host is not None:
        storm.shut(storm.wires.ways(of=host.name))


def _halves(storm: Storm) -> None:
    names = list(storm.cluster.names)
    storm.random.shuffle(names)
    size = storm.random.randint(1, len(names) - 1)
    left, right = names[:size], names[size:]
    way = storm.wires.way
    storm.shut([w for one in left for other in right for w in (way(one, other), way(other, one))])


def _flap(storm: Storm) -> None:
    ways = [storm.wires.way(*storm.pair())]
    for number in range(5):
        storm.world.after(number * 0.3, storm.shut, ways, 0.1)


def _reset(storm: Storm) -> None:
    host = storm.victim()
    if host is None:
        return
    ends = host.parts.network.ends  # type: ignore[attr-defined]  # it is the virtual one
    if ends:
        storm.random.choice(ends).close("reset")
        storm.struck()


def _delay(storm: Storm) -> None:
    extra_s = storm.random.choice((0.01, 0.05, 0.3))
    one, other = storm.pair()
    way = storm.wires.way(one, other)
    way.extra_s += extra_s

    def undo() -> None:
        way.extra_s = max(0.0, way.extra_s - extra_s)

    storm.later(storm.duration(3), undo)
    storm.struck()


def _slow_link(storm: Storm) -> None:
    way = storm.wires.way(*storm.pair())
    way.bytes_per_s = storm.random.choice((8000.0, 30_000.0))
    storm.later(storm.duration(3), partial(storm.wires.speed_up, way))
    storm.struck()


def _lose_gossip(storm: Storm) -> None:
    storm.wires.gossip_loss = storm.random.choice((0.3, 1.0))
    storm.later(storm.duration(3), partial(setattr, storm.wires, "gossip_loss", 0.0))
    storm.struck()


# -- nodes -------------------------------------------------------------------------------------


def _kill(storm: Storm) -> None:
    host = storm.victim()
    if host is not None:
        host.kill()
        storm.start_later(host)
        storm.struck()


def _lose_power(storm: Storm) -> None:
    host = storm.victim()
    if host is not None:
        host.kill(is_silent=True)
        storm.start_later(host)
        storm.struck()


def _kill_at_step(storm: Storm) -> None:
    host = storm.victim()
    if host is not None:
        host.kill_in_steps = storm.random.randint(1, _STEPS_MAX)
        storm.start_later(host, 3.0)
        storm.struck()


def _kill_at_point(storm: Storm) -> None:
    host = storm.victim()
    if host is not None:
        points = PRUNE_POINTS if storm.cluster.is_pruning else ()
        host.kill_at = storm.random.choice((*KILL_POINTS, *points))
        storm.later(storm.duration(6), partial(_start_again, storm, host))
        storm.struck()


def _start_again(storm: Storm, host: Host) -> None:
    host.kill_at = ""
    storm.start_later(host, 0.1)


def _kill_all(storm: Storm) -> None:
    for host in storm.cluster.hosts:
        host.kill()
        storm.start_later(host, 0.3)
    storm.struck()


def _leave_behind(storm: Storm) -> None:
    """Away for so long that the others prune what it lacks; one at a time."""
    host = storm.victim()
    if host is not None and all(other.is_up for other in storm.cluster.hosts):
        host.kill()
        storm.later(storm.random.uniform(1, 5), partial(storm.start, host))
        storm.struck()


def _stop(storm: Storm) -> None:
    host = storm.victim()
    if host is not None:
        nursery = storm.cluster.nursery
        assert nursery is not None
        nursery.start_soon(host.stop)
        storm.start_later(host)
        storm.struck()


def _pause(storm: Storm) -> None:
    host = storm.victim()
    if host is not None:
        host.pause()
        storm.later(storm.duration(1.5), host.resume)
        storm.struck()


def _stutter(storm: Storm) -> None:
    host = storm.victim()
    if host is None:
        return

    def pause() -> None:
        # What would wake it is done early once the storm is over.
        if not storm.is_over:
            host.pause()

    for number in range(10):
        storm.world.after(number * 0.15, pause)
        storm.later(number * 0.15 + storm.random.uniform(0.01, 0.14), host.resume)
    storm.struck()


def _transfer(storm: Storm) -> None:
    leader = storm.cluster.leader()
    nursery = storm.cluster.nursery
    if leader is not None and nursery is not None:
        voters = storm.operator.hosts_in(storm.operator.state.sets.voters)
        target = storm.random.choice([None, *(host.name for host in voters)])
        nursery.start_soon(storm.clients.transfer, leader, target)
        storm.struck()


def _forget(table: dict[str, Any], key: str) -> None:
    table.pop(key, None)


# -- disks and clocks --------------------------------------------------------------------------


def _slow_disk(storm: Storm) -> None:
    host = storm.victim()
    if host is None:
        return
    thread = storm.random.choice(("log", "views", "outbox", "reader", "worker"))
    host.slow_s[thread] = storm.random.choice((0.02, 0.3))
    storm.later(storm.duration(3), partial(_forget, host.slow_s, thread))
    storm.struck()


def _full_disk(storm: Storm) -> None:
    host = storm.victim()
    if host is None:
        return
    point = storm.random.choice(("before write", "before apply_blocks"))
    host.failing[point] = disk_full
    storm.later(storm.duration(2), partial(_forget, host.failing, point))


def _bad_disk(storm: Storm) -> None:
    host = storm.victim()
    if host is None:
        return
    point = storm.random.choice(("before append", "before vote", "before write", "after append"))
    host.failing[point] = disk_failed
    storm.later(storm.duration(2), partial(_mend_disk, storm, host, point))


def _mend_disk(storm: Storm, host: Host, point: str) -> None:
    host.failing.pop(point, None)
    storm.start_later(host, 0.5)


def _set_clock(storm: Storm) -> None:
    host = storm.victim()
    if host is not None:
        host.wall_offset_ms = storm.random.choice(_CLOCK_STEPS_MS)
        storm.later(storm.duration(4), partial(setattr, host, "wall_offset_ms", 0))
        storm.struck()


# -- people ------------------------------------------------------------------------------------


def _lose_answers(storm: Storm) -> None:
    storm.clients.answers_lost = storm.random.choice((0.3, 0.9))
    storm.later(storm.duration(3), partial(setattr, storm.clients, "answers_lost", 0.0))


def _everywhere_at_once(storm: Storm) -> None:
    storm.clients.copies = storm.random.choice((2, 5))
    storm.later(storm.duration(3), partial(setattr, storm.clients, "copies", 1))
    storm.struck()


Fault = Callable[[Storm], None]
KINDS: Final[dict[str, Fault]] = {
    "cut pair": _cut_pair,
    "cut one way": _cut_one_way,
    "isolate leader": _isolate_leader,
    "deafen": _deafen,
    "silence": _silence,
    "halves": _halves,
    "flap": _flap,
    "reset": _reset,
    "delay": _delay,
    "slow link": _slow_link,
    "lose gossip": _lose_gossip,
    "kill": _kill,
    "lose power": _lose_power,
    "kill at step": _kill_at_step,
    "kill at point": _kill_at_point,
    "kill all": _kill_all,
    "stop": _stop,
    "pause": _pause,
    "stutter": _stutter,
    "transfer": _transfer,
    "slow disk": _slow_disk,
    "full disk": _full_disk,
    "bad disk": _bad_disk,
    "set clock": _set_clock,
    "lose answers": _lose_answers,
    "everywhere at once": _everywhere_at_once,
}
"""Every kind of fault by its name; the order is part of what a seed means."""
LEFT_BEHIND: Final[dict[str, Fault]] = {"left behind": _leave_behind}
"""What makes a node of a city that prunes need a base of others."""
