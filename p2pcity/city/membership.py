"""Who takes part: the author keys with what they may write, the nodes, and who of them orders.

The state starts at the genesis and is the same on every node at the same height. Under rules
version 1 authors are those of the genesis; nodes and voters follow the changes on the ledger
(`ordering.members`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from p2pcity.errors import DecodeError
from p2pcity.wire import cbor
from p2pcity.wire.fields import read_array, read_byte_strings, read_bytes, read_uint
from p2pcity.wire.genesis import (
    KEY_BYTES,
    Genesis,
    GenesisNode,
    check_address,
    check_name,
    check_role,
    digest_voters,
)


@dataclass(frozen=True, slots=True)
class Author:
    """A registered author key; `types` are event types: exact, `prefix.*` or `*`."""

    key: bytes
    name: str
    member: str
    types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VoterSets:
    """Who votes and who follows, by node key; `raft.Configuration` says what each set means."""

    voters: tuple[bytes, ...] = ()
    learners: tuple[bytes, ...] = ()
    voters_outgoing: tuple[bytes, ...] = ()
    learners_next: tuple[bytes, ...] = ()
    observers: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class State:
    """The city at one height; authors and nodes by public key. Never changed in place.

    `nodes` are those that `sets` name. A learner whose role is `orderer` is meant to vote once
    it has caught up; one whose role is `observer` only by an operator's word. `epoch` counts the
    times that a lost quorum was recovered by hand.
    """

    authors: Mapping[bytes, Author]
    nodes: Mapping[bytes, GenesisNode] = field(default_factory=dict)
    sets: VoterSets = field(default_factory=VoterSets)
    epoch: int = 0

    @classmethod
    def from_genesis(cls, genesis: Genesis) -> "State":
        """Return the state at height 0."""
        authors = {
            item.key: Author(item.key, item.name, item.member, item.types)
            for item in genesis.authors
        }
        nodes = {node.key: node for node in genesis.nodes}
        sets = VoterSets(
            voters=tuple(node.key for node in genesis.orderers),
            observers=tuple(node.key for node in genesis.nodes if node.role == "observer"),
        )
        return cls(MappingProxyType(authors), MappingProxyType(nodes), sets)

    def author(self, key: bytes) -> Author | None:
        """Return the author with this public key, None when the city does not know it."""
        return self.authors.get(key)

    def author_types(self, key: bytes) -> tuple[str, ...] | None:
        """Return the event types that this author may use, None when it is not known."""
        author = self.authors.get(key)
        return None if author is None else author.types

    @property
    def voters_digest(self) -> bytes:
        """The digest of the voter set in force, as the next block's header carries it."""
        return digest_voters(
            self._with_incarnations(self.sets.voters),
            self._with_incarnations(self.sets.voters_outgoing),
        )

    def _with_incarnations(self, keys: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
        return [(key, self.nodes[key].incarnation) for key in keys]


def encode_members(state: State) -> bytes:
    """Return the bytes of everything in `state` that the genesis does not say for ever."""
    nodes: list[object] = [
        [node.key, node.incarnation, node.role, node.member, node.name, list(node.addresses)]
        for node in state.nodes.values()
    ]
    sets = state.sets
    named = (sets.voters, sets.learners, sets.voters_outgoing, sets.learners_next, sets.observers)
    return cbor.encode([state.epoch, nodes, [list(keys) for keys in named]])


def encode_city(state: State) -> bytes:
    """Do `encode_members` in one order, however the state came about: ascending by key."""
    sets = state.sets
    return encode_members(
        replace(
            state,
            nodes={key: state.nodes[key] for key in sorted(state.nodes)},
            sets=VoterSets(
                *(
                    tuple(sorted(keys))
                    for keys in (
                        sets.voters,
                        sets.learners,
                        sets.voters_outgoing,
                        sets.learners_next,
                        sets.observers,
                    )
                )
            ),
        )
    )


def decode_members(data: bytes, genesis: Genesis) -> State:
    """Return the state of `encode_members`, with the genesis's authors; DecodeError."""
    epoch, nodes, sets = read_array(cbor.decode(data), "the members", 3)
    read = [_read_node(item) for item in read_array(nodes, "the nodes")]
    named = [tuple(read_byte_strings(item, "a set")) for item in read_array(sets, "the sets", 5)]
    state = State(
        State.from_genesis(genesis).authors,
        MappingProxyType({node.key: node for node in read}),
        VoterSets(*named),
        read_uint(epoch, "the epoch"),
    )
    if {key for keys in named for key in keys} != state.nodes.keys():
        raise DecodeError("the sets and the nodes are not of one city")
    return state


def _read_node(value: object) -> GenesisNode:
    key, incarnation, role, member, name, addresses = read_array(value, "a node", 6)
    return GenesisNode(
        read_bytes(key, "a node's key", KEY_BYTES),
        read_bytes(incarnation, "an incarnation"),
        check_role(role),
        tuple(check_address(item) for item in read_array(addresses, "the addresses")),
        check_name(member, "a member"),
        check_name(name, "a node's name"),
    )
