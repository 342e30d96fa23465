"""Serves the base to peers that nobody can feed any more: from disk, no faster than it may."""

from collections.abc import Callable
from typing import Final

from p2pcity.errors import LedgerError, Unavailable
from p2pcity.ledger.base_store import Bases, StoredBase
from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.ledger.writer import WriterThread
from p2pcity.node.pacing import BYTES_PER_S, Pace
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

_OVERHEAD_BYTES: Final = 256

Answer = BaseAnswer | BaseHeadAnswer | BaseRecordsAnswer


class BaseServing:
    """Answers questions about bases, one after the other, at `bytes_per_s` in all."""

    def __init__(
        self,
        bases: Bases,
        raft_log: SegmentLog,
        digest_at: Callable[[int], bytes | None],
        thread: WriterThread,
        on_damage: Callable[[LedgerError], None],
        *,
        bytes_per_s: int = BYTES_PER_S,
    ) -> None:
        """Take what is read, in `thread`; `digest_at` is what `answer_from` needs."""
        self._bases = bases
        self._raft_log = raft_log
        self._digest_at = digest_at
        self._thread = thread
        self._on_damage = on_damage
        self.pace = Pace("a base", bytes_per_s)

    async def answer(self, question: BaseQuestion) -> Answer:
        """Return the answer; Unavailable when too many wait, or the disk can't give it."""
        async with self.pace.turn():
            try:
                answer = await self._thread.run(self._read, question)
            except LedgerError as error:
                self._on_damage(error)
                raise Unavailable("the base can't be read here") from error
            size = _OVERHEAD_BYTES
            if not isinstance(answer, BaseAnswer):
                size += len(answer.data or b"")
            self.pace.gave(size)
        return answer

    def _read(self, question: BaseQuestion) -> Answer:
        return answer_from(
            self._bases.stored, self._raft_log.first_index, self._digest_at, question
        )


def answer_from(
    base: StoredBase | None,
    first_index: int,
    digest_at: Callable[[int], bytes | None],
    question: BaseQuestion,
) -> Answer:
    """Answer from one base throughout: the node may prune on meanwhile. BLOCKING; LedgerError.

    `first_index` is the oldest entry that is kept, `digest_at` gives the digest of the base at a
    multiple of the interval.
    """
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
    if base is not None and question.height in (None, base.height):
        stored = base.stored
        return BaseAnswer(
            base.height, stored.digest, len(stored.data), base.head.records, first_index
        )
    if question.height is None:
        return BaseAnswer(0, None, 0, 0, first_index)
    # Peers may name any number; no base stands at most of them.
    is_base = question.height <= HEIGHT_MAX and question.height % BASE_INTERVAL_BLOCKS == 0
    digest = digest_at(question.height) if is_base else None
    return BaseAnswer(question.height, digest, 0, 0, first_index)
