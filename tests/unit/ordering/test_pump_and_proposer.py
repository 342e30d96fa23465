"""The pump's order of duties, and what a leader proposes when."""

import random
from collections.abc import Sequence

import pytest

from p2pcity.city.membership import State, VoterSets
from p2pcity.crypto.keys import PrivateKey
from p2pcity.errors import ChangeRefused
from p2pcity.mempool.mempool import Mempool
from p2pcity.ordering.members import Members
from p2pcity.ordering.proposer import Parent, Proposer
from p2pcity.ordering.pump import Pump, Save
from p2pcity.raft.config import RaftConfig
from p2pcity.raft.configuration import Configuration
from p2pcity.raft.raw_node import RawNode
from p2pcity.wire import block as block_wire
from p2pcity.wire import transaction
from p2pcity.wire.event import Event
from p2pcity.wire.limits import BLOCK_BYTES_MAX, BLOCKS_IN_FLIGHT_MAX
from p2pcity.wire.raft import Append, AppendAnswer, Entry, HardState, Message, VoteAnswer

NETWORK = bytes([7]) * 32
KEY = PrivateKey.from_seed(bytes([1]) * 32)
STATE = State({}, {}, VoterSets())


class MemoryLog:
    """A log that is saved by hand, as the simulator's disk is."""

    def __init__(self) -> None:
        self.list: list[Entry] = []
        self.hard_state = HardState()
        self.first_index = 1

    @property
    def last_index(self) -> int:
        return len(self.list)

    def term(self, index: int) -> int:
        return self.list[index - 1].term if index else 0

    def entries(self, low: int, high: int, bytes_max: int) -> list[Entry]:
        chosen: list[Entry] = []
        for entry in self.list[low - 1 : high - 1]:
            if chosen and sum(len(x.payload) for x in chosen) + len(entry.payload) > bytes_max:
                break
            chosen.append(entry)
        return chosen

    def save(self, save: Save) -> None:
        if save.entries:
            del self.list[save.entries[0].index - 1 :]
            self.list.extend(save.entries)
        if save.hard_state is not None:
            self.hard_state = save.hard_state


class Bench:
    """One raw node turned by a pump, with everything it does written down."""

    def __init__(self, voters: tuple[str, ...] = ("a",)) -> None:
        self.log = MemoryLog()
        self.steps: list[str] = []
        self.sent: list[tuple[str, Message]] = []
        self.raw_node = RawNode(
            RaftConfig(id="a"), self.log, Configuration(voters), random.Random(1)
        )
        members = Members(STATE, KEY.public, bytes(16))
        self.pump = Pump(
            self.raw_node, members, send=self.send, apply=self.apply, answer_reads=lambda *_: None
        )
        self.mempool = Mempool()
        self.height = 0
        self.head = NETWORK
        self.time_ms = 1000
        self.applied = 0
        self.is_clock_right = True
        self.proposer = Proposer(
            self.raw_node,
            self.mempool,
            members,
            rules=1,
            tip=lambda: Parent(self.height, self.head, self.time_ms),
            applied_index=lambda: self.applied,
            is_clock_right=lambda _: self.is_clock_right,
        )

    def send(self, receiver: str, message: Message) -> None:
        self.steps.append("send")
        self.sent.append((receiver, message))

    def apply(self, entries: Sequence[Entry]) -> None:
        self.steps.append("apply")
        for entry in entries:
            if entry.payload:
                block = block_wire.decode(entry.payload)
                self.height, self.head = block.header.height, block.hash
                self.mempool.remove(
                    transaction.decode_carried(data).transaction.id for data in block.transactions
                )
            self.applied = entry.index
        self.raw_node.applied(self.applied)
        self.proposer.applied(self.applied)

    def turn(self) -> None:
        while (save := self.pump.begin()) is not None:
            if not save.is_empty:
                self.steps.append("save")
                self.log.save(save)
            self.pump.finish(save)

    def lead_alone(self) -> None:
        self.raw_node.campaign()
        self.turn()
        assert self.raw_node.is_leader


def carry(number: int, size: int = 100) -> transaction.Carried:
    event = Event(salt=bytes(16), id=str(number), type="t", source="/s", data="x" * size)
    return transaction.make(KEY, NETWORK, [event], 10_000, number.to_bytes(16, "big"))


def test_nothing_is_sent_or_applied_before_it_is_saved() -> None:
    bench = Bench(voters=("a", "b", "c"))
    bench.raw_node.campaign()
    save = bench.pump.begin()
    assert save is not None
    assert bench.steps == []
    bench.log.save(save)
    bench.pump.finish(save)
    assert bench.steps
    assert set(bench.steps) == {"send"}


def test_a_second_begin_before_finish_is_a_bug() -> None:
    bench = Bench()
    bench.raw_node.campaign()
    assert bench.pump.begin() is not None
    with pytest.raises(AssertionError):
        bench.pump.begin()


