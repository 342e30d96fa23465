"""Says that transactions expired, to whoever waits and to the outbox, once that is sure.

A node that is cut off or behind can't know whether a block that was made in time holds a
transaction whose time is over: told too early, a client would bring it again under another id.
So the end is said only after a read of the ledger that a quorum confirmed, and by a clock that
is right by the orderers' clocks.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

import trio

from p2pcity.errors import Unavailable
from p2pcity.mempool.mempool import Mempool
from p2pcity.node.outbox_loop import OutboxLoop
from p2pcity.node.waiting import Settled, Waiters

PERIOD_S: Final = 1.0
GRACE_PERIODS: Final = 12
"""A clock may be 5 s ahead of the median here and 5 s behind it on the next leader, and a block
that was made in time is under way for a while."""
_READ_TIMEOUT_S: Final = 2.0


class Expiring:
    """Drops what expired from the mempool, and says so later."""

    def __init__(
        self,
        *,
        mempool: Mempool,
        wait_current: Callable[[float], Awaitable[None]],
        waiters: Waiters,
        outbox: OutboxLoop,
        forget: Callable[[Sequence[bytes]], None],
        now_ms: Callable[[], int],
        is_time_known: Callable[[], bool],
    ) -> None:
        """Take the parts; `forget` hears which ids ended.

        `wait_current` waits until what is not here, and expired by our clock, is nowhere; raises
        Unavailable. Nothing is dropped while it is not known what time it is (`is_time_known`): a
        clock that is off by years, before the others were heard, would empty the mempool, and
        what is valid would be told to be over when it is brought again.
        """
        self._mempool = mempool
        self._wait_current = wait_current
        self._waiters = waiters
        self._outbox = outbox
        self._forget = forget
        self._now_ms = now_ms
        self._is_time_known = is_time_known
        self._dropped: deque[list[bytes]] = deque()
        self._unsaid: dict[bytes, None] = {}

    def add(self, ids: Iterable[bytes]) -> None:
        """Take note of ids from the outbox whose time was over before this node started."""
        self._unsaid.update(dict.fromkeys(ids))

    def later(self, ids: Iterable[bytes]) -> None:
        """Take note of ids whose time is over; told once the usual while has passed again."""
        if not self._dropped:
            self._dropped.append([])
        self._dropped[-1].extend(ids)

    def is_unsaid(self, id_: bytes) -> bool:
        """Whether the mempool dropped this id, and its end is not sure yet."""
        return id_ in self._unsaid or any(id_ in ids for ids in self._dropped)

    async def run(self) -> None:
        """Look once a period, for as long as the node runs."""
        while True:
            await trio.sleep(PERIOD_S)
            is_known = self._is_time_known()
            self._dropped.append(self._mempool.expire(self._now_ms()) if is_known else [])
            if len(self._dropped) > GRACE_PERIODS:
                expired = self._dropped.popleft()
                # Bounded as the waits and the outbox are: nobody else asks.
                self.add(id_ for id_ in expired if self._is_asked_for(id_))
                self._forget([id_ for id_ in expired if not self._is_asked_for(id_)])
            if self._unsaid:
                await self._say()

    def _is_asked_for(self, id_: bytes) -> bool:
        return self._waiters.is_awaited(id_) or self._outbox.is_pending(id_)

    async def _say(self) -> None:
        expired = list(self._unsaid)
        try:
            await self._wait_current(_READ_TIMEOUT_S)
        except Unavailable:
            return  # Nobody can say now; next time, perhaps.
        # What is on the ledger after all was settled when it was applied, and stays so.
        for id_ in expired:
            del self._unsaid[id_]
            self._waiters.settle(id_, Settled("expired", "expired"))
        self._outbox.settle(expired, "expired")
        self._forget(expired)
