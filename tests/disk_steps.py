"""Every call that changes a disk, counted: so a test can kill a process at each of them.

`watch` notes the calls of the `os` module on files under a directory, as `power_loss.Disk` takes
them, and raises Killed, or the system's error, instead of the call with the given number. SQLite's
own calls are not seen.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.power_loss import Call


class Killed(BaseException):
    """The process died here: no code of its own runs after it."""


class Steps:
    """What was done so far; `calls` are those on files under the directory."""

    def __init__(self, directory: Path, kill_at: int, error: int) -> None:
        self.directory = directory
        self.kill_at = kill_at
        self.error = error
        self.count = 0
        self.calls: list[Call] = []

    def name(self, path: Any) -> str:
        """Return a path, or that of an open descriptor, as `Call` has it."""
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        return str(Path(os.fspath(path)).relative_to(self.directory))

    def step(self) -> None:
        """Count a call that is about to be made."""
        self.count += 1
        if self.count == self.kill_at:
            if self.error:
                raise OSError(self.error, os.strerror(self.error))
            raise Killed


@contextmanager
def watch(directory: Path, kill_at: int = 0, error: int = 0) -> Iterator[Steps]:
    """Count the calls inside of the block; the one numbered `kill_at` (from 1 on) kills.

    With an `error` number of the system it fails with that instead.
    """
    steps = Steps(directory, kill_at, error)
    with pytest.MonkeyPatch.context() as patched:
        _watch_names(patched, steps)
        _watch_files(patched, steps)
        yield steps


def _watch_names(patched: pytest.MonkeyPatch, steps: Steps) -> None:
    open_, rename, replace, unlink = os.open, os.rename, os.replace, os.unlink

    def make(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if flags & os.O_CREAT:
            steps.step()
            steps.calls.append(Call("make", steps.name(path)))
        return open_(path, flags, *rest, **named)

    def move(do: Callable[..., None]) -> Callable[..., None]:
        def moved(old: Any, new: Any, **named: Any) -> None:
            steps.step()
            do(old, new, **named)
            steps.calls.append(Call("rename", steps.name(old), target=steps.name(new)))

        return moved

    def removed(path: Any, **named: Any) -> None:
        steps.step()
        unlink(path, **named)
        if os.path.isabs(path):
            steps.calls.append(Call("remove", steps.name(path)))

    patched.setattr(os, "open", make)
    patched.setattr(os, "rename", move(rename))
    patched.setattr(os, "replace", move(replace))
    patched.setattr(os, "unlink", removed)


def _watch_files(patched: pytest.MonkeyPatch, steps: Steps) -> None:
    pwrite, ftruncate = os.pwrite, os.ftruncate

    def write(descriptor: int, data: Any, offset: int) -> int:
        steps.step()
        name = steps.name(descriptor)
        steps.calls.append(Call("write", name, offset, bytes(data)))
        return pwrite(descriptor, data, offset)

    def cut(descriptor: int, size: int) -> None:
        steps.step()
        steps.calls.append(Call("cut", steps.name(descriptor), size))
        ftruncate(descriptor, size)

    def synced(do: Callable[[int], None]) -> Callable[[int], None]:
        def sync(descriptor: int) -> None:
            steps.step()
            name = steps.name(descriptor)
            steps.calls += (Call("begin_sync", name), Call("end_sync", name))
            do(descriptor)

        return sync

    patched.setattr(os, "pwrite", write)
    patched.setattr(os, "ftruncate", cut)
    patched.setattr(os, "fsync", synced(os.fsync))
    patched.setattr(os, "fdatasync", synced(os.fdatasync))
