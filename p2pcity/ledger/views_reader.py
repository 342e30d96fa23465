"""Reads views.db beside the writer: transactions, blocks, events, pages and streams.

A second, read-only connection: what it sees is what was committed before each call. Every row
is verified on the way (its checksum, or the event in the log itself); a row that fails raises
ViewsDamaged. All calls block: run them in the reader thread.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, TypeVar

from p2pcity.errors import CorruptionError, DecodeError, Pruned, Unavailable
from p2pcity.ledger import database
from p2pcity.ledger.base_store import NO_BASES, BaseDamaged, Bases
from p2pcity.ledger.block_source import BlockSource, EntryReader, StoredBlock
from p2pcity.views import bases, blocks, events, meta, queries, transactions
from p2pcity.views.base import Base
from p2pcity.views.blocks import BlockRecord
from p2pcity.views.connection import RowDamaged
from p2pcity.views.events import EventRow
from p2pcity.views.meta import Meta
from p2pcity.views.position import BEGINNING, Position
from p2pcity.views.queries import EventQuery
from p2pcity.views.transactions import TransactionRecord
from p2pcity.wire import event as event_wire
from p2pcity.wire.base import EVENT_VALUE, encode_record
from p2pcity.wire.event import Event
from p2pcity.wire.transaction import HASH_BYTES

QUERY_TIMEOUT_S: Final = 5.0
_STEPS_BETWEEN_LOOKS: Final = 10_000
_CANDIDATES_MIN: Final = 100

_T = TypeVar("_T")


class ViewsDamaged(CorruptionError):
    """views.db can't be trusted; it is made again from the segment log, nothing is lost."""


@dataclass(frozen=True, slots=True)
class LedgerEvent:
    """An event with its place on the ledger.

    `data` are its bytes; `event` is None (and `data` a 32-byte leaf hash) when its body was
    withheld or erased. `block_time_ms` is the block's Unix time.
    """

    position: Position
    transaction: bytes
    author: bytes
    block_time_ms: int
    data: bytes
    event: Event | None


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events in ledger order. `next_cursor` is where to go on, None when there was no more.

    `height` and `head` say which ledger was read.
    """

    events: tuple[LedgerEvent, ...]
    next_cursor: Position | None
    height: int
    head: bytes


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Turn what is wrong with views.db inside of the block into ViewsDamaged."""
    try:
        with database.translated(path):
            yield
    except (RowDamaged, UnicodeDecodeError) as error:
        # SQLite gives text as it finds it, also in what it says about a damaged schema.
        raise _damaged(path, str(error)) from error
    except sqlite3.OperationalError as error:
        # Our statements are constants: a table that they miss was lost with its page. And text
        # that can't be decoded was not written so.
        if not str(error).startswith(("no such", "Could not decode")):
            raise
        raise _damaged(path, str(error)) from error
    except CorruptionError as error:
        # The segment log's own, or the base's: no rebuild mends that.
        if error.index is not None or isinstance(error, BaseDamaged):
            raise
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, what: str) -> ViewsDamaged:
    return ViewsDamaged(
        f"{path} is damaged: {what}",
        remedy="Stop the node and run `p2pcity rebuild`: it makes the views anew from the log.",
    )


