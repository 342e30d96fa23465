"""Straight to the leader: accepted transactions travel on one stream, many a request.

Forwarding is only the fast way. What gets lost on it (a leader that died, a request that timed
out) is still in the mempool, reaches others by gossip and anti-entropy, and is offered again
here every `reoffer_s` until it is applied or expired.
"""

from collections import deque
from collections.abc import Callable, Sequence

import structlog
import trio

from p2pcity.errors import LocalError, RemoteError
from p2pcity.mempool.mempool import Mempool
from p2pcity.net.network import Network
from p2pcity.node.intake import Intake
from p2pcity.wire import forward as forward_wire
from p2pcity.wire.forward import ForwardResult
from p2pcity.wire.transaction import Carried

_REQUEST_BYTES_MAX = 512 * 1024
_REQUEST_ITEMS_MAX = 1000
_REQUESTS_IN_FLIGHT_MAX = 4
_QUEUE_MAX = 20_000
_DEADLINE_S = 5.0

_logger = structlog.get_logger("p2pcity.node.forwarding")


class Forwarding:
    """Sends what this node accepted to whoever leads, and answers those who send to us."""

    def __init__(
        self,
        *,
        network: Network,
        mempool: Mempool,
        intake: Intake,
        leader: Callable[[], str | None],
        own_id: str,
        reoffer_s: float,
    ) -> None:
        self._network = network
        self._mempool = mempool
        self._intake = intake
        self._leader = leader
        self._own_id = own_id
        self._reoffer_s = reoffer_s
        self._queue: deque[Carried] = deque(maxlen=_QUEUE_MAX)
        self._work = trio.Event()
        self._slots = trio.CapacityLimiter(_REQUESTS_IN_FLIGHT_MAX)
        self._own: dict[bytes, float] = {}
        self._has_new_leader = trio.Event()
        self.failed_count = 0

    def offer(self, carried: Sequence[Carried]) -> None:
        """Queue what this node's own clients brought."""
        now_s = trio.current_time()
        for item in carried:
            self._own[item.transaction.id] = now_s
        self._queue.extend(carried)
        self._work.set()

    def leader_changed(self) -> None:
        """Offer everything to a new leader at once: what the last one had may be lost with it."""
        self._has_new_leader.set()

    async def run(self) -> None:
        """Forward what is queued; several requests in flight, in order of arrival."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._reoffer)
            while True:
                await self._work.wait()
                self._work = trio.Event()
                while self._queue:
                    leader = self._leader()
                    if leader is None or leader == self._own_id:
                        # Our own proposer takes it from the mempool; without a leader the
                        # next turn of `_reoffer` finds it there.
                        self._queue.clear()
                        break
                    batch = self._take()
                    await self._slots.acquire_on_behalf_of(batch_key := object())
                    nursery.start_soon(self._send, leader, batch, batch_key)

    def _take(self) -> list[Carried]:
        batch: list[Carried] = []
        size = 0
        while (
            self._queue
            and len(batch) < _REQUEST_ITEMS_MAX
            and size + len(self._queue[0].data) <= _REQUEST_BYTES_MAX
        ):
            item = self._queue.popleft()
            size += len(item.data)
            batch.append(item)
        return batch

    async def _send(self, leader: str, batch: list[Carried], slot: object) -> None:
        try:
            data = forward_wire.encode_forward([item.data for item in batch])
            await self._network.request(leader, "forward", data, _DEADLINE_S)
        except (RemoteError, LocalError) as error:
            # Offered again later; the transactions are safe where they are.
            self.failed_count += 1
            _logger.debug("forward_failed", peer=leader, reason=str(error))
        finally:
            self._slots.release_on_behalf_of(slot)

    async def _reoffer(self) -> None:
        while True:
            with trio.move_on_after(self._reoffer_s):
                await self._has_new_leader.wait()
            due_s = trio.current_time() - self._reoffer_s
            if self._has_new_leader.is_set():
                self._has_new_leader = trio.Event()
                due_s = trio.current_time()
            gone = []
            for id_, offered_s in self._own.items():
                carried = self._mempool.get(id_)
                if carried is None:
                    gone.append(id_)
                elif offered_s <= due_s and len(self._queue) < _QUEUE_MAX:
                    self._own[id_] = trio.current_time()
                    self._queue.append(carried)
            for id_ in gone:
                del self._own[id_]
            if self._queue:
                self._work.set()

    async def answer(self, peer: str, data: bytes) -> bytes:
        """Admit what `peer` forwards; the verdict of each goes back."""
        items = forward_wire.decode_forward(data)
        admitted = await self._intake.admit(items, peer)
        if any(item.verdict.kind == "reject" for item in admitted):
            self._network.penalise(peer)
        return forward_wire.encode_answer(
            [
                ForwardResult(item.verdict.id, item.verdict.kind, item.verdict.reason)
                for item in admitted
            ]
        )
