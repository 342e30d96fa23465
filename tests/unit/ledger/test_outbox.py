"""The outbox: accepted transactions stay until they end, visibly."""

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from p2pcity.errors import ConfigError, CorruptionError, SyncFailedError, Unavailable
from p2pcity.ledger import database, outbox
from p2pcity.ledger.outbox import Outbox, OutboxState

NOW_MS = 1_700_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now_ms = NOW_MS

    def __call__(self) -> int:
        return self.now_ms


def make_row(number: int, expires_ms: int = NOW_MS + 1000) -> outbox.Row:
    return number.to_bytes(32, "big"), expires_ms, b"carried %d" % number


def make_id(number: int) -> bytes:
    return make_row(number)[0]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


def pending_ids(box: Outbox) -> list[int]:
    return [int.from_bytes(row.id, "big") for row in box.pending()]


def test_what_was_added_is_pending_in_order_after_a_restart(path: Path) -> None:
    box = Outbox.open(path)
    box.add([make_row(2), make_row(1)])
    box.add([make_row(3)])
    # No close: as after a kill.
    again = Outbox.open(path)
    rows = again.pending()
    assert [(row.id, row.expires_ms, row.carried) for row in rows] == [
        make_row(2), make_row(1), make_row(3)
    ]  # fmt: skip
    assert again.pending(after=rows[0].number, limit=1) == rows[1:2]
    assert (again.pending_count, again.pending_bytes) == (3, 27)
    again.close()
    box.close()
    box.close()


def test_a_transaction_ends_visibly(path: Path, clock: Clock) -> None:
    box = Outbox.open(path, clock_ms=clock)
    box.add([make_row(1), make_row(2), make_row(3), make_row(4, NOW_MS - 1)])
    assert box.state(make_id(1)) == OutboxState("pending")
    box.settle([make_id(1), make_id(99)], "committed")
    box.settle([make_id(2)], "rejected", "author-unknown")
    assert box.expire(NOW_MS) == [make_id(4)]
    assert box.expire(NOW_MS) == []
    assert pending_ids(box) == [3]
    assert (box.pending_count, box.pending_bytes) == (1, 9)
    box.close()
    box = Outbox.open(path, clock_ms=clock)
    assert box.state(make_id(1)) == OutboxState("committed", "", NOW_MS)
    assert box.state(make_id(2)) == OutboxState("rejected", "author-unknown", NOW_MS)
    assert box.state(make_id(3)) == OutboxState("pending")
    assert box.state(make_id(4)) == OutboxState("expired", "expired", NOW_MS)
    assert box.state(make_id(99)) is None
    box.close()


def test_adding_again_changes_nothing_unless_it_was_rejected(path: Path) -> None:
    box = Outbox.open(path)
    box.add([make_row(1), make_row(2), make_row(3)])
    box.add([make_row(1)])
    box.settle([make_id(1)], "committed")
    box.settle([make_id(2)], "rejected")
    box.settle([make_id(3)], "expired")
    box.add([make_row(1), make_row(2), make_row(3)])
    assert pending_ids(box) == [2]
    assert box.state(make_id(2)) == OutboxState("pending")
    box.close()


def test_a_commit_corrects_an_end_that_was_said_too_early(path: Path) -> None:
    box = Outbox.open(path)
    box.add([make_row(1)])
    box.expire(NOW_MS + 5000)
    box.settle([make_id(1)], "committed")
    state = box.state(make_id(1))
    assert state is not None
    assert state.state == "committed"
    box.settle([make_id(1)], "expired")
    assert box.state(make_id(1)) == state
    box.close()


