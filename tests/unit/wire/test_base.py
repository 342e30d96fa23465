"""The chain over records that come in pieces, and what a head says of them."""

import random

import pytest

from p2pcity.errors import DecodeError
from p2pcity.wire import base
from p2pcity.wire.base import EVENT_VALUE, NO_CHAIN, RECORD_BYTES, IntervalChain
from p2pcity.wire.limits import BASE_INTERVAL_BLOCKS
from tests.vectors_base import head, interval_of, records_of


def test_the_chain_is_the_same_in_whatever_pieces_the_records_come() -> None:
    records, chain = interval_of(0)
    for seed in range(50):
        rng = random.Random(seed)
        reader = IntervalChain(NO_CHAIN, 0)
        at = 0
        while at < len(records):
            end = at + rng.randint(0, 9) * RECORD_BYTES
            reader.add(records[at:end])
            at = end
        assert reader.finish() == chain


def test_any_other_records_give_another_chain() -> None:
    records, chain = interval_of(0)
    for seed in range(200):
        rng = random.Random(seed)
        other = bytearray(records)
        if rng.random() < 0.5:
            other[rng.randrange(len(other))] ^= 1 << rng.randrange(8)
        else:
            first = rng.randrange(len(other) // RECORD_BYTES) * RECORD_BYTES
            del other[first : first + RECORD_BYTES]
        reader = IntervalChain(NO_CHAIN, 0)
        try:
            reader.add(bytes(other))
        except DecodeError:
            continue
        assert reader.finish() != chain, seed


def test_records_say_what_they_are() -> None:
    records = records_of(7, 1, 3)
    transaction, event = (base.read_record(records, number) for number in (0, 1))
    assert (transaction.height, transaction.value, transaction.is_event) == (7, 3, False)
    assert (event.height, event.value, event.is_event) == (7, EVENT_VALUE, True)
    with pytest.raises(DecodeError, match="stands where those of 257 to 512 belong"):
        IntervalChain(NO_CHAIN, BASE_INTERVAL_BLOCKS).add(records)


def test_a_head_knows_its_marks() -> None:
    found = base.decode_head(base.encode_head(head(3)))
    assert found == head(3)
    assert found.mark(0) == (NO_CHAIN, 0)
    assert found.mark(3) == (found.chain, found.records)
    assert found.records == 201
    assert base.head_bytes_max(found.height) == 1024 * 1024 + 3 * base.MARK_BYTES
