"""Drops old blocks where the operator wants that, an interval at a time (`ledger.keep_blocks`).

    base on the disk -> in force for the views -> log forgets -> its files go -> the views' rows go

Whatever a kill leaves half done is behind the base that is in force, where nobody looks, and is
cleared after the next start. A disk without room costs a try, and nothing else.
"""

from typing import Final

import structlog
import trio

from p2pcity.errors import Unavailable
from p2pcity.ledger.base_store import BaseStore, NewBase, StoredBase
from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.ledger.views_reader import ViewsReader
from p2pcity.ledger.views_store import ViewsStore
from p2pcity.ledger.writer import WriterThread
from p2pcity.wire.limits import BASE_INTERVAL_BLOCKS

PERIOD_S: Final = 1.0
_PIECE_BYTES: Final = 1024 * 1024

_logger = structlog.get_logger("p2pcity.node.pruning")


class Pruning:
    """Follows the ledger with the base, `keep_blocks` and up to an interval behind it."""

    def __init__(
        self,
        *,
        keep_blocks: int,
        bases: BaseStore,
        raft_log: SegmentLog,
        log_writer: WriterThread,
        views: ViewsStore,
        views_writer: WriterThread,
        reader: ViewsReader,
        reader_thread: WriterThread,
    ) -> None:
        """Take the stores and the thread of each; with `keep_blocks` 0 all is kept."""
        self._keep_blocks = keep_blocks
        self._bases = bases
        self._raft_log = raft_log
        self._log_writer = log_writer
        self._views = views
        self._views_writer = views_writer
        self._reader = reader
        self._thread = reader_thread
        # Why old blocks stay, empty while they don't have to.
        self.alarm = ""

    @property
    def first_height(self) -> int:
        """The height of the oldest block that is kept."""
        return self._bases.base.height + 1

    async def run(self) -> None:
        """Look once a period, for as long as the node runs."""
        while True:
            try:
                await self._clear()
                while self._is_due():
                    await self._prune()
            except Unavailable as error:
                if not self.alarm:
                    _logger.warning("pruning_waits", reason=str(error), remedy=error.remedy)
                self.alarm = f"old blocks can't be pruned: {error}"
            else:
                self.alarm = ""
            await trio.sleep(PERIOD_S)

    def _is_due(self) -> bool:
        oldest = self._bases.base.height + BASE_INTERVAL_BLOCKS + self._keep_blocks
        return bool(self._keep_blocks) and self._views.height >= oldest

    async def _prune(self) -> None:
        base = await self._write()
        # In the thread that applies: no block is judged by half of the one and half of the other.
        await self._views_writer.run(self._bases.publish, base)
        self._raft_log.forget(base.head.index)
        files = await self._log_writer.run(self._raft_log.remove_files)
        await self._clear()
        _logger.info("pruned", first_height=self.first_height, files=files)

    async def _write(self) -> StoredBase:
        """Bring the next base to the disk."""
        before = self._bases.base.height
        height = before + BASE_INTERVAL_BLOCKS
        data = await self._views_writer.run(self._views.base_head, height)
        assert data is not None, "the views know every base below their height"
        new: NewBase = await self._thread.run(self._bases.begin, data)
        records: list[bytes] = []
        size = 0
        for number in range(before + 1, height + 1):
            records.append(await self._thread.run(self._reader.base_records, number))
            size += len(records[-1])
            if size >= _PIECE_BYTES or number == height:
                await self._thread.run(new.add, b"".join(records))
                records.clear()
                size = 0
        return await self._thread.run(new.finish)

    async def _clear(self) -> None:
        """Delete the views' rows of what is pruned, also what an earlier run left of them."""
        while self._views.meta.pruned < self._bases.base.height:
            await self._views_writer.run(self._views.prune)
