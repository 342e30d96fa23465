"""How this project opens SQLite, checkpoints it, and says what went wrong with it.

Only this room imports sqlite3. The pragmas follow what was measured under injected faults:

* `wal_autocheckpoint=0`: an automatic checkpoint swallows an I/O error, an explicit one
  (`checkpoint`) reports it.
* `isolation_level=None`: BEGIN and COMMIT are written out (`transaction`), never guessed.
* Every cursor is exhausted: a `RETURNING` whose rows are not fetched can hide a failed commit.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from p2pcity.errors import (
    ConfigError,
    CorruptionError,
    LockedError,
    P2PCityError,
    SyncFailedError,
    Unavailable,
)

Synchronous = Literal["FULL", "NORMAL"]

BUSY_TIMEOUT_MS = 5_000

_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_DENIED = {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_READONLY,
}


def translate(error: sqlite3.Error, path: str | os.PathLike[str]) -> P2PCityError | None:
    """Say which of our errors `error` is; None means a bug of ours (let it stop the node).

    A damaged file is a CorruptionError, a failed write or sync a SyncFailedError, a full disk
    Unavailable (SQLite rolled back, later writes may work), a busy file a LockedError, and
    missing rights a ConfigError. `path` names the file in the message.
    """
    code = getattr(error, "sqlite_errorcode", None)
    if not isinstance(code, int):
        return None
    primary = code & 0xFF
    text = f"{path}: {error} ({getattr(error, 'sqlite_errorname', code)})"
    if primary in _CORRUPT or code == sqlite3.SQLITE_IOERR_SHORT_READ:
        return CorruptionError(text, remedy=f"Stop the node and move {path} away.")
    if primary == sqlite3.SQLITE_FULL:
        return Unavailable(
            f"the disk is full: {text}", remedy="Make room on the disk of the data directory."
        )
    if primary in _BUSY:
        return LockedError(text, remedy=f"Find and stop the other process that uses {path}.")
    if primary in _DENIED:
        return ConfigError(text, remedy=f"Give the node's user the right to read and write {path}.")
    if primary in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOLFS, sqlite3.SQLITE_PROTOCOL):
        return SyncFailedError(text, remedy="Check the disk (dmesg, smartctl), then start again.")
    return None


@contextmanager
def translated(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn sqlite3's errors inside of the block into ours (see `translate`)."""
    try:
        yield
    except sqlite3.Error as error:
        ours = translate(error, path)
        if ours is None:
            raise
        raise ours from error


def connect(
    path: str | os.PathLike[str],
    synchronous: Synchronous = "FULL",
    *,
    is_read_only: bool = False,
) -> sqlite3.Connection:
    """Open `path` (made when missing, unless read-only) in WAL mode with the house's pragmas.

    The connection may be used from any thread, by one thread at a time. `synchronous` FULL
    syncs at each commit, NORMAL only at checkpoints (for what can be rebuilt).
    Raises what `translate` says.
    """
    mode = "ro" if is_read_only else "rwc"
    with translated(path):
        connection = sqlite3.connect(
            f"{Path(path).absolute().as_uri()}?mode={mode}",
            timeout=BUSY_TIMEOUT_MS / 1000,
            isolation_level=None,
            check_same_thread=False,
            uri=True,
        )
        try:
            _set_pragmas(connection, synchronous, is_read_only)
        except BaseException:  # closed, then raised on
            connection.close()
            raise
    return connection


def connect_untouched(path: Path) -> sqlite3.Connection | None:
    """Open `path` so that no byte of the directory changes; nobody else may have it open.

    None when its WAL holds something and the file that indexes it (-shm) is gone: SQLite would
    make that anew. Raises what `translate` says.
    """
    index, wal = (path.with_name(path.name + suffix) for suffix in ("-shm", "-wal"))
    if not (wal.exists() and wal.stat().st_size):
        # Without it SQLite would make both files, and leave them.
        how = "immutable=1"
    elif index.exists():
        # The index is then kept in memory, as if on a medium that can't be written.
        how = "readonly_shm=1"
    else:
        return None
    with translated(path):
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro&{how}", isolation_level=None, uri=True
        )
        try:
            _set_pragmas(connection, "NORMAL", is_read_only=True)
        except BaseException:  # closed, then raised on
            connection.close()
            raise
    return connection


def _set_pragmas(
    connection: sqlite3.Connection, synchronous: Synchronous, is_read_only: bool
) -> None:
    if not is_read_only:
        mode = connection.execute("PRAGMA journal_mode=WAL").fetchall()
        assert mode == [("wal",)], mode
    else:
        connection.execute("PRAGMA query_only=ON").fetchall()
    for pragma in (
        f"synchronous={synchronous}",
        "wal_autocheckpoint=0",
        "foreign_keys=ON",
        "trusted_schema=OFF",
        "cell_size_check=ON",
        "temp_store=MEMORY",
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Run the block between BEGIN IMMEDIATE and COMMIT; on any error roll back and raise it."""
    connection.execute("BEGIN IMMEDIATE").fetchall()
    try:
        yield
        connection.execute("COMMIT").fetchall()
    except BaseException:  # rolled back, then raised on
        # SQLite may have rolled back by itself (disk full, I/O error).
        if connection.in_transaction:
            connection.execute("ROLLBACK").fetchall()
        raise


def checkpoint(connection: sqlite3.Connection) -> bool:
    """Move the WAL into the database and cut it to nothing, with errors reported.

    False when a reader kept it from finishing (come again later). Raises sqlite3.Error; wrap
    it in `translated`.
    """
    rows = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return bool(rows) and rows[0][0] == 0
