"""A base that others give, while it is fetched, and its way into the place of this node's own.

    base/incoming/records   those that were verified so far, as a start verifies them again
    base/incoming/head      the head of the base that is wanted
    base/incoming/complete  the same head once every record is there, on the disk

Records of a base are the first of every later one, so what was fetched serves a newer base too.
A complete base is moved into place at the next start (`install`), before anything else is opened;
each step of that can be killed, and the next start goes on with it.
"""

import os
import shutil
from pathlib import Path
from typing import Final

from p2pcity.errors import CorruptionError
from p2pcity.ledger import base_store
from p2pcity.ledger.base_store import BaseStore, StoredBase, StoredHead
from p2pcity.ledger.segment_file import failed, remove, sync_directory
from p2pcity.wire import base as base_wire
from p2pcity.wire.base import RECORD_BYTES, BaseHead

HEAD: Final = "head"
RECORDS: Final = "records"
COMPLETE: Final = "complete"


class Incoming:
    """The base that is being fetched; all calls BLOCK, one thread at a time.

    Each may raise Unavailable (the disk is full: try again), SyncFailedError, LedgerError.
    """

    def __init__(self, directory: Path, own: StoredBase | None) -> None:
        """Take up what an earlier run left in `directory`, which need not be there."""
        self._directory = directory
        self._own = own
        self._stored: StoredHead | None = None
        self._held: StoredBase | None = None
        self._intervals = 0
        self._descriptor = -1
        try:
            found = base_store.read_head(directory / HEAD)
        except CorruptionError:
            # Nothing depends on it: it is asked for again.
            found = None
        if found is not None:
            self._take(found)

    @property
    def head(self) -> BaseHead | None:
        """The head of the base that is wanted; None when none is."""
        return None if self._stored is None else self._stored.head

    @property
    def digest(self) -> bytes | None:
        """The digest of the base that is wanted."""
        return None if self._stored is None else self._stored.digest

    @property
    def intervals(self) -> int:
        """How many intervals of it are here, verified."""
        return self._intervals

    @property
    def count(self) -> int:
        """How many records of it are here, verified."""
        return 0 if self.head is None else self.head.mark(self._intervals).records

    @property
    def is_complete(self) -> bool:
        """Whether every record is here."""
        return self.head is not None and self._intervals == self.head.intervals

    def begin(self, data: bytes) -> None:
        """Want the base with this head, whose digest was agreed on; keep what fits of the last.

        Raises DecodeError when it is no head.
        """
        stored = StoredHead(data, base_wire.decode_head(data), is_given=True)
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise base_store.refused(self._directory, error) from error
        sync_directory(self._directory.parent)
        base_store.write_head(self._directory / HEAD, stored)
        self._take(stored)

    def add(self, records: bytes) -> None:
        """Append the records of the next interval, which were verified against the mark."""
        head = self.head
        assert head is not None, "a base is wanted"
        assert self._intervals < head.intervals, "an interval is missing"
        wanted = head.mark(self._intervals + 1).records - self.count
        assert len(records) == wanted * RECORD_BYTES, "the records of one interval"
        try:
            base_store.write_at(self._descriptor, records, self.count * RECORD_BYTES)
        except OSError as error:
            raise base_store.refused(self._directory / RECORDS, error) from error
        self._intervals += 1

    def finish(self) -> None:
        """Bring the complete base to the disk: the next start moves it into place."""
        assert self.is_complete, "every record is here"
        try:
            os.ftruncate(self._descriptor, self.count * RECORD_BYTES)
            os.fsync(self._descriptor)
            (self._directory / HEAD).replace(self._directory / COMPLETE)
        except OSError as error:
            raise failed(self._directory, "finishing", error) from error
        sync_directory(self._directory)
        self.close()

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _take(self, stored: StoredHead) -> None:
        self.close()
        path = self._directory / RECORDS
        is_new = not path.exists()
        self._descriptor = base_store.open_records(path, os.O_RDWR | os.O_CREAT)
        self._stored = stored
        if is_new and self._own is not None:
            self._copy_own(path, self._own)
        held = StoredBase(stored, path, self._descriptor)
        self._intervals = 0
        while self._intervals < stored.head.intervals and base_store.is_interval_right(
            held, self._intervals
        ):
            self._intervals += 1

    def _copy_own(self, path: Path, own: StoredBase) -> None:
        offset = 0
        try:
            for piece in own.pieces():
                offset += base_store.write_at(self._descriptor, piece, offset)
        except OSError as error:
            raise base_store.refused(path, error) from error


def install(directory: Path) -> bool:
    """Move a base that others gave completely into the place of the one in `directory`.

    BLOCKING. Whether there was one that is newer. The log has to begin anew behind it where it
    does not reach it (`SegmentLog.open`). Raises CorruptionError, SyncFailedError.
    """
    incoming = directory / "incoming"
    complete = incoming / COMPLETE
    given = base_store.read_head(complete)
    if given is None:
        return False
    own = base_store.read_head(directory / "head")
    is_newer = own is None or own.head.height < given.head.height
    if is_newer:
        # Records first: those of the base that is in force are their beginning.
        if (incoming / RECORDS).exists():
            _move(incoming / RECORDS, directory / RECORDS)
        _move(complete, directory / "head")
    else:
        remove(complete)
    try:
        shutil.rmtree(incoming)
    except OSError as error:
        raise failed(incoming, "removing", error) from error
    sync_directory(directory)
    return is_newer


def open_installed(directory: Path) -> tuple[BaseStore, bool]:
    """Open the base, after one that lies ready was moved into place; whether there was one.

    BLOCKING. Raises what `install` and `BaseStore.open` do.
    """
    is_new = install(directory)
    if (directory / HEAD).exists():
        # What an earlier life renamed, and was killed before it synced, may be in the cache alone:
        # log and views drop now what this base covers.
        sync_directory(directory)
    return BaseStore.open(directory), is_new


def _move(old: Path, new: Path) -> None:
    try:
        old.replace(new)
    except OSError as error:
        raise failed(old, "moving", error) from error
    sync_directory(new.parent)
    sync_directory(old.parent)
