"""What a disk may hold after its power went: rebuilt from the calls that wrote to it.

The model is POSIX's and no kinder. A file has what its last finished sync found; of the writes
since then each sector of 512 bytes has any version, and the length is any of those it had. A
name is made, moved or taken away for good by a sync of its directory; of the later ones some
first few are. A sector is never torn (as the segment log and SQLite take it to be).
"""

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Self

SECTOR_BYTES: Final = 512
Kind = Literal["make", "write", "cut", "rename", "remove", "begin_sync", "end_sync"]


@dataclass(frozen=True, slots=True)
class Call:
    """One system call on a file or a directory; paths begin where the disk's directory ends.

    `make` opens a file that is made when it is missing. A write puts `data` at `offset`, a cut
    makes the file `offset` bytes long; `target` is the new name. A sync begins and ends, and
    makes durable what came before it began.
    """

    kind: Kind
    path: str
    offset: int = 0
    data: bytes = b""
    target: str = ""
    at_s: float = 0.0


@dataclass(slots=True)
class _Inode:
    """A file's content on the disk, and what was done to it since."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[Call] = field(default_factory=list)
    syncing: int = 0

    def sync(self, count: int) -> None:
        for call in self.pending[:count]:
            _change(self.durable, call)
        del self.pending[:count]

    def content(self) -> bytes:
        """What the running system shows."""
        now = bytearray(self.durable)
        for call in self.pending:
            _change(now, call)
        return bytes(now)

    def image(self, choice: random.Random) -> bytes:
        """What the disk may hold."""
        how = choice.choice(("none", "all", "first", "sectors", "sectors"))
        if how == "none" or not self.pending:
            return bytes(self.durable)
        if how == "all":
            return self.content()
        if how == "first":
            return self._torn(choice)
        return self._sectors(choice)

    def _torn(self, choice: random.Random) -> bytes:
        """The first writes, and the first sectors of the next."""
        image = bytearray(self.durable)
        count = choice.randrange(len(self.pending))
        for call in self.pending[:count]:
            _change(image, call)
        last = self.pending[count]
        if last.kind == "write":
            end = choice.randrange(last.offset, last.offset + len(last.data))
            keep = max(0, end // SECTOR_BYTES * SECTOR_BYTES - last.offset)
            if keep:
                _change(image, Call("write", "", last.offset, last.data[:keep]))
        return bytes(image)

    def _sectors(self, choice: random.Random) -> bytes:
        """Each sector in any of its versions, and any of the lengths."""
        versions = [bytearray(self.durable)]
        for call in self.pending:
            versions.append(bytearray(versions[-1]))
            _change(versions[-1], call)
        size = len(choice.choice(versions))
        image = bytearray(size)
        for start in range(0, size, SECTOR_BYTES):
            end = min(start + SECTOR_BYTES, size)
            piece = choice.choice(versions)[start:end]
            image[start : start + len(piece)] = piece
        return bytes(image)


def _change(content: bytearray, call: Call) -> None:
    if call.kind == "cut":
        del content[call.offset :]
        content.extend(bytes(call.offset - len(content)))
        return
    end = call.offset + len(call.data)
    content.extend(bytes(max(0, end - len(content))))
    content[call.offset : end] = call.data


class Disk:
    """The files under a directory: what a running system shows, and what the disk may hold."""

    def __init__(self) -> None:
        self._files: list[_Inode] = []
        self._shown: dict[str, int] = {}
        self._durable: dict[str, int] = {}
        self._names: list[tuple[Call, int]] = []
        self._syncing: dict[str, int] = {}

    @classmethod
    def of(cls, directory: Path) -> Self:
        """A disk that holds all files under `directory` for good."""
        disk = cls()
        for path in sorted(directory.rglob("*")):
            if path.is_file():
                name = str(path.relative_to(directory))
                disk._shown[name] = disk._durable[name] = len(disk._files)
                disk._files.append(_Inode(bytearray(path.read_bytes())))
        return disk

    def apply(self, call: Call) -> None:
        """Let the running system make a call."""
        if call.kind in ("write", "cut"):
            self._files[self._shown[call.path]].pending.append(call)
        elif call.kind in ("begin_sync", "end_sync"):
            self._sync(call)
        elif call.kind != "make" or call.path not in self._shown:
            if call.kind == "make":
                self._files.append(_Inode())
                number = len(self._files) - 1
            else:
                number = self._shown[call.path]
            self._names.append((call, number))
            _change_names(self._shown, call, number)

    def _sync(self, call: Call) -> None:
        is_begin = call.kind == "begin_sync"
        number = self._shown.get(call.path)
        if number is not None:
            file = self._files[number]
            if is_begin:
                file.syncing = len(file.pending)
            else:
                file.sync(file.syncing)
                file.syncing = 0
        elif is_begin:
            self._syncing[call.path] = len(self._names)
        else:
            count = self._syncing.pop(call.path)
            is_there = [str(Path(name.path).parent) == call.path for name, _ in self._names]
            for (name, inode), is_in in zip(self._names[:count], is_there, strict=False):
                if is_in:
                    _change_names(self._durable, name, inode)
            self._names = [
                pair
                for position, pair in enumerate(self._names)
                if position >= count or not is_there[position]
            ]

    def shown(self) -> dict[str, bytes]:
        """What the running system shows: what a process that is killed leaves behind."""
        return {path: self._files[number].content() for path, number in self._shown.items()}

    def image(self, choice: random.Random) -> dict[str, bytes]:
        """What the disk may hold if the power goes now: the content of each file by its path."""
        names = dict(self._durable)
        for name, number in self._names[: choice.randint(0, len(self._names))]:
            _change_names(names, name, number)
        return {path: self._files[number].image(choice) for path, number in names.items()}


def _change_names(names: dict[str, int], call: Call, number: int) -> None:
    """Do to a table of names what a call does."""
    if call.kind != "make":
        names.pop(call.path, None)
    if call.kind != "remove":
        names[call.target or call.path] = number
