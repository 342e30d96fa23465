"""views.db: applies committed blocks and keeps what can be asked about them.

Everything in it can be made again from the segment log, and is: a missing, damaged, older or
foreign file is thrown away at the start, and the apply loop replays the log from index 1. The
applied index is in the same SQLite transaction as the rows (WAL, synchronous NORMAL: after a
power cut the file is a little older, never between two states).

One thread writes; readers have connections of their own (`open_reader`).
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Self

from p2pcity.city.membership import State
from p2pcity.crypto.merkle import Frontier
from p2pcity.errors import DecodeError, DivergedError, Unavailable
from p2pcity.ledger import database
from p2pcity.ledger.block_source import BlockSource, EntryReader
from p2pcity.ledger.views_reader import ViewsDamaged, ViewsReader, damage_named, find_event
from p2pcity.ordering.apply import AppliedBlock, Applier, Lookup, Tip
from p2pcity.views import blocks, city, events, meta, schema, transactions
from p2pcity.views.connection import RowDamaged
from p2pcity.views.events import EventsWriter
from p2pcity.views.meta import Meta
from p2pcity.views.sums import Sums
from p2pcity.wire import block as block_wire
from p2pcity.wire.block import Block
from p2pcity.wire.genesis import Genesis

CHECKPOINT_ROWS: Final = 8_000
# A small commit writes about eight pages to the WAL, whatever little it adds: as much as this.
_ROWS_PER_COMMIT: Final = 16
CACHE_KIB: Final = 48 * 1024
_REFUSED_MAX: Final = 8
_SUFFIXES: Final = ("", "-wal", "-shm")

CommittedEntry = tuple[int, Block | bytes | None]
"""A Raft index and its block: decoded, as bytes, or None (or empty bytes) for no block."""


class ViewsStore:
    """Writes the views. All calls block: run them in the thread of views.db."""

    def __init__(self, path: Path, genesis: Genesis, raft_log: EntryReader) -> None:
        """Use `open`; this opens the file as it is and raises ViewsDamaged when it can't."""
        self._path = path
        self._raft_log = raft_log
        self._source = BlockSource(raft_log)
        self._events = EventsWriter()
        self._rows = 0
        self._refused = 0
        self._is_closed = False
        self.recovery: ViewsDamaged | None = None
        with damage_named(path):
            self._connection = database.connect(path, "NORMAL")
            try:
                self._connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}").fetchall()
                self._meta = self._read_meta(genesis)
                state = city.read(self._connection, genesis)
                self._sums = self._verified_sums()
            except BaseException:  # whatever it was, the file does not stay open
                self._connection.close()
                raise
        self._applier = Applier(genesis.network, state, self._meta.tip)

    @classmethod
    def open(cls, path: Path, *, genesis: Genesis, raft_log: EntryReader) -> Self:
        """Open the views, or begin them anew at index 0 when they are missing or damaged.

        `recovery` of what is returned says why they were begun anew, None when they were not.
        Raises LockedError, SyncFailedError, ConfigError; CorruptionError when the log itself is
        damaged at the newest block.
        """
        if not path.exists():
            create(path, genesis)
        try:
            return cls(path, genesis, raft_log)
        except ViewsDamaged as damage:
            delete(path)
            create(path, genesis)
            store = cls(path, genesis, raft_log)
            store.recovery = damage
            return store

    @property
    def applied_index(self) -> int:
        """The newest Raft index that was applied, 0 for none."""
        return self._meta.applied_index

    @property
    def height(self) -> int:
        """The height of the newest block, 0 when there is only the genesis."""
        return self._meta.tip.height

    @property
    def head(self) -> bytes:
        """The hash of the newest block; the network id when there is only the genesis."""
        return self._meta.tip.hash

    @property
    def head_time_ms(self) -> int:
        """The Unix time of the newest block in milliseconds."""
        return self._meta.tip.time_ms

    @property
    def frontier(self) -> Frontier:
        """The tree over the transactions that were applied."""
        return self._meta.tip.frontier

    @property
    def tip(self) -> Tip:
        """Height, hash, time and tree together."""
        return self._meta.tip

    @property
    def state(self) -> State:
        """The city after the newest block."""
        return self._applier.state

    @property
    def meta(self) -> Meta:
        """What the views show, with the counts of events and dropped transactions."""
        return self._meta

    def open_reader(
        self, timeout_s: float = 5.0, *, clock: Callable[[], float] = time.monotonic
    ) -> ViewsReader:
        """Open a read-only connection on these views; the caller closes it.

        `clock` (s) says when a query takes longer than `timeout_s`.
        """
        return ViewsReader(self._path, self._raft_log, clock=clock, timeout_s=timeout_s)

    def apply_blocks(
        self, entries: Sequence[CommittedEntry], lookup: Lookup = lambda digest: None
    ) -> list[AppliedBlock]:
        """Apply committed entries, which follow the applied index without a gap, in one commit.

        `lookup` gives carried transactions that were examined before, by the SHA-256 of their
        bytes. Raises DivergedError, RulesTooOldError, SyncFailedError, ViewsDamaged,
        Unavailable (disk full); then nothing changed, neither here nor on disk.
        """
        if not entries:
            return []
        before, sums = (self._applier.tip, self._applier.state), self._sums.copy()
        applied: list[AppliedBlock] = []
        try:
            with damage_named(self._path), database.transaction(self._connection):
                new, rows = self._apply(entries, lookup, applied)
        except BaseException:  # rolled back on disk, and so here
            self._applier.restore(*before)
            self._sums = sums
            self._events.forget()
            raise
        self._meta = new
        self._rows += rows + _ROWS_PER_COMMIT
        if self._rows >= CHECKPOINT_ROWS:
            # A full disk: what was committed stays in the WAL, and is moved later.
            with contextlib.suppress(Unavailable):
                self.checkpoint()
        return applied

    def checkpoint(self) -> bool:
        """Move the WAL into the database; False when a reader was in the way (tried again later).

        Raises SyncFailedError when the disk refused.
        """
        # Waiting for readers would hold up apply, so it is done only once the WAL grew long.
        is_patient = self._refused >= _REFUSED_MAX
        wait_ms = database.BUSY_TIMEOUT_MS if is_patient else 0
        with damage_named(self._path):
            self._connection.execute(f"PRAGMA busy_timeout={wait_ms}").fetchall()
            is_done = database.checkpoint(self._connection)
            self._connection.execute(f"PRAGMA busy_timeout={database.BUSY_TIMEOUT_MS}").fetchall()
        self._rows = 0
        self._refused = 0 if is_done else self._refused + 1
        return is_done

    def close(self) -> None:
        """Checkpoint and close; a second call does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            # A full disk loses nothing here: the WAL stays and is read at the next start.
            with contextlib.suppress(Unavailable):
                self.checkpoint()
        finally:
            self._connection.close()

    def has_transaction(self, id: bytes, /) -> bool:
        """Say whether a transaction was applied; for the applier, in the writer's thread."""
        return transactions.has_applied(self._connection, id)

    def has_event(self, name_key: bytes, /) -> bool:
        """Say whether an event of this name is on the ledger; in the writer's thread."""
        return find_event(self._connection, self._source, name_key) is not None

    def _read_meta(self, genesis: Genesis) -> Meta:
        schema.check(self._connection)
        found = meta.read(self._connection)
        if found.network != genesis.network:
            raise RowDamaged("the views are of another network")
        if found.tip.height > 0 and found.head_index <= self._raft_log.last_index:
            record = blocks.read(self._connection, found.tip.height)
            if record is None or record.hash != found.tip.hash:
                raise RowDamaged("the row of the newest block is missing")
            self._source.read(record)
        return found

    def _verified_sums(self) -> Sums:
        """Look at the whole file: pages in order, no row missing, look-ups complete."""
        [found] = self._connection.execute("PRAGMA quick_check(1)").fetchall()[0]
        if found != "ok":
            raise RowDamaged(found)
        sums = Sums.read(self._connection)
        sums.verify(self._connection)
        events.verify(self._connection)
        return sums

    def _apply(
        self, entries: Sequence[CommittedEntry], lookup: Lookup, applied: list[AppliedBlock]
    ) -> tuple[Meta, int]:
        """Write all rows of `entries`; the new meta row and how many rows were written."""
        old, old_state = self._meta, self._applier.state
        head_index, events, dropped, rows = old.head_index, old.events, old.dropped, 0
        for expected, (index, item) in enumerate(entries, old.applied_index + 1):
            assert index == expected, f"entry {index} came, {expected} is next"
            if not item:
                continue
            done = self._applier.apply(index, _decoded(index, item), self, lookup)
            added = self._events.insert(self._connection, done, self._sums)
            stored = transactions.insert(self._connection, done, self._sums)
            blocks.insert(self._connection, done, added)
            self._sums.add("blocks", [(done.height, index)])
            head_index = index
            events += added
            dropped += sum(1 for entry in done.transactions if entry.outcome != "applied")
            rows += added + stored + 1
            applied.append(done)
        new = Meta(
            network=old.network,
            applied_index=entries[-1][0],
            head_index=head_index,
            tip=self._applier.tip,
            events=events,
            dropped=dropped,
        )
        meta.write(self._connection, new)
        self._sums.write(self._connection)
        if self._applier.state is not old_state:
            city.write(self._connection, self._applier.state)
        return new, rows


def create(path: Path, genesis: Genesis) -> None:
    """Make an empty views.db at height 0; BLOCKING."""
    with damage_named(path), contextlib.closing(database.connect(path, "NORMAL")) as connection:
        with database.transaction(connection):
            schema.create(connection)
            meta.write(connection, Meta(genesis.network, 0, 0, Tip.from_genesis(genesis), 0, 0))
            city.write(connection, State.from_genesis(genesis))
            Sums().write(connection)
        database.checkpoint(connection)


def delete(path: Path) -> None:
    """Remove views.db with its WAL; what was in it is made again from the log."""
    for suffix in _SUFFIXES:
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _decoded(index: int, item: Block | bytes) -> Block:
    if isinstance(item, Block):
        return item
    try:
        return block_wire.decode(item)
    except DecodeError as error:
        raise DivergedError(
            f"the committed entry {index} is no block: {error}",
            remedy="Keep the data directory and tell the members: a leader broke the protocol.",
        ) from error
