"""The lock file of a data directory: one process at a time, and always the same node.

The file holds one line, `{"pid": ..., "peer": ...}`, and is never removed: the lock is the
kernel's (flock), so that it ends with the process, however that ends. The peer id stays behind
and tells a start under another identity that the directory is not its own.
"""

import fcntl
import json
import os
from pathlib import Path
from typing import Self

from p2pcity.errors import ConfigError, LockedError
from p2pcity.ledger.segment_file import denied

FILE_NAME = "lock"
_BYTES_MAX = 4096


class DataLock:
    """The exclusive right to a data directory, between `acquire` and `release`."""

    def __init__(self, directory: Path, peer_id: str) -> None:
        """Name the directory, and the node that wants it; nothing is opened yet."""
        self._path = directory / FILE_NAME
        self._peer_id = peer_id
        self._descriptor = -1

    def acquire(self) -> None:
        """Take the lock without waiting.

        Raises LockedError (names pid and peer id of the holder), and ConfigError when the
        directory belongs to another peer id or may not be opened.
        """
        assert self._descriptor < 0, "the lock is held already"
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise denied(self._path, error) from error
        try:
            self._take(descriptor)
        except BaseException:  # closed, then raised on
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def _take(self, descriptor: int) -> None:
        directory = self._path.parent
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            remedy = "Stop that process, or name another data directory."
            raise _in_use(directory, descriptor, remedy) from error
        except OSError as error:
            raise denied(self._path, error) from error
        _, peer = _read_holder(descriptor)
        if peer not in ("unknown", self._peer_id):
            raise ConfigError(
                f"the data directory {directory} belongs to peer id {peer}, "
                f"the node key is that of {self._peer_id}",
                remedy=f"Start the node with its own key. To give the directory to this key for "
                f"good, remove {self._path}.",
            )
        line = json.dumps({"pid": os.getpid(), "peer": self._peer_id}) + "\n"
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, line.encode(), 0)
        except OSError as error:
            raise denied(self._path, error) from error

    def release(self) -> None:
        """Give the lock back; without a lock this does nothing."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def __enter__(self) -> Self:
        """Acquire the lock."""
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        """Release the lock."""
        self.release()


def last_holder(directory: Path) -> str | None:
    """Return the peer id of the node that a directory belongs to, None when that is not said.

    Raises LockedError while a process holds the lock. Nothing is written, and the lock is held for
    no longer than the question takes: a start in that very moment would find it taken.
    """
    path = directory / FILE_NAME
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise denied(path, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            remedy = "Ask the node itself (`p2pcity status`), or stop it."
            raise _in_use(directory, descriptor, remedy) from error
        except OSError as error:
            raise denied(path, error) from error
        _, peer = _read_holder(descriptor)
    finally:
        os.close(descriptor)
    return None if peer == "unknown" else peer


def _in_use(directory: Path, descriptor: int, remedy: str) -> LockedError:
    pid, peer = _read_holder(descriptor)
    return LockedError(
        f"the data directory {directory} is in use by process {pid} (peer id {peer})",
        remedy=remedy,
    )


def _read_holder(descriptor: int) -> tuple[str, str]:
    """Return (pid, peer id) as the file says, "unknown" for what it does not say."""
    try:
        holder = json.loads(os.pread(descriptor, _BYTES_MAX, 0))
        return str(int(holder["pid"])), str(holder["peer"])
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown", "unknown"
