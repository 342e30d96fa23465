"""One gossip message on the transactions topic: a batch (protocol/04-gossip.md).

A batch is a CBOR array of carried transactions, each a byte string. A sender packs what it
admitted; a receiver judges each transaction by itself.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from p2pcity.errors import DecodeError
from p2pcity.wire import cbor
from p2pcity.wire.fields import read_byte_strings
from p2pcity.wire.limits import GOSSIP_BYTES_MAX, TRANSACTION_BYTES_MAX

BATCH_ITEMS_MAX: Final = 1024
ARRAY_HEAD_BYTES_MAX: Final = 3
ITEM_HEAD_BYTES_MAX: Final = 5


def encode_batch(items: list[bytes]) -> bytes:
    """Return the message that carries `items` (at least one, 65 KiB in all)."""
    assert items, "a batch carries at least one transaction"
    data = cbor.encode(list(items))
    assert len(data) <= GOSSIP_BYTES_MAX, "the caller packs batches with pack_batches"
    return data


def decode_batch(data: bytes) -> list[bytes]:
    """Return the carried transactions of a message, none of them looked into.

    Raises DecodeError: `size` above 65 KiB, or for an item above 64 KiB, else `malformed`.
    """
    if len(data) > GOSSIP_BYTES_MAX:
        raise DecodeError(f"the gossip message has {len(data)} bytes", reason="size")
    items = read_byte_strings(cbor.decode(data), "the batch", BATCH_ITEMS_MAX)
    if not items:
        raise DecodeError("a batch carries at least one transaction")
    if any(len(item) > TRANSACTION_BYTES_MAX for item in items):
        raise DecodeError("a transaction of the batch is too large", reason="size")
    return items


def pack_batches(items: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Yield `items` in order, in lists that each fit into one message."""
    batch: list[bytes] = []
    size = ARRAY_HEAD_BYTES_MAX
    for item in items:
        item_size = len(item) + ITEM_HEAD_BYTES_MAX
        if batch and (size + item_size > GOSSIP_BYTES_MAX or len(batch) == BATCH_ITEMS_MAX):
            yield batch
            batch, size = [], ARRAY_HEAD_BYTES_MAX
        batch.append(item)
        size += item_size
    if batch:
        yield batch
