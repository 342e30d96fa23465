"""A base: what must outlive the blocks below a height, in the same bytes on every node.

Records of fixed length say which transactions and event names stand on the ledger, a chain of
digests over them grows by a step a block, and a head says all the rest (protocol/07-base.md,
cddl/base.cddl). Pure functions over bytes; who keeps them where is the ledger's matter.
"""

import hashlib
import struct
from dataclasses import dataclass
from typing import Final, NamedTuple

from p2pcity.crypto.digest import DIGEST_BYTES, digest
from p2pcity.crypto.merkle import Frontier
from p2pcity.errors import DecodeError
from p2pcity.wire import cbor
from p2pcity.wire.fields import TIME_MS_MAX, read_bytes, read_exact_map, read_uint
from p2pcity.wire.limits import BASE_HEAD_BYTES_MAX, BASE_INTERVAL_BLOCKS, BLOCK_BYTES_MAX

RECORDS_DOMAIN: Final = "p2pcity/records/1"
BASE_DOMAIN: Final = "p2pcity/base/1"

EVENT_BITS: Final = 8
TRANSACTION_BITS: Final = 18
HEIGHT_SHIFT: Final = EVENT_BITS + TRANSACTION_BITS
"""A position is `height << 26 | transaction << 8 | event`."""
HEIGHT_MAX: Final = (1 << 37) - 1

RECORD_BYTES: Final = 48
MARK_BYTES: Final = DIGEST_BYTES + 8
EVENT_VALUE: Final = 2**64 - 1
"""A record's value when its key is an event's name; a transaction has its leaf index."""
RECORDS_PER_BLOCK_MAX: Final = BLOCK_BYTES_MAX // 32
"""No block has room for more: an event alone takes 40 bytes, a transaction more."""
NO_CHAIN: Final = bytes(DIGEST_BYTES)
"""The chain at height 0."""

_PREFIX: Final = bytes([len(RECORDS_DOMAIN)]) + RECORDS_DOMAIN.encode("ascii")
_COUNTS: Final = ("height", "index", "term", "size", "events", "dropped")
_FIELDS: Final = frozenset((*_COUNTS, "network", "hash", "time", "peaks", "city", "marks"))
_RECORD: Final = struct.Struct(">32sQQ")
_MARK: Final = struct.Struct(">32sQ")
_POSITION: Final = struct.Struct(">32xQ8x")


class Record(NamedTuple):
    """One key that is taken: a transaction's id with its leaf index, or an event's name key."""

    key: bytes
    position: int
    value: int

    @property
    def height(self) -> int:
        """The height of the block that took the key."""
        return self.position >> HEIGHT_SHIFT

    @property
    def is_event(self) -> bool:
        """Whether the key is an event's name."""
        return self.value == EVENT_VALUE


class Mark(NamedTuple):
    """The chain at a multiple of the interval, and how many records stand up to there."""

    chain: bytes
    records: int


@dataclass(frozen=True, slots=True)
class BaseHead:
    """Everything of a base but its records.

    `height` is a multiple of BASE_INTERVAL_BLOCKS, `hash` and `time_ms` (Unix ms) are its
    block's, `index` and `term` those of the entry that carries it. `frontier` is the tree after
    it, `city` the state's bytes (`city.membership.encode_city`), `events` and `dropped` are
    counts from height 1 on. `marks` are 40 bytes for each interval from the first on.
    """

    network: bytes
    height: int
    hash: bytes
    time_ms: int
    index: int
    term: int
    frontier: Frontier
    city: bytes
    events: int
    dropped: int
    marks: bytes

    @property
    def intervals(self) -> int:
        """How many intervals lie below: `height` / BASE_INTERVAL_BLOCKS."""
        return self.height // BASE_INTERVAL_BLOCKS

    @property
    def records(self) -> int:
        """How many records the base has."""
        return self.mark(self.intervals).records

    @property
    def chain(self) -> bytes:
        """The chain at `height`."""
        return self.mark(self.intervals).chain

    def mark(self, intervals: int) -> Mark:
        """Return the mark behind the first `intervals` intervals; the beginning's for 0."""
        assert 0 <= intervals <= self.intervals, intervals
        if intervals == 0:
            return Mark(NO_CHAIN, 0)
        return read_mark(self.marks, intervals - 1)


def encode_record(key: bytes, position: int, value: int) -> bytes:
    """Return the 48 bytes of a record."""
    return _RECORD.pack(key, position, value)


def read_record(data: bytes, number: int = 0) -> Record:
    """Return record `number` (0-based) of the records in `data`."""
    return Record(*_RECORD.unpack_from(data, number * RECORD_BYTES))


def encode_mark(mark: Mark) -> bytes:
    """Return the 40 bytes of a mark."""
    return _MARK.pack(*mark)


def read_mark(data: bytes, number: int = 0) -> Mark:
    """Return mark `number` (0-based) of the marks in `data`."""
    return Mark(*_MARK.unpack_from(data, number * MARK_BYTES))


