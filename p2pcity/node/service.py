"""The node as the HTTP surface sees it: `api.service.Service`, made of the node's parts."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import trio

from p2pcity.api.service import (
    Answer,
    ChangeWanted,
    Cursor,
    EventBatch,
    EventFilter,
    EventInput,
    EventPage,
    Head,
    Health,
    StoredBlock,
    TransactionStatus,
    Wait,
)
from p2pcity.errors import ConfigError, NotLeader, Unavailable
from p2pcity.node.administration import Administration
from p2pcity.node.ordering_loop import OrderingLoop
from p2pcity.node.reading import Reading
from p2pcity.node.status import Status
from p2pcity.node.submitting import Submitting
from p2pcity.node.telemetry import Telemetry
from p2pcity.node.trace import Trace

# The loop turns at every tick; one that did not for so long is stuck.
_STUCK_S = 30.0
_TRANSFER_TIMEOUT_S = 5.0


class NodeService:
    """Hands each question to the part that answers it."""

    def __init__(
        self,
        *,
        submitting: Submitting,
        reading: Reading,
        status: Status,
        ordering: OrderingLoop,
        administration: Administration,
        trace: Trace,
        telemetry: Telemetry,
        metrics: Callable[[], bytes],
        own_id: str,
        is_disk_low: Callable[[], bool],
    ) -> None:
        self._submitting = submitting
        self._reading = reading
        self._status = status
        self._ordering = ordering
        self._administration = administration
        self._trace = trace
        self._telemetry = telemetry
        self._metrics = metrics
        self._own_id = own_id
        self._is_disk_low = is_disk_low

    def head(self) -> Head:
        """The last applied block."""
        return self._reading.head()

    async def submit(
        self, carried: Sequence[bytes], wait: Wait, timeout_ms: int
    ) -> Sequence[Answer]:
        """Admit carried transactions and wait as told."""
        self._check_disk()
        with self._telemetry.request("submit") as request:
            answers = await self._submitting.submit(carried, wait, timeout_ms)
            request.answers = answers
        return answers

    async def submit_events(
        self, events: Sequence[EventInput], wait: Wait, timeout_ms: int
    ) -> Sequence[Answer]:
        """Sign events as this node's author and submit them."""
        self._check_disk()
        with self._telemetry.request("submit") as request:
            answers = await self._submitting.submit_events(events, wait, timeout_ms)
            request.answers = answers
        return answers

    def _check_disk(self) -> None:
        if self._is_disk_low():
            raise Unavailable(
                "the disk is nearly full: this node takes no transactions until there is room",
                retry_after_ms=10_000,
                remedy="Free disk space on the node (ledger.disk_free_bytes_min), or send to "
                "another node.",
            )

    async def transaction(self, id: bytes, *, is_linearizable: bool) -> TransactionStatus:
        """Where the transaction stands."""
        if not is_linearizable:
            return await self._reading.status_of(id)
        async with self._confirmed_query("transaction"):
            return await self._reading.status_of(id)

    async def transaction_bytes(self, id: bytes) -> bytes | None:
        """The carried bytes of a transaction."""
        return await self._reading.transaction_bytes(id)

    async def trace(self, id: bytes) -> Mapping[str, object]:
        """What each node remembers of the transaction."""
        return await self._trace.of(id)

    async def known_events(self, names: Sequence[bytes]) -> Sequence[bool]:
        """Which event names stand on the ledger (linearizable: a retry must not miss one)."""
        async with self._confirmed_query("known-events"):
            return await self._reading.known_events(names)

    async def events(
        self, filter: EventFilter, after: Cursor | None, limit: int, *, is_linearizable: bool
    ) -> EventPage:
        """A page of events."""
        if not is_linearizable:
            return await self._reading.events(filter, after, limit)
        async with self._confirmed_query("events"):
            return await self._reading.events(filter, after, limit)

    @asynccontextmanager
    async def _confirmed_query(self, what: str) -> AsyncIterator[None]:
        """Enter once this node has applied all that was committed when the query came.

        Raises Unavailable when no leader confirms it in time.
        """
        with self._telemetry.request("query", what) as request:
            await self._reading.wait_linearizable()
            self._telemetry.confirmed(request)
            yield

    async def next_events(
        self, filter: EventFilter, after: Cursor, limit: int, timeout_ms: int
    ) -> EventBatch:
        """The next events of a stream."""
        return await self._reading.next_events(filter, after, limit, timeout_ms)

    async def block(self, height: int | None) -> StoredBlock | None:
        """A block."""
        return await self._reading.block(height)

    async def status(self) -> Mapping[str, object]:
        """What `p2pcity status` shows."""
        return self._status.status()

    async def peers(self) -> Mapping[str, object]:
        """What `p2pcity peers` shows."""
        return self._status.peers()

    async def raft(self) -> Mapping[str, object]:
        """What `p2pcity raft status` shows."""
        return self._status.raft()

    async def mempool(self) -> Mapping[str, object]:
        """Counts, bytes and bounds of the mempool."""
        return self._status.mempool()

    def metrics(self) -> bytes:
        """Every figure of this node, for Prometheus."""
        return self._metrics()

    def live(self) -> Health:
        """Whether the ordering loop turned lately."""
        silent_s = trio.current_time() - self._ordering.last_tick_s
        if silent_s > _STUCK_S:
            return Health(False, (f"the ordering loop did not turn for {silent_s:.0f} s",))
        return Health(True)

    def ready(self) -> Health:
        """Whether clients should use this node."""
        reasons = self._status.reasons_not_ready()
        return Health(not reasons, reasons)

    async def change_voters(self, wanted: ChangeWanted) -> Mapping[str, object]:
        """Change who orders, and return once that is in effect."""
        return await self._administration.change(wanted)

    async def what_if(self, wanted: ChangeWanted) -> Mapping[str, object]:
        """Judge a change without making it."""
        return self._administration.what_if(wanted)

    async def transfer_leader(self, to: str | None) -> Mapping[str, object]:
        """Move leadership to `to`, or to the voter whose log is longest."""
        raft = self._ordering.raw_node.status()
        voters = self._ordering.raw_node.configuration.voters
        target = None if to is None else self._administration.peer(to)
        if target is not None and target not in voters:
            raise ConfigError(
                f"{to} does not vote",
                remedy="Name an orderer that votes: p2pcity raft status.",
            )
        if not self._ordering.raw_node.is_leader:
            raise NotLeader("this node does not lead", leader=raft.leader)
        if target is None:
            others = [peer for peer in voters if peer != self._own_id]
            known = raft.progress
            alive = [peer for peer in others if peer in known and known[peer].recent_active]
            if not alive:
                raise Unavailable(
                    "no other orderer can take over", remedy="Start another orderer first."
                )
            target = max(alive, key=lambda peer: known[peer].match)
        self._ordering.raw_node.transfer_leader(target)
        self._ordering.wake()
        with trio.move_on_after(_TRANSFER_TIMEOUT_S):
            await self._ordering.wait_leader(target)
            return {"version": 1, "leader": target, "term": self._ordering.raw_node.term}
        raise Unavailable(
            f"{target} did not take over in time", remedy="Look at p2pcity raft status, try again."
        )
