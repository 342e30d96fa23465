"""views.db: applies committed blocks and keeps what can be asked about them.

Everything in it can be made again from the segment log, and is: a missing, damaged, older or
foreign file is thrown away at the start, and the apply loop replays the log from its first index,
on top of the base where blocks were pruned. The
applied index is in the same SQLite transaction as the rows (WAL, synchronous NORMAL: after a
power cut the file is a little older, never between two states).

One thread writes; readers have connections of their own (`open_reader`).
"""

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Self

from p2pcity.city.membership import State, decode_members, encode_city
from p2pcity.crypto.merkle import Frontier
from p2pcity.errors import DecodeError, DivergedError, Unavailable
from p2pcity.ledger import database
from p2pcity.ledger.base_store import NO_BASES, Bases, StoredBase
from p2pcity.ledger.block_source import BlockSource, EntryReader
from p2pcity.ledger.views_reader import ViewsDamaged, ViewsReader, damage_named, find_event
from p2pcity.ordering.apply import AppliedBlock, Applier, Lookup, Tip
from p2pcity.ordering.taken import records_of
from p2pcity.views import bases as bases_view
from p2pcity.views import blocks, city, events, meta, schema, transactions
from p2pcity.views.connection import RowDamaged
from p2pcity.views.events import EventsWriter
from p2pcity.views.meta import Meta
from p2pcity.views.sums import Sums
from p2pcity.wire import base as base_wire
from p2pcity.wire import block as block_wire
from p2pcity.wire.base import (
    HEIGHT_SHIFT,
    MARK_BYTES,
    RECORD_BYTES,
    BaseHead,
    Mark,
    encode_mark,
    next_chain,
)
from p2pcity.wire.block import Block
from p2pcity.wire.genesis import Genesis
from p2pcity.wire.limits import BASE_INTERVAL_BLOCKS

CHECKPOINT_ROWS: Final = 8_000
# A small commit writes about eight pages to the WAL, whatever little it adds: as much as this.
_ROWS_PER_COMMIT: Final = 16
PRUNED_AT_ONCE: Final = 32
"""Blocks whose rows one commit deletes: apply waits for it."""
CACHE_KIB: Final = 48 * 1024
_REFUSED_MAX: Final = 8
_SUFFIXES: Final = ("", "-wal", "-shm")

CommittedEntry = tuple[int, Block | bytes | None]
"""A Raft index and its block: decoded, as bytes, or None (or empty bytes) for no block."""


