"""The base on disk: what outlives the blocks that were pruned (protocol/07-base.md).

    base/records    48 bytes for each key that is taken, in ledger order; only ever appended to
    base/head       everything else, with a checksum; in place of the one before by a rename
    base/incoming/  a base that is being fetched from others (`base_incoming`)

Records are written and synced before the head that counts them, and the head is durable before
the log removes a file: a kill anywhere leaves the old base or the new one, and a log that goes on
from it. Records behind those that the head counts are what a kill left; they are cut.

In format 1 `base/head` is a CBOR array of three: the head's bytes, 1 for a base that others gave,
and a checksum. Any later format begins with its number instead.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, Self

from p2pcity.crypto.digest import sha256
from p2pcity.errors import CorruptionError, DecodeError, LedgerError, Unavailable
from p2pcity.ledger.segment_file import denied, failed, newer_format, remove, sync_directory
from p2pcity.ledger.segment_index import BEGINNING, Start
from p2pcity.views.base import NO_BASE, Base
from p2pcity.wire import base as base_wire
from p2pcity.wire import cbor
from p2pcity.wire.base import HEIGHT_SHIFT, RECORD_BYTES, BaseHead, IntervalChain, Mark, Record
from p2pcity.wire.fields import read_array, read_bytes, read_uint
from p2pcity.wire.limits import BASE_INTERVAL_BLOCKS

FORMAT_VERSION: Final = 1
PIECE_RECORDS: Final = 16 * 1024
"""Records read at once: 768 KiB."""

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_OVERHEAD_BYTES: Final = 128
_EVENTS_MASK: Final = (1 << base_wire.EVENT_BITS) - 1
_REMEDY: Final = (
    "Restore the data directory from a copy of its newest state, or let this node join again with "
    "a new log: `p2pcity init --rejoin`."
)


class BaseDamaged(CorruptionError):
    """The base on the disk is not what was written: views that are made anew do not mend it."""


@dataclass(frozen=True, slots=True)
class StoredHead:
    """A head as it lies on the disk: its bytes, and whether others gave this base."""

    data: bytes
    head: BaseHead
    is_given: bool

    @property
    def digest(self) -> bytes:
        """The digest of the base."""
        return base_wire.digest_head(self.data)


class StoredBase:
    """A base at one height, which never changes (`views.base.Base`); for any thread."""

    def __init__(self, stored: StoredHead, path: Path, descriptor: int) -> None:
        """Read the records of the file `descriptor`, which is open as long as the store is."""
        self.stored = stored
        self.head = stored.head
        self._path = path
        self._descriptor = descriptor

    @property
    def height(self) -> int:
        """The height up to which blocks may have been pruned."""
        return self.head.height

    @property
    def mark(self) -> Mark:
        """The chain over all records, and their number."""
        return self.head.mark(self.head.intervals)

    @property
    def floor(self) -> int:
        """The first position behind the base."""
        return (self.head.height + 1) << HEIGHT_SHIFT

    def read_records(self, first: int, count: int) -> bytes:
        """Return up to `count` records from number `first` (0-based) on; LedgerError."""
        count = max(0, min(count, self.head.records - first))
        return _read(self._path, self._descriptor, first, count)

    def pieces(self, first: int = 0) -> Iterator[bytes]:
        """Give all records from number `first` on, piece by piece; LedgerError."""
        for at in range(first, self.head.records, PIECE_RECORDS):
            yield self.read_records(at, PIECE_RECORDS)

    def find_transaction(self, position: int) -> Record | None:
        """Return the record of the transaction at `position`, None when it was dropped."""
        found = self._record(self._number(position))
        is_it = found is not None and found.position == position and not found.is_event
        return found if is_it else None

    def find_event(self, position: int) -> Record | None:
        """Return the record of the event at `position`, None for a duplicate."""
        number = self._number(position)
        found = self._record(number)
        if found is not None and found.position == position and not found.is_event:
            # A transaction's record has the position of its first event.
            found = self._record(number + 1)
        is_it = found is not None and found.position == position and found.is_event
        return found if is_it else None

    def count_events(self, position: int) -> int:
        """Return how many events the transaction at `position` brought into the views."""
        return self._number(position + _EVENTS_MASK + 1) - self._number(position) - 1

    def _number(self, position: int) -> int:
        """Return the number of the first record at or behind `position`."""
        # Only records of its own interval count: `check` finds what is wrong with them.
        interval = min(self._interval(position), self.head.intervals - 1)
        low, high = self.head.mark(interval).records, self.head.mark(interval + 1).records
        while low < high:
            middle = (low + high) // 2
            record = self._record(middle)
            assert record is not None, "bisection stays inside the records"
            if record.position < position:
                low = middle + 1
            else:
                high = middle
        return low

    def check(self, position: int) -> None:
        """Compare the records around `position` with the head's marks; CorruptionError."""
        interval = self._interval(position)
        if not is_interval_right(self, interval):
            height = interval * BASE_INTERVAL_BLOCKS
            raise _corrupt(self._path.parent, f"the records behind height {height} are damaged")

    def _interval(self, position: int) -> int:
        return max(0, (position >> HEIGHT_SHIFT) - 1) // BASE_INTERVAL_BLOCKS

    def _record(self, number: int) -> Record | None:
        data = self.read_records(number, 1)
        return base_wire.read_record(data) if data else None


