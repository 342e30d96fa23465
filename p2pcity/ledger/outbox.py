"""The outbox: transactions that this node accepted, kept until they end visibly.

A client that does not wait for the commit is answered once its transaction is here, synced. It
is offered again after every start until it is committed, expired or rejected; how it ended is
told for a while longer. All calls are BLOCKING and come from one thread (the outbox's writer).

Schema, format 1 (`meta` holds `format`): `pending` (number, id, expires_ms, carried, checksum)
and `settled` (number, id, state, reason, settled_ms, checksum); a row's checksum is BLAKE2b-128
over its other columns but the number. A file is made, and brought from any older format to this
one, in one transaction that says so last.
"""

import contextlib
import hashlib
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple, Self

from p2pcity.errors import CorruptionError, P2PCityError, SyncFailedError, Unavailable
from p2pcity.ledger import database
from p2pcity.ledger.segment_file import newer_format

SETTLED_ROWS_MAX: Final = 100_000
SETTLED_AGE_MS_MAX: Final = 24 * 60 * 60 * 1000
PENDING_BYTES_MAX: Final = 256 * 1024 * 1024
CHECKPOINT_ROWS: Final = 8_000
CHECKPOINT_BYTES: Final = 32 * 1024 * 1024
# What a commit writes to the WAL beside its rows: a page of each table and index it touches.
_BYTES_PER_COMMIT: Final = 16 * 1024

SettledState = Literal["committed", "expired", "rejected"]
_FINAL_STATES: Final = ("committed", "expired", "rejected")

_FIRST: Final = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE pending (number INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE,"
    " expires_ms INTEGER NOT NULL, carried BLOB NOT NULL, checksum BLOB NOT NULL)",
    "CREATE INDEX pending_expires ON pending (expires_ms)",
    "CREATE TABLE settled (number INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE,"
    " state TEXT NOT NULL, reason TEXT NOT NULL, settled_ms INTEGER NOT NULL,"
    " checksum BLOB NOT NULL)",
    "CREATE INDEX settled_time ON settled (settled_ms)",
)
_STEPS: Final = (_FIRST,)
"""What leads from each format to the next, from none to 1 first."""
FORMAT_VERSION: Final = len(_STEPS)

Row = tuple[bytes, int, bytes]
"""What `add` takes: (id, expires in Unix ms, carried bytes)."""


class PendingRow(NamedTuple):
    """A transaction that is neither committed nor over; `number` rises with each one added."""

    number: int
    id: bytes
    expires_ms: int
    carried: bytes


@dataclass(frozen=True, slots=True)
class OutboxState:
    """How a transaction stands: `pending`, or how it ended, why, and when (Unix ms; else 0)."""

    state: str
    reason: str = ""
    settled_ms: int = 0


class OutboxCount(NamedTuple):
    """How many transactions are pending, with how many carried bytes, and how many ended."""

    pending: int
    pending_bytes: int
    settled: int


def _checksum(*columns: bytes | str | int) -> bytes:
    state = hashlib.blake2b(digest_size=16)
    for column in columns:
        data = column if isinstance(column, bytes) else str(column).encode()
        state.update(len(data).to_bytes(8, "big"))
        state.update(data)
    return state.digest()


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


