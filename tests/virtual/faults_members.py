"""Changes of who orders, in the middle of everything else: random, and by the nodes' own API."""

from typing import Final

from p2pcity.api.service import ChangeWanted
from tests.virtual.faults import Fault, Storm
from tests.virtual.host import Host
from tests.virtual.operator import change


def _stranger(storm: Storm) -> Host | None:
    """A node that the city does not know: a new one, or one that it removed."""
    strangers = storm.operator.strangers()
    if not strangers or storm.random.random() < 0.3:
        host = storm.cluster.install()
        if host is not None:
            return host
    return storm.random.choice(strangers) if strangers else None


def _ask(storm: Storm, wanted: ChangeWanted) -> None:
    """Ask whoever leads, as an operator does who has just looked; now and then somebody else."""
    leader = storm.cluster.leader()
    host = leader if leader is not None and storm.random.random() < 0.9 else None
    host = host or storm.random.choice(storm.cluster.hosts)
    kind = storm.kind

    async def ask() -> None:
        if await storm.operator.ask(host, wanted):
            storm.world.struck[kind] += 1

    assert storm.cluster.nursery is not None
    storm.cluster.nursery.start_soon(ask)


def _is_forced(storm: Storm) -> bool:
    return storm.random.random() < 0.3


def _one(storm: Storm, keys: tuple[bytes, ...]) -> Host | None:
    found = storm.operator.hosts_in(keys)
    return storm.random.choice(found) if found else None


def _add(storm: Storm) -> None:
    """A node that votes by itself once it has caught up, or one that never does."""
    host = _stranger(storm)
    if host is not None:
        cards = (storm.operator.card(host),)
        _ask(storm, change("add", cards=cards, is_observer=storm.random.random() < 0.2))


def _remove(storm: Storm) -> None:
    state = storm.operator.state
    leader = storm.cluster.leader()
    host = leader if storm.random.random() < 0.4 else _one(storm, tuple(state.nodes))
    if host is not None:
        _ask(storm, change("remove", host, is_forced=_is_forced(storm)))


def _promote(storm: Storm) -> None:
    """By an operator's word, however far it trails."""
    host = _one(storm, storm.operator.state.sets.learners)
    if host is not None:
        _ask(storm, change("promote", host, is_forced=_is_forced(storm)))


def _demote(storm: Storm) -> None:
    host = _one(storm, storm.operator.state.sets.voters)
    if host is not None:
        _ask(storm, change("demote", host, is_forced=_is_forced(storm)))


def _replace(storm: Storm) -> None:
    """One or two go, one comes; they may be the same one, under the same log."""
    state, random = storm.operator.state, storm.random
    gone = storm.operator.hosts_in(tuple(state.nodes))
    gone = random.sample(gone, min(len(gone), random.choice((1, 1, 2))))
    new = random.choice(gone) if gone and random.random() < 0.2 else _stranger(storm)
    if new is not None and gone:
        cards = (storm.operator.card(new),)
        _ask(storm, change("replace", *gone, cards=cards, is_forced=_is_forced(storm)))


KINDS: Final[dict[str, Fault]] = {
    "node added": _add,
    "node removed": _remove,
    "node promoted": _promote,
    "node demoted": _demote,
    "nodes replaced": _replace,
}
"""What a seed does to its city beside all faults; the order is part of what a seed means."""
