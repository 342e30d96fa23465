"""A small `Service` in memory over real wire objects, for tests of the HTTP surface alone."""

from collections.abc import Mapping, Sequence
from itertools import count

import trio

from p2pcity.api.service import (
    Answer,
    BlockTransaction,
    ChangeWanted,
    Cursor,
    EventBatch,
    EventFilter,
    EventInput,
    EventPage,
    Head,
    Health,
    StoredBlock,
    StoredEvent,
    TransactionStatus,
    Wait,
)
from p2pcity.crypto.digest import sha256
from p2pcity.crypto.keys import PrivateKey
from p2pcity.errors import DecodeError, P2PCityError, Pruned
from p2pcity.wire import block as block_wire
from p2pcity.wire import event as event_wire
from p2pcity.wire import transaction as transaction_wire
from p2pcity.wire.event import Event
from p2pcity.wire.limits import EVENTS_MAX
from p2pcity.wire.transaction import Carried

NETWORK = sha256(b"a network in memory")
TIME_MS = 1_790_000_000_000


class MemoryService:
    """Commits what it takes at once, one block a call, unless `is_paused`."""

    def __init__(self) -> None:
        self.key = PrivateKey.from_seed(bytes(range(32)))
        self.is_paused = False
        self.error: P2PCityError | Exception | None = None
        self.forced: Answer | None = None
        self.health = Health(True)
        self.pending: list[Carried] = []
        self.stored: list[StoredEvent] = []
        self.blocks: list[StoredBlock] = []
        self.known: dict[bytes, TransactionStatus] = {}
        self.carried: dict[bytes, Carried] = {}
        self.names: dict[bytes, tuple[bytes, int]] = {}
        self.reads: list[bool] = []
        self.transfers: list[str | None] = []
        self.changes: list[ChangeWanted] = []
        self._salts = count(1)
        self._grown = trio.Event()

    def head(self) -> Head:
        """The last block, or the network id."""
        return Head(len(self.blocks), self.blocks[-1].hash if self.blocks else NETWORK)

    async def submit(
        self, carried: Sequence[bytes], wait: Wait, timeout_ms: int
    ) -> Sequence[Answer]:
        """Examine and commit."""
        await self._enter()
        if self.forced is not None:
            return [self.forced for _ in carried]
        taken: list[Carried] = []
        results: list[bytes | DecodeError] = []
        for data in carried:
            try:
                item = transaction_wire.examine(data, NETWORK)
            except DecodeError as error:
                results.append(error)
                continue
            results.append(item.id)
            if item.id not in self.known:
                self.known[item.id] = TransactionStatus(item.id, "pending")
                self.carried[item.id] = item
                taken.append(item)
        self.pending += taken
        if not self.is_paused:
            self.commit()
        return [self._answer(result) for result in results]

    async def submit_events(
        self, events: Sequence[EventInput], wait: Wait, timeout_ms: int
    ) -> Sequence[Answer]:
        """Sign as this node's author, then submit."""
        places: list[tuple[bytes, int]] = []
        for start in range(0, len(events), EVENTS_MAX):
            chunk: list[Event] = []
            keys: list[bytes] = []
            for item in events[start : start + EVENTS_MAX]:
                key = event_wire.name_key(self.key.public, item.source, item.id)
                if key not in self.names and key not in keys:
                    chunk.append(item.with_salt(next(self._salts).to_bytes(16, "big")))
                    keys.append(key)
            if chunk:
                nonce = next(self._salts).to_bytes(16, "big")
                made = transaction_wire.make(self.key, NETWORK, chunk, TIME_MS + 60_000, nonce)
                for position, key in enumerate(keys):
                    self.names[key] = (made.id, position)
                await self.submit([made.data], wait, timeout_ms)
        for item in events:
            places.append(self.names[event_wire.name_key(self.key.public, item.source, item.id)])
        return [self._answer(id_, position) for id_, position in places]

    async def transaction(self, id: bytes, *, is_linearizable: bool) -> TransactionStatus:
        """Where it stands."""
        await self._enter()
        self.reads.append(is_linearizable)
        return self.known.get(id, TransactionStatus(id, "unknown"))

    async def trace(self, id: bytes) -> Mapping[str, object]:
        """Of a city that remembers nothing."""
        await self._enter()
        status = self.known.get(id, TransactionStatus(id, "unknown"))
        return {
            "version": 1,
            "id": id.hex(),
            "status": status.status,
            "reason": status.reason,
            "height": status.height,
            "leaf_index": status.leaf_index,
            "begin": None,
            "total_ms": None,
            "nodes": [],
        }

    async def transaction_bytes(self, id: bytes) -> bytes | None:
        """Its carried bytes."""
        item = self.carried.get(id)
        return None if item is None else item.data

    async def events(
        self, filter: EventFilter, after: Cursor | None, limit: int, *, is_linearizable: bool
    ) -> EventPage:
        """A page."""
        await self._enter()
        self.reads.append(is_linearizable)
        found = self._matching(filter, after or Cursor.before(0))
        return EventPage(
            tuple(found[:limit]), found[limit - 1].cursor if len(found) > limit else None
        )

    async def known_events(self, names: Sequence[bytes]) -> Sequence[bool]:
        """Those that this node's own author has on the ledger."""
        await self._enter()
        stored = {item.transaction for item in self.stored}
        return [name in self.names and self.names[name][0] in stored for name in names]

    async def next_events(
        self, filter: EventFilter, after: Cursor, limit: int, timeout_ms: int
    ) -> EventBatch:
        """The next ones, waiting for the first."""
        if isinstance(self.error, Pruned):
            raise self.error
        with trio.move_on_after(timeout_ms / 1000):
            while not self.stored or self.stored[-1].cursor <= after:
                await self._grown.wait()
        found = self._matching(filter, after)[:limit]
        if len(found) == limit:
            return EventBatch(tuple(found), found[-1].cursor)
        end = self.stored[-1].cursor if self.stored else after
        return EventBatch(tuple(found), max(end, after))

    async def block(self, height: int | None) -> StoredBlock | None:
        """A block."""
        await self._enter()
        number = len(self.blocks) if height is None else height
        return self.blocks[number - 1] if 1 <= number <= len(self.blocks) else None

    async def status(self) -> Mapping[str, object]:
        """Some figures."""
        await self._enter()
        return {"network": NETWORK.hex(), "height": len(self.blocks)}

    async def peers(self) -> Mapping[str, object]:
        """None."""
        return {"peers": []}

    async def raft(self) -> Mapping[str, object]:
        """Some figures."""
        return {"role": "leader"}

    async def mempool(self) -> Mapping[str, object]:
        """Some figures."""
        return {"count": len(self.pending)}

    def metrics(self) -> bytes:
        """One figure."""
        return b"p2pcity_ledger_height %d\n" % len(self.blocks)

    def live(self) -> Health:
        """As told."""
        return self.health

    def ready(self) -> Health:
        """As told."""
        return self.health

    async def transfer_leader(self, to: str | None) -> Mapping[str, object]:
        """Note whom."""
        await self._enter()
        self.transfers.append(to)
        return {"to": to}

    async def change_voters(self, wanted: ChangeWanted) -> Mapping[str, object]:
        """Note what was wanted."""
        await self._enter()
        self.changes.append(wanted)
        return {"is_in_effect": True}

    async def what_if(self, wanted: ChangeWanted) -> Mapping[str, object]:
        """Whatever it is, it is safe."""
        await self._enter()
        self.changes.append(wanted)
        return {"verdict": "SAFE"}

    def commit(self) -> None:
        """Put what is pending into one block."""
        if not self.pending:
            return
        items, self.pending = self.pending, []
        height = len(self.blocks) + 1
        made = block_wire.make(height, self.head().hash, TIME_MS, items, 0, bytes(32), 1)
        first_leaf = sum(len(block.transactions) for block in self.blocks)
        entries: list[BlockTransaction] = []
        for number, item in enumerate(items):
            author = item.transaction.author
            self.known[item.id] = TransactionStatus(
                item.id,
                "committed",
                "",
                height,
                first_leaf + number,
                TIME_MS,
                author,
                len(item.events),
            )
            entries.append(
                BlockTransaction(item.id, author, len(item.events), "applied", first_leaf + number)
            )
            for position, event in enumerate(item.decoded_events()):
                cursor = Cursor(height, number, position)
                self.stored.append(StoredEvent(cursor, item.id, author, "city", TIME_MS, event))
        self.blocks.append(
            StoredBlock(
                height,
                made.hash,
                made.header.parent,
                TIME_MS,
                0,
                1,
                made.data,
                tuple(entries),
            )
        )
        self._grown.set()
        self._grown = trio.Event()

    def _matching(self, filter: EventFilter, after: Cursor) -> list[StoredEvent]:
        return [
            item
            for item in self.stored
            if item.cursor > after
            and (filter.type is None or (item.event and item.event.type == filter.type))
            and (filter.author is None or item.author == filter.author)
            and (filter.subject is None or (item.event and item.event.subject == filter.subject))
        ]

    def _answer(self, result: bytes | DecodeError, event: int | None = None) -> Answer:
        if isinstance(result, DecodeError):
            return Answer(None, "reject", "rejected", result.reason, detail=str(result))
        known = self.known[result]
        return Answer(known.id, "accept", known.status, "", known.height, known.leaf_index, event)

    async def _enter(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error


def make_transaction(service: MemoryService, number: int, events: int = 1) -> Carried:
    """A signed transaction of the service's author; another `number` makes another one."""
    return transaction_wire.make(
        service.key,
        NETWORK,
        [
            Event(
                salt=number.to_bytes(8, "big") + position.to_bytes(8, "big"),
                id=f"{number}-{position}",
                type="city.test",
                source="/test",
                data={"number": number},
            )
            for position in range(events)
        ],
        TIME_MS + 60_000,
        number.to_bytes(16, "big"),
    )