class Outbox:
    """The table of accepted transactions in `outbox.db`."""

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        clock_ms: Callable[[], int],
        bytes_max: int,
    ) -> None:
        """Use `open`."""
        self._path = path
        self._connection = connection
        self._clock_ms = clock_ms
        self._bytes_max = bytes_max
        self._failure: SyncFailedError | None = None
        self._rows_since_checkpoint = 0
        self._bytes_since_checkpoint = 0
        self._pending_rows = 0
        self._pending_bytes = 0

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        clock_ms: Callable[[], int] = _wall_clock_ms,
        pending_bytes_max: int = PENDING_BYTES_MAX,
    ) -> Self:
        """Open `outbox.db`, made when it is missing, and verify every row.

        `clock_ms` (Unix ms) stamps what is settled. Raises CorruptionError for a damaged file
        or row, ConfigError for a newer format or missing rights, LockedError, SyncFailedError.
        """
        connection = database.connect(path, "FULL")
        outbox = cls(path, connection, clock_ms, pending_bytes_max)
        try:
            with database.translated(path):
                outbox._prepare()
        except BaseException:  # closed, then raised on
            connection.close()
            raise
        return outbox

    @classmethod
    def count(cls, path: Path) -> OutboxCount | None:
        """Verify and count what lies in the `outbox.db` of a node that does not run.

        Nothing is written. None when that can't be read so (`database.connect_untouched`), or is
        of an older format. Raises CorruptionError, ConfigError.
        """
        connection = database.connect_untouched(path)
        if connection is None:
            return None
        with contextlib.closing(connection), database.translated(path):
            outbox = cls(path, connection, _wall_clock_ms, PENDING_BYTES_MAX)
            version = outbox._read_format()
            if not version:
                return OutboxCount(0, 0, 0)
            if version < FORMAT_VERSION:
                return None
            outbox._verify()
            [(settled,)] = connection.execute("SELECT count(*) FROM settled").fetchall()
            return OutboxCount(outbox.pending_count, outbox.pending_bytes, settled)

    def _prepare(self) -> None:
        version = self._read_format()
        if version < FORMAT_VERSION:
            with database.transaction(self._connection):
                for step in _STEPS[version:]:
                    for statement in step:
                        self._fetch(statement)
                self._fetch("INSERT OR REPLACE INTO meta VALUES ('format', ?)", (FORMAT_VERSION,))
        self._verify()
        database.checkpoint(self._connection)

    def _read_format(self) -> int:
        """Return the file's format, 0 while nothing is in it; ConfigError for a newer one."""
        if self._fetch("PRAGMA quick_check(1)") != [("ok",)]:
            raise self._corrupt("the database's structure is damaged")
        if not self._fetch("SELECT 1 FROM sqlite_master WHERE name = 'meta'"):
            return 0
        rows = self._fetch("SELECT value FROM meta WHERE key = 'format'")
        version = rows[0][0] if rows else None
        if not isinstance(version, int) or version < 1:
            raise self._corrupt(f"it has format {version}")
        if version > FORMAT_VERSION:
            raise newer_format(self._path, version, FORMAT_VERSION)
        return version

    def _verify(self) -> None:
        for row in self._connection.execute(
            "SELECT number, id, expires_ms, carried, checksum FROM pending"
        ):
            self._pending_rows += 1
            self._pending_bytes += len(self._verified(row).carried)

    def _fetch(self, statement: str, arguments: Sequence[object] = ()) -> list[tuple[object, ...]]:
        """Run a statement to its end: an unfetched row can hide that a commit failed."""
        return self._connection.execute(statement, arguments).fetchall()

    def _verified(self, row: tuple[int, bytes, int, bytes, bytes]) -> PendingRow:
        number, id_, expires_ms, carried, checksum = row
        if checksum != _checksum(id_, expires_ms, carried):
            raise self._corrupt(f"pending row {number} fails its checksum")
        return PendingRow(number, id_, expires_ms, carried)

    def _corrupt(self, what: str) -> CorruptionError:
        return CorruptionError(
            f"the outbox {self._path} is corrupt: {what}",
            remedy=f"Move {self._path} away and start the node: the ledger is not touched, but "
            "what was accepted and is not committed yet must be sent again.",
        )

    def write(self, rows: Sequence[Row], settled: Mapping[bytes, SettledState]) -> None:
        """Add `rows` and settle others, in one transaction with one sync: both or neither.

        Ids that are pending, or were committed or expired, are passed over in `rows`; what was
        rejected may come again. Raises Unavailable when the outbox or the disk is full: nothing
        was stored, and later calls may succeed.
        """
        self._check()
        size = sum(len(row[2]) for row in rows)
        if rows and self._pending_bytes + size > self._bytes_max:
            raise Unavailable(
                f"the outbox holds {self._pending_bytes} bytes of transactions",
                remedy="Send again once the orderers have committed some.",
            )
        counts = self._pending_rows, self._pending_bytes
        try:
            with database.translated(self._path), database.transaction(self._connection):
                self._add(rows)
                for state in _FINAL_STATES:
                    self._settle([key for key, end in settled.items() if end == state], state, "")
        except BaseException as error:  # rolled back, then raised on
            self._pending_rows, self._pending_bytes = counts
            self._note(error)
            raise
        self._checkpoint_when_due(len(rows) + len(settled), size)

    def add(self, rows: Sequence[Row]) -> None:
        """Store accepted transactions durably, all or none (see `write`)."""
        self.write(rows, {})

    def settle(self, ids: Iterable[bytes], state: SettledState, reason: str = "") -> None:
        """Say how transactions ended; ids that are not in the outbox are passed over.

        `committed` corrects an `expired` or `rejected` that was said too early.
        """
        self._check()
        known = list(ids)
        counts = self._pending_rows, self._pending_bytes
        try:
            with database.translated(self._path), database.transaction(self._connection):
                self._settle(known, state, reason)
        except BaseException as error:  # rolled back, then raised on
            self._pending_rows, self._pending_bytes = counts
            self._note(error)
            raise
        self._checkpoint_when_due(len(known), 0)

    def expire(self, now_ms: int) -> list[bytes]:
        """Settle as expired whose time is before `now_ms`; return their ids."""
        self._check()
        with database.translated(self._path):
            rows = self._connection.execute(
                "SELECT id FROM pending WHERE expires_ms < ? ORDER BY number", (now_ms,)
            ).fetchall()
        ids = [row[0] for row in rows]
        if ids:
            self.settle(ids, "expired", "expired")
        return ids

    def pending(self, after: int = 0, limit: int = -1) -> list[PendingRow]:
        """Return what is pending, oldest first: numbers above `after`, `limit` rows (-1: all).

        Raises CorruptionError for a row that fails its checksum.
        """
        self._check()
        with database.translated(self._path):
            rows = self._connection.execute(
                "SELECT number, id, expires_ms, carried, checksum FROM pending"
                " WHERE number > ? ORDER BY number LIMIT ?",
                (after, limit),
            ).fetchall()
        return [self._verified(row) for row in rows]

    def state(self, id_: bytes) -> OutboxState | None:
        """Return how the transaction stands; None when this node never accepted it, or forgot."""
        self._check()
        with database.translated(self._path):
            rows = self._connection.execute(
                "SELECT state, reason, settled_ms, checksum FROM settled WHERE id = ?", (id_,)
            ).fetchall()
            is_pending = bool(self._fetch("SELECT 1 FROM pending WHERE id = ?", (id_,)))
        if is_pending:
            return OutboxState("pending")
        for state, reason, settled_ms, checksum in rows:
            if checksum != _checksum(id_, state, reason, settled_ms):
                raise self._corrupt(f"the end of {id_.hex()} fails its checksum")
            return OutboxState(state, reason, settled_ms)
        return None

    @property
    def pending_count(self) -> int:
        """How many transactions are pending."""
        return self._pending_rows

    @property
    def pending_bytes(self) -> int:
        """How many carried bytes are pending; bounded by `pending_bytes_max`."""
        return self._pending_bytes

    def close(self) -> None:
        """Move the WAL into the database and close it; BLOCKING. A second call does nothing."""
        try:
            if self._failure is None:
                # A full disk loses nothing here: the WAL stays and is read at the next start.
                with (
                    contextlib.suppress(sqlite3.ProgrammingError, Unavailable),
                    database.translated(self._path),
                ):
                    database.checkpoint(self._connection)
        finally:
            self._connection.close()

    def _add(self, rows: Sequence[Row]) -> None:
        for id_, expires_ms, carried in rows:
            ended = self._fetch("SELECT state FROM settled WHERE id = ?", (id_,))
            if ended and ended != [("rejected",)]:
                continue
            self._fetch("DELETE FROM settled WHERE id = ?", (id_,))
            inserted = self._connection.execute(
                "INSERT OR IGNORE INTO pending (id, expires_ms, carried, checksum)"
                " VALUES (?, ?, ?, ?)",
                (id_, expires_ms, carried, _checksum(id_, expires_ms, carried)),
            )
            inserted.fetchall()
            if inserted.rowcount == 1:
                self._pending_rows += 1
                self._pending_bytes += len(carried)

    def _settle(self, ids: Iterable[bytes], state: str, reason: str) -> None:
        now_ms = self._clock_ms()
        for id_ in ids:
            removed = self._fetch(
                "DELETE FROM pending WHERE id = ? RETURNING length(carried)", (id_,)
            )
            is_correction = state == "committed" and self._fetch(
                "SELECT 1 FROM settled WHERE id = ? AND state != 'committed'", (id_,)
            )
            if not removed and not is_correction:
                continue
            for (size,) in removed:
                assert isinstance(size, int)
                self._pending_rows -= 1
                self._pending_bytes -= size
            self._fetch(
                "INSERT OR REPLACE INTO settled (id, state, reason, settled_ms, checksum)"
                " VALUES (?, ?, ?, ?, ?)",
                (id_, state, reason, now_ms, _checksum(id_, state, reason, now_ms)),
            )
        self._fetch("DELETE FROM settled WHERE settled_ms < ?", (now_ms - SETTLED_AGE_MS_MAX,))
        self._fetch(
            "DELETE FROM settled WHERE number <= (SELECT max(number) FROM settled) - ?",
            (SETTLED_ROWS_MAX,),
        )

    def _checkpoint_when_due(self, rows: int, size: int) -> None:
        self._rows_since_checkpoint += rows
        self._bytes_since_checkpoint += size + _BYTES_PER_COMMIT
        if (
            self._rows_since_checkpoint < CHECKPOINT_ROWS
            and self._bytes_since_checkpoint < CHECKPOINT_BYTES
        ):
            return
        try:
            with database.translated(self._path):
                is_done = database.checkpoint(self._connection)
        except Unavailable:
            # The disk is full: what was committed stays in the WAL, and is moved later.
            return
        except P2PCityError as error:
            self._note(error)
            raise
        if is_done:
            self._rows_since_checkpoint = self._bytes_since_checkpoint = 0

    def _note(self, error: BaseException) -> None:
        if isinstance(error, SyncFailedError):
            self._failure = error

    def _check(self) -> None:
        if self._failure is not None:
            raise SyncFailedError(
                f"an earlier write failed: {self._failure}", remedy=self._failure.remedy
            ) from self._failure


__all__ = ["Outbox", "OutboxCount", "OutboxState", "PendingRow", "Row", "SettledState"]
