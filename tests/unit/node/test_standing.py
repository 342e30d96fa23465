"""Who keeps their word: hellos, a leader's status, and what is remembered across restarts."""

import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from p2pcity.ledger import promises_file
from p2pcity.ledger.writer import WriterThread
from p2pcity.node.standing import Standing
from p2pcity.raft.config import RaftConfig
from p2pcity.raft.configuration import Configuration
from p2pcity.raft.raw_node import RawNode
from p2pcity.wire.hello import Hello
from p2pcity.wire.promise import Promise
from p2pcity.wire.raft import AppendAnswer, Entry, HardState, Heartbeat, HeartbeatAnswer, VoteAnswer
from p2pcity.wire.sync import StatusAnswer
from tests.unit.ordering.test_pump_and_proposer import MemoryLog

pytestmark = pytest.mark.scenario("A8", tier="U")
INCARNATIONS = {name: name.encode() * 16 for name in "abc"}
HELLO = Hello(
    network=bytes(32),
    protocol=1,
    protocol_oldest=1,
    release="1",
    parameters=bytes(32),
    incarnation=INCARNATIONS["b"],
    height=3,
    addresses=(),
    time_ms=0,
    last_index=5,
    term=2,
)
STATUS = StatusAnswer(3, bytes(32), 5, 5, 2, "leader", "1", 0)


class Case:
    """Node `a`, whose log has five entries of term 2, four of them committed."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "promises"
        self.log = MemoryLog()
        self.log.list = [Entry(2, index) for index in range(1, 6)]
        self.log.hard_state = HardState(2, None, 4)
        self.raw_node = RawNode(
            RaftConfig(id="a"), self.log, Configuration(("a", "b", "c")), random.Random(1)
        )
        self.writer = WriterThread("test", 8)
        self.standing = self.begin()

    def begin(self) -> Standing:
        return Standing(
            own_id="a",
            own_incarnation=INCARNATIONS["a"],
            voters=lambda: INCARNATIONS,
            raw_node=self.raw_node,
            path=self.path,
            writer=self.writer,
        )

    def lead(self) -> None:
        """Become the leader of term 3, with everything acknowledged by both others."""
        self.turn()
        self.raw_node.campaign()
        self.turn()
        for is_pre in (True, False):
            self.raw_node.step("b", VoteAnswer(3, True, is_pre=is_pre))
            self.turn()
        for peer in ("b", "c"):
            self.raw_node.step(peer, AppendAnswer(3, self.raw_node.last_index))
        self.turn()

    def turn(self) -> None:
        while self.raw_node.has_ready():
            ready = self.raw_node.ready()
            self.log.list += ready.entries
            self.raw_node.advance(ready)


@pytest.fixture
async def case(tmp_path: Path) -> AsyncIterator[Case]:
    made = Case(tmp_path)
    yield made
    await made.writer.close()


async def test_a_voter_with_less_than_it_acknowledged_is_not_heard(case: Case) -> None:
    case.lead()
    standing = case.standing
    standing.connected("b", replace(HELLO, last_index=6, term=3))
    assert standing.is_heard("b")
    standing.connected("b", HELLO)
    assert not standing.is_heard("b")
    assert standing.is_heard("c")
    assert not standing.is_barred
    [alarm] = standing.alarms
    assert (
        "b has an older log than it had: it ends at index 5 in term 2, it acknowledged index 6"
        in alarm
    )
    assert "raft replace --remove b --add node.card" in alarm
    # What it says in its next hello counts, and a new incarnation promised nothing.
    standing.connected("b", replace(HELLO, last_index=7, term=3))
    assert standing.is_heard("b")
    standing.connected("b", replace(HELLO, incarnation=bytes(16), last_index=0, term=0))
    assert standing.alarms == []


async def test_an_older_term_is_less_too(case: Case) -> None:
    case.standing.heard("b", HeartbeatAnswer(4))
    case.standing.connected("b", replace(HELLO, term=3))
    assert not case.standing.is_heard("b")
    case.standing.disconnected("b")
    assert case.standing.is_heard("b")
    case.standing.connected("b", replace(HELLO, term=4))
    assert case.standing.is_heard("b")


async def test_one_that_says_nothing_of_its_log_is_not_judged(case: Case) -> None:
    case.standing.heard("b", HeartbeatAnswer(4))
    case.standing.connected("b", replace(HELLO, last_index=None, term=None))
    assert case.standing.is_heard("b")


async def test_this_node_is_told_what_it_promised(case: Case) -> None:
    own = Promise("a", INCARNATIONS["a"], 5, 2)
    case.standing.connected("b", replace(HELLO, promises=(own,)))
    of_another = replace(own, incarnation=bytes(16), index=99)
    case.standing.connected("b", replace(HELLO, promises=(of_another,)))
    assert case.standing.alarms == []
    case.standing.connected("b", replace(HELLO, promises=(replace(own, index=6),)))
    assert case.standing.is_barred
    [alarm] = case.standing.alarms
    assert "neither votes nor follows" in alarm
    assert "as b knows" in alarm


async def test_only_voters_can_bar_this_node(case: Case) -> None:
    more = Promise("a", INCARNATIONS["a"], 99, 99)
    case.standing.connected("x", replace(HELLO, promises=(more,)))
    case.standing.connected("b", replace(HELLO, incarnation=bytes(16), promises=(more,)))
    case.standing.said("b", replace(STATUS, promises=(more,)))
    assert case.standing.alarms == [], "b does not lead"
    case.raw_node.step("b", Heartbeat(3, 0))
    case.standing.said("b", replace(STATUS, promises=(more,)))
    assert len(case.standing.alarms) == 1


async def test_a_leaders_word_is_taken_as_far_as_it_is_committed_here(case: Case) -> None:
    case.raw_node.step("b", Heartbeat(2, 0))
    far = Promise("c", INCARNATIONS["c"], 99, 99)
    case.standing.said("b", replace(STATUS, promises=(far,)))
    assert case.standing.told() == (Promise("c", INCARNATIONS["c"], 4, 0),)


async def test_it_is_remembered_across_restarts(
    case: Case, autojump_clock: trio.testing.MockClock
) -> None:
    case.lead()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(case.standing.run)
        await trio.sleep(1.5)
        nursery.cancel_scope.cancel()
    assert {item.peer: item.index for item in promises_file.read(case.path)} == {"b": 6, "c": 6}
    case.raw_node.step("c", Heartbeat(9, 0))
    again = case.begin()
    again.connected("b", HELLO)
    assert not again.is_heard("b")
    case.path.write_bytes(b"rubbish")
    forgetful = case.begin()
    forgetful.connected("b", HELLO)
    assert forgetful.is_heard("b")
