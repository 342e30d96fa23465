"""A base instead of entries that nobody keeps: when one is asked for, and which one would do."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from p2pcity.errors import CorruptionError
from p2pcity.ledger.base_store import BaseStore
from p2pcity.ledger.segment_index import BEGINNING, Start
from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.ledger.segment_repair import Mender
from p2pcity.ledger.writer import WriterThread
from p2pcity.net.peers import PeerInfo
from p2pcity.node.base_fetch import BaseComplete
from p2pcity.node.base_instead import BaseInstead
from p2pcity.node.log_files import LogFiles
from p2pcity.sync.repair import Repair
from p2pcity.wire import sync as sync_wire
from p2pcity.wire.raft import HardState
from p2pcity.wire.sync import BASE_PART_BYTES_MAX, EntriesAnswer, EntriesQuery
from tests.base_case import Holder, Ledger
from tests.node_case import HandNetwork
from tests.segment_case import NETWORK, create, entry_records, flip, last_file, make_entry

KNOWN = {name: name.encode() * 16 for name in "abc"}
LEDGER = Ledger(1, 3)
LAST = LEDGER.head(2).index + 10
"""The last entry of the log, between the ends of the second and the third base."""


class Peers(HandNetwork):
    """Peers that hold bases; one may have come back with another log."""

    def __init__(self, **holders: Holder) -> None:
        super().__init__(*holders, answer=self._give)
        self.holders = holders
        self.incarnations = dict(KNOWN)

    async def _give(self, peer: str, _protocol: str, data: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        return sync_wire.encode(self.holders[peer].answer(sync_wire.decode_request(data)))

    def peers(self) -> tuple[PeerInfo, ...]:
        return tuple(
            PeerInfo(peer, "connected", is_connected=True, incarnation=self.incarnations[peer])
            for peer in self.connected
        )


@cache
def written(last: int) -> bytes:
    """The bytes of a log with `last` entries."""
    with TemporaryDirectory() as path:
        directory = Path(path) / "log"
        log = create(directory)
        log.bind_network(NETWORK)
        for first in range(0, last, 10):
            entries = [make_entry(at + 1) for at in range(first, min(first + 10, last))]
            # Behind the last entries no hard state says what the vote is.
            hard_state = HardState(1, "c", first) if first + 10 < last else None
            log.save(hard_state, entries, True)
        log.close()
        return last_file(directory).read_bytes()


def damaged(tmp_path: Path, index: int, byte: int = -20, last: int = LAST) -> SegmentLog:
    """A log with a hole at `index`."""
    directory = tmp_path / "log"
    create(directory).close()
    file = last_file(directory)
    file.write_bytes(written(last))
    [record] = [record for record in entry_records(file) if record.index == index]
    flip(file, 8 * (record.offset + byte % record.length))
    return reopened(tmp_path)


def reopened(tmp_path: Path, start: Start = BEGINNING, *, is_given: bool = False) -> SegmentLog:
    mender = Mender(NETWORK)
    directory = tmp_path / "log"
    return SegmentLog.open(directory, mender=mender, start=start, may_begin_anew=is_given)


class Looking:
    """One log that is looked at, and what was said of its hole."""

    def __init__(self, tmp_path: Path, thread: WriterThread, log: SegmentLog) -> None:
        self.tmp_path, self.thread, self.log = tmp_path, thread, log
        self.repair = Repair(log.holes)

    def begin(self, network: Peers) -> BaseInstead:
        network_id = LEDGER.head(1).network
        files = LogFiles(
            self.tmp_path / "log",
            network_id,
            self.thread,
            BaseStore.open(self.tmp_path / "base"),
            lambda: 0.0,
        )
        return BaseInstead(
            network.typed,
            files,
            voters=[["a", "b", "own"]],
            incarnations=KNOWN,
            free_bytes_min=0,
        )

    def heard(self, *firsts: int) -> None:
        """What the peers say to keep, in a new round."""
        self.repair.begin_round()
        question = EntriesQuery(self.log.holes[0][0])
        for peer, first in zip("abc", firsts, strict=False):
            given = () if first > question.index else (make_entry(question.index, 7),)
            answer = EntriesAnswer(question.index, 1, 5000, given, first)
            assert self.repair.take(peer, question, answer)


@pytest.fixture
def looking(tmp_path: Path, thread: WriterThread) -> Iterator[Looking]:
    found = Looking(tmp_path, thread, damaged(tmp_path, 300))
    assert list(found.log.holes) == [(300, 300)]
    yield found
    found.log.close()


def pruned(**numbers: int) -> Peers:
    """Peers with these bases, which give parts as large as the others may."""
    holders = {name: Holder(LEDGER, number, number) for name, number in numbers.items()}
    for holder in holders.values():
        holder.head_part_bytes = BASE_PART_BYTES_MAX
    return Peers(**holders)


async def test_it_is_fetched_once_nobody_keeps_what_is_missing(looking: Looking) -> None:
    network = pruned(a=2, b=2)
    instead = looking.begin(network)
    # Nobody answered, too early, and somebody keeps it.
    await instead.look(looking.log, looking.repair, 3.0)
    looking.heard(516, 516)
    await instead.look(looking.log, looking.repair, 1.0)
    looking.heard(516, 300)
    await instead.look(looking.log, looking.repair, 3.0)
    assert not network.asked
    # So it says, but what it gives is wrong.
    with pytest.raises(BaseComplete):
        await instead.look(looking.log, looking.repair, 61.0)
    looking.heard(516, 301)
    with pytest.raises(BaseComplete):
        await instead.look(looking.log, looking.repair, 3.0)


async def test_who_came_back_with_another_log_names_nothing(
    looking: Looking, autojump_clock: MockClock
) -> None:
    network = pruned(a=2, b=2)
    network.incarnations["b"] = b"another log of b"
    instead = looking.begin(network)
    looking.heard(516, 516)
    with capture_logs() as lines:
        await instead.look(looking.log, looking.repair, 3.0)
    [line] = lines
    assert (line["event"], "entry 300" in line["reason"]) == ("base_not_agreed", True)
    network.incarnations["b"] = KNOWN["b"]
    with pytest.raises(BaseComplete):
        await instead.look(looking.log, looking.repair, 3.0)


@pytest.mark.parametrize("hole", ["above", "at", "at the end"])
async def test_a_base_that_leaves_a_hole_is_too_low(
    tmp_path: Path, thread: WriterThread, hole: str
) -> None:
    """Where it ends in the hole, what stands behind it could not be judged."""
    end = LEDGER.head(2).index
    index = {"above": end + 3, "at": end, "at the end": LAST}[hole]
    looking = Looking(tmp_path, thread, damaged(tmp_path, index))
    network = pruned(a=2, b=2)
    instead = looking.begin(network)
    looking.heard(2000, 2000)
    with capture_logs() as lines:
        for _ in range(3):
            await instead.look(looking.log, looking.repair, 3.0)
    assert [line["event"] for line in lines if line["event"] == "base_too_low"] == ["base_too_low"]
    heads = [data for _, _, data in network.asked if b"base-head" in data]
    assert len(heads) == 1, "it is not fetched again and again"
    for holder in network.holders.values():
        holder.number = holder.reach = 3
    with pytest.raises(BaseComplete):
        await instead.look(looking.log, looking.repair, 3.0)
    looking.log.close()


async def test_where_nothing_stands_behind_the_hole_a_base_may_end_in_it(
    tmp_path: Path, thread: WriterThread
) -> None:
    end = LEDGER.head(2).index
    looking = Looking(tmp_path, thread, damaged(tmp_path, end, last=end))
    looking.heard(516, 516)
    with pytest.raises(BaseComplete):
        await looking.begin(pruned(a=2, b=2)).look(looking.log, looking.repair, 3.0)
    looking.log.close()


async def test_no_base_makes_up_for_a_vote(tmp_path: Path, thread: WriterThread) -> None:
    """The head is gone: the newest term and vote may have stood there as well."""
    looking = Looking(tmp_path, thread, damaged(tmp_path, LAST, 1))
    assert not looking.log.is_vote_known
    network = pruned(a=3, b=3)
    looking.heard(2000, 2000)
    await looking.begin(network).look(looking.log, looking.repair, 1000.0)
    assert not network.asked
    looking.log.close()
    # Nor does the start take one that is there already.
    with pytest.raises(CorruptionError, match="the newest term and vote") as caught:
        reopened(tmp_path, Start(LAST + 100, 1), is_given=True)
    assert "p2pcity init" in caught.value.remedy
