import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pcity.api import sequence
from p2pcity.errors import DecodeError
from p2pcity.wire import cbor

_ITEM = st.tuples(st.binary(max_size=300), st.lists(st.binary(max_size=300), max_size=5)).map(
    lambda pair: cbor.encode([pair[0], pair[1]])
)


@given(st.lists(_ITEM, min_size=1, max_size=10))
def test_a_sequence_is_cut_where_its_items_end(items: list[bytes]) -> None:
    assert sequence.split(b"".join(items)) == items


@given(st.lists(_ITEM, min_size=1, max_size=3), st.data())
def test_a_cut_sequence_is_refused_or_has_the_first_items(
    items: list[bytes], data: st.DataObject
) -> None:
    whole = b"".join(items)
    size = data.draw(st.integers(0, len(whole) - 1))
    try:
        found = sequence.split(whole[:size])
    except DecodeError:
        return
    assert found == items[: len(found)]


@given(st.binary(max_size=100))
def test_any_bytes_are_cut_or_refused(data: bytes) -> None:
    try:
        items = sequence.split(data)
    except DecodeError:
        return
    assert b"".join(items) == data


def test_too_many_items() -> None:
    with pytest.raises(DecodeError) as caught:
        sequence.split(cbor.encode([b"", []]) * (sequence.ITEMS_MAX + 1))
    assert caught.value.reason == "size"


def test_lengths_beyond_all_memory_are_refused() -> None:
    for data in (b"\x82\x5b" + b"\xff" * 8, b"\x82\x40\x9b" + b"\xff" * 8, b"\x82\x5f"):
        with pytest.raises(DecodeError):
            sequence.split(data)
