"""What the segment log keeps in memory: where each entry stands, and the newest payloads."""

from array import array
from collections import OrderedDict
from typing import NamedTuple


class Place(NamedTuple):
    """Where an entry's record stands; `payload_length` is what `entries` gives back."""

    term: int
    sequence: int
    offset: int
    length: int
    payload_length: int


class EntryIndex:
    """Term and place of every entry, 24 bytes each; the Raft index of the first one is 1."""

    def __init__(self) -> None:
        self._terms = array("Q")
        # The sequence of the file in the upper 32 bits, the offset in it in the lower 32.
        self._places = array("Q")
        self._lengths = array("I")
        self._payload_lengths = array("I")
        self._doubtful: set[int] = set()

    @property
    def last_index(self) -> int:
        """The newest entry's index, 0 when there is none."""
        return len(self._terms)

    def term(self, index: int) -> int:
        """Return the term of the entry at `index`; 0 for index 0."""
        return self._terms[index - 1] if index else 0

    def payload_length(self, index: int) -> int:
        """Return the size of the payload at `index` in bytes."""
        return self._payload_lengths[index - 1]

    def place(self, index: int) -> Place:
        """Return where the entry at `index` stands."""
        at = index - 1
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
        self._terms.append(place.term)
        self._places.append(place.sequence << 32 | place.offset)
        self._lengths.append(place.length)
        self._payload_lengths.append(place.payload_length)

    def append_missing(self) -> None:
        """Add an entry that could not be read; its term is taken to be that before it."""
        self.append(Place(self.term(self.last_index), 0, 0, 0, 0))

    def doubt(self, first: int, last: int) -> None:
        """Say that what stands from `first` to `last` can't be relied on."""
        self._doubtful.update(range(first, last + 1))

    def is_missing(self, index: int) -> bool:
        """Whether the entry at `index` could not be read, or can't be relied on."""
        return self._places[index - 1] == 0 or index in self._doubtful

    def truncate(self, index: int) -> None:
        """Forget the entries from `index` on."""
        for column in (self._terms, self._places, self._lengths, self._payload_lengths):
            del column[index - 1 :]


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

    def truncate(self, index: int) -> None:
        """Forget the payloads from `index` on."""
        while self._payloads and next(reversed(self._payloads)) >= index:
            self._bytes -= len(self._payloads.popitem()[1])
