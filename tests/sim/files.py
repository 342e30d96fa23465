"""Files in memory under the real log and base: what was not synced may be gone, torn or stale.

`MemoryDisk` is one node's disk; `MemoryPath`, `MemorySystem` and `MemoryTrees` stand in for
`pathlib.Path` and the modules `os` and `shutil` where the segment log and the base use them. A file
is kept twice: what processes see (the page cache) and what survives a loss of power, which a sync
brings level. Directories are there as soon as they are made; the names in them are kept twice too.
"""

import errno
import os
from collections.abc import Iterator
from io import BytesIO
from random import Random
from typing import Final, NamedTuple

SECTOR_BYTES: Final = 512


class PowerLoss(BaseException):
    """The node stops in the middle of a call to its disk; no code of its own runs after it."""


class MemoryFile:
    """One file: `cache` is what processes see, `disk` what survives a loss of power."""

    __slots__ = ("cache", "dirty", "disk", "is_resized", "protected_size", "synced_size")

    def __init__(self) -> None:
        self.cache = bytearray()
        self.disk = bytearray()
        self.dirty: list[tuple[int, int]] = []
        self.is_resized = False
        # Up to here stood at the sync before the last: a sync mark above it is durable.
        self.protected_size = 0
        self.synced_size = 0

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Write into the page cache."""
        end = offset + len(data)
        if len(self.cache) < offset:
            self.cache.extend(bytes(offset - len(self.cache)))
        self.cache[offset:end] = data
        if self.dirty and self.dirty[-1][1] == offset:
            self.dirty[-1] = (self.dirty[-1][0], end)
        else:
            self.dirty.append((offset, end))

    def resize(self, size: int) -> None:
        """Truncate in the page cache."""
        if size != len(self.cache):
            del self.cache[size:]
            self.is_resized = True
            self.dirty = [(start, min(end, size)) for start, end in self.dirty if start < size]

    def sync(self) -> None:
        """Bring the disk level with the page cache, as far as the cache knows it is dirty."""
        size = len(self.cache)
        del self.disk[size:]
        if len(self.disk) < size:
            self.disk.extend(bytes(size - len(self.disk)))
        for start, end in self.dirty:
            self.disk[start:end] = self.cache[start:end]
        self.dirty.clear()
        self.is_resized = False
        self.protected_size, self.synced_size = min(self.synced_size, size), size

    def fail_sync(self, random: Random) -> None:
        """A sync that failed: some of it got through, and the cache counts as clean."""
        for start, end in self.dirty:
            middle = random.randint(start, end) // SECTOR_BYTES * SECTOR_BYTES
            if middle > start and len(self.disk) >= start:
                self.disk[start:middle] = self.cache[start:middle]
        self.dirty.clear()
        self.is_resized = False

    def lose_power(self, random: Random) -> int:
        """Keep the disk and what of the unsynced sectors happened to reach it; bytes lost."""
        size = len(self.cache)
        sectors = [
            sector
            for start, end in self.dirty
            for sector in range(start // SECTOR_BYTES * SECTOR_BYTES, end, SECTOR_BYTES)
        ]
        way = random.randrange(3)
        kept = sectors[: random.randint(0, len(sectors))] if way == 1 else []
        if way == 2:
            kept = [sector for sector in sectors if random.random() < 0.5]
        for sector in kept:
            end = min(sector + SECTOR_BYTES, size)
            if len(self.disk) < sector:
                self.disk.extend(bytes(sector - len(self.disk)))
            self.disk[sector:end] = self.cache[sector:end]
        lost = sum(min(s + SECTOR_BYTES, size) - s for s in sectors) - sum(
            min(s + SECTOR_BYTES, size) - s for s in kept
        )
        self.cache = bytearray(self.disk)
        self.dirty.clear()
        self.is_resized = False
        return lost


class FileSize(NamedTuple):
    """What `stat` says of a file."""

    st_size: int


class MemoryDisk:
    """One node's disk: a directory of files, and what goes wrong with it next."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.names: dict[str, MemoryFile] = {}
        self.durable_names: dict[str, MemoryFile] = {}
        self.is_sync_failing = False
        self.is_full = False
        self.calls_left: int | None = None
        self.syncs = 0
        self.syncs_failed = 0
        self.writes_refused = 0

    @property
    def directory(self) -> "MemoryPath":
        """The data directory, with `log` and `base` in it."""
        return MemoryPath(self, "")

    def count_call(self) -> None:
        """Called before anything changes: the power may fail here."""
        if self.calls_left is not None:
            self.calls_left -= 1
            if self.calls_left < 0:
                raise PowerLoss

    def sync(self, file: MemoryFile) -> None:
        """Make a file durable, or fail."""
        self.count_call()
        if self.is_sync_failing:
            self.is_sync_failing = False
            self.syncs_failed += 1
            file.fail_sync(self.random)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self.syncs += 1
        file.sync()

    def sync_names(self, directory: str) -> None:
        """Make a directory durable."""
        self.count_call()
        self.durable_names = {
            name: file
            for names, is_inside in ((self.durable_names, False), (self.names, True))
            for name, file in names.items()
            if (name.rpartition("/")[0] == directory) == is_inside
        }

    def lose_power(self) -> int:
        """Every file falls back to what reached the disk; bytes lost."""
        if self.random.random() < 0.5:
            self.names = dict(self.durable_names)
        else:
            self.durable_names = dict(self.names)
        return sum(file.lose_power(self.random) for file in self.names.values())

    @property
    def is_stale(self) -> bool:
        """Whether the cache shows what a failed sync did not bring to the disk.

        A record that was mended is damaged again then, once the power is lost.
        """
        return any(
            file.cache[: file.synced_size] != file.disk[: file.synced_size]
            for file in self.names.values()
        )

    def erase(self) -> None:
        """A new, empty disk."""
        self.names = {}
        self.durable_names = {}


