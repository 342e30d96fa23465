"""What processes do to their files, as calls of `power_loss`: others by strace, this one itself."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.power_loss import Call

CALLS: Final = "openat,pwrite64,ftruncate,rename,renameat,renameat2,unlink,unlinkat,fsync,fdatasync"
OPTIONS: Final = ("-ttt", "-xx", "-s", "8388608")
_LINE: Final = re.compile(r"(\d+) +(\d+\.\d+) (.*)")
_FILE: Final = re.compile(r"(\w+)\((?:AT_FDCWD(?:<[^>]*>)?, )?(\d+<([^>]*)>|\"([^\"]*)\")(.*)")
_TEXT: Final = re.compile(r'"([^"]*)"')
_RESUMED: Final = re.compile(r"<\.\.\. (\w+) resumed>.*= (-?\d+)")


def _unescape(text: str) -> bytes:
    """Undo strace -xx."""
    return bytes.fromhex(text.replace("\\x", ""))


def read_calls(report: Path, directory: Path) -> Iterator[Call]:
    """The calls on files under `directory`, in the order in which they were made.

    Calls that failed are left out; so is what SQLite does to its -shm file, which it makes anew.
    """
    waiting: dict[str, str] = {}
    for line in report.read_text(encoding="ascii").splitlines():
        match = _LINE.fullmatch(line)
        if match is None or match[3].startswith(("---", "+++")):
            continue
        thread, at, text = match[1], float(match[2]), match[3]
        resumed = _RESUMED.match(text)
        if resumed is not None:
            begun = waiting.pop(thread, None)
            if begun is not None and int(resumed[2]) >= 0:
                yield from _ended(begun, at, directory)
            continue
        # Another thread came in between, or the tracer went away.
        is_unfinished = text.endswith(("<unfinished ...>", "<detached ...>"))
        if not is_unfinished and int(text.rpartition(" = ")[2].split("<")[0].split()[0]) < 0:
            continue
        yield from _begun(text, at, directory)
        if is_unfinished:
            waiting[thread] = text
        else:
            yield from _ended(text, at, directory)


def _place(text: str, directory: Path) -> tuple[str, str, str] | None:
    """The call's name, the path, and what stands behind; None for a file of no interest."""
    match = _FILE.match(text)
    if match is None:
        return None
    path = Path(_unescape(match[3] if match[3] is not None else match[4]).decode())
    if not path.is_relative_to(directory) or path.name.endswith(("-shm", "lock", " (deleted)")):
        return None
    return match[1], str(path.relative_to(directory)), match[5]


def _begun(text: str, at_s: float, directory: Path) -> Iterator[Call]:
    """What a call does at its begin: all but the end of a sync."""
    place = _place(text, directory)
    if place is None:
        return
    name, path, rest = place
    if name == "pwrite64":
        data = _TEXT.search(rest)
        assert data is not None, text[:200]
        size, offset = map(int, re.findall(r"\d+", rest[data.end() :])[:2])
        written = _unescape(data[1])
        assert len(written) == size, "the report is cut short"
        yield Call("write", path, offset, written, at_s=at_s)
    elif name == "ftruncate":
        yield Call("cut", path, int(re.findall(r"\d+", rest)[0]), at_s=at_s)
    elif name in ("fsync", "fdatasync"):
        yield Call("begin_sync", path, at_s=at_s)
    elif name.startswith("rename"):
        targets = _TEXT.findall(rest)
        target = Path(_unescape(targets[-1]).decode()).relative_to(directory)
        yield Call("rename", path, target=str(target), at_s=at_s)
    elif name.startswith("unlink"):
        yield Call("remove", path, at_s=at_s)
    elif name == "openat" and "O_CREAT" in rest:
        yield Call("make", path, at_s=at_s)
        if "O_TRUNC" in rest:
            yield Call("cut", path, at_s=at_s)


def _ended(text: str, at_s: float, directory: Path) -> Iterator[Call]:
    place = _place(text, directory)
    if place is not None and place[0] in ("fsync", "fdatasync"):
        yield Call("end_sync", place[1], at_s=at_s)


@contextmanager
def recorded(directory: Path, calls: list[Call]) -> Iterator[None]:
    """Note what this process does to files under `directory` by the functions of `os`."""

    def path_of(descriptor: int) -> str:
        return str(Path(os.readlink(f"/proc/self/fd/{descriptor}")).relative_to(directory))

    def note(name: str, before: Callable[..., Call], after: str = "") -> None:
        function = getattr(os, name)

        def call(*arguments: Any) -> Any:
            noted = before(*arguments)
            calls.append(noted)
            result = function(*arguments)
            if after:
                calls.append(Call("end_sync", noted.path))
            return result

        patch.setattr(os, name, call)

    def name_of(path: Any) -> str:
        return str(Path(path).relative_to(directory))

    def note_names(name: str, made: Callable[..., list[Call]]) -> None:
        """Note what a call did to names; one that failed did nothing."""
        function = getattr(os, name)

        def call(*arguments: Any, **named: Any) -> Any:
            result = function(*arguments, **named)
            calls.extend(made(*arguments))
            return result

        patch.setattr(os, name, call)

    def opened(path: Any, flags: int, *_: Any) -> list[Call]:
        made = [Call("make", name_of(path))] if flags & os.O_CREAT else []
        return [*made, Call("cut", name_of(path))] if flags & os.O_TRUNC else made

    with pytest.MonkeyPatch.context() as patch:
        note_names("open", opened)
        note_names("rename", lambda old, new: [Call("rename", name_of(old), target=name_of(new))])
        note_names("unlink", lambda path: [Call("remove", name_of(path))])
        note("pwrite", lambda fd, data, at: Call("write", path_of(fd), at, bytes(data)))
        note("ftruncate", lambda fd, size: Call("cut", path_of(fd), size))
        for name in ("fsync", "fdatasync"):
            note(name, lambda fd: Call("begin_sync", path_of(fd)), "end_sync")
        yield
