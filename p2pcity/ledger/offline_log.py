"""The segment log of a node that does not run, read without writing a byte."""

from pathlib import Path
from typing import Final

from p2pcity.errors import CorruptionError
from p2pcity.ledger import records
from p2pcity.ledger.records import BadRecord, Kind
from p2pcity.ledger.segment_file import SegmentReader
from p2pcity.ledger.segment_recovery import Recovery, corrupt, recover
from p2pcity.wire.raft import Entry, HardState

_ENTRIES_MAX: Final = 4_096


class OfflineLog:
    """Entries and hard state of a data directory; a torn tail is left out, not cut."""

    def __init__(self, directory: Path) -> None:
        """Verify the log in `directory` (`log/`); ConfigError, CorruptionError."""
        self._recovered = recover(directory)
        self._reader = SegmentReader()

    @property
    def last_index(self) -> int:
        """The newest entry's index, 0 when there is none."""
        return self._recovered.index.last_index

    @property
    def hard_state(self) -> HardState:
        """Term, vote and commit index as they were last written."""
        return self._recovered.hard_state

    @property
    def incarnation(self) -> bytes:
        """The 16 bytes that the log was made with."""
        return self._recovered.header.incarnation

    @property
    def network(self) -> bytes | None:
        """The network that the log is bound to, None before its first start."""
        return self._recovered.network

    @property
    def recovery(self) -> Recovery:
        """What the walk over the files found."""
        return self._recovered.report()

    def entries(self, low: int, high: int, bytes_max: int) -> list[Entry]:
        """Return the entries from `low` to below `high`: at least one, up to `bytes_max` payload.

        Raises CorruptionError with the index of an entry that is damaged.
        """
        assert 1 <= low <= high <= self.last_index + 1, f"no entries {low} to {high}"
        found: list[Entry] = []
        size = 0
        for index in range(low, min(high, low + _ENTRIES_MAX)):
            size += self._recovered.index.payload_length(index)
            if found and size > bytes_max:
                break
            found.append(self._read(index))
        return found

    def close(self) -> None:
        """Close the file that is open, if any."""
        self._reader.close()

    def _read(self, index: int) -> Entry:
        place = self._recovered.index.place(index)
        path = self._recovered.paths[place.sequence]
        # The checksum of the record before, which this one is chained to, stands in front of it.
        start = place.offset - records.CHECKSUM_BYTES
        buffer = self._reader.read(path, start, place.length + records.CHECKSUM_BYTES)
        try:
            previous = buffer[: records.CHECKSUM_BYTES]
            record = records.parse_record(buffer, records.CHECKSUM_BYTES, previous)
            term, payload = records.read_payload(record, buffer)
            if (record.kind, record.index) != (Kind.ENTRY, index):
                raise BadRecord("it is another record")
        except BadRecord as bad:
            error: CorruptionError = corrupt(path.parent, index, f"{path.name}: {bad}")
            raise error from bad
        return Entry(term, index, payload)
