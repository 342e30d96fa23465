"""The layout of a data directory: what lies where, made by `init`, checked at each start.

    log/        the segment log: the ledger itself, or what was not pruned of it; beside its files
                saved indexes, which can be made again (`segment_index_file`)
    base/       what outlives pruned blocks (`base_store`); only where some were pruned
    outbox.db   what this node accepted and nobody waits for (SQLite)
    views.db    what can be made again from the log (SQLite)
    promises    what voters are known to have acknowledged (`promises_file`)
    recover     only while `p2pcity raft recover` writes (`recovery_marker`)
    lock        pid and peer id of the process that holds the directory

Which network a directory belongs to stands in its segment log (`SegmentLog.bind_network`).
"""

import os
from dataclasses import dataclass
from pathlib import Path

from p2pcity.errors import ConfigError
from p2pcity.ledger import lock
from p2pcity.ledger.segment_file import denied, list_segments, sync_directory
from p2pcity.ledger.segment_log import SegmentLog


@dataclass(frozen=True, slots=True)
class DataDirectory:
    """The paths in one data directory; nothing says that they exist."""

    path: Path

    @property
    def log(self) -> Path:
        """The directory of the segment log."""
        return self.path / "log"

    @property
    def base(self) -> Path:
        """The directory of the base."""
        return self.path / "base"

    @property
    def outbox(self) -> Path:
        """The outbox's database."""
        return self.path / "outbox.db"

    @property
    def views(self) -> Path:
        """The views' database."""
        return self.path / "views.db"

    @property
    def promises(self) -> Path:
        """The file with what voters promised (`promises_file`)."""
        return self.path / "promises"

    @property
    def recovery_marker(self) -> Path:
        """What says that a recovery by hand was begun (`recovery_marker`)."""
        return self.path / "recover"

    @property
    def lock(self) -> Path:
        """The lock file (`lock.DataLock`)."""
        return self.path / lock.FILE_NAME

    @property
    def has_log(self) -> bool:
        """Whether `init` made a log here; ConfigError when that can't be seen."""
        try:
            return self.log.is_dir() and bool(list_segments(self.log))
        except OSError as error:
            raise denied(self.path, error) from error

    def free_bytes(self) -> int:
        """Return how many bytes this process may still write to the directory's disk."""
        try:
            disk = os.statvfs(self.path)
        except OSError as error:
            raise denied(self.path, error) from error
        return disk.f_bavail * disk.f_frsize


def initialise(path: Path, incarnation: bytes) -> DataDirectory:
    """Make the data directory at `path` (which may exist) with a new log, durably.

    Raises ConfigError when it has a log already or can't be written, SyncFailedError.
    """
    directory = DataDirectory(path)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise denied(path, error) from error
    _check_rights(path)
    if directory.has_log:
        raise ConfigError(
            f"the data directory {path} has a raft_log already",
            remedy="Use another data directory: a log is made once and never made anew.",
        )
    SegmentLog.create(directory.log, incarnation)
    sync_directory(path)
    return directory


def open_directory(path: Path) -> DataDirectory:
    """Return the data directory at `path` after a look at its rights and its layout.

    Raises ConfigError: not there, not a directory, not readable and writable, or without a log.
    """
    if not path.exists():
        raise ConfigError(
            f"there is no data directory {path}",
            remedy="Run `p2pcity init` once for a new node, or name the right data directory.",
        )
    if not path.is_dir():
        raise ConfigError(f"{path} is not a directory", remedy="Name a directory.")
    _check_rights(path)
    directory = DataDirectory(path)
    if not directory.has_log:
        raise denied(directory.log, FileNotFoundError())
    for part in (directory.log, directory.base, directory.outbox, directory.views):
        if part.exists():
            _check_rights(part)
    return directory


def _check_rights(path: Path) -> None:
    wanted = os.R_OK | os.W_OK | (os.X_OK if path.is_dir() else 0)
    if not os.access(path, wanted):
        raise ConfigError(
            f"{path} cannot be read and written by user id {os.geteuid()}",
            remedy=f"Give the node's user the right to read and write {path} "
            "(chown, chmod u+rwX), and check that the disk is not mounted read-only.",
        )