def next_chain(chain: bytes, records: bytes) -> bytes:
    """Return the chain after a block with these records (none: empty bytes)."""
    return hashlib.sha256(_PREFIX + chain + records).digest()


class IntervalChain:
    """Follows the chain over the records of one interval, which come in pieces.

    Trusts nobody: whatever comes, the chain at the end is the expected one only when the
    records are the expected ones.
    """

    def __init__(self, chain: bytes, height: int) -> None:
        """Begin behind the block at `height`, where the chain was `chain`."""
        self._end = height + BASE_INTERVAL_BLOCKS
        # The block whose records are being hashed.
        self._height = height + 1
        self._chain = chain
        self._open = hashlib.sha256(_PREFIX + chain)

    def add(self, records: bytes) -> None:
        """Take the next whole records; DecodeError when their heights are seen to leave it."""
        at, count = 0, len(records) // RECORD_BYTES
        while at < count:
            height = _height_of(records, at)
            if not self._height <= height <= self._end:
                raise DecodeError(
                    f"a record of height {height} stands where those of {self._height} to "
                    f"{self._end} belong"
                )
            self._end_blocks(height)
            end = _end_of_block(records, at, count, height)
            self._open.update(memoryview(records)[at * RECORD_BYTES : end * RECORD_BYTES])
            at = end

    def finish(self) -> bytes:
        """Return the chain at the interval's end; nothing can be added behind it."""
        self._end_blocks(self._end + 1)
        return self._chain

    def _end_blocks(self, height: int) -> None:
        while self._height < height:
            self._chain = self._open.digest()
            self._open = hashlib.sha256(_PREFIX + self._chain)
            self._height += 1


def _height_of(records: bytes, number: int) -> int:
    position: int = _POSITION.unpack_from(records, number * RECORD_BYTES)[0]
    return position >> HEIGHT_SHIFT


def _end_of_block(records: bytes, first: int, count: int, height: int) -> int:
    """Return the number of the first record from `first` on that is of a later block."""
    low, high = first, count
    while low < high:
        middle = (low + high) // 2
        if _height_of(records, middle) <= height:
            low = middle + 1
        else:
            high = middle
    return low


def digest_head(data: bytes) -> bytes:
    """Return the digest of a base: over the bytes of its head."""
    return digest(BASE_DOMAIN, data)


def head_bytes_max(height: int) -> int:
    """Return how many bytes the head of a base at `height` can have at most."""
    return BASE_HEAD_BYTES_MAX + height // BASE_INTERVAL_BLOCKS * MARK_BYTES


def encode_head(head: BaseHead) -> bytes:
    """Return the bytes of a head."""
    return cbor.encode(
        {
            "network": head.network,
            "height": head.height,
            "hash": head.hash,
            "time": head.time_ms,
            "index": head.index,
            "term": head.term,
            "size": head.frontier.size,
            "peaks": b"".join(head.frontier.peaks),
            "city": head.city,
            "events": head.events,
            "dropped": head.dropped,
            "marks": head.marks,
        }
    )


def decode_head(data: bytes) -> BaseHead:
    """Return the head in `data`; DecodeError (`size` or `malformed`).

    The city's bytes are left as they are.
    """
    fields = read_exact_map(cbor.decode(data), "the base", _FIELDS)
    counts = {name: read_uint(fields[name], name) for name in _COUNTS}
    height = counts["height"]
    if not 0 < height <= HEIGHT_MAX or height % BASE_INTERVAL_BLOCKS:
        raise DecodeError(f"there is no base at height {height}")
    if len(data) > head_bytes_max(height):
        raise DecodeError(f"the base's head has {len(data)} bytes", reason="size")
    head = BaseHead(
        network=read_bytes(fields["network"], "the network", DIGEST_BYTES),
        height=height,
        hash=read_bytes(fields["hash"], "the hash", DIGEST_BYTES),
        time_ms=read_uint(fields["time"], "the time", TIME_MS_MAX),
        index=counts["index"],
        term=counts["term"],
        frontier=_read_frontier(counts["size"], fields["peaks"]),
        city=read_bytes(fields["city"], "the city"),
        events=counts["events"],
        dropped=counts["dropped"],
        marks=read_bytes(fields["marks"], "the marks"),
    )
    if head.index < height:
        raise DecodeError("the index is below the height")
    _check_marks(head)
    return head


def _read_frontier(size: int, peaks: object) -> Frontier:
    data = read_bytes(peaks, "the peaks", size.bit_count() * DIGEST_BYTES)
    return Frontier(
        size, tuple(data[at : at + DIGEST_BYTES] for at in range(0, len(data), DIGEST_BYTES))
    )


def _check_marks(head: BaseHead) -> None:
    if len(head.marks) != head.intervals * MARK_BYTES:
        raise DecodeError(f"{len(head.marks)} bytes of marks do not fit height {head.height}")
    before = 0
    for number in range(head.intervals):
        records = read_mark(head.marks, number).records
        if not before <= records <= before + BASE_INTERVAL_BLOCKS * RECORDS_PER_BLOCK_MAX:
            raise DecodeError(f"mark {number + 1} has {records} records after {before}")
        before = records
