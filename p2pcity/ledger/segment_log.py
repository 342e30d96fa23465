"""The segment log: entries and hard state in append-only files that notice a flipped bit.

The bytes are in `records` and `segment_group`, the files in `segment_file`, the walk at a start in
`segment_recovery`. One save is one write and one sync; right after the sync a mark is written
that says so (it reaches the disk with the next sync, or by itself): from then on a bad bit
below the mark is corruption and never mistaken for a torn tail. The disk is taken to keep old
bytes of a sector whole when new bytes are appended to it (as SQLite's PSOW does).

One thread saves (the log's writer thread), any thread may read meanwhile: what a save wrote is
published under a lock once it is on the disk. After a failed write or sync every call raises
SyncFailedError: the process stops, and the next start writes the tail anew.
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Self

from p2pcity.errors import ConfigError, LedgerError, Pruned, SyncFailedError
from p2pcity.ledger import records, segment_index_file
from p2pcity.ledger.records import FileHeader, Kind
from p2pcity.ledger.segment_file import (
    SegmentFile,
    SegmentReader,
    failed,
    list_segments,
    remove,
    sync_directory,
)
from p2pcity.ledger.segment_found import Mended, Recovered, Recovery
from p2pcity.ledger.segment_group import KeptRecord, check_group, encode_group, encode_kept
from p2pcity.ledger.segment_index import BEGINNING, EntryIndex, PayloadCache, Place, Start
from p2pcity.ledger.segment_index_file import SEGMENT_SHARE
from p2pcity.ledger.segment_reading import read_entry
from p2pcity.ledger.segment_recovery import corrupt, does_not_reach, recover
from p2pcity.ledger.segment_repair import Mender
from p2pcity.ledger.segment_statistics import Statistics
from p2pcity.ledger.segment_tail import SegmentTail
from p2pcity.wire.raft import Entry, HardState

SEGMENT_BYTES_MAX: Final = 64 * 1024 * 1024
CACHE_BYTES_MAX: Final = 16 * 1024 * 1024
INCARNATION_BYTES: Final = 16
NETWORK_BYTES: Final = 32

Picked = tuple[int, Place, bytes | None]
"""An entry that is to be read: its index, its place, and its payload where that is in memory."""


class SegmentLog:
    """Raft's storage on disk (`raft.log_storage.LogStorage`)."""

    def __init__(
        self,
        recovered: Recovered,
        *,
        clock: Callable[[], float],
        cache_bytes_max: int,
        segment_bytes_max: int,
    ) -> None:
        """Use `open`; this only takes over what the recovery found."""
        self.incarnation = recovered.header.incarnation
        self.recovery: Recovery | None = None
        if recovered.bytes_cut:
            self.recovery = recovered.report()
        self.mended: tuple[Mended, ...] = tuple(recovered.mended)
        self.gaps: tuple[str, ...] = tuple(gap.what for gap in recovered.gaps)
        self.holes = recovered.holes
        self.is_vote_known = recovered.is_vote_known
        self._directory = recovered.directory
        self._network = recovered.network
        self._hard_state = recovered.hard_state
        self._index = recovered.index
        self._paths = recovered.paths
        self._cache = PayloadCache(cache_bytes_max)
        self._segment_bytes_max = segment_bytes_max
        self._lock = threading.Lock()
        self._failure: SyncFailedError | None = None
        self._is_closed = False
        self._tail = SegmentTail(recovered, self._lock, clock, segment_bytes_max)
        self._full_bytes = sum(
            path.stat().st_size
            for sequence, path in self._paths.items()
            if sequence != recovered.sequence
        )

    @classmethod
    def create(cls, directory: Path, incarnation: bytes, *, mark_key: bytes | None = None) -> None:
        """Make a new log in `directory` (made, or empty), durably; only `init` calls this.

        The 16 random bytes of `mark_key` are drawn when not given. Raises ConfigError when
        there is a log already, SyncFailedError when the disk refuses.
        """
        assert len(incarnation) == INCARNATION_BYTES, "an incarnation has 16 bytes"
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise failed(directory, "making", error) from error
        if list_segments(directory):
            raise ConfigError(
                f"there is a raft_log in {directory} already",
                remedy="Use another data directory: a log is made once and never made anew.",
            )
        key = mark_key or os.urandom(16)
        header = FileHeader(incarnation, key, 1, 1, records.ZERO_CHECKSUM)
        SegmentFile.make(directory, 1, 1, records.encode_file_header(header)).close()
        sync_directory(directory.parent)

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        cache_bytes_max: int = CACHE_BYTES_MAX,
        segment_bytes_max: int = SEGMENT_BYTES_MAX,
        mender: Mender | None = None,
        start: Start = BEGINNING,
        may_begin_anew: bool = False,
    ) -> Self:
        """Verify the whole log, cut a torn tail, write what may not be on the disk anew.

        `clock` (in seconds) times the syncs. With a `mender` damaged records are made again
        (`mended` says which), and those that can't be are `holes`: a log that has any may be
        read around them, and nothing else. The log goes on from `start`, where the base ends;
        one that lacks it begins anew there if it may, since others gave the base. Raises
        ConfigError (no log, no rights, a newer format), CorruptionError, SyncFailedError.
        """
        distance = segment_bytes_max // SEGMENT_SHARE
        recovered = recover(directory, mender, start=start, index_bytes=distance)
        if recovered.is_behind and not may_begin_anew:
            raise does_not_reach(directory, start)
        log = cls(
            recovered,
            clock=clock,
            cache_bytes_max=cache_bytes_max,
            segment_bytes_max=segment_bytes_max,
        )
        try:
            log._mend(recovered)
        except BaseException:  # closed, then raised on
            log._tail.file.close()
            raise
        return log

    def _mend(self, recovered: Recovered) -> None:
        """Make the disk hold what recovery read, whatever the page cache says."""
        for mended in recovered.mended:
            file = SegmentFile(self._paths[mended.sequence], mended.sequence)
            try:
                file.rewrite(mended.offset, mended.data)
                file.sync()
            finally:
                file.close()
        self._tail.file.cut(recovered.size)
        self._tail.file.rewrite(recovered.tail_offset, recovered.tail)
        self._tail.sync()
        sync_directory(self._directory)
        for path in recovered.left_over:
            remove(path)
        for sequence, data in recovered.saved_indexes.items():
            segment_index_file.write(self._paths[sequence], data)
        segment_index_file.remove_strays(self._directory, self._paths.values())
        if not self._tail.is_marked:
            self._tail.mark(self._index.last_index)
            self._tail.sync()
        self._tail.is_mark_synced = True
        if recovered.is_behind:
            self._begin_anew(recovered.start)
        if self._tail.is_older and not self.holes:
            # The change of format: the new file has its name once it is durable, or there is none.
            self._roll()
        if recovered.start.index and not self.holes:
            self.remove_files()

    @property
    def network(self) -> bytes | None:
        """The 32-byte network id this log is bound to, None before the first binding."""
        return self._network

    @property
    def first_index(self) -> int:
        """The index of the oldest entry that is kept: 1 unless the log was pruned."""
        with self._lock:
            return self._index.start.index + 1

    @property
    def last_index(self) -> int:
        """The index of the newest entry that a save has finished, 0 when there is none."""
        with self._lock:
            return self._index.last_index

    @property
    def hard_state(self) -> HardState:
        """The hard state of the newest save that has finished."""
        return self._hard_state

    @property
    def size_bytes(self) -> int:
        """How many bytes all files have."""
        return self._full_bytes + self._tail.file.size

    def term(self, index: int) -> int:
        """Return the term at `index`, from the one before the first entry on; 0 for index 0.

        The caller keeps within the bounds.
        """
        with self._lock:
            self._check()
            start = self._index.start.index
            assert start <= index <= self._index.last_index, f"no term at index {index}"
            if index > start and self._index.is_missing(index):
                raise corrupt(self._directory, index, "the entry is missing")
            return self._index.term(index)

    def entries(self, low: int, high: int, bytes_max: int) -> list[Entry]:
        """Return the entries from `low` to below `high`: at least one, up to `bytes_max` payload.

        Entries that are not in memory are read and verified; CorruptionError names the first
        one that went bad. Raises Pruned when they are not kept any more.
        """
        with self._lock:
            self._check()
            assert 1 <= low <= high <= self._index.last_index + 1, f"no entries {low} to {high}"
            if low <= self._index.start.index:
                raise _pruned(low)
            picked = self._pick(low, high, bytes_max)
        return self._read_picked(picked)

    def entries_from(self, low: int, count_max: int, bytes_max: int) -> list[Entry]:
        """Return entries from `low` on as `entries` does, as far as there are any now.

        For any thread, while another one truncates. None when the first is not there; Pruned when
        it goes meanwhile.
        """
        with self._lock:
            self._check()
            high = min(low + count_max, self._index.last_index + 1)
            if not self._index.start.index < low < high:
                return []
            picked = self._pick(low, high, bytes_max)
        return self._read_picked(picked)

    def _pick(self, low: int, high: int, bytes_max: int) -> list[Picked]:
        """Find entries that are there, under the lock."""
        picked: list[Picked] = []
        size = 0
        for index in range(low, high):
            if self._index.is_missing(index):
                if picked:
                    break
                raise corrupt(self._directory, index, "the entry is missing")
            size += self._index.payload_length(index)
            if picked and size > bytes_max:
                break
            picked.append((index, self._index.place(index), self._cache.get(index)))
        return picked

    def _read_picked(self, picked: Sequence[Picked]) -> list[Entry]:
        reader = SegmentReader()
        try:
            return [
                Entry(
                    place.term,
                    index,
                    self._read(reader, index, place) if payload is None else payload,
                )
                for index, place, payload in picked
            ]
        finally:
            reader.close()

    def bind_network(self, network: bytes) -> None:
        """Bind this log to a network, once and durably; BLOCKING.

        Raises ConfigError when it is bound to another one.
        """
        self._check()
        assert len(network) == NETWORK_BYTES, "a network id has 32 bytes"
        if self._network == network:
            return
        if self._network is not None:
            raise ConfigError(
                f"the data directory {self._directory.parent} belongs to network "
                f"{self._network.hex()}, not to {network.hex()}",
                remedy="Start the node with the genesis file of that network, or with another "
                "data directory.",
            )
        last = self._index.last_index
        record = records.encode_record(Kind.NETWORK, last, network, self._tail.checksum)
        self._write_group([record], last, must_sync=True)
        self._network = network

    def forget(self, index: int) -> None:
        """Keep only what stands behind `index`, which is committed and in a base on the disk.

        Nothing is written: `remove_files` makes the room. Call it where the core reads the log.
        """
        with self._lock:
            self._check()
            assert index <= self._index.last_index, "the log reaches the base"
            if index > self._index.start.index:
                self._index = self._index.behind(Start(index, self._index.term(index)))
                self._cache.forget(index)

    def remove_files(self) -> int:
        """Remove the files that hold nothing any more; their number. BLOCKING, like `save`.

        The oldest goes first, and what the log needs for a start is synced before. Raises
        SyncFailedError.
        """
        self._check()
        with self._lock:
            start, sequence = self._index.start, self._tail.file.sequence
            if start.index < self._index.last_index:
                sequence = self._index.place(start.index + 1).sequence
            files = [(number, self._paths[number]) for number in sorted(self._paths)]
        files = [item for item in files if item[0] < sequence]
        if not files:
            return 0
        old = self._hard_state
        hard_state = HardState(old.term, old.vote, max(old.commit, start.index))
        last = self._index.last_index
        group = encode_kept(self._kept(hard_state), last, self._tail.checksum)
        self._write_group(group, last, must_sync=True)
        self._hard_state = hard_state
        for number, path in files:
            self._remove_file(number, path)
        return len(files)

    def _kept(self, hard_state: HardState) -> list[KeptRecord]:
        """The records that a log needs, wherever it begins."""
        found = [(Kind.HARD_STATE, records.hard_state_data(hard_state))]
        return found if self._network is None else [(Kind.NETWORK, self._network), *found]

    def _remove_file(self, sequence: int, path: Path) -> None:
        size = path.stat().st_size
        try:
            remove(path)
        except SyncFailedError as error:
            self._failure = error
            raise
        segment_index_file.remove(path)
        with self._lock:
            del self._paths[sequence]
            self._full_bytes -= size

    def _begin_anew(self, start: Start) -> None:
        """Go on behind `start` in a new file, with term and vote; the old ones are left over."""
        old = self._hard_state
        commit = max(old.commit, start.index)
        self._hard_state = HardState(old.term, old.vote, commit)
        if old.term < start.term:
            self._hard_state = HardState(start.term, None, commit)
        kept = self._kept(self._hard_state)
        self._make_file(start.index + 1, records.ZERO_CHECKSUM, kept)
        self._index, self.holes = EntryIndex(start), ()
        self._tail.is_marked = False
        self._settle()

    def save(self, hard_state: HardState | None, entries: Sequence[Entry], must_sync: bool) -> None:
        """Write entries and hard state as one group; BLOCKING, in the log's writer thread.

        `entries` replace everything from the first one's index on. Without `must_sync` the
        group is only written: it is durable after the next sync. Raises SyncFailedError, after
        which this object raises it for ever.
        """
        self._check()
        is_fit = not self.holes or (entries and entries[0].index == self.holes[0][0])
        assert is_fit, "a log with holes takes nothing but what ends the first"
        last = check_group(self._index, self._hard_state, hard_state or self._hard_state, entries)
        if self._tail.is_older or self._tail.file.size >= self._segment_bytes_max:
            self._roll()
        group, places = encode_group(
            hard_state,
            entries,
            last_before=self._index.last_index,
            last=last,
            sequence=self._tail.file.sequence,
            offset=self._tail.file.size,
            previous=self._tail.checksum,
        )
        self._write_group(group, last, must_sync)
        self._publish(hard_state, entries, places)
        self._tail.save_index(self._index, self._hard_state, self._network, is_full=False)

    def _publish(
        self, hard_state: HardState | None, entries: Sequence[Entry], places: list[Place]
    ) -> None:
        with self._lock:
            self.holes = ()
            if entries and entries[0].index <= self._index.last_index:
                self._index.truncate(entries[0].index)
                self._cache.truncate(entries[0].index)
                self._tail.truncated(entries[0].index)
            for entry, place in zip(entries, places, strict=True):
                self._index.append(place)
                self._cache.add(entry.index, entry.payload)
            if hard_state is not None:
                self._hard_state = hard_state
                self._tail.voted(hard_state.vote)

    def _write_group(self, group: list[bytes], last_index: int, must_sync: bool) -> None:
        """Write records (the last one's checksum is the chain's new end), sync, mark."""
        try:
            if group:
                self._tail.append(b"".join(group))
            if must_sync and not self._tail.is_marked:
                self._tail.sync()
                self._tail.mark(last_index)
        except SyncFailedError as error:
            self._failure = error
            raise

    def _settle(self) -> None:
        """Bring everything to the disk, with a mark at the end that is there too."""
        try:
            self._tail.settle(self._index.last_index)
        except SyncFailedError as error:
            self._failure = error
            raise

    def _roll(self) -> None:
        """Begin the next file; the one before it is complete on the disk by then."""
        self._settle()
        self._tail.save_index(self._index, self._hard_state, self._network, is_full=True)
        self._make_file(self._index.last_index + 1, self._tail.checksum, ())

    def _make_file(self, first_index: int, previous: bytes, kept: Sequence[KeptRecord]) -> None:
        """Go on in a new file; it has its name once its header and the `kept` are durable."""
        try:
            new, data = self._tail.make_next(first_index, previous, kept)
        except SyncFailedError as error:
            self._failure = error
            raise
        with self._lock:
            self._full_bytes += self._tail.file.size
            self._paths[new.sequence] = new.path
            self._tail.go_on(new, first_index, data)

    def _read(self, reader: SegmentReader, index: int, place: Place) -> bytes:
        """Return the payload of an entry from the disk, verified."""
        try:
            return read_entry(reader, self._paths[place.sequence], index, place)
        except (KeyError, LedgerError) as error:
            if index >= self.first_index:
                raise
            raise _pruned(index) from error

    def _check(self) -> None:
        assert not self._is_closed, "the segment log is closed"
        if self._failure is not None:
            raise SyncFailedError(
                f"an earlier write failed: {self._failure}", remedy=self._failure.remedy
            ) from self._failure

    def close(self) -> None:
        """Bring everything to the disk and close the files; BLOCKING.

        After a failed sync nothing is written any more. A second call does nothing.
        """
        if self._is_closed:
            return
        try:
            if self._failure is None:
                self._settle()
        finally:
            self._is_closed = True
            self._tail.file.close()

    def statistics(self) -> Statistics:
        """Return what was written and synced so far; from any thread."""
        with self._lock:
            times = self._tail.sync_times
            return Statistics(
                times.durations.count,
                self._tail.bytes_written,
                len(self._paths),
                times.newest_ms(),
                times.durations.histogram(),
            )


def _pruned(index: int) -> Pruned:
    return Pruned(f"the entry at index {index} is not kept here any more")