class ViewsReader:
    """Answers questions about the ledger; for any thread, one call at a time."""

    def __init__(
        self,
        path: Path,
        raft_log: EntryReader,
        base_source: Bases = NO_BASES,
        *,
        clock: Callable[[], float] = time.monotonic,
        timeout_s: float = QUERY_TIMEOUT_S,
    ) -> None:
        """Open `path` read-only; a query that takes longer than `timeout_s` is given up."""
        self._path = path
        self._clock = clock
        self._timeout_s = timeout_s
        self._deadline = clock() + timeout_s
        self._lock = threading.Lock()
        self._source = BlockSource(raft_log)
        self._bases = base_source
        # The one that the read in hand goes by.
        self._base = base_source.base
        with damage_named(path):
            self._connection = database.connect(path, "NORMAL", is_read_only=True)
        self._connection.set_progress_handler(self._is_late, _STEPS_BETWEEN_LOOKS)

    def close(self) -> None:
        """Close the connection; a second call does nothing."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def meta(self) -> Meta:
        """Return the applied index, height, head, tree and counts."""
        return self._run(lambda: meta.read(self._connection))

    def height(self) -> int:
        """Return the height of the newest block in the views."""
        return self.meta().tip.height

    def transaction(self, id: bytes) -> TransactionRecord | None:
        """Return what became of a transaction, None when no block carries it.

        An id that was applied and dropped elsewhere as a duplicate leads to the applied one.
        """
        return self._run(lambda: transactions.read(self._connection, id, self._base))

    def has_transaction(self, id: bytes) -> bool:
        """Say whether a transaction with this id was applied."""
        return self._run(lambda: transactions.has_applied(self._connection, id, self._base))

    def transaction_bytes(self, id: bytes) -> bytes | None:
        """Return the carried bytes of a transaction, None when no block carries it.

        Raises Pruned.
        """

        def read() -> bytes | None:
            record = transactions.read(self._connection, id, self._base)
            if record is None:
                return None
            self._check_kept(record.height)
            return self._stored(record.height).carried(record.position).data

        return self._run(read)

    def count_events(self, height: int, position: int) -> int:
        """Return how many events a transaction brought into the views; 0: all were duplicates."""

        def read() -> int:
            if height <= self._base.height:
                return self._base.count_events(Position(height, position, 0).number)
            return events.count(self._connection, height, position)

        return self._run(read)

    def block(self, height: int) -> BlockRecord | None:
        """Return the row of the block at `height`, None when there is none; Pruned."""

        def read() -> BlockRecord | None:
            self._check_kept(height)
            return blocks.read(self._connection, height)

        return self._run(read)

    def blocks(self, first: int, limit: int) -> list[BlockRecord]:
        """Return the rows of up to `limit` blocks from the height `first` upwards; Pruned."""

        def read() -> list[BlockRecord]:
            self._check_kept(first)
            return blocks.read_range(self._connection, first, limit)

        return self._run(read)

    def block_bytes(self, height: int) -> bytes | None:
        """Return the bytes of the block at `height`, its hash verified; None when there is none.

        Raises Pruned.
        """

        def read() -> bytes | None:
            self._check_kept(height)
            record = blocks.read(self._connection, height)
            if record is None:
                return None
            self._source.read(record)
            return self._source.read_bytes(record)

        return self._run(read)

    def block_transactions(self, height: int) -> dict[int, TransactionRecord]:
        """Return what became of the block's transactions, by position (duplicates left out)."""
        return self._run(lambda: transactions.read_block(self._connection, height))

    def base_records(self, height: int) -> bytes:
        """Return the records of the block at `height`, as apply found them (`wire.base`).

        They are made from the log and the rows; who stores them checks the chain. Raises Pruned.
        """

        def read() -> bytes:
            self._check_kept(height)
            return self._records(height)

        return self._run(read)

    def base_digest(self, height: int) -> bytes | None:
        """Return the digest of the base at `height`, None when it is not known here."""

        def read() -> bytes | None:
            record = bases.read(self._connection, height)
            return None if record is None else record.digest

        return self._run(read)

    def types(self) -> list[str]:
        """Return the event types on the ledger, sorted."""
        return self._run(lambda: events.list_types(self._connection))

    def has_event(self, name_key: bytes) -> bytes | None:
        """Return the id of the transaction that brought the event of this name, None if none."""

        def read() -> bytes | None:
            position = find_event(self._connection, self._source, name_key, self._base)
            if position is None:
                return None
            if position.number < self._base.floor:
                record = self._base.find_transaction(position._replace(event=0).number)
                if record is None:
                    raise RowDamaged(f"the base has no transaction for the event at {position}")
                return record.key
            stored = self._stored(position.height)
            return stored.carried(position.transaction).transaction.id

        return self._run(read)

    def query(self, query: EventQuery) -> EventPage:
        """Return a page of events; raises Unavailable when it takes too long to find them."""
        return self._run(lambda: self._find_page(query))

    def events_after(self, cursor: Position, limit: int) -> EventPage:
        """Return up to `limit` events behind `cursor`: all that are in the views, without a gap.

        Withheld and erased ones come as tombstones. `Position.before(height)` begins with the
        block at `height`. Raises Pruned when some were dropped that stood behind `cursor`.
        """

        def read() -> EventPage:
            self._check_cursor(cursor)
            rows = queries.find_rows(
                self._connection, EventQuery(limit=limit), cursor.number, limit + 1
            )
            found = [self._event(row) for row in rows[:limit]]
            return self._page(found, len(rows) > limit)

        return self._run(read)

    def _find_page(self, query: EventQuery) -> EventPage:
        found: list[LedgerEvent] = []
        if query.cursor != BEGINNING:
            self._check_cursor(query.cursor)
        after, wanted = max(query.cursor.number, self._base.floor - 1), query.limit + 1
        while True:
            size = max(wanted - len(found), _CANDIDATES_MIN)
            rows = queries.find_rows(self._connection, query, after, size)
            for row in rows:
                # Bodies far apart in the log take their time: a short page is better than none.
                if found and self._is_late():
                    return self._page(found, has_more=True)
                item = self._event(row)
                if item.event is not None and query.matches(item.event, item.author):
                    if len(found) == query.limit:
                        return self._page(found, has_more=True)
                    found.append(item)
            if len(rows) < size:
                return self._page(found, has_more=False)
            after = rows[-1].position

    def _page(self, found: list[LedgerEvent], has_more: bool) -> EventPage:
        tip = meta.read(self._connection).tip
        cursor = found[-1].position if has_more else None
        return EventPage(tuple(found), cursor, tip.height, tip.hash)

    def _event(self, row: EventRow) -> LedgerEvent:
        position = Position.from_number(row.position)
        stored = self._stored(position.height)
        carried = stored.carried(position.transaction)
        data, event = read_event(stored, position)
        author = carried.transaction.author
        if event is not None:
            expected = events.make_row(row.position, event, author, stored.record.time_ms)
            if expected != row:
                raise RowDamaged(f"the row of the event at {position} is damaged")
        return LedgerEvent(
            position, carried.transaction.id, author, stored.record.time_ms, data, event
        )

    def _check_kept(self, height: int) -> None:
        if 0 < height <= self._base.height:
            first = self._base.height + 1
            raise Pruned(
                f"block {height} was pruned here; the oldest one is {first}", first_height=first
            )

    def _check_cursor(self, cursor: Position) -> None:
        if cursor.number < self._base.floor - 1:
            self._check_kept(min(cursor.height + 1, self._base.height))

    def _stored(self, height: int) -> StoredBlock:
        return read_stored(self._connection, self._source, height)

    def _records(self, height: int) -> bytes:
        stored, found = self._stored(height), list[bytes]()
        listed = events.positions(self._connection, height)
        for position, row in sorted(transactions.read_block(self._connection, height).items()):
            if row.leaf_index is None:
                continue
            first = Position(height, position, 0)
            found.append(encode_record(row.id, first.number, row.leaf_index))
            author = stored.carried(position).transaction.author
            for number in listed.get(position, ()):
                _, event = read_event(stored, first._replace(event=number))
                if event is None:
                    raise RowDamaged(f"the event at {height}.{position}.{number} has no body")
                key = event_wire.name_key(author, event.source, event.id)
                found.append(encode_record(key, first.number | number, EVENT_VALUE))
        return b"".join(found)

    def _is_late(self) -> bool:
        return self._clock() > self._deadline

    def _run(self, read: Callable[[], _T]) -> _T:
        """Call `read` in one read transaction, alone on the connection and with a deadline.

        What is pruned while it reads may be missing in the log and in the tables: it reads again,
        by the base that is in force now.
        """
        while True:
            base = self._base = self._bases.base
            try:
                found = self._run_once(read)
            except (Pruned, ViewsDamaged):
                if base is self._bases.base:
                    raise
                continue
            if base is self._bases.base:
                return found

    def _run_once(self, read: Callable[[], _T]) -> _T:
        with self._lock, damage_named(self._path):
            self._deadline = self._clock() + self._timeout_s
            try:
                self._connection.execute("BEGIN").fetchall()
                try:
                    return read()
                finally:
                    self._deadline = float("inf")
                    self._connection.execute("ROLLBACK").fetchall()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                    raise
                raise Unavailable(
                    f"the query took more than {self._timeout_s:g} s",
                    remedy="Name a source, a subject or a shorter time.",
                ) from error


