"""What clients ask of the ledger: transactions, events, blocks and streams."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, TypeVar, TypeVarTuple

import trio

from p2pcity.api.service import (
    BlockTransaction,
    Cursor,
    EventBatch,
    EventFilter,
    EventPage,
    Head,
    StatusName,
    StoredBlock,
    StoredEvent,
    TransactionStatus,
)
from p2pcity.city.membership import State
from p2pcity.errors import CorruptionError, Pruned
from p2pcity.ledger.outbox import Outbox
from p2pcity.ledger.views_reader import LedgerEvent, ViewsReader
from p2pcity.ledger.views_store import ViewsStore
from p2pcity.ledger.writer import WriterThread
from p2pcity.mempool.mempool import Mempool
from p2pcity.node.reads import Reads
from p2pcity.views.position import Position
from p2pcity.views.queries import DEGREE, EventQuery
from p2pcity.wire import block as block_wire
from p2pcity.wire import genesis as genesis_wire
from p2pcity.wire import transaction as transaction_wire
from p2pcity.wire.base import HEIGHT_MAX
from p2pcity.wire.genesis import Genesis

ResultT = TypeVar("ResultT")
ArgumentTs = TypeVarTuple("ArgumentTs")

READ_TIMEOUT_S = 5.0
_STATUS_BY_OUTCOME: Final[dict[str, StatusName]] = {"applied": "committed", "expired": "expired"}


class Reading:
    """The reading half of `api.service.Service`."""

    def __init__(
        self,
        *,
        genesis: Genesis,
        state: State,
        views: ViewsStore,
        reader: ViewsReader,
        reader_thread: WriterThread,
        outbox: Outbox,
        outbox_thread: WriterThread,
        mempool: Mempool,
        reads: Reads,
        is_in_outbox: Callable[[bytes], bool],
        on_damage: Callable[[CorruptionError], None],
    ) -> None:
        self._genesis = genesis
        self._state = state
        self._views = views
        self._reader = reader
        self._thread = reader_thread
        self._outbox = outbox
        self._outbox_thread = outbox_thread
        self._mempool = mempool
        self._reads = reads
        self._is_in_outbox = is_in_outbox
        self._on_damage = on_damage
        self._moved = trio.Event()
        self._head = Head(views.height, views.head)

    async def _read(
        self, function: Callable[[*ArgumentTs], ResultT], *arguments: *ArgumentTs
    ) -> ResultT:
        """Call a reader in its thread; damage that it meets ends more than this one answer.

        Blocks are in the views a moment before this node's head names them. Whatever is told of
        them waits for that moment, since each answer carries the head. Nothing else bounds the
        wait: the apply loop says the head right after the write, or the node ends.
        """

        def read() -> tuple[ResultT, int]:
            return function(*arguments), self._reader.height()

        try:
            found, height = await self._thread.run(read)
        except CorruptionError as damage:
            self._on_damage(damage)
            raise
        while self._head.height < height:
            await self._moved.wait()
        return found

    def head(self) -> Head:
        """The last applied block."""
        return self._head

    def applied(self, height: int, hash_: bytes) -> None:
        """Say that a block was applied: streams that wait go on."""
        self._head = Head(height, hash_)
        self._moved.set()
        self._moved = trio.Event()

    async def wait_linearizable(self) -> None:
        """Return once all that was committed when this was called is applied here.

        Raises Unavailable when no leader confirms it in time.
        """
        await self._reads.wait_linearizable(READ_TIMEOUT_S)

    async def status_of(self, id_: bytes) -> TransactionStatus:
        """Where the transaction stands, as far as this node applied."""
        was_pending = id_ in self._mempool or self._is_in_outbox(id_)
        found = await self._read(self._read_status, id_)
        if found is not None and found.leaf_index is not None:
            return found
        carried = self._mempool.get(id_)
        is_pending = carried is not None or self._is_in_outbox(id_)
        if was_pending and not is_pending:
            # It ended while the views were read, perhaps just behind that read: look again.
            found = await self._read(self._read_status, id_)
        if is_pending:
            author = None if carried is None else carried.transaction.author
            count = None if carried is None else carried.transaction.count
            return TransactionStatus(id_, "pending", author=author, count=count)
        if found is not None:
            return found
        ended = await self._outbox_thread.run(self._outbox.state, id_)
        if ended is None:
            return TransactionStatus(id_, "unknown")
        if ended.state in ("expired", "rejected"):
            is_expired = ended.state == "expired"
            return TransactionStatus(id_, "expired" if is_expired else "rejected", ended.reason)
        return TransactionStatus(id_, "pending")

    def _read_status(self, id_: bytes) -> TransactionStatus | None:
        record = self._reader.transaction(id_)
        if record is None:
            return None
        block = data = None
        with suppress(Pruned):
            # What became of it is known for ever, though block and bytes may be gone.
            block = self._reader.block(record.height)
            data = self._reader.transaction_bytes(id_)
        transaction = (
            None if data is None else transaction_wire.decode(transaction_wire.signed_part(data))
        )
        status = _STATUS_BY_OUTCOME.get(record.outcome, "rejected")
        if status == "committed" and not self._reader.count_events(record.height, record.position):
            status = "duplicate"
        return TransactionStatus(
            id_,
            status,
            "" if record.outcome == "applied" else record.outcome,
            record.height,
            record.leaf_index,
            None if block is None else block.time_ms,
            None if transaction is None else transaction.author,
            None if transaction is None else transaction.count,
        )

    async def transaction_bytes(self, id_: bytes) -> bytes | None:
        """The carried bytes of a committed or pending transaction."""
        carried = self._mempool.get(id_)
        if carried is not None:
            return carried.data
        return await self._read(self._reader.transaction_bytes, id_)

    async def find_events(self, names: Sequence[bytes]) -> dict[bytes, bytes]:
        """The transaction of each event name that stands on the ledger."""

        def find() -> dict[bytes, bytes]:
            found = {}
            for name in names:
                id_ = self._reader.has_event(name)
                if id_ is not None:
                    found[name] = id_
            return found

        return await self._read(find)

    async def known_events(self, names: Sequence[bytes]) -> list[bool]:
        """Which of the event names stand on the ledger here."""
        found = await self.find_events(names)
        return [name in found for name in names]

    async def events(self, filter_: EventFilter, after: Cursor | None, limit: int) -> EventPage:
        """A page of events that match (`Service.events`), as far as this node applied."""
        query = self._query(filter_, after, limit)
        if query is None:
            return EventPage((), None)
        page = await self._read(self._reader.query, query)
        following = page.next_cursor
        return EventPage(
            tuple(self._stored(item) for item in page.events),
            None if following is None else Cursor(*following),
        )

    async def next_events(
        self, filter_: EventFilter, after: Cursor, limit: int, timeout_ms: int
    ) -> EventBatch:
        """The next events of a stream (`Service.next_events`)."""
        batch = EventBatch((), after)
        with trio.move_on_after(timeout_ms / 1000):
            while batch.cursor <= after:
                # Taken before the ledger is read: what is applied meanwhile wakes this wait.
                moved = self._moved
                batch = await self._next_events(filter_, after, limit)
                if batch.cursor <= after:
                    await moved.wait()
        return batch

    async def _next_events(self, filter_: EventFilter, after: Cursor, limit: int) -> EventBatch:
        head = self._head
        position = _position(after)
        page = await self._read(self._reader.events_after, position, limit)
        wanted = self._query(filter_, None, limit)
        events = tuple(
            self._stored(item)
            for item in page.events
            if wanted is not None and _matches(wanted, item)
        )
        if page.next_cursor is not None:
            return EventBatch(events, Cursor(*page.next_cursor))
        # Everything up to the head was read: the cursor goes to its end.
        end = max(page.height, head.height)
        if not page.events and end <= after.height:
            return EventBatch((), after)
        return EventBatch(events, max(after, Cursor.before(end + 1)))

    def _query(self, filter_: EventFilter, after: Cursor | None, limit: int) -> EventQuery | None:
        """The views' query for `filter_`; None when nothing can match."""
        authors: tuple[bytes, ...] | None = None
        if filter_.author is not None:
            authors = (filter_.author,)
        if filter_.member is not None:
            own = tuple(
                item.key for item in self._state.authors.values() if item.member == filter_.member
            )
            authors = own if authors is None else tuple(key for key in own if key in authors)
            if not authors:
                return None
        bbox = filter_.bbox_e7
        return EventQuery(
            type=filter_.type,
            source=filter_.source,
            subject=filter_.subject,
            authors=authors,
            since_ms=filter_.since_ms,
            until_ms=filter_.until_ms,
            bbox=None if bbox is None else _degrees(bbox),
            limit=limit,
            cursor=_position(after or Cursor(0, 0, 0)),
        )

    def _stored(self, item: LedgerEvent) -> StoredEvent:
        author = self._state.author(item.author)
        return StoredEvent(
            Cursor(*item.position),
            item.transaction,
            item.author,
            None if author is None else author.member,
            item.block_time_ms,
            item.event,
        )

    async def block(self, height: int | None) -> StoredBlock | None:
        """The block at `height`, the newest for None."""
        wanted = self._head.height if height is None else height
        if wanted == 0:
            genesis = self._genesis
            data = genesis_wire.encode(genesis)
            return StoredBlock(0, genesis.network, None, genesis.time_ms, 0, 1, data, ())
        return await self._read(self._read_block, wanted)

    async def block_bytes(self, height: int) -> bytes | None:
        """The bytes of the block at `height`; None for the genesis and for what is not here."""
        if not 0 < height <= self._head.height:
            return None
        try:
            return await self._read(self._reader.block_bytes, height)
        except Pruned:
            return None

    def _read_block(self, height: int) -> StoredBlock | None:
        if height > HEIGHT_MAX:
            return None
        record = self._reader.block(height)
        data = self._reader.block_bytes(height)
        if record is None or data is None:
            return None
        block = block_wire.decode(data)
        records = self._reader.block_transactions(height)
        listed = []
        for position, carried in enumerate(block.transactions):
            transaction = transaction_wire.decode(transaction_wire.signed_part(carried))
            known = records.get(position)
            listed.append(
                BlockTransaction(
                    transaction.id,
                    transaction.author,
                    transaction.count,
                    "duplicate" if known is None else known.outcome,
                    None if known is None else known.leaf_index,
                )
            )
        header = block.header
        return StoredBlock(
            height,
            block.hash,
            header.parent,
            header.time_ms,
            header.epoch,
            header.rules,
            data,
            tuple(listed),
            record.tree_size,
            block.change,
        )


