"""A segment log for tests: entries that hold real blocks."""

from pathlib import Path

from p2pcity.crypto.keys import PrivateKey
from p2pcity.ledger import records
from p2pcity.ledger.records import Kind, Record
from p2pcity.ledger.segment_log import CACHE_BYTES_MAX, SEGMENT_BYTES_MAX, SegmentLog
from p2pcity.wire import block, transaction
from p2pcity.wire.event import Event
from p2pcity.wire.raft import Entry

INCARNATION = bytes(range(16))
MARK_KEY = b"k" * 16
NETWORK = b"n" * 32
KEY = PrivateKey.from_seed(b"s" * 32)
ALL = 1 << 40


def make_payload(height: int, transactions: int = 2, events: int = 3) -> bytes:
    def make_event(number: int) -> Event:
        return Event(
            salt=number.to_bytes(16, "big"),
            id=f"{height}-{number}",
            type="city.permit.granted",
            source="https://permits.example",
            subject=None,
            time_ms=1_700_000_000_000 + number,
            place=None,
            dataschema=None,
            datacontenttype=None,
            data={"text": "x" * (number * 7)},
            extensions={},
        )

    carried = [
        transaction.make(
            KEY,
            NETWORK,
            [make_event(position * events + number) for number in range(events)],
            1_700_000_100_000,
            bytes([position]) * 16,
        )
        for position in range(transactions)
    ]
    return block.make(height, NETWORK, 1_700_000_000_000, carried, 0, b"v" * 32, 1).data


PAYLOADS = [b"", *(make_payload(height) for height in range(1, 8))]


def make_entry(index: int, term: int = 1) -> Entry:
    return Entry(term, index, PAYLOADS[index % len(PAYLOADS)])


def create(
    directory: Path,
    segment_bytes_max: int = SEGMENT_BYTES_MAX,
    cache_bytes_max: int = CACHE_BYTES_MAX,
) -> SegmentLog:
    SegmentLog.create(directory, INCARNATION, mark_key=MARK_KEY)
    return SegmentLog.open(
        directory, segment_bytes_max=segment_bytes_max, cache_bytes_max=cache_bytes_max
    )


def last_file(directory: Path) -> Path:
    return max(directory.glob("*.segment"))


def flip(path: Path, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


def entry_records(file: Path) -> list[Record]:
    """The entries in a segment, where they lie."""
    buffer = file.read_bytes()
    _, record = records.parse_file_header(buffer)
    found = []
    while record.offset + record.length < len(buffer):
        record = records.parse_record(buffer, record.offset + record.length, record.checksum)
        if record.kind == Kind.ENTRY:
            found.append(record)
    return found
