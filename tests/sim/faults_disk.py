"""Faults of processes, machines and disks: crashes, lost power, failed syncs, flipped bits."""

from collections.abc import Callable, Sequence
from typing import Final

from p2pcity.ledger.records import MARK_RECORD_BYTES
from tests.sim.node import Node
from tests.sim.storm import Storm
from tests.sim.world import SECOND


def _crash(storm: Storm) -> None:
    node = storm.victim()
    if node.is_up:
        storm.struck()
        node.crash()
        storm.start_later(node, 1.5)


def _crash_all(storm: Storm) -> None:
    storm.struck()
    for node in storm.cluster.nodes:
        if node.is_up:
            node.crash()
            storm.start_later(node, 0.5)


def _crash_often(storm: Storm) -> None:
    """A restart storm: one node after the other, faster than elections."""
    delay = 0
    for _ in range(storm.random.randint(4, 10)):
        delay += storm.random.randint(200, 800) * SECOND // 1000
        storm.later(delay, _crashing(storm, storm.random.choice(storm.cluster.nodes)))


def _crashing(storm: Storm, node: Node) -> Callable[[], None]:
    def crash() -> None:
        if node.is_up and not storm.is_over:
            storm.world.struck["restart storm"] += 1
            node.crash()
            storm.start_later(node, 0.3)

    return crash


def _lose_power(storm: Storm) -> None:
    node = storm.victim()
    node.lose_power()
    storm.start_later(node, 1.5)


def _lose_power_all(storm: Storm) -> None:
    storm.struck()
    for node in storm.cluster.nodes:
        node.lose_power()
        storm.start_later(node, 0.5)


def _restart(storm: Storm) -> None:
    node = storm.victim_up()
    if node is not None:
        storm.struck()
        node.stop()
        storm.start_later(node, 0.3)


def _fail_sync(storm: Storm) -> None:
    """The next sync says EIO: the node must stop at once, and come back to its own."""
    node = storm.victim_up()
    if node is not None:
        node.disk.is_sync_failing = True
        storm.later(storm.duration(1), lambda: _sync_again(storm, node))


def _sync_again(storm: Storm, node: Node) -> None:
    node.disk.is_sync_failing = False
    if not node.is_up:
        # Sometimes the machine goes down as well, and with it what only the cache still had.
        if storm.random.random() < 0.5:
            node.lose_power()
        storm.start(node)


def _slow(storm: Storm, delay: int, mean_s: float) -> None:
    nodes = [storm.victim()] if storm.random.random() < 0.7 else storm.cluster.nodes
    for node in nodes:
        node.sync_delay, node.sync_delay_kind = delay, storm.kind

    def undo() -> None:
        for node in nodes:
            node.sync_delay = 0

    storm.later(storm.duration(mean_s), undo)


def _slow_sync(storm: Storm) -> None:
    _slow(storm, storm.random.randint(50, 400) * SECOND // 1000, 4)


def _hang_sync(storm: Storm) -> None:
    _slow(storm, storm.random.randint(2, 8) * SECOND, 0.5)


def _fill(storm: Storm) -> None:
    node = storm.victim()
    node.disk.is_full = True

    def empty() -> None:
        node.disk.is_full = False
        storm.start(node)

    storm.later(storm.duration(2), empty)


# One bit of a record that only this node has can be found again, two can't.
_APART_BYTES: Final = 256


def turn_bit_over(node: Node, place: float, bit: int, far_from: Sequence[int] = ()) -> int | None:
    """Damage a log at so much of its length, below a sync mark; where, in bytes from its start.

    None when it is too short, or this is not far from other damage.
    """
    # The newest mark of a file has none above it.
    sizes = {
        name: max(0, file.protected_size - MARK_RECORD_BYTES)
        for name, file in sorted(node.disk.names.items())
        if name.startswith("log/")
    }
    at = place_at = int(place * sum(sizes.values()))
    if any(abs(at - other) < _APART_BYTES for other in far_from):
        return None
    for name, size in sizes.items():
        if at < size:
            file = node.disk.names[name]
            file.cache[at] ^= 1 << bit
            file.disk[at] ^= 1 << bit
            node.is_corrupt = True
            return place_at
        at -= size
    return None


def _corrupt(storm: Storm) -> None:
    """Flip a bit below a sync mark, or several: the node must notice, and neither vote nor serve.

    It comes back by itself, with what others give it.
    """
    node = storm.victim()
    if node.is_corrupt or not storm.is_bad_disk_allowed() or not storm.operator.may_damage(node):
        return
    places: list[int] = []
    for _ in range(storm.random.choice((1, 1, 1, 2, 4))):
        at = turn_bit_over(node, storm.random.random(), storm.random.randrange(8), places)
        places += [] if at is None else [at]
    if not places:
        return
    if len(places) > 1:
        storm.world.struck["damage in several places"] += 1
    if storm.random.random() < 0.7:
        node.crash()
        storm.start(node)
    else:
        storm.later(storm.duration(4), lambda: _restart_one(storm, node))


def _restart_one(storm: Storm, node: Node) -> None:
    node.crash()
    storm.start(node)


def _wipe(storm: Storm) -> None:
    """A disk is lost for ever; its node is replaced like any other, or by and by."""
    node = storm.victim()
    disk = node.disk
    if node.is_corrupt or disk.is_full or disk.is_sync_failing:
        return  # No log could be made there.
    if not storm.operator.may_wipe(node):
        return
    storm.struck()
    node.wipe()
    storm.start(node)
    delay = 0
    for _ in range(8):
        delay += storm.duration(1.5)
        storm.later(delay, storm.operator.settle)


def _lose_views(storm: Storm) -> None:
    node = storm.victim()
    if node.views.applied_index:
        storm.struck()
        node.crash()
        node.lose_views()
        storm.start_later(node, 0.5)


KINDS: Final[dict[str, Callable[[Storm], None]]] = {
    "crash": _crash,
    "crash of all": _crash_all,
    "restart storm": _crash_often,
    "power loss": _lose_power,
    "power loss of all": _lose_power_all,
    "restart": _restart,
    "sync error": _fail_sync,
    "slow sync": _slow_sync,
    "hung sync": _hang_sync,
    "disk full": _fill,
    "corruption": _corrupt,
    "wiped": _wipe,
    "views lost": _lose_views,
}
