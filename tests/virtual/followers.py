"""Clients that follow the stream of events, cut off again and again, from node to node (I14)."""

from typing import Final

import trio

from p2pcity.api.service import Cursor, EventBatch, EventFilter, StoredEvent
from p2pcity.errors import LocalError, Pruned
from p2pcity.node.service import NodeService
from p2pcity.ordering.apply import AppliedBlock
from tests.sim.checkers import check
from tests.virtual.cluster import Cluster
from tests.virtual.door import Gone

_ALL: Final = EventFilter()


class Follower:
    """One client with its cursor; what it was sent is compared with the ledger at the end."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        self._cluster = cluster
        self._random = cluster.world.random(f"follower {number}")
        self.cursor = Cursor.before(1)
        self.got: list[StoredEvent] = []
        self.resumed = 0
        # What the nodes had pruned before it came by: it was told so, and went on behind.
        self._pruned: list[tuple[Cursor, Cursor]] = []

    async def run(self) -> None:
        """Follow one node for a while, then resume at another."""
        while True:
            host = self._random.choice(self._cluster.hosts)
            self.resumed += 1
            try:
                for _ in range(self._random.choice((1, 5, 50))):
                    limit = self._random.choice((1, 3, 64))
                    timeout_ms = self._random.choice((100, 1000))
                    after = self.cursor

                    async def call(
                        service: NodeService,
                        after: Cursor = after,
                        limit: int = limit,
                        timeout_ms: int = timeout_ms,
                    ) -> EventBatch:
                        return await service.next_events(_ALL, after, limit, timeout_ms)

                    batch = await host.ask(call, timeout_ms / 1000 * self._random.choice((0.5, 2)))
                    self._take(after, batch)
            except Pruned as gone:
                start = Cursor.before(gone.first_height or 1)
                check(start > self.cursor, f"I14 {self.cursor} is not below {start}")
                self._pruned.append((self.cursor, start))
                self.cursor = start
            except (Gone, LocalError):
                await trio.sleep(self._random.uniform(0.01, 0.3))

    def _take(self, after: Cursor, batch: EventBatch) -> None:
        check(batch.cursor >= after, f"I14 a stream goes back from {after} to {batch.cursor}")
        last = after
        for event in batch.events:
            check(event.cursor > last, f"I14 {event.cursor} comes after {last}")
            last = event.cursor
        check(batch.cursor >= last, f"I14 the cursor {batch.cursor} is behind {last}")
        self.got += batch.events
        self.cursor = batch.cursor

    def compare(self, chain: list[AppliedBlock]) -> None:
        """I14: all events up to the cursor, each once, in order."""
        told = [(item.cursor, item.event) for item in self.got]
        due = [
            (cursor, event)
            for cursor, event in _events(chain)
            if cursor <= self.cursor
            and not any(before < cursor <= behind for before, behind in self._pruned)
        ]
        for one, other in zip(told, due, strict=False):
            check(one == other, f"I14 {one[0]} was sent where {other[0]} is due")
        check(len(told) == len(due), f"I14 {len(told)} events were sent, {len(due)} are due")


def _events(chain: list[AppliedBlock]) -> list[tuple[Cursor, object]]:
    """What stands in the views, by the ledger's order; duplicates of events are left out."""
    found: list[tuple[Cursor, object]] = []
    for done in chain:
        for position, item in enumerate(done.transactions):
            if item.outcome != "applied":
                continue
            assert item.carried is not None
            for number, event in enumerate(item.carried.decoded_events()):
                if number not in item.duplicate_events:
                    found.append((Cursor(done.height, position, number), event))
    return found
