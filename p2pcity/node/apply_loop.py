"""Applies committed blocks: signatures not yet verified in threads, then one SQLite transaction.

The loop is told how far the log is committed and reads the entries itself, so that a node that
is behind holds a few blocks in memory and not the whole distance.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import structlog
import trio

from p2pcity.crypto.digest import sha256
from p2pcity.errors import DecodeError, Unavailable
from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.ledger.views_store import ViewsStore
from p2pcity.ledger.writer import WriterThread
from p2pcity.mempool.mempool import Mempool
from p2pcity.node.intake import Intake
from p2pcity.node.waiting import Settled
from p2pcity.ordering.apply import AppliedBlock
from p2pcity.wire import block as block_wire
from p2pcity.wire.block import Block
from p2pcity.wire.raft import Entry
from p2pcity.wire.transaction import Carried

_BATCH_BYTES_MAX = 4 * 1024 * 1024
_RETRY_S = 1.0

_logger = structlog.get_logger("p2pcity.node.apply")


class ApplyLoop:
    """Follows the commit index of this node's log with the views."""

    def __init__(
        self,
        *,
        raft_log: SegmentLog,
        views: ViewsStore,
        writer: WriterThread,
        mempool: Mempool,
        intake: Intake,
        on_applied: Callable[[Sequence[AppliedBlock], int], None],
    ) -> None:
        self._raft_log = raft_log
        self._views = views
        self._writer = writer
        self._mempool = mempool
        self._intake = intake
        self._on_applied = on_applied
        self._target = views.applied_index
        self._applied = views.applied_index
        self._work = trio.Event()
        # Why committed blocks wait, empty while they don't.
        self.alarm = ""

    @property
    def applied_index(self) -> int:
        """The Raft index up to which this node's views stand, its listeners told."""
        return self._applied

    @property
    def target_index(self) -> int:
        """The Raft index up to which entries are committed and on this node's disk."""
        return self._target

    def committed(self, entries: Sequence[Entry]) -> None:
        """Take note of what the pump handed over; the entries are read from the log."""
        self._target = max(self._target, entries[-1].index)
        self._work.set()

    async def run(self) -> None:
        """Apply for as long as the node runs."""
        while True:
            await self._work.wait()
            self._work = trio.Event()
            await self.catch_up()

    async def catch_up(self, target: int | None = None) -> None:
        """Apply everything up to the target index."""
        if target is not None:
            self._target = max(self._target, target)
        while self._applied < self._target:
            entries = self._raft_log.entries(self._applied + 1, self._target + 1, _BATCH_BYTES_MAX)
            await self._apply(entries)

    async def _apply(self, entries: Sequence[Entry]) -> None:
        pairs: list[tuple[int, Block | bytes | None]] = []
        for entry in entries:
            pairs.append((entry.index, _decoded(entry)))
        known = await self._examined([item for _, item in pairs if isinstance(item, Block)])
        applied = await self._stored(pairs, known)
        self._applied = entries[-1].index
        self._intake.note_applied(applied)
        self._on_applied(applied, self._applied)

    async def _stored(
        self,
        pairs: Sequence[tuple[int, Block | bytes | None]],
        known: dict[bytes, Carried | DecodeError],
    ) -> list[AppliedBlock]:
        """Write to the views; while their disk has no room, say so and try again."""
        while True:
            try:
                applied = await self._writer.run(self._views.apply_blocks, pairs, known.get)
            except Unavailable as error:
                # Nothing was applied and nothing is lost: the blocks are in the log.
                if not self.alarm:
                    _logger.error(
                        "apply_waits", index=pairs[0][0], reason=str(error), remedy=error.remedy
                    )
                self.alarm = f"committed blocks wait to be applied: {error}"
                await trio.sleep(_RETRY_S)
                continue
            if self.alarm:
                self.alarm = ""
                _logger.info("apply_goes_on", index=pairs[0][0])
            return applied

    async def _examined(self, blocks: Sequence[Block]) -> dict[bytes, Carried | DecodeError]:
        """Every carried transaction of `blocks`, by digest, verified once on this node."""
        known: dict[bytes, Carried | DecodeError] = {}
        unseen: list[tuple[bytes, bytes]] = []
        for block in blocks:
            for digest, data in ((sha256(data), data) for data in block.transactions):
                carried = self._mempool.by_digest(digest)
                if carried is not None:
                    known[digest] = carried
                else:
                    unseen.append((digest, data))
        if unseen:
            outcomes = await self._intake.examine([data for _, data in unseen])
            for (digest, _), outcome in zip(unseen, outcomes, strict=True):
                known[digest] = outcome
        return known


def _decoded(entry: Entry) -> Block | bytes | None:
    if not entry.payload:
        return None
    try:
        return block_wire.decode(entry.payload)
    except DecodeError:
        return entry.payload  # the views say what is wrong with it, and which exit code that is


def ended_ids(block: AppliedBlock) -> list[bytes]:
    """The ids that a block settles for good, once or again.

    Not those of invalid bytes: whoever garbles a transaction must not end the true one.
    """
    return [
        item.carried.transaction.id
        for item in block.transactions
        if item.carried is not None and item.outcome != "invalid"
    ]


def settled(block: AppliedBlock) -> list[tuple[bytes, Settled]]:
    """How each transaction of an applied block ended; one dropped as a duplicate ended before."""
    height = block.block.header.height
    ends: list[tuple[bytes, Settled]] = []
    for item in block.transactions:
        if item.carried is None or item.outcome in ("duplicate", "invalid"):
            continue
        id_ = item.carried.transaction.id
        if item.outcome == "applied":
            is_duplicate = len(item.duplicate_events) == item.carried.transaction.count
            state: Literal["committed", "duplicate"] = "duplicate" if is_duplicate else "committed"
            ends.append((id_, Settled(state, "", height, item.leaf_index)))
        elif item.outcome == "expired":
            ends.append((id_, Settled("expired", "expired")))
        else:
            ends.append((id_, Settled("rejected", item.outcome)))
    return ends
