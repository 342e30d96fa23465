"""Who changes the city by the nodes' own API: adds, removes, promotes, demotes and replaces.

What an operator is told holds: once a node says that a change is in effect, it is on the ledger,
and whoever asks that node finds it done and no state joint.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import trio

from p2pcity.api.service import ChangeOperation, ChangeWanted
from p2pcity.city.membership import State
from p2pcity.crypto.keys import peer_id
from p2pcity.errors import ConfigError, LocalError, P2PCityError
from p2pcity.node.service import NodeService
from p2pcity.wire import card as card_wire
from p2pcity.wire.genesis import Role
from tests.sim.checkers import check
from tests.virtual.cluster import POLL_S, Cluster
from tests.virtual.door import Gone
from tests.virtual.host import Host

_RETRY_S: Final = 0.2
_TIMEOUT_S: Final = 8.0


class Operator:
    """Asks for changes, of whoever leads or thinks so."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.made = 0
        self.refused: dict[str, int] = {}

    @property
    def state(self) -> State:
        """The city after the newest block that anybody applied."""
        chain = self.cluster.checkers.chain
        return chain[-1].state if chain else State.from_genesis(self.cluster.city.genesis)

    def hosts_in(self, keys: Sequence[bytes]) -> list[Host]:
        """The nodes with these keys."""
        return [host for host in self.cluster.hosts if host.key in keys]

    def strangers(self) -> list[Host]:
        """Nodes that the city does not know: new ones, and those that it removed."""
        return [host for host in self.cluster.hosts if host.key not in self.state.nodes]

    def card(self, host: Host, role: Role = "orderer") -> bytes:
        """The card of a node, as `init` writes it."""
        return card_wire.make(
            host.papers.key,
            member="works",
            name=f"node {host.number}",
            role=role,
            incarnation=host.incarnation,
            author=self.cluster.city.authors[host.number].public,
            addresses=(),
        )

    async def ask(self, host: Host, wanted: ChangeWanted) -> bool:
        """Ask one node for a change; whether it said that it is in effect."""
        self.cluster.changes_open += 1
        try:
            return await host.ask(partial(self._change, host, wanted), _TIMEOUT_S + 1)
        except (Gone, LocalError, ConfigError) as error:
            # ConfigError: somebody else was there before, the node is gone, or there already.
            self._note_refusal(error)
            return False
        finally:
            self.cluster.changes_open -= 1

    async def _change(self, host: Host, wanted: ChangeWanted, service: NodeService) -> bool:
        await service.change_voters(wanted)
        self.made += 1
        state = host.members.state
        self._check_told(host, state, wanted)
        return True

    def _check_told(self, host: Host, state: State, wanted: ChangeWanted) -> None:
        check(not state.sets.voters_outgoing, f"D4 {host} tells of a joint state as of an end")
        voters = {found.name for found in self.hosts_in(state.sets.voters)}
        known = {found.name for found in self.hosts_in(list(state.nodes))}
        named = set(wanted.nodes)
        back = {peer_id(card_wire.decode(card).key) for card in wanted.cards}
        is_done = {
            "remove": not named & known,
            "replace": not (named - back) & known and back <= known,
            "promote": named <= voters,
            "demote": not named & voters,
        }.get(wanted.operation, True)
        check(is_done, f"D4 {host} says that {wanted.operation} is in effect, and it is not")

    def _note_refusal(self, error: Exception) -> None:
        name = type(error).__name__
        self.refused[name] = self.refused.get(name, 0) + 1
        if isinstance(error, P2PCityError):
            self.cluster.world.say("refused", error)

    async def until(
        self, is_so: Callable[[State], bool], make: Callable[[], ChangeWanted | None]
    ) -> None:
        """Ask for what `make` says, again and again, until `is_so` and no state is joint.

        A leader may die in the middle, so each time what is wanted is made anew.
        """
        while not (is_so(self.state) and not self.state.sets.voters_outgoing):
            leader, wanted = self.cluster.leader(), make()
            if leader is None or wanted is None or not await self.ask(leader, wanted):
                await trio.sleep(_RETRY_S)

    async def settle(self) -> None:
        """Take in every node that the city does not know, and wait until all have their place.

        What was asked for before may still remove one: it has its answer first.
        """
        while self.cluster.changes_open:  # noqa: ASYNC110 - many nodes, no one event
            await trio.sleep(POLL_S)
        await self.until(lambda _: not self.strangers(), self._add_strangers)
        while self._is_moving():  # noqa: ASYNC110 - many nodes, no one event
            await trio.sleep(POLL_S)

    def _is_moving(self) -> bool:
        """Whether a change of voters is under way, or will be by itself."""
        state = self.state
        sets = state.sets
        return bool(sets.voters_outgoing) or any(
            state.nodes[key].role == "orderer" for key in sets.learners
        )

    def _add_strangers(self) -> ChangeWanted | None:
        cards = tuple(self.card(host) for host in self.strangers())
        return change("add", cards=cards) if cards else None


def change(
    operation: ChangeOperation,
    *hosts: Host,
    cards: tuple[bytes, ...] = (),
    is_forced: bool = False,
    is_observer: bool = False,
) -> ChangeWanted:
    """What an operator sends; nodes are named by their peer ids."""
    names = tuple(host.name for host in hosts)
    return ChangeWanted(
        operation,
        cards,
        names,
        force=names if is_forced else (),
        is_observer=is_observer,
        timeout_ms=int(_TIMEOUT_S * 1000),
    )
