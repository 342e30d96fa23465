"""Makes the views anew from the segment log, with every signature verified again."""

from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Final

from p2pcity.crypto.digest import sha256
from p2pcity.errors import DecodeError
from p2pcity.ledger import views_store
from p2pcity.ledger.base_store import NO_BASES, Bases
from p2pcity.ledger.block_source import EntryReader
from p2pcity.ledger.views_store import CommittedEntry, ViewsStore
from p2pcity.ordering.apply import AppliedBlock, examine
from p2pcity.wire import block as block_wire
from p2pcity.wire.block import Block
from p2pcity.wire.genesis import Genesis
from p2pcity.wire.raft import Entry
from p2pcity.wire.transaction import Carried

BATCH_BYTES_MAX: Final = 4 * 1024 * 1024
_THREADS: Final = 2
_EXAMINED_AT_ONCE: Final = 64

Progress = Callable[[int, int], None]
"""Called with (index done, last index) after each batch."""


def _no_progress(done: int, last: int) -> None:
    pass


def rebuild(
    path: Path,
    genesis: Genesis,
    raft_log: EntryReader,
    committed: int,
    progress: Progress = _no_progress,
    *,
    bases: Bases = NO_BASES,
) -> ViewsStore:
    """Delete the views at `path` and make them anew up to the index `committed`; BLOCKING.

    They begin from the base where blocks were pruned. Nobody else may have them open. The caller
    closes what is returned. Raises what `ViewsStore.apply_blocks` does, and CorruptionError of
    the log.
    """
    views_store.delete(path)
    store = ViewsStore.open(path, genesis=genesis, raft_log=raft_log, bases=bases)
    try:
        replay(store, genesis.network, raft_log, committed, progress=progress)
    except BaseException:  # whatever it was, the file does not stay open
        store.close()
        raise
    return store


def replay(
    store: ViewsStore,
    network: bytes,
    raft_log: EntryReader,
    last: int,
    *,
    batch_bytes_max: int = BATCH_BYTES_MAX,
    progress: Progress = _no_progress,
    on_applied: Callable[[list[AppliedBlock]], None] = lambda applied: None,
) -> None:
    """Apply the log's entries from the applied index of `store` to `last`; BLOCKING."""
    with ThreadPoolExecutor(_THREADS, "examine") as executor:
        while store.applied_index < last:
            entries = raft_log.entries(store.applied_index + 1, last + 1, batch_bytes_max)
            decoded = [_decode(entry) for entry in entries]
            examined = _examine(executor, decoded, network)
            on_applied(store.apply_blocks(decoded, examined.get))
            progress(store.applied_index, last)


def _decode(entry: Entry) -> CommittedEntry:
    try:
        return entry.index, block_wire.decode(entry.payload) if entry.payload else None
    except DecodeError:
        return entry.index, entry.payload  # the store says what is wrong with it


def _examine(
    executor: Executor, entries: list[CommittedEntry], network: bytes
) -> dict[bytes, Carried | DecodeError]:
    items = [
        data for _, block in entries if isinstance(block, Block) for data in block.transactions
    ]
    chunks = [items[at : at + _EXAMINED_AT_ONCE] for at in range(0, len(items), _EXAMINED_AT_ONCE)]

    def examine_chunk(chunk: list[bytes]) -> list[Carried | DecodeError]:
        return [examine(data, network) for data in chunk]

    outcomes = [item for part in executor.map(examine_chunk, chunks) for item in part]
    return {sha256(data): outcome for data, outcome in zip(items, outcomes, strict=True)}
