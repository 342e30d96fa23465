"""A node's card: what `init` writes so that others can put the node into a genesis.

A COSE_Sign1 by the node key (protocol/01-identity.md, cddl/card.cddl): the signature shows
that whoever hands the card over once held that key.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from p2pcity.crypto.keys import PrivateKey
from p2pcity.errors import DecodeError
from p2pcity.wire import cbor, cose
from p2pcity.wire.fields import read_array, read_bytes, read_exact_map
from p2pcity.wire.genesis import (
    ADDRESSES_MAX,
    INCARNATION_BYTES,
    KEY_BYTES,
    Role,
    check_address,
    check_name,
    check_role,
)
from p2pcity.wire.limits import HELLO_BYTES_MAX

CONTENT_TYPE: Final = "application/p2pcity-card+cbor"
CARD_BYTES_MAX: Final = HELLO_BYTES_MAX
_FIELDS: Final = frozenset(("member", "name", "role", "incarnation", "author", "addresses"))


@dataclass(frozen=True, slots=True)
class Card:
    """One node as its operator describes it; `key` signs for the node, `author` for events."""

    key: bytes
    member: str
    name: str
    role: Role
    incarnation: bytes
    author: bytes
    addresses: tuple[str, ...]


def make(
    key: PrivateKey,
    *,
    member: str,
    name: str,
    role: Role,
    incarnation: bytes,
    author: bytes,
    addresses: Sequence[str],
) -> bytes:
    """Return the bytes of a card signed by the node key `key`.

    Raises DecodeError when a field breaks a rule of the protocol.
    """
    payload: dict[str, object] = {
        "member": member,
        "name": name,
        "role": role,
        "incarnation": incarnation,
        "author": author,
        "addresses": list(addresses),
    }
    data = cose.sign(key, CONTENT_TYPE, cbor.encode(payload))
    decode(data)
    return data


def decode(data: bytes) -> Card:
    """Return the card in `data`, its signature verified.

    Raises DecodeError: `size` above 16 KiB, `signature`, else `malformed`.
    """
    if len(data) > CARD_BYTES_MAX:
        raise DecodeError(f"the card has {len(data)} bytes", reason="size")
    signed = cose.decode(data, CONTENT_TYPE)
    fields = read_exact_map(cbor.decode(signed.payload), "the card", _FIELDS)
    addresses = read_array(fields["addresses"], "the addresses", length_max=ADDRESSES_MAX)
    card = Card(
        key=signed.kid,
        member=check_name(fields["member"], "the member"),
        name=check_name(fields["name"], "the node's name"),
        role=check_role(fields["role"]),
        incarnation=read_bytes(fields["incarnation"], "the incarnation", INCARNATION_BYTES),
        author=read_bytes(fields["author"], "the author's key", KEY_BYTES),
        addresses=tuple(check_address(item) for item in addresses),
    )
    if not cose.is_valid(signed):
        raise DecodeError("the card's signature is wrong", reason="signature")
    return card