class NewBase:
    """A base that is being written behind the records of the one in force; all calls BLOCK.

    Each raises Unavailable when the disk is full (what was written counts for nothing, and is
    cut at the next try), SyncFailedError.
    """

    def __init__(self, directory: Path, descriptor: int, stored: StoredHead) -> None:
        self._directory = directory
        self._descriptor = descriptor
        self._stored = stored
        before = stored.head.mark(stored.head.intervals - 1)
        self._offset = before.records * RECORD_BYTES
        self._chain = IntervalChain(before.chain, stored.head.height - BASE_INTERVAL_BLOCKS)

    def cut(self) -> None:
        """Throw away what an earlier try left."""
        try:
            os.ftruncate(self._descriptor, self._offset)
        except OSError as error:
            raise refused(self._directory / "records", error) from error

    def add(self, records: bytes) -> None:
        """Write the next records, without a sync."""
        self._chain.add(records)
        try:
            self._offset += write_at(self._descriptor, records, self._offset)
        except OSError as error:
            raise refused(self._directory / "records", error) from error

    def finish(self) -> StoredBase:
        """Bring the base to the disk; it is not in force yet.

        Raises CorruptionError when the records are not those that were applied.
        """
        if self._chain.finish() != self._stored.head.chain:
            raise _corrupt(
                self._directory, f"other records up to {self._stored.head.height} were applied"
            )
        _sync(self._directory / "records", self._descriptor)
        write_head(self._directory / "head", self._stored)
        return StoredBase(self._stored, self._directory / "records", self._descriptor)


class Bases(Protocol):
    """Where readers find the base that is in force."""

    @property
    def stored(self) -> StoredBase | None:
        """The base itself; None as long as nothing was pruned."""

    @property
    def base(self) -> Base:
        """The same for the views, which need not ask whether there is one."""


class _NoBases:
    """What a node has that keeps everything."""

    stored = None
    base = NO_BASE


NO_BASES: Bases = _NoBases()


class BaseStore:
    """The base of a data directory; one thread writes, any thread reads what is published."""

    def __init__(self, directory: Path, stored: StoredHead | None) -> None:
        """Use `open`; this takes over what it found."""
        self._directory = directory
        self._records = directory / "records"
        self._descriptor = -1
        self._base: StoredBase | None = None
        if stored is not None:
            self._descriptor = open_records(self._records, os.O_RDWR)
            self._base = StoredBase(stored, self._records, self._descriptor)

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Open the base in `directory` (which need not be there) and verify every record.

        Raises CorruptionError when it can't be trusted, ConfigError without the right to read.
        """
        stored = read_head(directory / "head")
        store = cls(directory, stored)
        try:
            if store._base is not None:
                verify(store._base, directory)
        except BaseException:  # closed, then raised on
            store.close()
            raise
        return store

    @property
    def stored(self) -> StoredBase | None:
        """The base that is in force; None as long as nothing was pruned."""
        return self._base

    @property
    def base(self) -> Base:
        """The same for the views, which need not ask whether there is one."""
        return NO_BASE if self._base is None else self._base

    @property
    def head(self) -> BaseHead | None:
        """The head of the base that is in force; None as long as nothing was pruned."""
        return None if self._base is None else self._base.head

    @property
    def is_given(self) -> bool:
        """Whether others gave the base that is in force: the log may not reach it."""
        return self._base is not None and self._base.stored.is_given

    @property
    def start(self) -> Start:
        """Where the log goes on."""
        return BEGINNING if self.head is None else Start(self.head.index, self.head.term)

    def begin(self, data: bytes) -> "NewBase":
        """Begin to write the base with the head `data`, an interval above the present one.

        BLOCKING. Raises Unavailable when the disk is full or the head above its limit (a city of
        very many nodes), SyncFailedError.
        """
        try:
            head = base_wire.decode_head(data)
        except DecodeError as error:
            raise Unavailable(
                f"no base can be made: {error}",
                remedy="Keep all blocks (ledger.keep_blocks 0), and see to the room on the disk.",
            ) from error
        height = 0 if self.head is None else self.head.height
        assert head.height == height + BASE_INTERVAL_BLOCKS, "one interval at a time"
        self._make_directory()
        new = NewBase(self._directory, self._descriptor, StoredHead(data, head, is_given=False))
        new.cut()
        return new

    def publish(self, base: StoredBase) -> None:
        """Put a base that is on the disk in force; whoever reads next sees it."""
        assert self.head is None or self.head.height < base.head.height, "bases only grow"
        self._base = base

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _make_directory(self) -> None:
        if self._descriptor >= 0:
            return
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise refused(self._directory, error) from error
        sync_directory(self._directory.parent)
        self._descriptor = open_records(self._records, os.O_RDWR | os.O_CREAT)
        sync_directory(self._directory)


def delete(directory: Path) -> None:
    """Remove the base with all that was fetched of another one: a new log begins at its start.

    The head goes first: without it there is no base, whatever is left. SyncFailedError.
    """
    if not directory.exists():
        return
    remove(directory / "head")
    try:
        shutil.rmtree(directory)
    except OSError as error:
        raise failed(directory, "removing", error) from error
    sync_directory(directory.parent)


def verify(base: StoredBase, directory: Path) -> None:
    """Compare all records with the head's marks; CorruptionError."""
    head = base.head
    for interval in range(head.intervals):
        if not is_interval_right(base, interval):
            height = interval * BASE_INTERVAL_BLOCKS
            raise _corrupt(directory, f"the records behind height {height} are damaged")


