"""The files of a raft_log that may be damaged, and opening them with all that can be proven."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from p2pcity.ledger.base_store import BaseStore
from p2pcity.ledger.records import Kind
from p2pcity.ledger.segment_log import SEGMENT_BYTES_MAX, SegmentLog
from p2pcity.ledger.segment_repair import Mender
from p2pcity.ledger.writer import WriterThread
from p2pcity.sync.repair import Repair

_logger = structlog.get_logger("p2pcity.node.log_files")


@dataclass(frozen=True, slots=True)
class LogFiles:
    """Where a log lies, what it belongs to, and the thread that opens and writes it.

    It goes on where the base ends; if others gave that one, a log that does not reach it begins
    anew.
    """

    directory: Path
    network: bytes
    writer: WriterThread
    bases: BaseStore
    clock: Callable[[], float]
    segment_bytes_max: int = SEGMENT_BYTES_MAX

    async def open(self, repair: Repair | None = None) -> SegmentLog:
        """Open the log with all that can be proven made again; see `SegmentLog.open`."""
        mender = Mender(self.network)
        if repair is not None:
            mender = Mender(self.network, repair.entries, repair.committed)
        log = await self.writer.run(
            partial(
                SegmentLog.open,
                self.directory,
                clock=self.clock,
                segment_bytes_max=self.segment_bytes_max,
                mender=mender,
                start=self.bases.start,
                may_begin_anew=self.bases.is_given,
            )
        )
        for mended in log.mended:
            givers = repair.givers(mended.index) if repair and mended.kind == Kind.ENTRY else []
            _logger.warning(
                "log_repaired",
                index=mended.index,
                record=mended.kind.name.lower().replace("_", " "),
                source=givers or "the checksums around it",
            )
        if not log.holes:
            for gap in log.gaps:
                # What stood there was replaced later: nothing is lost, and nobody can give it.
                _logger.warning("log_damage_left", reason=gap)
        return log
