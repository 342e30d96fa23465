"""What one save of the segment log writes: the records of its group, checked before."""

from collections.abc import Sequence
from typing import Final

from p2pcity.ledger import records
from p2pcity.ledger.records import Kind
from p2pcity.ledger.segment_index import EntryIndex, Place
from p2pcity.wire.raft import Entry, HardState

KeptRecord = tuple[Kind, bytes]
"""Kind and data of a record."""

_CHECKSUM_BYTES: Final = records.CHECKSUM_BYTES


def check_group(
    index: EntryIndex, before: HardState, hard_state: HardState, entries: Sequence[Entry]
) -> int:
    """Return the last index after a save; assert that the core keeps Raft's promises."""
    last = index.last_index
    if entries:
        first = entries[0].index
        assert before.commit < first <= last + 1, "committed entries stay"
        term = index.term(first - 1)
        for expected, entry in enumerate(entries, first):
            assert entry.index == expected, "indexes have no gaps"
            assert term <= entry.term <= hard_state.term, "terms never fall"
            term = entry.term
        last = entries[-1].index
    assert hard_state.term >= before.term, "the term never falls"
    assert before.commit <= hard_state.commit <= last, "the commit index never falls"
    return last


def encode_group(
    hard_state: HardState | None,
    entries: Sequence[Entry],
    *,
    last_before: int,
    last: int,
    sequence: int,
    offset: int,
    previous: bytes,
) -> tuple[list[bytes], list[Place]]:
    """Return the records, and the place of each entry in the file `sequence` from `offset` on.

    `last_before` and `last` are the last index before and after; `previous` is the checksum that
    the first record continues.
    """
    group: list[bytes] = []
    places: list[Place] = []
    if entries and entries[0].index <= last_before:
        group.append(records.encode_record(Kind.TRUNCATION, entries[0].index, b"", previous))
        previous, offset = group[-1][-_CHECKSUM_BYTES:], offset + len(group[-1])
    for entry in entries:
        record = records.encode_entry(entry, previous)
        places.append(Place(entry.term, sequence, offset, len(record), len(entry.payload)))
        group.append(record)
        previous, offset = record[-_CHECKSUM_BYTES:], offset + len(record)
    if hard_state is not None:
        group.append(records.encode_hard_state(hard_state, last, previous))
    return group, places


def encode_kept(kept: Sequence[KeptRecord], last: int, previous: bytes) -> list[bytes]:
    """Return the records that a log needs wherever it begins; they continue `previous`."""
    group: list[bytes] = []
    for kind, data in kept:
        group.append(records.encode_record(kind, last, data, previous))
        previous = group[-1][-_CHECKSUM_BYTES:]
    return group
