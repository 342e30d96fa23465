"""The genesis: who starts a network (protocol/01-identity.md, cddl/genesis.cddl).

The network id is the SHA-256 of the body's deterministic CBOR; the file carries the body and
signatures on that id beside it. Genesis is height 0: its hash, the network id, is the parent
of block 1.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from p2pcity.crypto.digest import digest, sha256
from p2pcity.crypto.keys import PrivateKey
from p2pcity.errors import DecodeError
from p2pcity.wire import cbor, cose
from p2pcity.wire.fields import (
    TIME_MS_MAX,
    read_array,
    read_byte_strings,
    read_bytes,
    read_exact_map,
    read_text,
    read_uint,
)
from p2pcity.wire.limits import GENESIS_BYTES_MAX, PROTOCOL_VERSION, RULES_VERSION

CONTENT_TYPE: Final = "application/p2pcity-genesis+cbor"
VOTERS_DOMAIN: Final = "p2pcity/voters/1"
KEY_BYTES: Final = 32
INCARNATION_BYTES: Final = 16
NAME_BYTES_MAX: Final = 128
ADDRESSES_MAX: Final = 16
ADDRESS_BYTES_MAX: Final = 512
TYPES_MAX: Final = 256

Role = Literal["orderer", "observer"]

_BODY: Final = frozenset(("protocol", "rules", "name", "time", "nonce", "members"))
_MEMBER: Final = frozenset(("name", "nodes", "authors"))
_NODE: Final = frozenset(("name", "key", "incarnation", "role", "addresses"))
_AUTHOR: Final = frozenset(("key", "name", "types"))
_match_types = re.compile(r"\*|[^*\x00-\x1f\x7f-\x9f]+(?:\.\*)?").fullmatch


@dataclass(frozen=True, slots=True)
class GenesisNode:
    """A node of a member: its peer key, the incarnation of its log, and where it listens.

    `name` tells the nodes of one member apart.
    """

    key: bytes
    incarnation: bytes
    role: Role
    addresses: tuple[str, ...]
    member: str
    name: str = "main"


@dataclass(frozen=True, slots=True)
class GenesisAuthor:
    """An author key of a member; `types` are event types: exact, `prefix.*` or `*`."""

    key: bytes
    name: str
    types: tuple[str, ...]
    member: str


@dataclass(frozen=True, slots=True)
class Member:
    """An organisation with its nodes and author keys."""

    name: str
    nodes: tuple[GenesisNode, ...]
    authors: tuple[GenesisAuthor, ...]


@dataclass(frozen=True, slots=True)
class Genesis:
    """The start of a network; `network` is its id, `signatures` are COSE_Sign1 bytes on it.

    `rules` is the rules version that its ledger begins with.
    """

    body_bytes: bytes
    network: bytes
    name: str
    time_ms: int
    members: tuple[Member, ...]
    signatures: tuple[bytes, ...]
    rules: int

    @property
    def nodes(self) -> tuple[GenesisNode, ...]:
        """All nodes, in the order of the body."""
        return tuple(node for member in self.members for node in member.nodes)

    @property
    def authors(self) -> tuple[GenesisAuthor, ...]:
        """All author keys, in the order of the body."""
        return tuple(author for member in self.members for author in member.authors)

    @property
    def orderers(self) -> tuple[GenesisNode, ...]:
        """The nodes that vote."""
        return tuple(node for node in self.nodes if node.role == "orderer")

    @property
    def voters_digest(self) -> bytes:
        """The digest of the first voter set, as a block's header carries it."""
        return digest_voters((node.key, node.incarnation) for node in self.orderers)

    @property
    def signers(self) -> tuple[bytes, ...]:
        """The public keys that signed, in ascending order."""
        return tuple(cose.decode(item, CONTENT_TYPE).kid for item in self.signatures)


