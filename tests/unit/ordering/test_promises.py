"""What is remembered of voters, and who has less than it promised."""

import random

import pytest

from p2pcity.ordering.promises import Promises
from p2pcity.raft.config import RaftConfig
from p2pcity.raft.configuration import Configuration
from p2pcity.raft.raw_node import RawNode
from p2pcity.wire.promise import PROMISES_MAX, Promise
from p2pcity.wire.raft import AppendAnswer, HeartbeatAnswer, VoteAnswer, VoteRequest
from tests.unit.ordering.test_pump_and_proposer import MemoryLog

pytestmark = pytest.mark.scenario("A8", tier="U")
ONE, OTHER = bytes(16), bytes([1]) * 16


def test_a_promise_is_never_lowered() -> None:
    promises = Promises([Promise("a", ONE, 5, 2)])
    assert promises.version == 0
    promises.add(Promise("a", ONE, 3, 3))
    promises.add(Promise("a", ONE, 4, 1))
    assert promises.of("a", ONE) == Promise("a", ONE, 5, 3)
    assert promises.of("a", OTHER) == Promise("a", OTHER)
    assert promises.version == 1
    assert promises.listed() == (Promise("a", ONE, 5, 3),)


@pytest.mark.parametrize(
    ("last_index", "term", "is_broken"),
    [(5, 3, False), (9, 7, False), (4, 3, True), (5, 2, True), (0, 0, True), (4, 9, True)],
)
def test_who_has_less_broke_it(last_index: int, term: int, is_broken: bool) -> None:
    promises = Promises([Promise("a", ONE, 5, 3)])
    assert promises.is_broken("a", ONE, last_index, term) is is_broken
    assert not promises.is_broken("a", OTHER, 0, 0), "another incarnation promised nothing"


def test_the_term_of_a_pre_vote_is_not_on_disk() -> None:
    promises = Promises()
    promises.spoke("a", ONE, VoteRequest(9, 1, 1, is_pre=True))
    promises.spoke("a", ONE, VoteAnswer(9, True, is_pre=True))
    assert promises.of("a", ONE).term == 0
    promises.spoke("a", ONE, HeartbeatAnswer(3))
    promises.spoke("a", ONE, VoteRequest(4, 1, 1))
    promises.spoke("a", ONE, HeartbeatAnswer(2))
    assert promises.of("a", ONE) == Promise("a", ONE, 0, 4)


def test_what_is_remembered_is_bounded() -> None:
    promises = Promises()
    for number in range(PROMISES_MAX + 5):
        promises.add(Promise(str(number), ONE, 1, 1))
    assert len(promises.listed()) == PROMISES_MAX
    assert promises.of("4", ONE).index == 0
    assert promises.of("5", ONE).index == 1


def test_a_leader_knows_what_is_committed_and_acknowledged() -> None:
    log = MemoryLog()
    voters = Configuration(("a", "b", "c"), learners=("d",))
    raw_node = RawNode(RaftConfig(id="a"), log, voters, random.Random(1))
    incarnations = {"a": ONE, "b": ONE, "c": OTHER, "d": ONE}
    promises = Promises()

    def turn() -> None:
        while raw_node.has_ready():
            ready = raw_node.ready()
            log.list += ready.entries
            raw_node.advance(ready)

    promises.leads(raw_node.status(), incarnations)
    raw_node.campaign()
    turn()
    for is_pre in (True, False):
        raw_node.step("b", VoteAnswer(1, True, is_pre=is_pre))
        turn()
    raw_node.step("d", AppendAnswer(1, 1))
    turn()
    promises.leads(raw_node.status(), incarnations)
    assert promises.listed() == (), "nothing is committed"
    raw_node.step("c", AppendAnswer(1, 1))
    turn()
    promises.leads(raw_node.status(), incarnations)
    assert promises.listed() == (Promise("c", OTHER, 1, 0),)
    promises.leads(raw_node.status(), {"b": ONE})
    assert promises.of("b", ONE).index == 0
