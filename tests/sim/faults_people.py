"""Faults of schedulers, operators and clients."""

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from p2pcity.errors import LocalError
from tests.sim.storm import Storm
from tests.sim.world import SECOND


def _pause(storm: Storm) -> None:
    node = storm.victim_up()
    if node is None:
        return
    node.pause()
    election_s = storm.cluster.election_time / SECOND
    storm.later(storm.duration(1.5 * election_s), node.resume)


def _pause_with_reads(storm: Storm) -> None:
    """Reads wait at a leader that sleeps while others may go on without it."""
    node = storm.cluster.leader()
    if node is None or node.is_paused:
        return
    for _ in range(3):
        storm.clients.read(node)
    node.is_pausing = True
    delay = storm.cluster.election_time + storm.duration(storm.cluster.election_time / SECOND)
    for _ in range(4):
        storm.later(storm.random.randrange(delay), lambda: storm.clients.read(node))

    def wake() -> None:
        node.is_pausing = False
        if node.is_paused:
            storm.world.struck["reads across a pause"] += 1
            node.resume()
        storm.clients.read(node)

    storm.later(delay, wake)


def _transfer(storm: Storm) -> None:
    node = storm.cluster.leader()
    if node is None or node.is_paused:
        return
    for _ in range(storm.random.choice((1, 1, 2))):
        with suppress(LocalError):  # Not everybody votes.
            node.raw_node.transfer_leader(storm.random.choice(storm.cluster.nodes).name)
    storm.struck()
    node.turn()


def _campaign(storm: Storm) -> None:
    node = storm.victim_up()
    if node is not None:
        storm.struck()
        node.raw_node.campaign()
        node.turn()


def _call_unreachable(storm: Storm) -> None:
    node = storm.victim_up()
    if node is not None:
        storm.struck()
        node.raw_node.report_unreachable(storm.random.choice(storm.cluster.nodes).name)
        node.turn()


def _read_twice(storm: Storm) -> None:
    """The same context asked again: an answer to the older read must not confirm the newer."""
    node = storm.victim_up()
    if node is None:
        return
    try:
        for _ in range(2):
            node.raw_node.read_index(b"again")
    except LocalError:
        return
    storm.struck()
    node.turn()


def _lose_answers(storm: Storm) -> None:
    storm.clients.answers_lost = storm.random.choice((20, 60, 100))

    def back() -> None:
        storm.clients.answers_lost = 0

    storm.later(storm.duration(3), back)


def _submit_everywhere(storm: Storm) -> None:
    storm.clients.copies = storm.random.choice((2, 3, 10))

    def back() -> None:
        storm.clients.copies = 1

    storm.later(storm.duration(2), back)


def _submit_short(storm: Storm) -> None:
    """Transactions that expire on the way, or just before a block could take them."""
    clients, city = storm.clients, storm.cluster.city
    now_s = storm.world.now // SECOND
    samples = [
        city.short(clients.next_number(), now_s + storm.random.randint(0, 4)) for _ in range(4)
    ]
    storm.struck()
    clients.submit(samples)


def _inject_garbled(storm: Storm) -> None:
    """Garbled copies run ahead of the true ones, which come right after."""
    clients, city = storm.clients, storm.cluster.city
    numbers = [clients.next_number() for _ in range(3)]
    garbled = [city.garbled(number, storm.random) for number in numbers for _ in range(3)]
    kind = storm.kind

    def told(state: str) -> None:
        storm.world.struck[kind] += 1

    clients.inject(garbled, told)
    clients.submit([city.good(number) for number in numbers])


def _propose_carelessly(storm: Storm) -> None:
    """A leader whose blocks hold what no block should: apply must drop it on every node alike."""
    clients, city = storm.clients, storm.cluster.city
    extras = [
        city.forbidden(clients.next_number()),
        city.short(clients.next_number(), 0),
        city.garbled(clients.next_number(), storm.random),
    ]
    for node in storm.cluster.nodes:
        if node.is_up:
            node.door.mempool.be_careless([item.data for item in extras])
    storm.struck()


def _inject_forbidden(storm: Storm) -> None:
    clients, kind = storm.clients, storm.kind
    forbidden = [storm.cluster.city.forbidden(clients.next_number()) for _ in range(4)]

    def told(state: str) -> None:
        storm.world.struck[kind] += 1

    clients.inject(forbidden, told)


KINDS: Final[dict[str, Callable[[Storm], None]]] = {
    "pause": _pause,
    "reads across a pause": _pause_with_reads,
    "transfer": _transfer,
    "campaign": _campaign,
    "called unreachable": _call_unreachable,
    "read asked again": _read_twice,
    "lost answers": _lose_answers,
    "duplicate submit": _submit_everywhere,
    "expiring": _submit_short,
    "garbled copies": _inject_garbled,
    "unauthorised": _inject_forbidden,
    "careless leader": _propose_carelessly,
}
