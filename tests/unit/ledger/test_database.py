"""How SQLite is opened, and how its errors are told."""

import sqlite3
from pathlib import Path

import pytest

from p2pcity.errors import (
    ConfigError,
    CorruptionError,
    LockedError,
    P2PCityError,
    SyncFailedError,
    Unavailable,
)
from p2pcity.ledger import database


def make_error(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("said")
    error.sqlite_errorcode = code
    error.sqlite_errorname = "NAME"
    return error


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_CORRUPT, CorruptionError),
        (sqlite3.SQLITE_CORRUPT_INDEX, CorruptionError),
        (sqlite3.SQLITE_NOTADB, CorruptionError),
        (sqlite3.SQLITE_IOERR_SHORT_READ, CorruptionError),
        (sqlite3.SQLITE_IOERR_FSYNC, SyncFailedError),
        (sqlite3.SQLITE_IOERR_WRITE, SyncFailedError),
        (sqlite3.SQLITE_FULL, Unavailable),
        (sqlite3.SQLITE_BUSY, LockedError),
        (sqlite3.SQLITE_CANTOPEN, ConfigError),
        (sqlite3.SQLITE_READONLY, ConfigError),
    ],
)
def test_each_error_has_its_kind_and_a_remedy(code: int, kind: type[P2PCityError]) -> None:
    with pytest.raises(kind) as caught, database.translated("file.db"):
        raise make_error(code)
    assert type(caught.value) is kind
    assert caught.value.remedy
    assert "file.db" in str(caught.value)


def test_a_bug_of_ours_is_not_translated(tmp_path: Path) -> None:
    connection = database.connect(tmp_path / "a.db")
    with pytest.raises(sqlite3.OperationalError), database.translated("a.db"):
        connection.execute("SELECT nonsense")
    connection.close()


def test_a_transaction_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    connection = database.connect(tmp_path / "a.db")
    with database.transaction(connection):
        connection.execute("CREATE TABLE t (x)").fetchall()
    insert = "INSERT INTO t VALUES (1)"
    with pytest.raises(sqlite3.OperationalError), database.transaction(connection):
        [connection.execute(statement).fetchall() for statement in (insert, "INSERT nonsense")]
    assert connection.execute("SELECT * FROM t").fetchall() == []
    connection.close()


def test_the_pragmas_are_set_and_the_wal_is_moved_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "odd name?.db"
    connection = database.connect(path)

    def pragma(name: str) -> object:
        return connection.execute(f"PRAGMA {name}").fetchall()[0][0]

    assert (pragma("journal_mode"), pragma("synchronous")) == ("wal", 2)
    assert pragma("wal_autocheckpoint") == 0
    with database.transaction(connection):
        connection.execute("CREATE TABLE t (x)").fetchall()
    for _ in range(1500):
        connection.execute("INSERT INTO t VALUES (zeroblob(2000))").fetchall()
    wal = tmp_path / "odd name?.db-wal"
    assert wal.stat().st_size > 6_000_000
    assert database.checkpoint(connection)
    assert wal.stat().st_size == 0
    reader = database.connect(path, is_read_only=True)
    with pytest.raises(sqlite3.OperationalError):
        reader.execute("INSERT INTO t VALUES (1)")
    reader.close()
    connection.close()
