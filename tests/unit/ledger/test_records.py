"""The records of the segment log: written, read, and refused when a bit is wrong."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pcity.ledger import records
from p2pcity.ledger.records import BadRecord, FileHeader, Kind
from p2pcity.wire.raft import Entry, HardState

PREVIOUS = b"p" * 16
KEY = b"k" * 16
UINT = st.integers(0, 2**64 - 1)


@given(UINT, st.binary(max_size=200), st.binary(min_size=16, max_size=16), st.integers(0, 50))
def test_a_record_comes_back_and_ends_with_its_checksum(
    index: int, data: bytes, previous: bytes, offset: int
) -> None:
    encoded = records.encode_record(Kind.NETWORK, index, data, previous)
    record = records.parse_record(bytes(offset) + encoded + b"next", offset, previous)
    assert (record.kind, record.index, record.data) == (Kind.NETWORK, index, data)
    assert (record.offset, record.length) == (offset, len(encoded))
    assert record.checksum == encoded[-16:]


@given(UINT, UINT, st.binary(max_size=300))
def test_any_payload_comes_back(term: int, index: int, payload: bytes) -> None:
    encoded = records.encode_entry(Entry(term, index, payload), PREVIOUS)
    record = records.parse_record(encoded, 0, PREVIOUS)
    assert (record.kind, record.index) == (Kind.ENTRY, index)
    assert records.read_payload(record, encoded) == (term, payload)


@given(UINT, UINT, st.none() | st.text(min_size=1, max_size=60), UINT)
def test_a_hard_state_comes_back(term: int, commit: int, vote: str | None, last: int) -> None:
    encoded = records.encode_hard_state(HardState(term, vote, commit), last, PREVIOUS)
    record = records.parse_record(encoded, 0, PREVIOUS)
    assert records.parse_hard_state(record.data) == HardState(term, vote, commit)


def test_a_file_header_comes_back() -> None:
    header = FileHeader(b"i" * 16, KEY, 7, 1234, PREVIOUS)
    encoded = records.encode_file_header(header)
    assert len(encoded) == records.FILE_HEADER_BYTES
    parsed, record = records.parse_file_header(encoded + b"more")
    assert parsed == header
    assert record.offset + record.length == len(encoded)


@pytest.mark.parametrize(
    "encoded",
    [
        records.encode_entry(Entry(3, 9, b"payload"), PREVIOUS),
        records.encode_hard_state(HardState(3, "peer", 8), 9, PREVIOUS),
        records.encode_mark(KEY, 1, 0, 9, PREVIOUS),
        records.encode_record(Kind.TRUNCATION, 9, b"", PREVIOUS),
    ],
)
def test_every_flipped_bit_and_every_cut_is_noticed(encoded: bytes) -> None:
    for bit in range(len(encoded) * 8):
        harmed = bytearray(encoded)
        harmed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadRecord):
            records.parse_record(bytes(harmed) + bytes(100), 0, PREVIOUS)
    for size in range(len(encoded)):
        with pytest.raises(BadRecord):
            records.parse_record(encoded[:size], 0, PREVIOUS)
    with pytest.raises(BadRecord):
        records.parse_record(encoded, 0, b"q" * 16)


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_garbage_is_a_bad_record_and_nothing_worse(data: bytes) -> None:
    with pytest.raises(BadRecord):
        records.parse_record(data, 0, PREVIOUS)
    with pytest.raises(BadRecord):
        records.parse_file_header(data)
    assert records.find_mark(data, 0, KEY, 1) is None


@given(st.binary(max_size=120))
def test_checked_data_of_another_shape_is_a_bad_record(data: bytes) -> None:
    for parse in (records.parse_entry, records.parse_hard_state):
        try:
            parse(data)
        except BadRecord:
            continue


def test_a_mark_is_found_behind_any_damage_but_only_where_it_belongs() -> None:
    damage = random.Random(2).randbytes(500)
    mark = records.encode_mark(KEY, 3, 500, 9, PREVIOUS)
    assert records.find_mark(damage + mark + bytes(50), 0, KEY, 3) == 500
    assert records.find_mark(damage + mark, 499, KEY, 3) == 500
    assert records.find_mark(damage + mark, 500, KEY, 3) is None, "it is not above itself"
    assert records.find_mark(damage[:-1] + mark, 0, KEY, 3) is None, "another offset"
    assert records.find_mark(damage + mark, 0, KEY, 4) is None, "another file"
    assert records.find_mark(damage + mark, 0, b"o" * 16, 3) is None, "another log"
    fake = records.mark_magic(KEY) + bytes(40)
    assert records.find_mark(damage[:450] + fake[:50] + mark, 0, KEY, 3) == 500


def test_an_erased_body_has_its_length_and_is_never_all_zero() -> None:
    for length in (1, 15, 16, 17, 33, 100):
        erased = records.erased_body(length, b"0123456789abcdef")
        assert len(erased) == length
        assert erased.startswith(b"0123456789abcdef"[:length])
