"""Gossip: out goes what this node's clients brought, in paced batches; what comes in is judged.

A few messages go out at once. In a longer run what comes waits for a second, and is left out if it
was applied by then. The leader has everything by a stream of its own: in a city that is well all is
applied within that time, and copies of it, several to each node, were two fifths of all that busy
nodes did (measured). What does not fit is not queued: gossip is lossy by nature, forwarding and
anti-entropy carry the rest.
"""

from collections import deque
from collections.abc import Sequence

import structlog
import trio

from p2pcity.errors import DecodeError, LocalError
from p2pcity.mempool.mempool import Mempool
from p2pcity.net.network import Network
from p2pcity.net.pacing import TokenBucket
from p2pcity.node.intake import Intake
from p2pcity.node.moments import Moments
from p2pcity.wire import gossip as gossip_wire
from p2pcity.wire.limits import GOSSIP_MESSAGES_PER_SECOND_MAX
from p2pcity.wire.transaction import Carried

_BATCH_BYTES_MAX = 64 * 1024
_BACKLOG_BYTES_MAX = 4 * 1024 * 1024
_BURST = 10
_WAIT_S = 1.0

_logger = structlog.get_logger("p2pcity.node.gossiping")


class Gossiping:
    """The transactions topic, both ways."""

    def __init__(
        self, *, network: Network, mempool: Mempool, intake: Intake, moments: Moments
    ) -> None:
        self._network = network
        self._mempool = mempool
        self._intake = intake
        self._moments = moments
        # With the moment at which each was offered.
        self._backlog: deque[tuple[float, Carried]] = deque()
        self._backlog_bytes = 0
        self._work = trio.Event()
        self._at_once = TokenBucket(1 / _WAIT_S, _BURST, trio.current_time())
        self.dropped_out = 0
        self.dropped_in = 0
        self.messages_out = 0
        self.messages_in = 0

    def offer(self, carried: Sequence[Carried]) -> None:
        """Queue what was admitted from this node's own clients, as far as there is room."""
        now_s = trio.current_time()
        for item in carried:
            if self._backlog_bytes + len(item.data) > _BACKLOG_BYTES_MAX:
                self.dropped_out += 1
                continue
            self._backlog.append((now_s, item))
            self._backlog_bytes += len(item.data)
        self._work.set()

    async def receive(self, peer: str, data: bytes) -> bool:
        """Judge one gossip message; False rejects it: it is blamed and not passed on.

        The whole batch is judged before it goes on to others, so that no honest node passes on
        what another must blame it for. What is ignored travels on.
        """
        try:
            items = gossip_wire.decode_batch(data)
        except DecodeError:
            return False
        self.messages_in += 1
        try:
            admitted = await self._intake.admit(items, peer)
        except LocalError as error:
            # Nobody waits for an answer; anti-entropy brings them again.
            self.dropped_in += 1
            _logger.debug("gossip_not_admitted", peer=peer, reason=str(error))
            return True
        return not any(item.verdict.kind == "reject" for item in admitted)

    async def run(self) -> None:
        """Send for as long as the node runs."""
        while True:
            await self._work.wait()
            self._work = trio.Event()
            while self._backlog:
                batch = self._take(await self._wait_turn())
                if not batch:
                    continue
                self._moments.note("gossiped", [item.transaction.id for item in batch])
                await self._network.publish(gossip_wire.encode_batch([i.data for i in batch]))
                self.messages_out += 1
                await trio.sleep(1 / GOSSIP_MESSAGES_PER_SECOND_MAX)

    async def _wait_turn(self) -> float:
        """Wait until something may go; return until when that was offered."""
        now_s = trio.current_time()
        if self._at_once.take(now_s):
            return now_s
        await trio.sleep_until(self._backlog[0][0] + _WAIT_S)
        return trio.current_time() - _WAIT_S

    def _take(self, until_s: float) -> list[Carried]:
        batch: list[Carried] = []
        size = 0
        while self._backlog and self._backlog[0][0] <= until_s:
            item = self._backlog[0][1]
            is_waiting = item.transaction.id in self._mempool
            if batch and is_waiting and size + len(item.data) > _BATCH_BYTES_MAX:
                break
            self._backlog.popleft()
            self._backlog_bytes -= len(item.data)
            # Applied or expired: there is nobody left who waits for it.
            if is_waiting:
                size += len(item.data) + 5
                batch.append(item)
        return batch
