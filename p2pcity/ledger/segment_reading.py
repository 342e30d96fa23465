"""One entry read from a file of the segment log, verified on the way."""

from pathlib import Path

from p2pcity.ledger import records
from p2pcity.ledger.records import BadRecord, Kind
from p2pcity.ledger.segment_file import SegmentReader
from p2pcity.ledger.segment_index import Place
from p2pcity.ledger.segment_recovery import EntryDamaged, corrupt


def read_entry(reader: SegmentReader, path: Path, index: int, place: Place) -> bytes:
    """Return the payload of the entry at `index`; EntryDamaged when it is not what was written."""
    # The checksum of the record before, which this one is chained to, stands in front of it.
    start = place.offset - records.CHECKSUM_BYTES
    buffer = reader.read(path, start, place.length + records.CHECKSUM_BYTES)
    try:
        previous = buffer[: records.CHECKSUM_BYTES]
        record = records.parse_record(buffer, records.CHECKSUM_BYTES, previous)
        term, payload = records.read_payload(record, buffer)
        if (record.kind, record.index, term) != (Kind.ENTRY, index, place.term):
            raise BadRecord("it is another record")
    except BadRecord as bad:
        damage = corrupt(path.parent, index, f"{path.name}: {bad}")
        raise EntryDamaged(str(damage), index=index, remedy=damage.remedy) from bad
    return payload
