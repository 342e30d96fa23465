"""The end of the segment log: the file that grows, its checksums' chain, its syncs and marks."""

import threading
from collections.abc import Callable, Sequence
from typing import Final

from p2pcity.ledger import records
from p2pcity.ledger.segment_file import SegmentFile
from p2pcity.ledger.segment_found import Recovered
from p2pcity.ledger.segment_group import KeptRecord, encode_kept
from p2pcity.ledger.segment_index import EntryIndex
from p2pcity.ledger.segment_index_file import IndexWriter
from p2pcity.ledger.segment_statistics import SyncTimes
from p2pcity.wire.raft import HardState


class SegmentTail:
    """Appends to the last file; every call may raise SyncFailedError, which is final.

    One thread writes; `sync_times` is changed under the lock.
    """

    def __init__(
        self,
        recovered: Recovered,
        lock: threading.Lock,
        clock: Callable[[], float],
        segment_bytes_max: int,
    ) -> None:
        """Open the last file that the recovery found; nothing is written yet."""
        self.checksum = recovered.checksum
        self.is_marked = recovered.last_mark_end == recovered.size
        self.is_mark_synced = False
        self.bytes_written = 0
        self.version = recovered.version
        self.sync_times: Final = SyncTimes()
        self.file = SegmentFile(recovered.paths[recovered.sequence], recovered.sequence)
        self._directory = recovered.directory
        self._header = recovered.header
        self._lock = lock
        self._clock = clock
        self._index_writer = IndexWriter(recovered, segment_bytes_max)

    @property
    def is_older(self) -> bool:
        """Whether the last file is in an older format: nothing is written to it but its end."""
        return self.version < records.FORMAT_VERSION

    def append(self, data: bytes) -> None:
        """Write records: `data` ends with the checksum of the last one."""
        self._take(data)
        self.is_marked = False

    def _take(self, data: bytes) -> None:
        self.file.append(data)
        self.checksum = data[-records.CHECKSUM_BYTES :]
        self.bytes_written += len(data)
        self._index_writer.wrote(data)

    def sync(self) -> None:
        """Make what was written durable, and time it."""
        begin = self._clock()
        self.file.sync()
        duration_ms = (self._clock() - begin) * 1000
        with self._lock:
            self.sync_times.add(duration_ms)

    def mark(self, last_index: int) -> None:
        """Say on disk that everything so far was synced; without a sync of its own."""
        sequence, size = self.file.sequence, self.file.size
        self._take(
            records.encode_mark(self._header.mark_key, sequence, size, last_index, self.checksum)
        )
        self.is_marked, self.is_mark_synced = True, False

    def settle(self, last_index: int) -> None:
        """Bring everything to the disk, with a mark at the end that is there too."""
        if not self.is_marked:
            self.sync()
            self.mark(last_index)
        if not self.is_mark_synced:
            self.sync()
            self.is_mark_synced = True

    def save_index(
        self, index: EntryIndex, hard_state: HardState, network: bytes | None, *, is_full: bool
    ) -> None:
        """Write a saved index if the last one is far away, or the file is full."""
        size = self.file.size
        if self.is_marked and (is_full or self._index_writer.is_due(size)):
            self._index_writer.write(index, size, self.checksum, hard_state, network)

    def truncated(self, index: int) -> None:
        """What was appended replaces everything from `index` on."""
        self._index_writer.truncated(index)

    def voted(self, vote: str | None) -> None:
        """A hard state with this vote was appended."""
        self._index_writer.voted(vote)

    def make_next(
        self, first_index: int, previous: bytes, kept: Sequence[KeptRecord]
    ) -> tuple[SegmentFile, bytes]:
        """Make the next file: it has its name once its header and the `kept` are durable.

        Returns the file and all its bytes; `go_on` turns to it.
        """
        sequence = self.file.sequence + 1
        header = self._header._replace(
            sequence=sequence,
            first_index=first_index,
            previous=previous,
            version=records.FORMAT_VERSION,
        )
        data = records.encode_file_header(header)
        data += b"".join(encode_kept(kept, first_index - 1, data[-records.CHECKSUM_BYTES :]))
        return SegmentFile.make(self._directory, sequence, first_index, data), data

    def go_on(self, file: SegmentFile, first_index: int, data: bytes) -> None:
        """Turn to a file from `make_next`."""
        self.file.close()
        self.file, self.version = file, records.FORMAT_VERSION
        self.checksum = data[-records.CHECKSUM_BYTES :]
        self._index_writer.began(file.path, first_index, data)
