"""The bytes of a transaction, alone and carried with its events (protocol/02-event.md).

A transaction is a COSE_Sign1 whose payload names the network, a nonce, the expiry and the
RFC 9162 root over its events. It is carried as `[transaction, [event, ...]]`; 32 bytes in an
event's place are the leaf hash of an event whose body was withheld or erased.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from p2pcity.crypto import merkle
from p2pcity.crypto.digest import sha256
from p2pcity.crypto.keys import PrivateKey
from p2pcity.errors import DecodeError
from p2pcity.wire import cbor, cose, event
from p2pcity.wire.event import Event
from p2pcity.wire.fields import (
    TIME_MS_MAX,
    read_array,
    read_byte_strings,
    read_bytes,
    read_exact_map,
    read_uint,
)
from p2pcity.wire.limits import EVENT_BYTES_MAX, EVENTS_MAX, TRANSACTION_BYTES_MAX

CONTENT_TYPE: Final = "application/p2pcity-transaction+cbor"
HASH_BYTES: Final = 32
NONCE_BYTES: Final = 16
EVENT_BYTES_MIN: Final = 40
"""The shortest event: a salt and one character each of id, type and source."""

_FIELDS: Final = frozenset(("network", "nonce", "expires", "root", "count"))


@dataclass(frozen=True, slots=True)
class Transaction:
    """What an author signed; `data` are the COSE_Sign1 bytes, a leaf of the ledger's tree.

    `id` is the SHA-256 of the Sig_structure: the signature is no part of it, since the holder
    of a key can make many valid ones. `expires_ms` is Unix time in milliseconds.
    """

    data: bytes
    id: bytes
    author: bytes
    network: bytes
    nonce: bytes
    expires_ms: int
    root: bytes
    count: int
    signed: cose.Signed


@dataclass(frozen=True, eq=False)
class Carried:
    """A transaction together with its events, as it travels and is stored.

    `digest` is the SHA-256 of `data` (the whole); `events` are the events' bytes, or 32 bytes
    (a leaf hash) for a withheld one. Derived values are computed once and kept (there are no
    slots for that reason); a race between threads computes the same value twice, no more.
    """

    data: bytes
    digest: bytes
    transaction: Transaction
    events: tuple[bytes, ...]

    @property
    def id(self) -> bytes:
        """The transaction's id."""
        return self.transaction.id

    @property
    def is_complete(self) -> bool:
        """Whether every event's body is here."""
        return all(len(item) != HASH_BYTES for item in self.events)

    @property
    def leaf_hashes(self) -> tuple[bytes, ...]:
        """The RFC 9162 leaf hash of each event, withheld ones included."""
        kept: tuple[bytes, ...] | None = self.__dict__.get("_leaf_hashes")
        if kept is None:
            kept = tuple(
                item if len(item) == HASH_BYTES else merkle.leaf_hash(item) for item in self.events
            )
            self.__dict__["_leaf_hashes"] = kept
        return kept

    @property
    def leaf(self) -> bytes:
        """The leaf hash of the transaction's COSE_Sign1 bytes in the ledger's tree."""
        kept: bytes | None = self.__dict__.get("_leaf")
        if kept is None:
            kept = merkle.leaf_hash(self.transaction.data)
            self.__dict__["_leaf"] = kept
        return kept

    def decoded_events(self) -> tuple[Event | None, ...]:
        """Return the events, None for a withheld one; kept until `forget_events`.

        Raises DecodeError (reason `event-malformed`) when a body breaks the rules of events.
        """
        kept: tuple[Event | None, ...] | None = self.__dict__.get("_events")
        if kept is None:
            kept = tuple(_decode_event(item) for item in self.events)
            self.__dict__["_events"] = kept
        return kept

    def forget_events(self) -> None:
        """Drop the decoded events, which take about ten times the memory of their bytes."""
        self.__dict__.pop("_events", None)


def decode(data: bytes) -> Transaction:
    """Return the transaction in COSE_Sign1 bytes; its signature is not verified.

    Raises DecodeError (`malformed`, or `size` above 64 KiB).
    """
    if len(data) > TRANSACTION_BYTES_MAX:
        raise DecodeError(f"the transaction has {len(data)} bytes", reason="size")
    signed = cose.decode(data, CONTENT_TYPE)
    fields = read_exact_map(cbor.decode(signed.payload), "the transaction", _FIELDS)
    count = read_uint(fields["count"], "count", EVENTS_MAX)
    if count == 0:
        raise DecodeError("a transaction has at least one event")
    return Transaction(
        data=data,
        id=sha256(signed.to_be_signed),
        author=signed.kid,
        network=read_bytes(fields["network"], "network", HASH_BYTES),
        nonce=read_bytes(fields["nonce"], "nonce", NONCE_BYTES),
        expires_ms=read_uint(fields["expires"], "expires", TIME_MS_MAX),
        root=read_bytes(fields["root"], "root", HASH_BYTES),
        count=count,
        signed=signed,
    )


