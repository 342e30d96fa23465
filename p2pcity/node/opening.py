"""Opens a data directory for the daemon, in the order that the ledger's promises need."""

import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import structlog

from p2pcity.errors import CorruptionError
from p2pcity.ledger import recovery_marker, views_store
from p2pcity.ledger.base_incoming import open_installed
from p2pcity.ledger.base_store import BaseStore
from p2pcity.ledger.data_directory import DataDirectory, open_directory
from p2pcity.ledger.lock import DataLock
from p2pcity.ledger.outbox import Outbox
from p2pcity.ledger.segment_log import SEGMENT_BYTES_MAX, SegmentLog
from p2pcity.ledger.views_reader import ViewsReader
from p2pcity.ledger.views_store import ViewsStore
from p2pcity.ledger.writer import WriterThread
from p2pcity.node.log_files import LogFiles
from p2pcity.node.log_repair import refuse_holes
from p2pcity.wire.genesis import Genesis

_logger = structlog.get_logger("p2pcity.node.opening")

# The threads of a data directory, and how many calls each may have waiting.
_THREADS = (("log", 64), ("outbox", 64), ("views", 64), ("reader", 256))

Repair = Callable[[SegmentLog, LogFiles], Awaitable[SegmentLog]]
"""Fills the holes of a log that others have to help with; the one given is closed by it."""


@dataclass(slots=True)
class Stores:
    """What lies open while the daemon runs: the lock, the stores, and who writes and reads them."""

    lock: DataLock
    bases: BaseStore
    raft_log: SegmentLog
    outbox: Outbox
    views: ViewsStore
    log_writer: WriterThread
    outbox_writer: WriterThread
    views_writer: WriterThread
    reader: ViewsReader
    reader_thread: WriterThread
    probe: ViewsReader

    async def close(self) -> None:
        """Close everything, the lock last, also when one of them can't be closed in order."""
        async with AsyncExitStack() as stack:
            # Unwound from the last to the first.
            stack.callback(self.lock.release)
            stack.callback(self.bases.close)
            for writer in self.log_writer, self.outbox_writer, self.views_writer:
                stack.push_async_callback(writer.close)
            stack.push_async_callback(self.reader_thread.close)
            stack.push_async_callback(self.views_writer.run, self.views.close)
            stack.callback(self.probe.close)
            stack.push_async_callback(self.reader_thread.run, self.reader.close)
            stack.push_async_callback(self.outbox_writer.run, self.outbox.close)
            stack.push_async_callback(self.log_writer.run, self.raft_log.close)


async def open_stores(
    path: Path,
    *,
    genesis: Genesis,
    peer_id: str,
    repair: Repair = refuse_holes,
    has_damaged_views: bool = False,
    make_writer: Callable[[str, int], WriterThread] = WriterThread,
    clock: Callable[[], float] = time.monotonic,
    segment_bytes_max: int = SEGMENT_BYTES_MAX,
) -> Stores:
    """Lock the directory, open the base, recover the segment log, open the outbox and the views.

    A log with damage that only others can mend goes through `repair`. Views that were found damaged
    (`has_damaged_views`) are begun anew. Each file is opened in the thread that writes it, made by
    `make_writer` of a name and the calls that may wait; `clock` (s) times syncs and queries. Raises
    LockedError, CorruptionError, ConfigError. The views are not yet caught up: the apply loop does
    that.
    """
    directory = open_directory(path)
    lock = DataLock(path, peer_id)
    lock.acquire()
    async with AsyncExitStack() as stack:
        # Whatever goes wrong, the directory is free for the next start.
        stack.callback(lock.release)
        log_writer, outbox_writer, views_writer, reader_thread = (
            make_writer(name, calls_max) for name, calls_max in _THREADS
        )
        for thread in (log_writer, outbox_writer, views_writer, reader_thread):
            stack.push_async_callback(thread.close)
        bases = await log_writer.run(_open_bases, directory)
        stack.callback(bases.close)
        files = LogFiles(
            directory.log,
            genesis.network,
            log_writer,
            bases,
            clock,
            segment_bytes_max,
        )
        raft_log = await files.open()
        if raft_log.holes:
            raft_log = await repair(raft_log, files)
        if await log_writer.run(recovery_marker.finish, directory.recovery_marker, raft_log):
            _logger.warning("recovery_finished", index=raft_log.last_index)
        raft_log.bind_network(genesis.network)
        if raft_log.recovery is not None:
            _logger.warning("log_tail_cut", reason=str(raft_log.recovery))
        outbox = await outbox_writer.run(Outbox.open, directory.outbox)
        if has_damaged_views:
            views_store.delete(directory.views)
        views = await views_writer.run(_open_views, directory, genesis, raft_log, bases)
        # From here on `Stores.close` closes them.
        stack.pop_all()
    return Stores(
        lock,
        bases,
        raft_log,
        outbox,
        views,
        log_writer,
        outbox_writer,
        views_writer,
        views.open_reader(clock=clock),
        reader_thread,
        # The event loop's own look at the index of ids: one short look-up a transaction.
        views.open_reader(clock=clock),
    )


def _open_bases(directory: DataDirectory) -> BaseStore:
    bases, is_new = open_installed(directory.base)
    if is_new:
        _logger.warning("base_installed", reason="others gave what this node lacked")
    return bases


def _open_views(
    directory: DataDirectory, genesis: Genesis, raft_log: SegmentLog, bases: BaseStore
) -> ViewsStore:
    views = ViewsStore.open(directory.views, genesis=genesis, raft_log=raft_log, bases=bases)
    if views.recovery is not None:
        _logger.warning("views_rebuilt", reason=str(views.recovery))
    if views.applied_index > raft_log.last_index:
        raise CorruptionError(
            f"the views stand at index {views.applied_index}, "
            f"the segment log ends at {raft_log.last_index}: committed entries are missing",
            index=raft_log.last_index + 1,
            remedy="Restore log/ from a copy that is newer, or join again under a new "
            "incarnation: p2pcity init.",
        )
    return views
