"""Old blocks are dropped, nodes fall behind what is kept, and old transactions come back."""

from collections.abc import Callable
from typing import Final

from tests.sim.city import BASE_INTERVAL
from tests.sim.node import Node
from tests.sim.storm import Storm
from tests.sim.world import SECOND

_LOOK: Final = SECOND // 2
_LOOKS_MAX: Final = 40


def _prune(storm: Storm) -> None:
    """An operator has some nodes keep few blocks from here on."""
    cluster = storm.cluster
    nodes = cluster.nodes if storm.random.random() < 0.5 else [storm.victim()]
    for node in nodes:
        if node is not cluster.keeper:
            node.keep_blocks = storm.random.choice((BASE_INTERVAL, 2 * BASE_INTERVAL))


def _fall_behind(storm: Storm) -> None:
    """One is away until the others keep nothing any more that it could go on with."""
    _prune(storm)
    node = storm.victim()
    if not all(other.is_up for other in storm.cluster.nodes):
        return  # The others have to go on.
    node.crash()
    kind, looks = storm.kind, 0

    def is_behind() -> bool:
        firsts = [other.log.first_index for other in storm.cluster.nodes if other.is_up]
        return len(firsts) > len(storm.cluster.nodes) // 2 and min(firsts) > (
            node.durable.written_index + 1
        )

    def look() -> None:
        nonlocal looks
        looks += 1
        if node.is_up:
            return
        if is_behind():
            storm.world.struck[kind] += 1
        elif looks < _LOOKS_MAX and not storm.is_over:
            storm.later(_LOOK, look)
            return
        storm.start(node)

    storm.later(_LOOK, look)


def _crash_in_pruning(storm: Storm) -> None:
    node = storm.victim()
    _prune(storm)
    node.dies_pruning = storm.random.randrange(16)
    storm.later(storm.duration(6), lambda: _over(storm, node))


def _crash_in_fetching(storm: Storm) -> None:
    """Any of the nodes, at one of the answers that it gets while it fetches a base."""
    for node in storm.cluster.nodes:
        if not node.answers_until_crash:
            node.answers_until_crash = storm.random.randint(1, 30)
            storm.later(storm.duration(6), _overs(storm, node))


def _overs(storm: Storm, node: Node) -> Callable[[], None]:
    return lambda: _over(storm, node)


def _over(storm: Storm, node: Node) -> None:
    node.dies_pruning = None
    node.answers_until_crash = 0
    storm.start(node)


def _send_again(storm: Storm) -> None:
    """What is on the ledger for long, perhaps below every base, is brought once more."""
    clients, city = storm.clients, storm.cluster.city
    kind = storm.kind
    for _ in range(4):
        sample = city.good(storm.random.randint(1, max(1, clients.last_number // 2)))
        known = storm.cluster.checkers.acknowledged.get(sample.id)
        node = storm.victim_up()
        if known is None or node is None:
            continue
        height = known[0]

        def told(
            id_: bytes, state: str, at: int, hash_: bytes, node: Node = node, height: int = height
        ) -> None:
            if state == "rejected":
                return  # No room for more, where it is not known yet.
            clients.check_again(id_, state, at, hash_)
            storm.world.struck[kind] += 1
            if height <= node.views.pruned:
                storm.world.struck["pruned and sent again"] += 1

        node.arrive(node.desk.submit, [sample.data], told)


KINDS: Final[dict[str, Callable[[Storm], None]]] = {
    "pruned": _prune,
    "behind the base": _fall_behind,
    "crash while pruning": _crash_in_pruning,
    "crash while fetching a base": _crash_in_fetching,
    "sent again": _send_again,
}
