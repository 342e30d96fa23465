"""The bytes of a block (protocol/06-block.md), and their two halves in the segment log.

A block is `[header, [carried transaction, ...], change or null]`. Header and body agree on the
transactions' signed parts alone, so no hash changes when an event's body goes. The carried
transactions are opaque here: each was examined before, and is found by its digest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from p2pcity.crypto import merkle
from p2pcity.crypto.digest import digest
from p2pcity.errors import DecodeError
from p2pcity.wire import cbor
from p2pcity.wire.fields import (
    TIME_MS_MAX,
    read_array,
    read_byte_strings,
    read_bytes,
    read_exact_map,
    read_uint,
)
from p2pcity.wire.limits import BLOCK_BYTES_MAX, EVENTS_MAX
from p2pcity.wire.transaction import (
    EVENT_BYTES_MIN,
    HASH_BYTES,
    Carried,
    join_carried,
    signed_part,
    split_carried,
)

HASH_DOMAIN: Final = "p2pcity/block/1"
OVERHEAD_BYTES_MAX: Final = 512
"""At most so many bytes of a block (without a change) are not carried transactions' items."""
ITEM_HEAD_BYTES_MAX: Final = 5
"""At most so many bytes stand before each carried transaction in a block."""

_FIELDS: Final = frozenset(
    ("height", "parent", "time", "count", "body", "epoch", "voters", "rules")
)


@dataclass(frozen=True, slots=True)
class Header:
    """What a block says about itself; `time_ms` is the leader's clock, never below the parent's.

    `body` is the RFC 9162 root over `count` leaves: the transactions' signed parts in order,
    then the change when there is one. `voters` is the digest of the voter set in force.
    """

    height: int
    parent: bytes
    time_ms: int
    count: int
    body: bytes
    epoch: int
    voters: bytes
    rules: int


@dataclass(frozen=True, slots=True)
class Block:
    """A header and the carried transactions, kept as the bytes that came."""

    header: Header
    header_bytes: bytes
    hash: bytes
    transactions: tuple[bytes, ...]
    change: bytes | None

    @property
    def data(self) -> bytes:
        """The block's bytes, encoded anew at each call (they are as large as the block)."""
        return cbor.encode([self.header_bytes, list(self.transactions), self.change])


def make(
    height: int,
    parent: bytes,
    time_ms: int,
    carried: Sequence[Carried],
    epoch: int,
    voters: bytes,
    rules: int,
    change: bytes | None = None,
) -> Block:
    """Make the block of `carried` at `height`; the caller keeps it within the size limit."""
    leaves = [item.leaf for item in carried]
    if change is not None:
        leaves.append(merkle.leaf_hash(change))
    header = Header(height, parent, time_ms, len(leaves), merkle.root(leaves), epoch, voters, rules)
    header_bytes = encode_header(header)
    return Block(
        header, header_bytes, hash_header(header_bytes), tuple(x.data for x in carried), change
    )


def encode_header(header: Header) -> bytes:
    """Return the header's bytes: what `hash_header` digests."""
    return cbor.encode(
        {
            "height": header.height,
            "parent": header.parent,
            "time": header.time_ms,
            "count": header.count,
            "body": header.body,
            "epoch": header.epoch,
            "voters": header.voters,
            "rules": header.rules,
        }
    )


def decode_header(data: bytes) -> Header:
    """Return the header in `data`; DecodeError (`malformed`)."""
    fields = read_exact_map(cbor.decode(data), "the header", _FIELDS)
    header = Header(
        height=read_uint(fields["height"], "height"),
        parent=read_bytes(fields["parent"], "parent", HASH_BYTES),
        time_ms=read_uint(fields["time"], "time", TIME_MS_MAX),
        count=read_uint(fields["count"], "count"),
        body=read_bytes(fields["body"], "body", HASH_BYTES),
        epoch=read_uint(fields["epoch"], "epoch"),
        voters=read_bytes(fields["voters"], "voters", HASH_BYTES),
        rules=read_uint(fields["rules"], "rules"),
    )
    if header.height == 0:
        raise DecodeError("height 0 is the genesis, not a block")
    return header


def hash_header(header_bytes: bytes) -> bytes:
    """Return a block's hash: the digest of its header under `p2pcity/block/1`."""
    return digest(HASH_DOMAIN, header_bytes)


def decode(data: bytes) -> Block:
    """Return the block in `data`, its body root checked against the transactions.

    Raises DecodeError: `size` above 1 MiB, `root` when the transactions are not those of the
    header, else `malformed`. Whether each transaction is valid is for apply to say.
    """
    if len(data) > BLOCK_BYTES_MAX:
        raise DecodeError(f"the block has {len(data)} bytes", reason="size")
    header_bytes, transactions, change = _read_parts(data)
    header = decode_header(header_bytes)
    leaves = [merkle.leaf_hash(signed_part(item)) for item in transactions]
    if change is not None:
        leaves.append(merkle.leaf_hash(change))
    if header.count != len(leaves):
        raise DecodeError(f"the header counts {header.count} leaves, the block has {len(leaves)}")
    if merkle.root(leaves) != header.body:
        raise DecodeError("the transactions are not those of the header", reason="root")
    return Block(header, header_bytes, hash_header(header_bytes), tuple(transactions), change)


def read_header(data: bytes) -> tuple[Header, bytes]:
    """Return the header of the block in `data` and the block's hash; nothing behind it is read.

    Raises DecodeError.
    """
    # Every header has 24 to 255 bytes: two of the head, which follow the one of the block.
    if len(data) < 3 or data[0] != 0x83 or data[1] != 0x58 or len(data) < 3 + data[2]:
        raise DecodeError("this is no block")
    header_bytes = data[3 : 3 + data[2]]
    return decode_header(header_bytes), hash_header(header_bytes)


