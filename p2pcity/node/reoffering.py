"""After a start: what this node accepted in an earlier run is offered again until it ends.

Rows that find no room (a full mempool, a quota) or that the state does not allow now are tried
again every second, the longest-waiting first: accepted means ordered or visibly ended.
"""

from collections import deque
from collections.abc import Callable, Sequence

import structlog
import trio

from p2pcity.ledger.outbox import Outbox, PendingRow
from p2pcity.ledger.writer import WriterThread
from p2pcity.node.intake import Admitted, Intake
from p2pcity.node.outbox_loop import OutboxLoop
from p2pcity.wire.transaction import Carried

_PERIOD_S = 1.0
_PART = 256

_logger = structlog.get_logger("p2pcity.node.reoffering")


class Reoffering:
    """Brings the rows of the outbox back into the mempool."""

    def __init__(
        self,
        *,
        outbox: Outbox,
        writer: WriterThread,
        loop: OutboxLoop,
        intake: Intake,
        is_on_ledger: Callable[[bytes], bool],
        is_waiting: Callable[[bytes], bool],
        remember: Callable[[Carried], None],
        on_expired: Callable[[Sequence[bytes]], None],
    ) -> None:
        """Take the parts; `is_waiting` says whether an id is in the mempool.

        `on_expired` is told what is too old to be offered, and settles it.
        """
        self._outbox = outbox
        self._writer = writer
        self._loop = loop
        self._intake = intake
        self._is_on_ledger = is_on_ledger
        self._is_waiting = is_waiting
        self._remember = remember
        self._on_expired = on_expired
        self._rows: deque[PendingRow] = deque()

    async def load(self) -> None:
        """Read the outbox and offer every row once, before any client is served."""
        rows = await self._writer.run(self._outbox.pending)
        if not rows:
            return
        self._loop.load(row.id for row in rows)
        self._rows.extend(rows)
        for _ in range(0, len(rows), _PART):
            await self._offer_part(min(_PART, len(self._rows)))
        _logger.info("outbox_loaded", transactions=len(rows), not_taken_yet=len(self._rows))

    async def run(self) -> None:
        """Offer again what was not taken, until nothing is left."""
        while self._rows:
            await trio.sleep(_PERIOD_S)
            # A part that brings nothing forward says that there is no room yet.
            left = len(self._rows)
            while left > 0:
                part = min(_PART, left)
                if await self._offer_part(part) == part:
                    break
                left -= part

    async def _offer_part(self, count: int) -> int:
        """Offer the first `count` rows; how many of them went back to the end of the queue."""
        part = [self._rows.popleft() for _ in range(count)]
        admitted = await self._intake.admit([row.carried for row in part], None, is_again=True)
        left = [
            row
            for row, item in zip(part, admitted, strict=True)
            if self._loop.is_pending(row.id) and not self._is_taken(row, item)
        ]
        self._rows.extend(left)
        return len(left)

    def _is_taken(self, row: PendingRow, item: Admitted) -> bool:
        """Whether the row needs no further offer; its end is noted when it has one."""
        if item.carried is not None and self._is_waiting(row.id):
            self._remember(item.carried)
            return True
        if self._is_on_ledger(row.id):
            self._loop.settle([row.id], "committed")
        elif item.verdict.reason == "expired":
            # Whether it was ordered in time, elsewhere, is known once this node has caught up.
            self._on_expired([row.id])
        elif item.verdict.kind == "reject":
            self._loop.settle([row.id], "rejected")
        else:
            return False
        return True