def read_stored(connection: sqlite3.Connection, source: BlockSource, height: int) -> StoredBlock:
    """Return the block at `height` from the log; RowDamaged when the views do not know it."""
    record = blocks.read(connection, height)
    if record is None:
        raise RowDamaged(f"the row of block {height} is missing")
    return source.read(record)


def read_event(stored: StoredBlock, position: Position) -> tuple[bytes, Event | None]:
    """Return an event's bytes and the event, None for a withheld one; RowDamaged."""
    carried = stored.carried(position.transaction)
    if position.event >= len(carried.events):
        raise RowDamaged(f"there is no event at {position}")
    data = carried.events[position.event]
    if len(data) == HASH_BYTES:
        return data, None
    try:
        return data, event_wire.decode(data)
    except DecodeError as error:
        raise RowDamaged(f"the event at {position}: {error}") from error


def find_event(
    connection: sqlite3.Connection, source: BlockSource, name_key: bytes, base: Base
) -> Position | None:
    """Return where the event of this name stands, None when it is not on the ledger.

    What was pruned is in `base`. The index holds 64 bits of the name; whoever shares them is told
    apart by the event itself.
    """
    for number in events.find_name(connection, name_key):
        position = Position.from_number(number)
        if number < base.floor:
            record = base.find_event(number)
            if record is not None and record.key == name_key:
                return position
            # 64 bits of it agree: rather a damaged record than another event.
            base.check(number)
            if record is None:
                raise RowDamaged(f"the base has no event at {position}")
            continue
        stored = read_stored(connection, source, position.height)
        _, event = read_event(stored, position)
        author = stored.carried(position.transaction).transaction.author
        # An erased event can't be compared; 64 bits that agree are then taken for the name.
        if event is None or event_wire.name_key(author, event.source, event.id) == name_key:
            return position
    return None
