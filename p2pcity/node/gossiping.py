"""Gossip out: what this node's clients brought, in paced batches.

At most 20 messages a second of up to 64 KiB go out. What does not fit is not queued up: gossip
is lossy by nature, forwarding and anti-entropy carry the rest.
"""

from collections import deque
from collections.abc import Sequence

import structlog
import trio

from p2pcity.errors import DecodeError, LocalError
from p2pcity.net.network import Network
from p2pcity.node.intake import Intake
from p2pcity.wire import gossip as gossip_wire
from p2pcity.wire.limits import GOSSIP_MESSAGES_PER_SECOND_MAX
from p2pcity.wire.transaction import Carried

_BATCH_BYTES_MAX = 64 * 1024
_BACKLOG_BYTES_MAX = 256 * 1024
_INBOX_MAX = 64

_logger = structlog.get_logger("p2pcity.node.gossiping")


class Gossiping:
    """The transactions topic, both ways."""

    def __init__(self, *, network: Network, intake: Intake) -> None:
        self._network = network
        self._intake = intake
        self._backlog: deque[bytes] = deque()
        self._backlog_bytes = 0
        self._work = trio.Event()
        self._send_inbox, self._receive_inbox = trio.open_memory_channel[tuple[str, list[bytes]]](
            _INBOX_MAX
        )
        self.dropped_out = 0
        self.dropped_in = 0
        self.messages_out = 0
        self.messages_in = 0

    def offer(self, carried: Sequence[Carried]) -> None:
        """Queue what was admitted from this node's own clients, as far as there is room."""
        for item in carried:
            if self._backlog_bytes + len(item.data) > _BACKLOG_BYTES_MAX:
                self.dropped_out += 1
                continue
            self._backlog.append(item.data)
            self._backlog_bytes += len(item.data)
        self._work.set()

    def receive(self, peer: str, data: bytes) -> bool:
        """Take one gossip message; False only when it is to be rejected.

        What the items are worth is found out later, off the library's validator: a batch with a
        rejected item costs its forwarder score then.
        """
        try:
            items = gossip_wire.decode_batch(data)
        except DecodeError:
            return False
        self.messages_in += 1
        try:
            self._send_inbox.send_nowait((peer, items))
        except trio.WouldBlock:
            # Full: ignored without blame, anti-entropy brings it later.
            self.dropped_in += 1
        return True

    async def run(self) -> None:
        """Send and take in for as long as the node runs."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._admit)
            while True:
                await self._work.wait()
                self._work = trio.Event()
                while self._backlog:
                    await self._network.publish(gossip_wire.encode_batch(self._take()))
                    self.messages_out += 1
                    await trio.sleep(1 / GOSSIP_MESSAGES_PER_SECOND_MAX)

    def _take(self) -> list[bytes]:
        batch: list[bytes] = []
        size = 0
        while self._backlog and (not batch or size + len(self._backlog[0]) <= _BATCH_BYTES_MAX):
            item = self._backlog.popleft()
            self._backlog_bytes -= len(item)
            size += len(item) + 5
            batch.append(item)
        return batch

    async def _admit(self) -> None:
        async for peer, items in self._receive_inbox:
            try:
                admitted = await self._intake.admit(items, peer)
            except LocalError as error:
                # Nobody waits for an answer; anti-entropy brings them again.
                self.dropped_in += 1
                _logger.debug("gossip_not_admitted", peer=peer, reason=str(error))
                continue
            if any(item.verdict.kind == "reject" for item in admitted):
                self._network.penalise(peer)