def test_adding_and_settling_is_one_transaction(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Outbox.open(path)
    box.add([make_row(1)])
    box.write([make_row(2)], {make_id(1): "committed"})
    assert pending_ids(box) == [2]

    def fail(*_: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as patched:
        patched.setattr(box, "_settle", fail)
        with pytest.raises(RuntimeError):
            box.write([make_row(3)], {make_id(2): "committed"})
    assert pending_ids(box) == [2]
    assert (box.pending_count, box.pending_bytes) == (1, 9)
    box.close()


def test_what_is_settled_is_forgotten_after_a_day_or_beyond_the_row_limit(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "SETTLED_ROWS_MAX", 3)
    box = Outbox.open(path, clock_ms=clock)
    box.add([make_row(number) for number in range(10)])
    box.settle([make_id(number) for number in range(5)], "committed")
    assert [number for number in range(5) if box.state(make_id(number))] == [2, 3, 4]
    clock.now_ms += outbox.SETTLED_AGE_MS_MAX + 1
    box.settle([make_id(5)], "committed")
    assert [number for number in range(6) if box.state(make_id(number))] == [5]
    assert pending_ids(box) == [6, 7, 8, 9]
    box.close()


def test_a_full_outbox_refuses_and_works_again(path: Path) -> None:
    box = Outbox.open(path, pending_bytes_max=20)
    box.add([make_row(1), make_row(2)])
    with pytest.raises(Unavailable):
        box.add([make_row(3)])
    box.settle([make_id(1)], "committed")
    box.add([make_row(3)])
    assert pending_ids(box) == [2, 3]
    box.close()


def test_a_full_disk_is_the_clients_trouble_only(path: Path) -> None:
    box = Outbox.open(path)
    box.add([make_row(1)])
    connection = box._connection
    pages = connection.execute("PRAGMA page_count").fetchall()[0][0]
    connection.execute(f"PRAGMA max_page_count={pages}").fetchall()
    with pytest.raises(Unavailable, match="full"):
        box.add([(make_id(9), NOW_MS, bytes(100_000))])
    assert (pending_ids(box), box.pending_count) == ([1], 1)
    connection.execute("PRAGMA max_page_count=1000000").fetchall()
    box.add([make_row(2)])
    assert pending_ids(box) == [1, 2]
    box.close()


def test_a_failed_sync_is_final(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
        error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
        raise error

    box = Outbox.open(path)
    with monkeypatch.context() as patched:
        patched.setattr(box, "_add", fail)
        with pytest.raises(SyncFailedError) as caught:
            box.add([make_row(1)])
    assert caught.value.exit_code == 11
    for call in (lambda: box.add([make_row(1)]), box.pending, lambda: box.expire(NOW_MS)):
        with pytest.raises(SyncFailedError):
            call()
    box.close()


def test_the_wal_is_moved_by_rows_by_bytes_and_at_the_end(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wal = path.with_name("outbox.db-wal")
    box = Outbox.open(path)
    assert wal.stat().st_size == 0
    box.add([make_row(number) for number in range(100)])
    assert wal.stat().st_size > 0
    monkeypatch.setattr(outbox, "CHECKPOINT_ROWS", 150)
    box.add([make_row(number) for number in range(100, 160)])
    assert wal.stat().st_size == 0
    monkeypatch.setattr(outbox, "CHECKPOINT_BYTES", 50_000)
    box.add([(make_id(1000), NOW_MS, bytes(60_000))])
    assert wal.stat().st_size == 0
    box.add([make_row(2000)])
    box.close()
    assert not wal.exists()
    box = Outbox.open(path)
    assert box.pending_count == 162
    box.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE pending SET carried = x'00'",
        "UPDATE pending SET expires_ms = expires_ms + 1",
        "UPDATE pending SET id = zeroblob(32)",
    ],
)
def test_a_changed_row_is_noticed(path: Path, statement: str) -> None:
    box = Outbox.open(path)
    box.add([make_row(1)])
    box._connection.execute(statement).fetchall()
    with pytest.raises(CorruptionError):
        box.pending()
    box.close()
    with pytest.raises(CorruptionError) as caught:
        Outbox.open(path)
    assert "sent again" in caught.value.remedy


def test_a_changed_end_is_noticed(path: Path) -> None:
    box = Outbox.open(path)
    box.add([make_row(1)])
    box.settle([make_id(1)], "expired")
    box._connection.execute("UPDATE settled SET state = 'committed'").fetchall()
    with pytest.raises(CorruptionError):
        box.state(make_id(1))
    box.close()


def test_a_damaged_file_and_a_newer_format_are_refused(path: Path, tmp_path: Path) -> None:
    box = Outbox.open(path)
    box.add([make_row(number) for number in range(200)])
    box.close()
    damaged = tmp_path / "damaged.db"
    content = bytearray(path.read_bytes())
    content[4096:8192] = os.urandom(4096)
    damaged.write_bytes(content)
    garbage = tmp_path / "garbage.db"
    garbage.write_bytes(b"garbage" * 1000)
    for bad in (damaged, garbage):
        with pytest.raises(CorruptionError) as caught:
            Outbox.open(bad)
        assert caught.value.exit_code == 10
    newer = tmp_path / "newer.db"
    shutil.copy(path, newer)
    connection = database.connect(newer)
    connection.execute("UPDATE meta SET value = 2").fetchall()
    connection.close()
    with pytest.raises(ConfigError) as config:
        Outbox.open(newer)
    assert "release" in config.value.remedy