def test_only_the_open_save_can_be_finished() -> None:
    bench = Bench()
    bench.raw_node.campaign()
    save = bench.pump.begin()
    assert save is not None
    bench.pump.finish(save)
    with pytest.raises(AssertionError):
        bench.pump.finish(save)


def test_a_follower_proposes_nothing() -> None:
    bench = Bench(voters=("a", "b", "c"))
    bench.mempool.add(carry(1), 0)
    assert bench.proposer.propose(2000) == []


def lead_three(bench: Bench) -> None:
    bench.raw_node.campaign()
    bench.turn()
    for is_pre in (True, False):
        bench.raw_node.step("b", VoteAnswer(bench.raw_node.term + is_pre, True, is_pre, 0, 0))
        bench.turn()
    assert bench.raw_node.is_leader


def test_a_first_block_goes_with_the_first_entry_when_all_before_is_applied() -> None:
    bench = Bench(voters=("a", "b", "c"))
    bench.mempool.add(carry(1), 0)
    lead_three(bench)
    [(index, block)] = bench.proposer.propose(2000)
    assert (bench.raw_node.commit, index) == (0, 2)
    assert (block.header.height, block.header.parent) == (1, NETWORK)
    bench.turn()
    bench.raw_node.step("b", AppendAnswer(bench.raw_node.term, 2))
    bench.turn()
    assert (bench.height, bench.head, len(bench.mempool)) == (1, block.hash, 0)


def test_nothing_is_proposed_before_what_an_earlier_leader_left_is_applied() -> None:
    bench = Bench(voters=("a", "b", "c"))
    bench.mempool.add(carry(1), 0)
    left = block_wire.make(
        height=1,
        parent=NETWORK,
        time_ms=1500,
        carried=[carry(1)],
        epoch=0,
        voters=STATE.voters_digest,
        rules=1,
        change=None,
    )
    entries = (Entry(1, 1, b""), Entry(1, 2, left.data))
    bench.raw_node.step("c", Append(1, 0, 0, 1, entries))
    bench.turn()
    lead_three(bench)
    assert (bench.applied, bench.proposer.propose(2000)) == (1, [])
    bench.raw_node.step("b", AppendAnswer(bench.raw_node.term, 3))
    bench.turn()
    bench.mempool.add(carry(2), 0)
    [(index, block)] = bench.proposer.propose(2000)
    assert (index, block.header.height, block.header.parent) == (4, 2, left.hash)
    assert block.transactions == (carry(2).data,)


def test_a_change_waits_until_the_first_entry_is_in_effect() -> None:
    bench = Bench(voters=("a", "b", "c"))
    lead_three(bench)
    with pytest.raises(ChangeRefused, match="this leader's first entry"):
        bench.raw_node.propose(b"a change", is_change=True)


def test_an_idle_leader_proposes_nothing() -> None:
    bench = Bench()
    bench.lead_alone()
    assert bench.proposer.propose(2000) == []


def test_block_time_is_never_below_its_parent() -> None:
    bench = Bench()
    bench.lead_alone()
    bench.mempool.add(carry(1), 0)
    [(_, block)] = bench.proposer.propose(5)
    assert block.header.time_ms == bench.time_ms


def test_four_blocks_are_in_flight_and_no_transaction_twice() -> None:
    bench = Bench()
    bench.lead_alone()
    for number in range(120):
        bench.mempool.add(carry(number, 30_000), 0)
    proposed = bench.proposer.propose(2000)
    assert len(proposed) == BLOCKS_IN_FLIGHT_MAX
    assert bench.proposer.blocks_in_flight == BLOCKS_IN_FLIGHT_MAX
    chosen = [data for _, block in proposed for data in block.transactions]
    assert len(chosen) == len(set(chosen))
    assert all(len(block.data) <= BLOCK_BYTES_MAX for _, block in proposed)
    parents = [block.header.parent for _, block in proposed]
    assert parents[1:] == [block.hash for _, block in proposed[:-1]]
    assert bench.proposer.propose(2000) == []
    bench.turn()
    assert bench.proposer.blocks_in_flight == 0
    assert bench.height == BLOCKS_IN_FLIGHT_MAX


def test_everything_offered_is_ordered_once() -> None:
    bench = Bench()
    bench.lead_alone()
    for number in range(300):
        bench.mempool.add(carry(number, 10_000), 0)
    while bench.proposer.propose(2000):
        bench.turn()
    assert len(bench.mempool) == 0
    blocks = [block_wire.decode(entry.payload) for entry in bench.log.list if entry.payload]
    ordered = [data for block in blocks for data in block.transactions]
    assert len(ordered) == len(set(ordered)) == 300


def test_a_leader_that_steps_down_forgets_what_was_in_flight() -> None:
    bench = Bench(voters=("a", "b"))
    bench.raw_node.campaign()
    bench.turn()
    bench.mempool.add(carry(1), 0)
    bench.raw_node.step("b", Append(term=9, previous_index=0, previous_term=0, commit=0))
    assert bench.proposer.propose(2000) == []
    assert bench.proposer.blocks_in_flight == 0
    assert len(bench.mempool) == 1