def is_interval_right(base: StoredBase, interval: int) -> bool:
    """Whether the records of one interval (0-based) are those that the head's marks name."""
    before, after = base.head.mark(interval), base.head.mark(interval + 1)
    chain = IntervalChain(before.chain, interval * BASE_INTERVAL_BLOCKS)
    try:
        for at in range(before.records, after.records, PIECE_RECORDS):
            count = min(PIECE_RECORDS, after.records - at)
            piece = base.read_records(at, count)
            if len(piece) != count * RECORD_BYTES:
                return False
            chain.add(piece)
    except DecodeError:
        return False
    return chain.finish() == after.chain


def read_head(path: Path) -> StoredHead | None:
    """Return the head in a file, None when there is none.

    Raises CorruptionError, ConfigError without the right to read and for a newer format.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise denied(path, error) from error
    try:
        value = cbor.decode(data, size_max=len(data))
        if isinstance(value, list) and value and isinstance(value[0], int):
            raise newer_format(path, value[0], FORMAT_VERSION)
        items = read_array(value, "the file", 3)
        head, is_given = read_bytes(items[0], "the head"), read_uint(items[1], "given", 1)
        if read_bytes(items[2], "the checksum") != _checksum(head, is_given):
            raise DecodeError("the checksum is wrong")
        return StoredHead(head, base_wire.decode_head(head), bool(is_given))
    except DecodeError as error:
        raise _corrupt(path.parent, f"{path.name}: {error}") from error


def write_head(path: Path, stored: StoredHead) -> None:
    """Put a head into the place of the one before, durably; Unavailable, SyncFailedError."""
    is_given = int(stored.is_given)
    data = cbor.encode([stored.data, is_given, _checksum(stored.data, is_given)])
    beside = path.with_name(path.name + ".new")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            write_at(descriptor, data, 0)
            _sync(beside, descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise refused(beside, error) from error
    try:
        beside.replace(path)
    except OSError as error:
        raise refused(path, error) from error
    sync_directory(path.parent)


def _checksum(head: bytes, is_given: int) -> bytes:
    return sha256(bytes([is_given]) + head)


def _corrupt(directory: Path, what: str) -> BaseDamaged:
    return BaseDamaged(f"the base in {directory} is damaged: {what}", remedy=_REMEDY)


def refused(path: Path, error: OSError) -> LedgerError | Unavailable:
    """Say that a write failed: what is written counts only once the head is in place.

    So a full disk loses nothing here.
    """
    if error.errno in _FULL:
        return Unavailable(
            f"writing {path} failed: {error.strerror}",
            remedy=f"Make room on the disk of {path.parent}.",
        )
    return failed(path, "writing", error)


def open_records(path: Path, flags: int) -> int:
    """Open a file of records.

    Raises CorruptionError when it is missing, ConfigError without rights, Unavailable when there
    is no room to make it.
    """
    try:
        return os.open(path, flags | os.O_CLOEXEC, 0o600)
    except FileNotFoundError as error:
        raise _corrupt(path.parent, f"{path.name} is missing") from error
    except OSError as error:
        if error.errno in _FULL:
            raise refused(path, error) from error
        raise denied(path, error) from error


def _read(path: Path, descriptor: int, first: int, count: int) -> bytes:
    try:
        return os.pread(descriptor, count * RECORD_BYTES, first * RECORD_BYTES)
    except OSError as error:
        raise LedgerError(
            f"reading {path} failed: {error.strerror}",
            remedy="Check the disk (dmesg, smartctl).",
        ) from error


def write_at(descriptor: int, data: bytes, offset: int) -> int:
    """Write all of `data` at `offset`, without a sync; its length. Raises OSError."""
    view, at = memoryview(data), offset
    while view:
        written = os.pwrite(descriptor, view, at)
        view, at = view[written:], at + written
    return at - offset


def _sync(path: Path, descriptor: int) -> None:
    try:
        os.fdatasync(descriptor)
    except OSError as error:
        raise failed(path, "syncing", error) from error