def decode_carried(data: bytes) -> Carried:
    """Return the carried transaction in `data`: strict bytes, limits and the number of events.

    Neither the root nor the signature nor the events' bodies are looked at: `examine` does.
    Raises DecodeError: `size`, `malformed`, or `events-missing` when there are fewer than signed.
    """
    carried = _decode(data)
    _check_count(carried)
    return carried


def _check_count(carried: Carried) -> None:
    if len(carried.events) < carried.transaction.count:
        raise DecodeError(
            f"{carried.transaction.count} events are signed, {len(carried.events)} are here",
            reason="events-missing",
        )


def _decode(data: bytes) -> Carried:
    """Everything of `decode_carried` but that events are missing: that is judged later."""
    if len(data) > TRANSACTION_BYTES_MAX:
        raise DecodeError(f"the carried transaction has {len(data)} bytes", reason="size")
    cose_bytes, events = split_carried(data)
    transaction = decode(cose_bytes)
    if len(events) > transaction.count:
        raise DecodeError(f"{transaction.count} events are signed, {len(events)} are here")
    for item in events:
        if len(item) > EVENT_BYTES_MAX:
            raise DecodeError(f"an event has {len(item)} bytes", reason="size")
        if len(item) < EVENT_BYTES_MIN and len(item) != HASH_BYTES:
            raise DecodeError(f"an event has {len(item)} bytes, neither an event nor a hash")
    return Carried(data, sha256(data), transaction, events)


def split_carried(data: bytes) -> tuple[bytes, tuple[bytes, ...]]:
    """Return the COSE_Sign1 bytes and the events' bytes of a carried transaction.

    Only the outer array is read. Raises DecodeError (`malformed`).
    """
    outer = read_array(cbor.decode(data), "the carried transaction", 2)
    cose_bytes = read_bytes(outer[0], "the transaction")
    return cose_bytes, tuple(read_byte_strings(outer[1], "the events", EVENTS_MAX))


def join_carried(cose_bytes: bytes, events: Sequence[bytes]) -> bytes:
    """Return the carried bytes of a transaction and its events (or their leaf hashes)."""
    return cbor.encode([cose_bytes, list(events)])


def signed_part(data: bytes) -> bytes:
    """Return the COSE_Sign1 bytes of a carried transaction without reading its events.

    A block's tree needs nothing else. Raises DecodeError (`malformed`) unless `data` starts
    as `[bstr, ...]` with a shortest-form length that lies inside.
    """
    start, length = 2, 0
    head = data[1] if len(data) > 2 and data[0] == 0x82 else 0
    if 0x40 <= head <= 0x57:
        length = head - 0x40
    elif head == 0x58:
        start, length = 3, data[2]
        length = length if length >= 24 else -1
    elif head == 0x59 and len(data) > 4:
        start, length = 4, int.from_bytes(data[2:4], "big")
        length = length if length >= 256 else -1
    elif head == 0x5A and len(data) > 6:
        start, length = 6, int.from_bytes(data[2:6], "big")
        length = length if length >= 65536 else -1
    if length <= 0 or start + length >= len(data):
        raise DecodeError("a carried transaction does not start with its signed part")
    return data[start : start + length]


def make(
    key: PrivateKey, network: bytes, events: Sequence[Event], expires_ms: int, nonce: bytes
) -> Carried:
    """Sign `events` (1 to 256) as one transaction of the author `key`.

    `nonce` is 16 random bytes. Raises DecodeError when an event breaks a rule or the whole is
    above 64 KiB (reason `size`).
    """
    encoded = [event.encode(item) for item in events]
    payload = cbor.encode(
        {
            "network": network,
            "nonce": nonce,
            "expires": expires_ms,
            "root": merkle.root([merkle.leaf_hash(item) for item in encoded]),
            "count": len(encoded),
        }
    )
    return decode_carried(join_carried(cose.sign(key, CONTENT_TYPE, payload), encoded))


def examine(data: bytes, network: bytes, *, is_withheld_allowed: bool = False) -> Carried:
    """Check everything about carried bytes that no state can change, and return them decoded.

    Pure and safe in any thread. The rules, in order, with the `reason` of the DecodeError:
    `size`, `malformed`, `network`, `events-missing`, `root`, `signature`, `event-malformed`
    (protocol/03-admission.md). `is_withheld_allowed` is for stored and served data only.
    """
    carried = _decode(data)
    transaction = carried.transaction
    if transaction.network != network:
        raise DecodeError("the transaction is for another network", reason="network")
    _check_count(carried)
    if not is_withheld_allowed and not carried.is_complete:
        raise DecodeError("a body of the transaction's events is withheld", reason="events-missing")
    if merkle.root(carried.leaf_hashes) != transaction.root:
        raise DecodeError("the events are not those that were signed", reason="root")
    if not cose.is_valid(transaction.signed):
        raise DecodeError("the signature is wrong", reason="signature")
    carried.decoded_events()
    return carried


def _decode_event(data: bytes) -> Event | None:
    if len(data) == HASH_BYTES:
        return None
    try:
        return event.decode(data)
    except DecodeError as error:
        raise DecodeError(str(error), reason="event-malformed") from error