class ViewsStore:
    """Writes the views. All calls block: run them in the thread of views.db."""

    def __init__(
        self, path: Path, genesis: Genesis, raft_log: EntryReader, bases: Bases = NO_BASES
    ) -> None:
        """Use `open`; this opens the file as it is and raises ViewsDamaged when it can't."""
        self._path = path
        self._bases = bases
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
                self._sums = verify(self._connection)
                self._marks = bases_view.read_marks(self._connection, self._meta.tip.height)
            except BaseException:  # whatever it was, the file does not stay open
                self._connection.close()
                raise
        self._applier = Applier(genesis.network, state, self._meta.tip)

    @classmethod
    def open(
        cls, path: Path, *, genesis: Genesis, raft_log: EntryReader, bases: Bases = NO_BASES
    ) -> Self:
        """Open the views, or begin them anew from the base when they are missing or damaged.

        `recovery` of what is returned says why they were begun anew, None when they were not.
        Raises LockedError, SyncFailedError, ConfigError; CorruptionError when the log itself is
        damaged at the newest block.
        """
        if not path.exists():
            create(path, genesis, bases.stored)
        try:
            return cls(path, genesis, raft_log, bases)
        except ViewsDamaged as damage:
            delete(path)
            create(path, genesis, bases.stored)
            store = cls(path, genesis, raft_log, bases)
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
        return ViewsReader(
            self._path, self._raft_log, self._bases, clock=clock, timeout_s=timeout_s
        )

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
        marks = self._marks
        applied: list[AppliedBlock] = []
        try:
            with damage_named(self._path), database.transaction(self._connection):
                new, rows = self._apply(entries, lookup, applied)
        except BaseException:  # rolled back on disk, and so here
            self._applier.restore(*before)
            self._sums, self._marks = sums, marks
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

    def base_head(self, height: int) -> bytes | None:
        """Return the bytes of the head of the base at `height`, None when there is none to make.

        In the writer's thread. Raises ViewsDamaged.
        """
        with damage_named(self._path):
            record = bases_view.read(self._connection, height)
            if record is None:
                return None
            count = height // BASE_INTERVAL_BLOCKS
            return bases_view.head_bytes(record, self._marks[: count * MARK_BYTES])

    def prune(self, blocks_max: int = PRUNED_AT_ONCE) -> bool:
        """Delete rows at or below the base that is in force; whether there are more of them.

        BLOCKING, in the writer's thread, one commit of `blocks_max` blocks. What is asked for
        meanwhile is answered by the base. Raises what `apply_blocks` does.
        """
        last = self._bases.base.height
        height = min(last, self._meta.pruned + blocks_max)
        if height <= self._meta.pruned:
            return False
        sums, connection = self._sums.copy(), self._connection
        new = replace(self._meta, pruned=height)
        try:
            with damage_named(self._path), database.transaction(connection):
                transactions.prune(connection, (height + 1) << HEIGHT_SHIFT, self._sums)
                events.prune(connection, height, self._sums)
                blocks.prune(connection, height, self._sums)
                if height == last:
                    events.prune_types(connection)
                    bases_view.forget_heads(connection, height)
                meta.write(connection, new)
                self._sums.write(connection)
        except BaseException:  # rolled back on disk, and so here
            self._sums = sums
            raise
        self._meta = new
        self._events.forget()
        with contextlib.suppress(Unavailable):
            self.checkpoint()
        return height < last

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
        return transactions.has_applied(self._connection, id, self._bases.base)

    def has_event(self, name_key: bytes, /) -> bool:
        """Say whether an event of this name is on the ledger; in the writer's thread."""
        return find_event(self._connection, self._source, name_key, self._bases.base) is not None

    def _read_meta(self, genesis: Genesis) -> Meta:
        schema.check(self._connection)
        found = meta.read(self._connection)
        if found.network != genesis.network:
            raise RowDamaged("the views are of another network")
        stored = self._bases.stored
        if stored is not None and found.applied_index < stored.head.index:
            raise RowDamaged("the views are older than the base")
        if stored is not None and found.tip.height == stored.height:
            if (found.tip.hash, found.mark) != (stored.head.hash, stored.mark):
                raise RowDamaged("the views and the base are of different ledgers")
        elif found.tip.height > 0 and found.head_index <= self._raft_log.last_index:
            record = blocks.read(self._connection, found.tip.height)
            if record is None or record.hash != found.tip.hash:
                raise RowDamaged("the row of the newest block is missing")
            self._source.read(record)
        return found

    def _remember_base(self, new: Meta, state: State) -> None:
        """Store what a base at this height is, in case it is pruned to or asked for."""
        marks = self._marks + encode_mark(new.mark)
        tip = new.tip
        head = BaseHead(
            network=new.network,
            height=tip.height,
            hash=tip.hash,
            time_ms=tip.time_ms,
            index=new.head_index,
            term=self._raft_log.term(new.head_index),
            frontier=tip.frontier,
            city=encode_city(state),
            events=new.events,
            dropped=new.dropped,
            marks=marks,
        )
        bases_view.write(self._connection, bases_view.make(head))
        self._marks = marks

    def _apply(
        self, entries: Sequence[CommittedEntry], lookup: Lookup, applied: list[AppliedBlock]
    ) -> tuple[Meta, int]:
        """Write all rows of `entries`; the new meta row and how many rows were written."""
        old, old_state = self._meta, self._applier.state
        new, rows = old, 0
        for expected, (index, item) in enumerate(entries, old.applied_index + 1):
            assert index == expected, f"entry {index} came, {expected} is next"
            if not item:
                continue
            done = self._applier.apply(index, _decoded(index, item), self, lookup)
            added = self._events.insert(self._connection, done, self._sums)
            stored = transactions.insert(self._connection, done, self._sums)
            blocks.insert(self._connection, done, added)
            self._sums.add("blocks", [(done.height, index)])
            records = records_of(done)
            new = replace(
                new,
                head_index=index,
                tip=done.tip,
                events=new.events + added,
                dropped=new.dropped + sum(item.outcome != "applied" for item in done.transactions),
                mark=Mark(
                    next_chain(new.mark.chain, records),
                    new.mark.records + len(records) // RECORD_BYTES,
                ),
            )
            if done.height % BASE_INTERVAL_BLOCKS == 0:
                self._remember_base(new, done.state)
            rows += added + stored + 1
            applied.append(done)
        new = replace(new, applied_index=entries[-1][0])
        meta.write(self._connection, new)
        self._sums.write(self._connection)
        if self._applier.state is not old_state:
            city.write(self._connection, self._applier.state)
        return new, rows