def peek_change(data: bytes) -> bytes | None:
    """Return the change in a block's bytes, None when it has none or `data` is no block.

    A block without a change is not decoded: its header counts as many leaves as it carries
    transactions.
    """
    try:
        if _counts_transactions_alone(data):
            return None
        return decode(data).change
    except DecodeError:
        return None


def _counts_transactions_alone(data: bytes) -> bool:
    """Whether the header's count is that of the array behind it; DecodeError, or False."""
    # Every header has 24 to 255 bytes: two of the head, which follow the one of the block.
    if len(data) < 3 or data[0] != 0x83 or data[1] != 0x58:
        return False
    at = 3 + data[2]
    items = data[at : at + 3]
    if not items or data[-1] != 0xF6:
        return False
    if 0x80 <= items[0] <= 0x97:
        carried = items[0] - 0x80
    elif items[0] in (0x98, 0x99):
        carried = int.from_bytes(items[1 : items[0] - 0x96], "big")
    else:
        return False
    return decode_header(data[3:at]).count == carried


def split(data: bytes) -> tuple[bytes, tuple[bytes, ...]]:
    """Return (skeleton, bodies): the block without its events' bodies, and these in order.

    The skeleton is `[header, [item, ...], change or null]`; an item is `[signed part, leaf
    hashes joined, [length, ...]]`, or the carried bytes themselves when they are not of that
    form. `join` gives `data` back. Raises DecodeError when `data` is no block at all.
    """
    header_bytes, transactions, change = _read_parts(data)
    items: list[object] = []
    bodies: list[bytes] = []
    for carried in transactions:
        parts = _split_item(carried)
        if parts is None:
            items.append(carried)
            continue
        signed, events = parts
        full = [item for item in events if len(item) != HASH_BYTES]
        leaves = [x if len(x) == HASH_BYTES else merkle.leaf_hash(x) for x in events]
        items.append([signed, b"".join(leaves), [len(item) for item in events]])
        bodies.extend(full)
    return cbor.encode([header_bytes, items, change]), tuple(bodies)


def join(skeleton: bytes, bodies: Sequence[bytes | None]) -> bytes:
    """Return the block's bytes of a skeleton and its bodies; None leaves the body's leaf hash.

    Raises DecodeError: `root` when a body is not the one the skeleton names, else `malformed`.
    """
    header_bytes, items, change = _read_skeleton(skeleton)
    rest = iter(bodies)
    transactions: list[object] = []
    for item in items:
        if isinstance(item, bytes):
            transactions.append(item)
            continue
        signed, events = item
        joined: list[bytes] = []
        for leaf, length in events:
            body = None if length == HASH_BYTES else next(rest, b"")
            if body is not None and (len(body) != length or merkle.leaf_hash(body) != leaf):
                raise DecodeError("an event's body is not the one of its leaf hash", reason="root")
            joined.append(leaf if body is None else body)
        transactions.append(join_carried(signed, joined))
    if next(rest, b"") != b"":
        raise DecodeError("there are more bodies than the skeleton names")
    return cbor.encode([header_bytes, transactions, change])


def list_bodies(skeleton: bytes) -> tuple[tuple[bytes, int], ...]:
    """Return (leaf hash, length in bytes) of each body that `join` expects, in order."""
    _, items, _ = _read_skeleton(skeleton)
    return tuple(
        (leaf, length)
        for item in items
        if not isinstance(item, bytes)
        for leaf, length in item[1]
        if length != HASH_BYTES
    )


def _read_parts(data: bytes) -> tuple[bytes, list[bytes], bytes | None]:
    outer = read_array(cbor.decode(data), "the block", 3)
    change = None if outer[2] is None else read_bytes(outer[2], "the change")
    return (
        read_bytes(outer[0], "the header"),
        read_byte_strings(outer[1], "the transactions"),
        change,
    )


def _split_item(carried: bytes) -> tuple[bytes, tuple[bytes, ...]] | None:
    """Return the parts of a carried transaction, None when it must stay whole in the skeleton."""
    try:
        signed, events = split_carried(carried)
    except DecodeError:
        return None
    # Shorter ones are no events; a hash for each would make the skeleton larger than the block.
    if all(len(item) == HASH_BYTES or len(item) >= EVENT_BYTES_MIN for item in events):
        return signed, events
    return None


_SplitItem = tuple[bytes, list[tuple[bytes, int]]]


def _read_skeleton(data: bytes) -> tuple[bytes, list[bytes | _SplitItem], bytes | None]:
    outer = read_array(cbor.decode(data), "the skeleton", 3)
    change = None if outer[2] is None else read_bytes(outer[2], "the change")
    items: list[bytes | _SplitItem] = []
    for item in read_array(outer[1], "the skeleton's items"):
        if isinstance(item, bytes):
            items.append(item)
            continue
        signed, leaves, lengths = read_array(item, "a skeleton's item", 3)
        sizes = read_array(lengths, "the lengths", length_max=EVENTS_MAX)
        joined = read_bytes(leaves, "the leaf hashes", HASH_BYTES * len(sizes))
        pairs = [
            (joined[at * HASH_BYTES : (at + 1) * HASH_BYTES], read_uint(size, "a length"))
            for at, size in enumerate(sizes)
        ]
        items.append((read_bytes(signed, "the signed part"), pairs))
    return read_bytes(outer[0], "the header"), items, change
