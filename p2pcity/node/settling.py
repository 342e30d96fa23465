"""What became of the transactions of an applied block, told to all that wait for it."""

from collections.abc import Sequence

import structlog

from p2pcity.mempool.mempool import Mempool
from p2pcity.node.apply_loop import ended_ids, settled
from p2pcity.node.moments import Moments
from p2pcity.node.outbox_loop import OutboxLoop
from p2pcity.node.submitting import Submitting
from p2pcity.node.telemetry import Telemetry
from p2pcity.node.waiting import Waiters
from p2pcity.ordering.apply import AppliedBlock

_logger = structlog.get_logger("p2pcity.node")


class Settling:
    """Tells the mempool, the outbox, the clients that wait, and the trace."""

    def __init__(
        self,
        *,
        mempool: Mempool,
        waiters: Waiters,
        outbox: OutboxLoop,
        submitting: Submitting,
        moments: Moments,
        telemetry: Telemetry,
    ) -> None:
        self._mempool = mempool
        self._waiters = waiters
        self._outbox = outbox
        self._submitting = submitting
        self._moments = moments
        self._telemetry = telemetry

    def applied(self, blocks: Sequence[AppliedBlock]) -> None:
        """Settle what `blocks` ended."""
        committed: list[bytes] = []
        for block in blocks:
            ends = settled(block)
            ids = ended_ids(block)
            self._mempool.remove(ids)
            # Before the clients are told: what they are told comes after it.
            self._moments.applied(
                block.index, block.height, [(id_, end.reason or end.state) for id_, end in ends]
            )
            for id_, end in ends:
                self._waiters.settle(id_, end)
                if end.height is not None:
                    committed.append(id_)
                else:
                    self._outbox.settle([id_], "expired" if end.state == "expired" else "rejected")
            self._submitting.applied(ids)
            self._telemetry.applied(ids)
            _logger.info(
                "block",
                height=block.height,
                index=block.index,
                transactions=len(block.transactions),
                dropped=sum(item.outcome != "applied" for item in block.transactions),
                hash=block.block.hash.hex()[:16],
            )
        self._outbox.settle(committed, "committed")