def _degrees(bbox: tuple[int, int, int, int]) -> tuple[float, float, float, float]:
    west, south, east, north = bbox
    return west / DEGREE, south / DEGREE, east / DEGREE, north / DEGREE


def _position(cursor: Cursor) -> Position:
    if cursor.height > HEIGHT_MAX:
        return Position.before(HEIGHT_MAX)
    # Positions past the end of a block stand for its end.
    return Position(cursor.height, min(cursor.transaction, (1 << 18) - 1), min(cursor.event, 255))


def _matches(query: EventQuery, item: LedgerEvent) -> bool:
    if item.event is None:
        # A tombstone: nothing of it can be compared, and a gap-free stream shows it to all.
        return True
    event = item.event
    if not query.matches(event, item.author):
        return False
    time_ms = item.block_time_ms if event.time_ms is None else event.time_ms
    if query.since_ms is not None and time_ms < query.since_ms:
        return False
    if query.until_ms is not None and time_ms >= query.until_ms:
        return False
    if query.bbox is None:
        return True
    if event.place is None:
        return False
    west, south, east, north = (round(value * DEGREE) for value in query.bbox)
    longitude, latitude = event.place
    is_between = (
        west <= longitude <= east if west <= east else longitude >= west or longitude <= east
    )
    return south <= latitude <= north and is_between