class MemoryPath:
    """A path on a `MemoryDisk`, as the ledger uses `pathlib.Path`; `place` names it whole."""

    def __init__(self, disk: MemoryDisk, place: str) -> None:
        self.disk = disk
        self.place = place

    def __str__(self) -> str:
        return self.place

    def __truediv__(self, name: str) -> "MemoryPath":
        return MemoryPath(self.disk, f"{self.place}/{name}" if self.place else name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MemoryPath) and (self.disk, self.place) == (
            other.disk,
            other.place,
        )

    def __hash__(self) -> int:
        return hash(self.place)

    @property
    def name(self) -> str:
        """The last part of it."""
        return self.place.rpartition("/")[2]

    @property
    def parent(self) -> "MemoryPath":
        """The directory that it is in."""
        return MemoryPath(self.disk, self.place.rpartition("/")[0])

    @property
    def file(self) -> MemoryFile:
        """The file of this name."""
        file = self.disk.names.get(self.place)
        if file is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.place)
        return file

    def mkdir(self, mode: int = 0, *, parents: bool = False, exist_ok: bool = False) -> None:
        """The directory is there already."""

    def iterdir(self) -> Iterator["MemoryPath"]:
        """All files in the directory."""
        paths = [MemoryPath(self.disk, place) for place in self.disk.names]
        return iter([path for path in paths if path.parent == self])

    def exists(self) -> bool:
        """Whether there is a file of this name."""
        return self.place in self.disk.names

    def read_bytes(self) -> bytes:
        """What processes see of the file."""
        return bytes(self.file.cache)

    def open(self, mode: str) -> BytesIO:
        """The file as processes see it, to read from its beginning."""
        assert mode == "rb", "the ledger writes through descriptors"
        return BytesIO(self.read_bytes())

    def stat(self) -> FileSize:
        """The file's size."""
        return FileSize(len(self.file.cache))

    def with_suffix(self, suffix: str) -> "MemoryPath":
        """The same name with another ending."""
        return MemoryPath(self.disk, self.place.rpartition(".")[0] + suffix)

    def with_name(self, name: str) -> "MemoryPath":
        """Another name in the same directory."""
        return self.parent / name

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the file's name, durably once the directory is synced."""
        self.disk.count_call()
        assert self.disk.names.pop(self.place, None) or missing_ok, self.place

    def rename(self, target: "MemoryPath") -> None:
        """Give the file its new name, durable once the directory is synced."""
        self.disk.count_call()
        self.disk.names[target.place] = self.disk.names.pop(self.place)

    def replace(self, target: "MemoryPath") -> None:
        """The same."""
        self.rename(target)