def create(path: Path, genesis: Genesis, base: StoredBase | None = None) -> None:
    """Make a views.db at height 0, or at that of the base; BLOCKING.

    Raises CorruptionError when the base's city can't be read.
    """
    with damage_named(path), contextlib.closing(database.connect(path, "NORMAL")) as connection:
        sums = Sums()
        with database.transaction(connection):
            schema.create(connection)
        if base is not None:
            _begin_from(connection, base, genesis, sums)
        with database.transaction(connection):
            if base is None:
                meta.write(connection, Meta(genesis.network, 0, 0, Tip.from_genesis(genesis), 0, 0))
                city.write(connection, State.from_genesis(genesis))
            sums.write(connection)
            # The last word: a kill before it leaves a file that is begun anew.
            schema.complete(connection)
        database.checkpoint(connection)


def _begin_from(
    connection: sqlite3.Connection, base: StoredBase, genesis: Genesis, sums: Sums
) -> None:
    head = base.head
    if head.network != genesis.network:
        raise RowDamaged("the base is of another network")
    try:
        state = decode_members(head.city, genesis)
    except DecodeError as error:
        raise RowDamaged(f"the base's city can't be read: {error}") from error
    for piece in base.pieces():
        count = len(piece) // RECORD_BYTES
        records = [base_wire.read_record(piece, number) for number in range(count)]
        with database.transaction(connection):
            transactions.insert_ids(connection, records, sums)
            events.insert_names(connection, records, sums)
    tip = Tip(head.height, head.hash, head.time_ms, head.frontier)
    with database.transaction(connection):
        meta.write(
            connection,
            Meta(
                network=genesis.network,
                applied_index=head.index,
                head_index=head.index,
                tip=tip,
                events=head.events,
                dropped=head.dropped,
                mark=base.mark,
                pruned=head.height,
            ),
        )
        city.write(connection, state)
        bases_view.write_given(connection, head, base.stored.digest)


def verify(connection: sqlite3.Connection) -> Sums:
    """Look at the whole file: pages in order, no row missing, look-ups complete; RowDamaged."""
    [found] = connection.execute("PRAGMA quick_check(1)").fetchall()[0]
    if found != "ok":
        raise RowDamaged(found)
    sums = Sums.read(connection)
    sums.verify(connection)
    events.verify(connection)
    return sums


def read_city(path: Path, genesis: Genesis) -> State:
    """Return the city of views that nobody has open, as of the newest block that they have.

    Raises ViewsDamaged when it can't be read; ConfigError when there is no such file, or no right.
    """
    with _reading(path, genesis) as connection:
        return city.read(connection, genesis)


def read_base_digest(path: Path, genesis: Genesis, height: int) -> bytes | None:
    """Return the digest of the base at `height`, None when the views do not know it.

    Of views that nobody has open; raises what `read_city` does.
    """
    with _reading(path, genesis) as connection:
        record = bases_view.read(connection, height)
        return None if record is None else record.digest


@contextlib.contextmanager
def _reading(path: Path, genesis: Genesis) -> Iterator[sqlite3.Connection]:
    with damage_named(path):
        connection = database.connect(path, "NORMAL", is_read_only=True)
        try:
            schema.check(connection)
            if meta.read(connection).network != genesis.network:
                raise RowDamaged("the views are of another network")
            yield connection
        finally:
            connection.close()


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
