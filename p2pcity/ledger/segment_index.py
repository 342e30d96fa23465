"""What the segment log keeps in memory: where each entry stands, and the newest payloads."""

import sys
from array import array
from bisect import bisect_left
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, NamedTuple


class Place(NamedTuple):
    """Where an entry's record stands; `payload_length` is what `entries` gives back."""

    term: int
    sequence: int
    offset: int
    length: int
    payload_length: int


@dataclass(frozen=True, slots=True)
class Start:
    """The entry that the log continues: everything up to it is in the base, not in the log."""

    index: int
    term: int


BEGINNING: Final = Start(0, 0)
"""Before the first entry there ever was: nothing was pruned."""


class EntryIndex:
    """Term and place of every entry behind `start`, 24 bytes each."""

    def __init__(self, start: Start = BEGINNING) -> None:
        self.start = start
        self._terms = array("Q")
        # The sequence of the file in the upper 32 bits, the offset in it in the lower 32.
        self._places = array("Q")
        self._lengths = array("I")
        self._payload_lengths = array("I")
        self._doubtful: set[int] = set()

    @property
    def last_index(self) -> int:
        """The newest entry's index; that of `start` when there is none."""
        return self.start.index + len(self._terms)

    def term(self, index: int) -> int:
        """Return the term of the entry at `index`, from `start` on; 0 for index 0."""
        at = self._at(index)
        return self._terms[at] if at >= 0 else self.start.term

    def payload_length(self, index: int) -> int:
        """Return the size of the payload at `index` in bytes."""
        return self._payload_lengths[self._at(index)]

    def place(self, index: int) -> Place:
        """Return where the entry at `index` stands."""
        at = self._at(index)
        place = self._places[at]
        return Place(
            self._terms[at],
            place >> 32,
            place & 0xFFFFFFFF,
            self._lengths[at],
            self._payload_lengths[at],
        )

    def append(self, place: Place) -> None:
        """Add the place of the next entry."""
        term, sequence, offset, length, payload_length = place
        self._terms.append(term)
        self._places.append(sequence << 32 | offset)
        self._lengths.append(length)
        self._payload_lengths.append(payload_length)

    def append_missing(self) -> None:
        """Add an entry that could not be read; its term is taken to be that before it."""
        self.append(Place(self.term(self.last_index), 0, 0, 0, 0))

    def doubt(self, first: int, last: int) -> None:
        """Say that what stands from `first` to `last` can't be relied on."""
        self._doubtful.update(range(first, last + 1))

    def is_missing(self, index: int) -> bool:
        """Whether the entry at `index` could not be read, or can't be relied on."""
        return self._places[self._at(index)] == 0 or index in self._doubtful

    def truncate(self, index: int) -> None:
        """Forget the entries from `index` on.

        While old files are walked that may be below `start`: what stood there is in a file that
        was removed.
        """
        if index <= self.start.index:
            self.start = Start(index - 1, 0)
        # What comes in their place is in no doubt.
        self._doubtful = {kept for kept in self._doubtful if kept < index}
        for column in self._columns:
            del column[self._at(index) :]

    def behind(self, start: Start) -> "EntryIndex":
        """Return a copy without the entries up to that of `start`, which this index reaches.

        A copy, so that whoever reads without the log's lock sees the one or the other.
        """
        count = start.index - self.start.index
        assert 0 <= count <= len(self._terms), "the log reaches from start to start"
        other = EntryIndex(start)
        for column, kept in zip(other._columns, self._columns, strict=True):
            column.extend(kept[count:])
        other._doubtful = {index for index in self._doubtful if index > start.index}
        return other

    def since(self, sequence: int) -> tuple[int, bytes]:
        """Return the index before the first entry in the last file, `sequence`, and its columns.

        No entry of it is missing. The columns are one after the other, big-endian, each with as
        many items as there are entries in the file.
        """
        at = bisect_left(self._places, sequence << 32)
        columns = [column[at:] for column in self._columns]
        for column in columns:
            _swap(column)
        return self.start.index + at, b"".join(column.tobytes() for column in columns)

    def go_on(self, kept: int, data: bytes) -> None:
        """Go on behind the entry at `kept`, which is there, with columns from `since`."""
        if kept < self.last_index:
            self.truncate(kept + 1)
        count = len(data) // sum(column.itemsize for column in self._columns)
        offset = 0
        for column in self._columns:
            more = array(column.typecode, data[offset : offset + count * column.itemsize])
            _swap(more)
            column.extend(more)
            offset += count * column.itemsize

    @property
    def _columns(self) -> tuple["array[int]", ...]:
        return self._terms, self._places, self._lengths, self._payload_lengths

    def _at(self, index: int) -> int:
        at = index - self.start.index - 1
        assert at >= -1, f"the entry at {index} was pruned"
        return at


def _swap(column: "array[int]") -> None:
    """Turn a column from this machine's byte order to big-endian, or back."""
    if sys.byteorder == "little":
        column.byteswap()


class PayloadCache:
    """The newest payloads, up to `bytes_max` together; the oldest written go first."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._payloads: OrderedDict[int, bytes] = OrderedDict()

    def get(self, index: int) -> bytes | None:
        """Return the payload at `index`, None when it is not kept."""
        return self._payloads.get(index)

    def add(self, index: int, payload: bytes) -> None:
        """Keep a payload, at the cost of the oldest."""
        self._payloads[index] = payload
        self._bytes += len(payload)
        # An empty payload costs memory too: the count is bounded with the bytes.
        while self._bytes > self._bytes_max or len(self._payloads) * 64 > self._bytes_max:
            self._bytes -= len(self._payloads.popitem(last=False)[1])

    def forget(self, index: int) -> None:
        """Forget the payloads up to `index`."""
        for old in [kept for kept in self._payloads if kept <= index]:
            self._bytes -= len(self._payloads.pop(old))

    def truncate(self, index: int) -> None:
        """Forget the payloads from `index` on."""
        while self._payloads and next(reversed(self._payloads)) >= index:
            self._bytes -= len(self._payloads.popitem()[1])
