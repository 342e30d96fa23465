"""One file of the segment log: appending, syncing and naming, with errors translated.

A failed write or sync is final (SyncFailedError): Linux marks the pages clean after it, and a
second sync would report success for bytes that never reached the disk.
"""

import errno
import os
import re
from pathlib import Path
from typing import Final, Self

from p2pcity.errors import ConfigError, CorruptionError, LedgerError, SyncFailedError

SUFFIX: Final = ".segment"
NEW_SUFFIX: Final = ".new"
_NAME: Final = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})\.segment")
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


def file_name(sequence: int, first_index: int) -> str:
    """Return a file's name: sequence and first index, each as 16 hexadecimal digits."""
    return f"{sequence:016x}-{first_index:016x}{SUFFIX}"


def list_segments(directory: Path) -> list[tuple[int, int, Path]]:
    """Return (sequence, first index, path) of the files in `directory`, in order.

    Raises CorruptionError for a name that no segment has; ConfigError when the directory is
    missing or may not be read.
    """
    try:
        paths = [path for path in directory.iterdir() if path.name.endswith(SUFFIX)]
    except OSError as error:
        raise denied(directory, error) from error
    found = []
    for path in paths:
        match = _NAME.fullmatch(path.name)
        if match is None:
            raise CorruptionError(
                f"{path} is not named like a segment",
                remedy=f"Give the file its old name back, or move it out of {directory}.",
            )
        found.append((int(match[1], 16), int(match[2], 16), path))
    return sorted(found)


def denied(path: Path, error: OSError) -> ConfigError:
    """Say that `path` can't be opened, and what to do."""
    if isinstance(error, FileNotFoundError):
        return ConfigError(
            f"there is no raft_log in {path}",
            remedy="Run `p2pcity init` once for a new node, or name the right data directory. If "
            "this node's disk was lost: `p2pcity init DIR --rejoin`.",
        )
    if error.errno in _FULL:
        return ConfigError(
            f"{path} cannot be opened: {error.strerror}",
            remedy=f"Make room on the disk of {path.parent}.",
        )
    return ConfigError(
        f"{path} cannot be opened: {error.strerror}",
        remedy=f"Give the node's user the right to read and write {path}.",
    )


def newer_format(path: Path, found: int, known: int) -> ConfigError:
    """Say that a later release wrote `path`, in a format that this one does not know."""
    return ConfigError(
        f"{path} has format {found}, this release knows 1 to {known}",
        remedy="Install the release that wrote this data directory, or a newer one: an older one "
        "can't go on with it.",
    )


def failed(path: Path, what: str, error: OSError) -> SyncFailedError:
    """Say that a write or sync of `path` failed, and what to do."""
    remedy = f"Check the disk under {path.parent} (dmesg, smartctl), then start the node again."
    if error.errno in _FULL:
        remedy = f"Make room on the disk of {path.parent}, then start the node again."
    return SyncFailedError(f"{what} {path} failed: {error.strerror}", remedy=remedy)


def sync_directory(directory: Path) -> None:
    """Make the names in `directory` durable; SyncFailedError."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise failed(directory, "syncing", error) from error


def put(path: Path, new: Path, data: bytes) -> None:
    """Write `data` to `new` and give it the name `path`; nothing is synced. Raises OSError."""
    descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        view, offset = memoryview(data), 0
        while offset < len(data):
            offset += os.pwrite(descriptor, view[offset:], offset)
    finally:
        os.close(descriptor)
    new.rename(path)


def remove(path: Path) -> None:
    """Remove a file, durably: the next one goes only after it; SyncFailedError."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise failed(path, "removing", error) from error
    sync_directory(path.parent)


class SegmentFile:
    """The file that is appended to; `size` is where the next byte goes."""

    def __init__(self, path: Path, sequence: int) -> None:
        """Open the file of the log that is the last one."""
        self.path = path
        self.sequence = sequence
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            self.size = os.fstat(self._descriptor).st_size
        except OSError as error:
            raise denied(path, error) from error

    @classmethod
    def make(cls, directory: Path, sequence: int, first_index: int, header: bytes) -> Self:
        """Make a file that begins with `header`; it has its name only once that is durable."""
        path = directory / file_name(sequence, first_index)
        new = path.with_suffix(NEW_SUFFIX)
        try:
            descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            os.close(descriptor)
            file = cls(new, sequence)
            try:
                file.append(header)
                file.sync()
                new.rename(path)
                file.path = path
                sync_directory(directory)
            except BaseException:  # closed, then raised on
                file.close()
                raise
        except OSError as error:
            raise failed(new, "making", error) from error
        return file

    def append(self, data: bytes) -> None:
        """Write `data` at the end, without a sync."""
        self.rewrite(self.size, data)
        self.size += len(data)

    def rewrite(self, offset: int, data: bytes) -> None:
        """Write `data` at `offset`, without a sync."""
        view = memoryview(data)
        try:
            while view:
                written = os.pwrite(self._descriptor, view, offset)
                view = view[written:]
                offset += written
        except OSError as error:
            raise failed(self.path, "writing", error) from error

    def sync(self) -> None:
        """Make what was written durable."""
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise failed(self.path, "syncing", error) from error

    def cut(self, size: int) -> None:
        """Throw away everything from `size` on, durably."""
        try:
            os.ftruncate(self._descriptor, size)
            os.fsync(self._descriptor)
        except OSError as error:
            raise failed(self.path, "cutting", error) from error
        self.size = size

    def close(self) -> None:
        """Close the file, without a sync."""
        os.close(self._descriptor)


class SegmentReader:
    """Reads from any file of the log; holds one of them open, until it is closed."""

    def __init__(self) -> None:
        """Begin with no file open."""
        self._path: Path | None = None
        self._descriptor = -1

    def read(self, path: Path, offset: int, length: int) -> bytes:
        """Return up to `length` bytes at `offset`; LedgerError when the file can't be read."""
        try:
            if path != self._path:
                self.close()
                self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                self._path = path
            return os.pread(self._descriptor, length, offset)
        except OSError as error:
            raise LedgerError(
                f"reading {path} failed: {error.strerror}",
                remedy="Check the disk (dmesg, smartctl) and the limit of open files.",
            ) from error

    def close(self) -> None:
        """Close the file that is open, if any."""
        if self._path is not None:
            self._path = None
            os.close(self._descriptor)