class MemoryTrees:
    """The function of `shutil` that the base calls."""

    @staticmethod
    def rmtree(directory: MemoryPath) -> None:
        """Remove every file below a directory, one after the other."""
        for place in list(directory.disk.names):
            if place.startswith(f"{directory.place}/"):
                MemoryPath(directory.disk, place).unlink()


class MemorySystem:
    """The functions of `os` that the ledger calls, over memory."""

    O_RDWR = os.O_RDWR
    O_WRONLY = os.O_WRONLY
    O_RDONLY = os.O_RDONLY
    O_CREAT = os.O_CREAT
    O_TRUNC = os.O_TRUNC
    O_CLOEXEC = os.O_CLOEXEC
    O_DIRECTORY = os.O_DIRECTORY

    def __init__(self) -> None:
        self._next = 3
        self._open: dict[int, tuple[MemoryDisk, MemoryFile | str]] = {}

    def open(self, path: MemoryPath, flags: int, mode: int = 0) -> int:
        """Open a file or the directory."""
        file: MemoryFile | str = path.place
        if not flags & os.O_DIRECTORY:
            if flags & os.O_CREAT and path.place not in path.disk.names:
                path.disk.names[path.place] = MemoryFile()
            file = path.file
            if flags & os.O_TRUNC:
                file.resize(0)
        self._next += 1
        self._open[self._next] = (path.disk, file)
        return self._next

    def close(self, descriptor: int) -> None:
        """Close a descriptor."""
        del self._open[descriptor]

    def fstat(self, descriptor: int) -> FileSize:
        """The size of an open file."""
        return FileSize(len(self._file(descriptor)[1].cache))

    def pwrite(self, descriptor: int, data: memoryview, offset: int) -> int:
        """Write into the page cache; a full disk takes a part and then nothing."""
        disk, file = self._file(descriptor)
        disk.count_call()
        room = len(data)
        if disk.is_full and offset + room > len(file.cache):
            room = max(0, len(file.cache) // SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES - offset)
            room = min(room, len(data))
            if room == 0 or disk.random.random() < 0.5:
                disk.writes_refused += 1
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        file.write(offset, data[:room])
        return room

    def pread(self, descriptor: int, length: int, offset: int) -> bytes:
        """Read from the page cache."""
        return bytes(self._file(descriptor)[1].cache[offset : offset + length])

    def ftruncate(self, descriptor: int, size: int) -> None:
        """Cut a file."""
        disk, file = self._file(descriptor)
        disk.count_call()
        file.resize(size)

    def fdatasync(self, descriptor: int) -> None:
        """Sync a file."""
        disk, file = self._file(descriptor)
        disk.sync(file)

    def fsync(self, descriptor: int) -> None:
        """Sync a file or the directory."""
        disk, file = self._open[descriptor]
        if isinstance(file, str):
            disk.sync_names(file)
        else:
            disk.sync(file)

    def _file(self, descriptor: int) -> tuple[MemoryDisk, MemoryFile]:
        disk, file = self._open[descriptor]
        assert not isinstance(file, str), "a directory is neither read nor written"
        return disk, file
