"""Blocks and events read from the segment log for the views, a few blocks kept decoded."""

from collections import OrderedDict
from typing import Final, Protocol

from p2pcity.errors import DecodeError
from p2pcity.views.blocks import BlockRecord
from p2pcity.views.connection import RowDamaged
from p2pcity.wire import block as block_wire
from p2pcity.wire import transaction as transaction_wire
from p2pcity.wire.block import Block
from p2pcity.wire.raft import Entry
from p2pcity.wire.transaction import Carried

CACHE_BYTES_MAX: Final = 8 * 1024 * 1024
_BLOCKS_MAX: Final = 256


class EntryReader(Protocol):
    """What is read of the segment log: entries by Raft index, from any thread."""

    @property
    def last_index(self) -> int:
        """The newest entry's index, 0 when there is none."""

    def term(self, index: int) -> int:
        """Return the term of the entry at `index`."""

    def entries(self, low: int, high: int, bytes_max: int) -> list[Entry]:
        """Return the entries from `low` to below `high`, at least one; CorruptionError."""


class StoredBlock:
    """A block of the log; its transactions are decoded when they are asked for, once."""

    __slots__ = ("_carried", "block", "record", "size")

    def __init__(self, record: BlockRecord, block: Block, size: int) -> None:
        self.record = record
        self.block = block
        self.size = size
        self._carried: dict[int, Carried] = {}

    def carried(self, position: int) -> Carried:
        """Return the carried transaction at `position`; RowDamaged when there is none."""
        kept = self._carried.get(position)
        if kept is None:
            if position >= len(self.block.transactions):
                raise RowDamaged(f"block {self.record.height} has no transaction {position}")
            try:
                kept = transaction_wire.decode_carried(self.block.transactions[position])
            except DecodeError as error:
                raise RowDamaged(
                    f"transaction {position} of block {self.record.height}: {error}"
                ) from error
            self._carried[position] = kept
        return kept


class BlockSource:
    """Reads blocks from the segment log; keeps the newest used. For one thread at a time."""

    def __init__(self, raft_log: EntryReader, cache_bytes_max: int = CACHE_BYTES_MAX) -> None:
        self._raft_log = raft_log
        self._cache_bytes_max = cache_bytes_max
        self._kept: OrderedDict[int, StoredBlock] = OrderedDict()
        self._bytes = 0

    def read(self, record: BlockRecord) -> StoredBlock:
        """Return the block that the row speaks of.

        Raises RowDamaged when the log has another block there, CorruptionError when the log
        itself is damaged.
        """
        kept = self._kept.get(record.height)
        if kept is not None and kept.record == record:
            self._kept.move_to_end(record.height)
            return kept
        data = self.read_bytes(record)
        try:
            block = block_wire.decode(data)
        except DecodeError as error:
            raise RowDamaged(f"the entry of block {record.height}: {error}") from error
        if block.hash != record.hash:
            raise RowDamaged(f"the log has another block at height {record.height}")
        return self._keep(StoredBlock(record, block, len(data)))

    def read_bytes(self, record: BlockRecord) -> bytes:
        """Return the block's bytes as they are in the log, not looked at."""
        index = record.raft_index
        if not 1 <= index <= self._raft_log.last_index:
            raise RowDamaged(f"the log has no entry {index} for block {record.height}")
        return self._raft_log.entries(index, index + 1, 1)[0].payload

    def forget(self) -> None:
        """Drop what is kept."""
        self._kept.clear()
        self._bytes = 0

    def _keep(self, stored: StoredBlock) -> StoredBlock:
        before = self._kept.pop(stored.record.height, None)
        self._bytes += stored.size - (before.size if before else 0)
        self._kept[stored.record.height] = stored
        while len(self._kept) > 1 and (
            self._bytes > self._cache_bytes_max or len(self._kept) > _BLOCKS_MAX
        ):
            self._bytes -= self._kept.popitem(last=False)[1].size
        return stored