def digest_voters(
    voters: Iterable[tuple[bytes, bytes]], outgoing: Iterable[tuple[bytes, bytes]] = ()
) -> bytes:
    """Return the digest of a voter set given as (key, incarnation) pairs in any order.

    `outgoing` are the voters of before, while a change goes through the joint state.
    """
    incoming = [list(pair) for pair in sorted(voters)]
    before = [list(pair) for pair in sorted(outgoing)]
    return digest(VOTERS_DOMAIN, cbor.encode([incoming, before] if before else incoming))


def make(name: str, time_ms: int, nonce: bytes, members: Sequence[Member]) -> Genesis:
    """Make an unsigned genesis; `nonce` is 16 random bytes that make the network id unique.

    Raises DecodeError when a name, key, role, address or type pattern breaks a rule.
    """
    body: dict[str, object] = {
        "protocol": PROTOCOL_VERSION,
        "rules": RULES_VERSION,
        "name": name,
        "time": time_ms,
        "nonce": nonce,
        "members": [_member_value(member) for member in members],
    }
    return _read_body(cbor.encode(body))


def sign(genesis: Genesis, key: PrivateKey) -> Genesis:
    """Return the genesis with `key`'s signature on its network id (once per key).

    Raises DecodeError when `key` is no node or author key of the genesis.
    """
    signatures = {cose.decode(item, CONTENT_TYPE).kid: item for item in genesis.signatures}
    signatures[key.public] = cose.sign(key, CONTENT_TYPE, genesis.network)
    ordered = [signatures[kid] for kid in sorted(signatures)]
    return replace(genesis, signatures=_check_signatures(genesis, ordered))


def encode(genesis: Genesis) -> bytes:
    """Return the bytes of a genesis file."""
    return cbor.encode([genesis.body_bytes, list(genesis.signatures)])


def decode(data: bytes) -> Genesis:
    """Return the genesis in a file's bytes, with every signature on it verified.

    Raises DecodeError: `size` above 1 MiB, `signature` for a wrong one or a signer that the
    body does not name, else `malformed`.
    """
    if len(data) > GENESIS_BYTES_MAX:
        raise DecodeError(f"the genesis has {len(data)} bytes", reason="size")
    outer = read_array(cbor.decode(data), "the genesis", 2)
    genesis = _read_body(read_bytes(outer[0], "the body"))
    signatures = read_byte_strings(outer[1], "the signatures")
    return replace(genesis, signatures=_check_signatures(genesis, signatures))


def is_type_allowed(patterns: Iterable[str], event_type: str) -> bool:
    """Whether one of an author's type patterns covers `event_type`.

    `*` covers everything, `permit.*` what begins with `permit.` and any other text itself.
    """
    return any(
        pattern == "*"
        or pattern == event_type
        or (pattern.endswith(".*") and event_type.startswith(pattern[:-1]))
        for pattern in patterns
    )


def check_address(value: object) -> str:
    """Return `value` as the text of a multiaddr: starts with `/`, at most 512 bytes."""
    text = read_text(value, "an address", ADDRESS_BYTES_MAX, 1)
    if not text.startswith("/") or not text.isprintable() or " " in text:
        raise DecodeError("an address is not the text of a multiaddr")
    return text


def check_role(value: object) -> Role:
    """Return `value` as a role: `orderer` or `observer`."""
    if value == "orderer":
        return "orderer"
    if value == "observer":
        return "observer"
    raise DecodeError("the role is neither orderer nor observer")


def check_name(value: object, what: str) -> str:
    """Return `value` as a name: 1 to 128 bytes of printable text."""
    text = read_text(value, what, NAME_BYTES_MAX, 1)
    if not text.isprintable() or text != text.strip():
        raise DecodeError(f"{what} has characters that do not print, or spaces around it")
    return text


def _member_value(member: Member) -> dict[str, object]:
    return {
        "name": member.name,
        "nodes": [
            {
                "name": node.name,
                "key": node.key,
                "incarnation": node.incarnation,
                "role": node.role,
                "addresses": list(node.addresses),
            }
            for node in member.nodes
        ],
        "authors": [
            {"key": author.key, "name": author.name, "types": list(author.types)}
            for author in member.authors
        ],
    }


