"""Straight to the leader: accepted transactions travel on one stream, many a request.

Forwarding is only the fast way. What gets lost on it (a leader that died, a request that timed
out) is still in the mempool, reaches others by gossip and anti-entropy, and is offered again
here every `reoffer_s` until it is applied or expired.
"""

from collections.abc import Callable, Sequence

import structlog
import trio

from p2pcity.errors import DecodeError, LocalError, RemoteError
from p2pcity.mempool.mempool import Mempool
from p2pcity.net.network import Network
from p2pcity.node.intake import Intake
from p2pcity.node.moments import Moments
from p2pcity.wire import forward as forward_wire
from p2pcity.wire.forward import ForwardResult
from p2pcity.wire.transaction import Carried

_REQUEST_BYTES_MAX = 512 * 1024
_REQUEST_ITEMS_MAX = 1000
_REQUESTS_IN_FLIGHT_MAX = 4
_QUEUE_MAX = 20_000
_DEADLINE_S = 5.0
# What the leader has is offered to it again only now and then, in case it lost it.
_HELD_S = 10.0
_HELD = frozenset(("duplicate", "known"))

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
        moments: Moments,
    ) -> None:
        self._network = network
        self._mempool = mempool
        self._intake = intake
        self._leader = leader
        self._own_id = own_id
        self._reoffer_s = reoffer_s
        self._moments = moments
        self._queue: dict[bytes, Carried] = {}
        self._work = trio.Event()
        self._slots = trio.CapacityLimiter(_REQUESTS_IN_FLIGHT_MAX)
        self._requests: set[trio.CancelScope] = set()
        # What this node's clients brought, and when to offer it (again).
        self._due_s: dict[bytes, float] = {}
        self._has_new_leader = trio.Event()
        self.failed_count = 0

    def offer(self, carried: Sequence[Carried]) -> None:
        """Queue what this node's own clients brought."""
        due_s = trio.current_time() + self._reoffer_s
        for item in carried:
            self._due_s[item.transaction.id] = due_s
            if len(self._queue) < _QUEUE_MAX:
                self._queue[item.transaction.id] = item
        self._work.set()

    def leader_changed(self) -> None:
        """Offer everything to a new leader at once: what the last one had may be lost with it."""
        self._has_new_leader.set()
        # Requests to a leader that fell silent must not keep the slots until their deadline.
        for scope in self._requests:
            scope.cancel()

    async def run(self) -> None:
        """Forward what is queued; several requests in flight, in order of arrival."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._reoffer)
            while True:
                await self._work.wait()
                self._work = trio.Event()
                while self._queue:
                    await self._slots.acquire_on_behalf_of(slot := object())
                    leader = self._leader()
                    if leader is None or leader == self._own_id:
                        # Our own proposer takes it from the mempool; without a leader the
                        # next turn of `_reoffer` finds it there.
                        self._queue.clear()
                        self._slots.release_on_behalf_of(slot)
                        break
                    nursery.start_soon(self._send, leader, self._take(), slot)

    def _take(self) -> list[Carried]:
        batch: list[Carried] = []
        size = 0
        for item in self._queue.values():
            size += len(item.data)
            if len(batch) == _REQUEST_ITEMS_MAX or (batch and size > _REQUEST_BYTES_MAX):
                break
            batch.append(item)
        for item in batch:
            del self._queue[item.transaction.id]
        return batch

    async def _send(self, leader: str, batch: list[Carried], slot: object) -> None:
        ids = [item.transaction.id for item in batch]
        self._offer_again_in(_DEADLINE_S + self._reoffer_s, ids)
        held: list[bytes] = []
        scope = trio.CancelScope()
        self._requests.add(scope)
        try:
            with scope:
                held = await self._request(leader, batch)
        except (RemoteError, LocalError) as error:
            # Offered again later; the transactions are safe where they are.
            self.failed_count += 1
            _logger.debug("forward_failed", peer=leader, reason=str(error))
        finally:
            self._requests.discard(scope)
            self._slots.release_on_behalf_of(slot)
        self._offer_again_in(self._reoffer_s, ids)
        self._offer_again_in(_HELD_S, held)

    async def _request(self, leader: str, batch: list[Carried]) -> list[bytes]:
        """Send `batch`; the ids that the leader has now."""
        data = forward_wire.encode_forward([item.data for item in batch])
        self._moments.note("forwarded", [item.transaction.id for item in batch], peer=leader)
        answer = await self._network.request(leader, "forward", data, _DEADLINE_S)
        results = forward_wire.decode_answer(answer)
        if len(results) != len(batch):
            raise DecodeError(f"{len(results)} verdicts on {len(batch)} transactions")
        held: list[bytes] = []
        for item, result in zip(batch, results, strict=True):
            id_ = item.transaction.id
            if result.verdict == "accept" or result.reason in _HELD:
                held.append(id_)
            else:
                reason = result.reason if result.reason.isprintable() else result.verdict
                self._moments.note("refused", [id_], peer=leader, outcome=reason)
        return held

    def _offer_again_in(self, seconds: float, ids: Sequence[bytes]) -> None:
        due_s = trio.current_time() + seconds
        for id_ in ids:
            if id_ in self._due_s:
                self._due_s[id_] = due_s

    async def _reoffer(self) -> None:
        while True:
            with trio.move_on_after(self._reoffer_s):
                await self._has_new_leader.wait()
            has_new_leader = self._has_new_leader.is_set()
            if has_new_leader:
                self._has_new_leader = trio.Event()
            now_s = trio.current_time()
            gone = []
            for id_, due_s in self._due_s.items():
                carried = self._mempool.get(id_)
                if carried is None:
                    gone.append(id_)
                elif (has_new_leader or due_s <= now_s) and len(self._queue) < _QUEUE_MAX:
                    self._queue[id_] = carried
            for id_ in gone:
                del self._due_s[id_]
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
