"""Serves the base to peers that nobody can feed any more: from disk, no faster than it may."""

from collections.abc import Callable
from typing import Final

import trio

from p2pcity.errors import LedgerError, Unavailable
from p2pcity.node.opening import Stores
from p2pcity.wire.base import HEIGHT_MAX
from p2pcity.wire.limits import BASE_INTERVAL_BLOCKS
from p2pcity.wire.sync import (
    BASE_PART_BYTES_MAX,
    BaseAnswer,
    BaseHeadAnswer,
    BaseHeadQuery,
    BaseQuestion,
    BaseRecordsAnswer,
    BaseRecordsQuery,
)

BYTES_PER_S: Final = 16 * 1024 * 1024
_OVERHEAD_BYTES: Final = 256
_WAITING_MAX: Final = 32

Answer = BaseAnswer | BaseHeadAnswer | BaseRecordsAnswer


class BaseServing:
    """Answers questions about bases, one after the other, at `bytes_per_s` in all."""

    def __init__(
        self,
        *,
        stores: Stores,
        on_damage: Callable[[LedgerError], None],
        bytes_per_s: int = BYTES_PER_S,
    ) -> None:
        self._bases = stores.bases
        self._raft_log = stores.raft_log
        self._reader = stores.reader
        self._thread = stores.reader_thread
        self._on_damage = on_damage
        self._bytes_per_s = bytes_per_s
        self._turn = trio.Lock()
        self._free_at_s = 0.0
        self.served_bytes = 0

    async def answer(self, question: BaseQuestion) -> Answer:
        """Return the answer; Unavailable when too many wait, or the disk can't give it."""
        if self._turn.statistics().tasks_waiting >= _WAITING_MAX:
            raise Unavailable("too many questions for a base wait here")
        async with self._turn:
            await trio.sleep_until(self._free_at_s)
            try:
                answer = await self._thread.run(self._read, question)
            except LedgerError as error:
                self._on_damage(error)
                raise Unavailable("the base can't be read here") from error
            size = _OVERHEAD_BYTES
            if not isinstance(answer, BaseAnswer):
                size += len(answer.data or b"")
            self._free_at_s = trio.current_time() + size / self._bytes_per_s
            self.served_bytes += size
        return answer

    def _read(self, question: BaseQuestion) -> Answer:
        # Of one base throughout: the node may prune on meanwhile.
        base = self._bases.stored
        if isinstance(question, BaseRecordsQuery):
            data = b""
            if base is not None and question.offset < base.head.records:
                data = base.read_records(question.offset, question.count)
            return BaseRecordsAnswer(question.offset, data)
        if isinstance(question, BaseHeadQuery):
            part = None
            if base is not None and base.height == question.height:
                end = question.offset + BASE_PART_BYTES_MAX
                part = base.stored.data[question.offset : end]
            return BaseHeadAnswer(question.height, question.offset, part)
        first = self._raft_log.first_index
        if base is not None and question.height in (None, base.height):
            stored = base.stored
            return BaseAnswer(
                base.height, stored.digest, len(stored.data), base.head.records, first
            )
        if question.height is None:
            return BaseAnswer(0, None, 0, 0, first)
        # Peers may name any number; no base stands at most of them.
        is_base = question.height <= HEIGHT_MAX and question.height % BASE_INTERVAL_BLOCKS == 0
        digest = self._reader.base_digest(question.height) if is_base else None
        return BaseAnswer(question.height, digest, 0, 0, first)
