"""Batches: packed so that each fits into one message, in order, none lost."""

from hypothesis import given
from hypothesis import strategies as st

from p2pcity.wire import gossip
from p2pcity.wire.limits import GOSSIP_BYTES_MAX, TRANSACTION_BYTES_MAX


@given(st.lists(st.integers(0, TRANSACTION_BYTES_MAX), max_size=40))
def test_packed_batches_fit(sizes: list[int]) -> None:
    items = [bytes(size) for size in sizes]
    batches = list(gossip.pack_batches(items))
    assert [item for batch in batches for item in batch] == items
    for batch in batches:
        assert len(gossip.encode_batch(batch)) <= GOSSIP_BYTES_MAX


def test_many_small_items_keep_to_the_count() -> None:
    batches = list(gossip.pack_batches([b""] * 2500))
    assert [len(batch) for batch in batches] == [1024, 1024, 452]
