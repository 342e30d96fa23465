"""This node's view of who is in the city: whom it talks to, whose Raft counts, its own place."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import structlog
import trio

from p2pcity.crypto import keys
from p2pcity.errors import ConfigError
from p2pcity.node.identity import Identity
from p2pcity.ordering.members import Members
from p2pcity.wire.genesis import GenesisNode

_logger = structlog.get_logger("p2pcity.node.membership")

# Who leaves the city stays connected a little longer, so that it hears that it left.
_FAREWELL_S = 5.0

Place = Literal["voter", "leaving", "learner", "observer", "none"]


class Membership:
    """Follows the changes of the city as they take effect in Raft."""

    def __init__(self, *, members: Members, identity: Identity, peers: Sequence[str]) -> None:
        self._members = members
        self._own_id = identity.peer_id
        self._own_incarnation = members.incarnation
        self._configured: Mapping[str, Sequence[str]] = {}
        self.configure(peers)
        self._incarnations: dict[str, bytes] = {}
        self._first = frozenset(keys.peer_id(node.key) for node in identity.genesis.nodes)
        self._wiped: set[tuple[str, bytes]] = set()
        self._left_s: dict[str, float] = {}
        self._nodes: dict[str, GenesisNode] = {}
        self._moved = trio.Event()
        self._take_nodes()

    def configure(self, peers: Sequence[str]) -> None:
        """Take what `net.peers` says; the network looks here once a second."""
        found: dict[str, list[str]] = {}
        for address in peers:
            found.setdefault(address.rpartition("/p2p/")[2], []).append(address)
        self._configured = found

    @property
    def nodes(self) -> Mapping[str, GenesisNode]:
        """The nodes of the registry by peer id, in its order."""
        return self._nodes

    def name(self, peer: str | None) -> str | None:
        """The member and name of a node of the registry."""
        node = self._nodes.get(peer) if peer is not None else None
        return None if node is None else f"{node.member}/{node.name}"

    def place(self, peer: str) -> Place:
        """What `peer` is in the voter sets in force; a wiped node has no place."""
        sets = self._members.state.sets
        node = self._nodes.get(peer)
        if node is None or (peer == self._own_id and not self._members.is_own_log):
            return "none"
        if node.key in sets.voters:
            return "voter"
        if node.key in sets.voters_outgoing:
            return "leaving"
        return "learner" if node.key in sets.learners else "observer"

    @property
    def alarm(self) -> str:
        """Why this node takes no part, and what to do; empty when it does."""
        node = self._nodes.get(self._own_id)
        if node is None:
            return (
                "this node is not a member yet, or not any more: it counts for nobody until the "
                "leader's operator adds its card (p2pcity raft add node.card); if that is done, "
                "name today's orderers in net.peers: it knows no others than the genesis's"
            )
        if not self._members.is_own_log:
            return (
                f"the city knows this node with another log ({node.incarnation.hex()}), which was "
                f"lost: it counts for nobody until the leader's operator replaces it "
                f"(p2pcity raft replace --remove {self._own_id} --add node.card)"
            )
        if self.place(self._own_id) == "leaving" and node.role == "orderer":
            return "this node is being removed from the city, or is no member any more"
        return ""

    # -- whom to talk to ---------------------------------------------------------------------

    def is_allowed(self, peer: str) -> bool:
        """Whether the peer may connect: a node of the city, or named in `net.peers`."""
        if peer in self._nodes or peer in self._configured:
            return True
        if self._members.state.epoch and peer in self._first:
            # A recovery left it out: in hello it hears so, or comes back as a new node.
            return True
        left_s = self._left_s.get(peer)
        return left_s is not None and trio.current_time() - left_s < _FAREWELL_S

    def addresses(self) -> Mapping[str, Sequence[str]]:
        """Where peers can be dialled, as the ledger and the operator say."""
        found = {peer: list(node.addresses) for peer, node in self._nodes.items()}
        for peer, addresses in self._configured.items():
            found.setdefault(peer, []).extend(addresses)
        found.pop(self._own_id, None)
        return found

    # -- whose Raft counts -------------------------------------------------------------------

    def connected(self, peer: str, incarnation: bytes | None) -> None:
        """Note the incarnation that a peer's hello has."""
        if incarnation is None:
            self._incarnations.pop(peer, None)
            return
        self._incarnations[peer] = incarnation
        self._look_at(peer)

    def disconnected(self, peer: str) -> None:
        """Forget a peer's incarnation: the next one is another log, or not."""
        self._incarnations.pop(peer, None)

    def has_same_log(self, peer: str) -> bool:
        """Whether the peer has the log that the registry counts on."""
        node = self._nodes.get(peer)
        return node is not None and self._incarnations.get(peer) == node.incarnation

    def _look_at(self, peer: str) -> None:
        node, incarnation = self._nodes.get(peer), self._incarnations[peer]
        if node is None or node.incarnation == incarnation or (peer, incarnation) in self._wiped:
            return
        if len(self._wiped) < 1024:
            self._wiped.add((peer, incarnation))
        _logger.warning(
            "peer_wiped",
            peer=peer,
            member=node.member,
            reason=f"it has incarnation {incarnation.hex()}, the city knows "
            f"{node.incarnation.hex()}: its log is not the one that voted, so it does not count",
            remedy=f"p2pcity raft replace --remove {peer} --add CARD, with its new node.card",
        )

    # -- changes -----------------------------------------------------------------------------

    def changed(self) -> None:
        """Take note that a change of voters took effect."""
        before = self._nodes
        self._take_nodes()
        now_s = trio.current_time()
        self._left_s = {
            peer: left_s for peer, left_s in self._left_s.items() if now_s - left_s < _FAREWELL_S
        }
        self._left_s.update((peer, now_s) for peer in before if peer not in self._nodes)
        for peer in self._incarnations:
            self._look_at(peer)
        found = self._members.configuration
        _logger.info(
            "voters_changed",
            voters=[self.name(peer) or peer for peer in found.voters],
            outgoing=[self.name(peer) or peer for peer in found.voters_outgoing],
            learners=[self.name(peer) or peer for peer in found.learners],
            observers=[self.name(peer) or peer for peer in found.observers],
        )
        self._moved.set()
        self._moved = trio.Event()

    async def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Return once `is_so`, which is asked again after every change."""
        while not is_so():
            await self._moved.wait()

    def _take_nodes(self) -> None:
        nodes = self._members.state.nodes.values()
        self._nodes = {keys.peer_id(node.key): node for node in nodes}


def check_place(members: Members, identity: Identity, role: str) -> None:
    """Refuse a data directory or a setting that is another node's.

    Raises ConfigError when the log is that of another node of the city, or when `role`
    (`node.role`) contradicts the genesis that has this very node.
    """
    own = keys.public_key(identity.peer_id)
    for key, node in members.state.nodes.items():
        if key != own and node.incarnation == members.incarnation:
            raise ConfigError(
                f"this log has incarnation {node.incarnation.hex()}: it is the one of "
                f"{node.member}/{node.name} ({keys.peer_id(key)})",
                remedy="Start each node with its own data directory (node.data_dir).",
            )
    first = identity.node
    if first is not None and first.incarnation == members.incarnation and first.role != role:
        raise ConfigError(
            f"node.role is {role!r}, the genesis makes this node an {first.role}",
            remedy=f"Set node.role to {first.role!r}.",
        )
