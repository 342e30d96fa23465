"""Entries for peers: what is asked for, in pieces, paced, and never what is damaged."""

from pathlib import Path

import pytest
import trio

from p2pcity.errors import CorruptionError, Unavailable
from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.ledger.writer import WriterThread
from p2pcity.node.entry_serving import EntryServing
from p2pcity.wire import sync as sync_wire
from p2pcity.wire.limits import BLOCK_BYTES_MAX
from p2pcity.wire.raft import Entry, HardState
from p2pcity.wire.sync import ENTRIES_MAX, SYNC_BYTES_MAX, EntriesQuery
from tests.segment_case import create, flip, last_file, make_entry

COUNT = 2_100


class Served:
    def __init__(self, log: SegmentLog, thread: WriterThread, bytes_per_s: int = 1 << 40) -> None:
        self.damage: list[CorruptionError] = []
        self.serving = EntryServing(
            raft_log=log, thread=thread, on_damage=self.damage.append, bytes_per_s=bytes_per_s
        )


@pytest.fixture
def log(tmp_path: Path) -> SegmentLog:
    log = create(tmp_path / "log", cache_bytes_max=0)
    log.save(HardState(1, None, 0), [make_entry(index) for index in range(1, COUNT + 1)], True)
    log.save(HardState(2, None, COUNT - 1), [], True)
    return log


async def test_the_whole_log_comes_in_answers_that_fit(
    log: SegmentLog, thread: WriterThread
) -> None:
    serving = Served(log, thread).serving
    found: list[Entry] = []
    answers = 0
    while len(found) < COUNT:
        answer = await serving.answer(EntriesQuery(len(found) + 1))
        data = sync_wire.encode(answer)
        assert len(data) <= SYNC_BYTES_MAX
        assert sync_wire.decode_answer(data) == answer
        assert (answer.index, answer.term, answer.commit) == (len(found) + 1, 2, COUNT - 1)
        assert 1 <= len(answer.entries) <= ENTRIES_MAX
        found += answer.entries
        answers += 1
    assert found == [make_entry(index) for index in range(1, COUNT + 1)]
    assert answers >= 3
    log.close()


@pytest.mark.parametrize("index", [0, COUNT + 1, 2**64 - 1])
async def test_what_is_not_there_is_no_answer(
    log: SegmentLog, thread: WriterThread, index: int
) -> None:
    answer = await Served(log, thread).serving.answer(EntriesQuery(index))
    assert answer.entries == ()
    log.close()


async def test_large_entries_come_one_by_one(tmp_path: Path, thread: WriterThread) -> None:
    log = create(tmp_path / "log")
    large = [Entry(1, index, bytes(BLOCK_BYTES_MAX - index)) for index in (1, 2)]
    log.save(HardState(1, None, 0), [*large, Entry(1, 3, bytes(BLOCK_BYTES_MAX + 1))], True)
    serving = Served(log, thread).serving
    for index in (1, 2):
        answer = await serving.answer(EntriesQuery(index))
        assert answer.entries == (large[index - 1],)
        assert len(sync_wire.encode(answer)) <= SYNC_BYTES_MAX
    assert (await serving.answer(EntriesQuery(3))).entries == ()
    log.close()


async def test_answers_are_paced(
    log: SegmentLog, thread: WriterThread, autojump_clock: trio.abc.Clock
) -> None:
    serving = Served(log, thread, bytes_per_s=1_000_000).serving
    begin = trio.current_time()
    for _ in range(3):
        await serving.answer(EntriesQuery(1))
    # The third waits for the first two to be paid for.
    assert trio.current_time() - begin >= serving.pace.served_bytes * 2 / 3 / 1_000_000
    log.close()


async def test_a_damaged_entry_is_told_and_not_served(
    log: SegmentLog, thread: WriterThread, tmp_path: Path
) -> None:
    path = last_file(tmp_path / "log")
    at = path.read_bytes().index(make_entry(5).payload[20:60])
    flip(path, 8 * at)
    served = Served(log, thread)
    with pytest.raises(Unavailable):
        await served.serving.answer(EntriesQuery(5))
    [damage] = served.damage
    assert damage.index == 5
    log.close()
