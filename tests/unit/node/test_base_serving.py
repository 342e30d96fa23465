"""Bases for peers: what lies on the disk, what is known besides, in parts, and nothing else."""

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from p2pcity.errors import LedgerError, Unavailable
from p2pcity.ledger.writer import WriterThread
from p2pcity.node.base_serving import BaseServing
from p2pcity.wire import base as base_wire
from p2pcity.wire import sync as sync_wire
from p2pcity.wire.base import RECORD_BYTES
from p2pcity.wire.sync import (
    BaseAnswer,
    BaseHeadAnswer,
    BaseHeadQuery,
    BaseQuery,
    BaseQuestion,
    BaseRecordsAnswer,
    BaseRecordsQuery,
)
from tests.pruned_case import Opened, make_directory


class Served:
    """A serving over the stores of one directory."""

    def __init__(self, opened: Opened, thread: WriterThread, bytes_per_s: int = 1 << 40) -> None:
        self.opened = opened
        self.damage: list[LedgerError] = []
        self.serving = BaseServing(
            opened.bases,
            opened.log,
            opened.reader.base_digest,
            thread,
            self.damage.append,
            bytes_per_s=bytes_per_s,
        )

    async def ask(self, question: BaseQuestion) -> sync_wire.Answer:
        """The answer, over the wire and back."""
        answer = await self.serving.answer(question)
        assert sync_wire.decode_answer(sync_wire.encode(answer)) == answer
        return answer


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    make_directory(tmp_path)
    return Opened.open(tmp_path)


async def test_a_node_that_keeps_all_names_digests_and_has_nothing_to_give(
    opened: Opened, thread: WriterThread
) -> None:
    served = Served(opened, thread)
    assert await served.ask(BaseQuery()) == BaseAnswer(0, None, 0, 0, 1)
    data = opened.views.base_head(256)
    assert data is not None
    digest = base_wire.digest_head(data)
    assert await served.ask(BaseQuery(256)) == BaseAnswer(256, digest, 0, 0, 1)
    # Not reached yet, and no base at all.
    for height in (768, 300, 0, (1 << 64) - 1):
        assert await served.ask(BaseQuery(height)) == BaseAnswer(height, None, 0, 0, 1)
    assert await served.ask(BaseHeadQuery(256, 0)) == BaseHeadAnswer(256, 0, None)
    assert await served.ask(BaseRecordsQuery(0)) == BaseRecordsAnswer(0, b"")
    assert not served.damage


async def test_a_node_that_pruned_gives_its_base(opened: Opened, thread: WriterThread) -> None:
    opened.prune()
    base = opened.prune()
    head, served = base.head, Served(opened, thread)
    offer = BaseAnswer(512, base.stored.digest, len(base.stored.data), head.records, head.index + 1)
    assert await served.ask(BaseQuery()) == offer
    assert await served.ask(BaseQuery(512)) == offer
    below = await served.ask(BaseQuery(256))
    assert isinstance(below, BaseAnswer)
    assert (below.digest is not None, below.size) == (True, 0)
    whole = base.stored.data
    assert await served.ask(BaseHeadQuery(512, 0)) == BaseHeadAnswer(512, 0, whole)
    assert await served.ask(BaseHeadQuery(512, 100)) == BaseHeadAnswer(512, 100, whole[100:])
    assert await served.ask(BaseHeadQuery(512, 1 << 63)) == BaseHeadAnswer(512, 1 << 63, b"")
    assert await served.ask(BaseHeadQuery(256, 0)) == BaseHeadAnswer(256, 0, None)
    found = b""
    while len(found) < head.records * RECORD_BYTES:
        part = await served.ask(BaseRecordsQuery(len(found) // RECORD_BYTES, 7))
        assert isinstance(part, BaseRecordsAnswer)
        # In full: whoever gives fewer is taken for a liar.
        left = head.records * RECORD_BYTES - len(found)
        assert len(part.data) == min(7 * RECORD_BYTES, left)
        found += part.data
    assert found == base.read_records(0, head.records)
    for offset in (head.records, (1 << 64) - 1):
        assert await served.ask(BaseRecordsQuery(offset)) == BaseRecordsAnswer(offset, b"")
    assert await served.ask(BaseRecordsQuery(0, 0)) == BaseRecordsAnswer(0, b"")


async def test_parts_are_paced_and_few_wait(
    opened: Opened, thread: WriterThread, autojump_clock: MockClock
) -> None:
    autojump_clock.autojump_threshold = 0.05
    opened.prune()
    served = Served(opened, thread, bytes_per_s=1000)
    begin_s = trio.current_time()
    refused = 0

    async def ask() -> None:
        nonlocal refused
        try:
            await served.serving.answer(BaseRecordsQuery(0, 1))
        except Unavailable:
            refused += 1

    async with trio.open_nursery() as nursery:
        for _ in range(40):
            nursery.start_soon(ask)
    assert refused == 40 - 33
    assert trio.current_time() - begin_s >= 32 * (256 + RECORD_BYTES) / 1000
    assert served.serving.pace.served_bytes == 33 * (256 + RECORD_BYTES)
