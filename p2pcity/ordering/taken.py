"""The keys that an applied block takes for ever, as the records of a base (protocol/07-base.md)."""

from p2pcity.ordering.apply import AppliedBlock
from p2pcity.wire.base import EVENT_BITS, EVENT_VALUE, HEIGHT_SHIFT, encode_record


def records_of(block: AppliedBlock) -> bytes:
    """Return the records of a block, in ledger order; empty bytes when it takes no key."""
    records: list[bytes] = []
    base = block.height << HEIGHT_SHIFT
    for at, item in enumerate(block.transactions):
        if item.leaf_index is None or item.carried is None:
            continue
        position = base | at << EVENT_BITS
        records.append(encode_record(item.carried.transaction.id, position, item.leaf_index))
        for number, name in enumerate(item.names):
            if name is not None and number not in item.duplicate_events:
                records.append(encode_record(name, position | number, EVENT_VALUE))
    return b"".join(records)