def _read_body(data: bytes) -> Genesis:
    fields = read_exact_map(cbor.decode(data), "the genesis", _BODY)
    protocol = read_uint(fields["protocol"], "protocol")
    rules = read_uint(fields["rules"], "rules")
    if not (1 <= protocol <= PROTOCOL_VERSION and 1 <= rules <= RULES_VERSION):
        raise DecodeError(
            f"protocol {protocol} with rules {rules} is not known to this release, which knows 1 "
            f"to {PROTOCOL_VERSION} and 1 to {RULES_VERSION}",
            remedy="Install the release that made this genesis, or a newer one.",
        )
    read_bytes(fields["nonce"], "the nonce", 16)
    members = tuple(_read_member(item) for item in read_array(fields["members"], "the members"))
    genesis = Genesis(
        body_bytes=data,
        network=sha256(data),
        name=check_name(fields["name"], "the network's name"),
        time_ms=read_uint(fields["time"], "time", TIME_MS_MAX),
        members=members,
        signatures=(),
        rules=rules,
    )
    _check_unique([member.name for member in members], "a member's name")
    _check_unique([node.key for node in genesis.nodes], "a node's key")
    _check_unique([author.key for author in genesis.authors], "an author's key")
    if not genesis.orderers:
        raise DecodeError("a network has at least one orderer")
    return genesis


def _read_member(value: object) -> Member:
    fields = read_exact_map(value, "a member", _MEMBER)
    name = check_name(fields["name"], "a member's name")
    nodes = tuple(_read_node(item, name) for item in read_array(fields["nodes"], "the nodes"))
    _check_unique([node.name for node in nodes], "a node's name in one member")
    return Member(
        name,
        nodes,
        tuple(_read_author(item, name) for item in read_array(fields["authors"], "the authors")),
    )


def _read_node(value: object, member: str) -> GenesisNode:
    fields = read_exact_map(value, "a node", _NODE)
    addresses = read_array(fields["addresses"], "the addresses", length_max=ADDRESSES_MAX)
    return GenesisNode(
        read_bytes(fields["key"], "a node's key", KEY_BYTES),
        read_bytes(fields["incarnation"], "an incarnation", INCARNATION_BYTES),
        check_role(fields["role"]),
        tuple(check_address(item) for item in addresses),
        member,
        check_name(fields["name"], "a node's name"),
    )


def _read_author(value: object, member: str) -> GenesisAuthor:
    fields = read_exact_map(value, "an author", _AUTHOR)
    types = tuple(
        read_text(item, "an event type", NAME_BYTES_MAX, 1)
        for item in read_array(fields["types"], "the types", length_max=TYPES_MAX)
    )
    for item in types:
        if not _match_types(item):
            raise DecodeError("a type is neither exact nor a prefix ending in .* nor *")
    return GenesisAuthor(
        read_bytes(fields["key"], "an author's key", KEY_BYTES),
        check_name(fields["name"], "an author's name"),
        types,
        member,
    )


def _check_unique(values: Sequence[object], what: str) -> None:
    if len(set(values)) != len(values):
        raise DecodeError(f"{what} stands twice")


def _check_signatures(genesis: Genesis, signatures: Sequence[bytes]) -> tuple[bytes, ...]:
    named = {node.key for node in genesis.nodes} | {author.key for author in genesis.authors}
    last = b""
    for item in signatures:
        signed = cose.decode(item, CONTENT_TYPE)
        if signed.kid <= last:
            raise DecodeError("the signatures are not in ascending order of their keys")
        last = signed.kid
        if signed.kid not in named:
            raise DecodeError("a signer is no node or author of the genesis", reason="signature")
        if signed.payload != genesis.network or not cose.is_valid(signed):
            raise DecodeError("a signature on the genesis is wrong", reason="signature")
    return tuple(signatures)
