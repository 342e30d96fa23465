"""One orderer alone, with its real log: elected by ticks, proposing, and what peers can't do."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from p2pcity.city.membership import State, VoterSets
from p2pcity.crypto.keys import PrivateKey, peer_id, public_key
from p2pcity.errors import SyncFailedError
from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.ledger.writer import WriterThread
from p2pcity.node.ordering_loop import OrderingLoop
from p2pcity.ordering.members import Members
from p2pcity.ordering.proposer import Parent
from p2pcity.raft import raft
from p2pcity.raft.config import RaftConfig
from p2pcity.wire import block as block_wire
from p2pcity.wire import raft as raft_wire
from p2pcity.wire.genesis import GenesisNode, Role
from p2pcity.wire.raft import (
    Append,
    Entry,
    Heartbeat,
    HeartbeatAnswer,
    VoteAnswer,
    VoteRequest,
)
from tests.chain_case import NOW_MS
from tests.node_case import DEADLINE_S, Door, make_log

TICK_S = 0.005
NODES = [PrivateKey.from_seed(bytes([number]) * 32).public for number in range(1, 5)]
A, B, C, STRANGER = (peer_id(key) for key in NODES)
ROLES: tuple[Role, Role] = ("orderer", "observer")


def make_members(voters: Sequence[str], learners: Sequence[str]) -> Members:
    """The city as node A knows it."""
    keys = [[public_key(peer) for peer in peers] for peers in (voters, learners)]
    nodes = {
        key: GenesisNode(key, key[:16], role, (), "works", key.hex()[:8])
        for role, some in zip(ROLES, keys, strict=True)
        for key in some
    }
    state = State({}, nodes, VoterSets(tuple(keys[0]), tuple(keys[1])))
    return Members(state, NODES[0], NODES[0][:16])


class Case(Door):
    """A node `a`; what it sends to others is noted, and lost."""

    def __init__(
        self,
        directory: Path,
        voters: Sequence[str] = (A,),
        learners: Sequence[str] = (),
        tick_s: float = TICK_S,
    ) -> None:
        super().__init__()
        self.log: SegmentLog = make_log(directory / "log", self.chain)
        self.writer = WriterThread("test", 8)
        self.sent: list[tuple[str, str, Any]] = []
        self.takes = True
        self.committed: list[Entry] = []
        self.applied = 0
        self.tip = Parent(0, self.chain.genesis.network, NOW_MS - 1000)
        self.leaders = 0
        self.heard: list[tuple[str, Any]] = []
        self.is_barred = False
        self.scope = trio.CancelScope()
        self.is_running = False
        self.loop = OrderingLoop(
            config=RaftConfig(id=A),
            members=make_members(voters, learners),
            has_same_log=lambda peer: True,
            promotion_ticks=200,
            tick_s=tick_s,
            raft_log=self.log,
            writer=self.writer,
            mempool=self.mempool,
            rules=1,
            tip=lambda: self.tip,
            applied_index=lambda: self.applied,
            now_ms=lambda: self.now_ms,
            send=self._send,
            on_committed=self._on_committed,
            on_reads=lambda states, dropped: None,
            on_leader=self._on_leader,
            on_members=lambda: None,
            on_message=lambda peer, message: self.heard.append((peer, message)),
            is_barred=lambda: self.is_barred,
            rng=random.Random(1),
            moments=self.moments,
        )

    def _on_leader(self) -> None:
        self.leaders += 1

    def _send(self, peer: str, lane: str, data: bytes) -> bool:
        self.sent.append((peer, lane, raft_wire.decode(data)))
        return self.takes

    def _on_committed(self, entries: Sequence[Entry]) -> None:
        self.committed += entries
        for entry in entries:
            if entry.payload:
                block = block_wire.decode(entry.payload)
                self.tip = Parent(block.header.height, block.hash, block.header.time_ms)
                self.mempool.remove(
                    carried.transaction.id
                    for carried in self.mempool.select(1 << 20)
                    if carried.data in block.transactions
                )
        self.applied = entries[-1].index
        self.loop.raw_node.applied(self.applied)
        self.loop.proposer.applied(self.applied)
        self.loop.wake()

    async def wait(self, is_so: Any) -> None:
        with trio.fail_after(DEADLINE_S):
            while not is_so():  # noqa: ASYNC110 - the log's writer is a real thread
                await trio.sleep(0.001)

    def tick(self, count: int) -> None:
        for _ in range(count):
            self.loop.raw_node.tick()
        self.loop.wake()

    async def run(self) -> None:
        self.is_running = True
        with self.scope:
            await self.loop.run()
        self.is_running = False

    async def close(self) -> None:
        # The loop ends before its log, as in a node: it may be in the middle of a turn.
        self.scope.cancel()
        await self.wait(lambda: not self.is_running)
        await self.writer.close()
        self.log.close()


@pytest.fixture
async def alone(tmp_path: Path, nursery: trio.Nursery) -> Any:
    case = Case(tmp_path)
    nursery.start_soon(case.run)
    yield case
    await case.close()


@pytest.fixture
async def one_of_three(tmp_path: Path, nursery: trio.Nursery) -> Any:
    """Ticks only when the test says so."""
    case = Case(tmp_path, voters=(A, B, C), tick_s=3600)
    nursery.start_soon(case.run)
    yield case
    await case.close()


async def test_one_orderer_orders_alone(alone: Case) -> None:
    await alone.wait(lambda: alone.loop.raw_node.is_leader)
    await alone.loop.wait_leader(A)
    await alone.wait(lambda: alone.leaders == alone.loop.leader_changes == 1)
    carried = alone.put(3)
    alone.loop.wake()
    await alone.wait(lambda: alone.tip.height == 1)
    [block] = [block_wire.decode(entry.payload) for entry in alone.committed if entry.payload]
    assert list(block.transactions) == [item.data for item in carried]
    assert alone.log.last_index == 2  # the leader's own first entry, and the block


async def test_commits_of_own_proposals_are_timed_and_counted(alone: Case) -> None:
    await alone.wait(lambda: alone.loop.raw_node.is_leader)
    for height in (1, 2):
        alone.put(2)
        alone.loop.wake()
        await alone.wait(lambda: alone.tip.height == height)  # noqa: B023 - awaited in its turn
    assert alone.loop.commit_durations.count == 2
    assert alone.loop._proposed_s == {}
    assert alone.loop.proposer.blocks_proposed == 2
    assert alone.loop.proposer.transactions_proposed == 4
    status = alone.loop.raw_node.status()
    assert (status.elections, status.elections_won) == (1, 1)


async def test_what_a_former_leader_proposed_is_not_timed(one_of_three: Case) -> None:
    case = one_of_three
    await lead(case)
    case.loop.clock_rule.clocks.heard(B, case.now_ms, case.loop.clock_rule.clocks.steady_ms())
    case.put(1)
    case.loop.wake()
    await case.wait(lambda: case.loop._proposed_s != {})
    case.loop.receive(B, raft_wire.encode(Heartbeat(term=case.loop.raw_node.term + 1, commit=0)))
    await case.wait(lambda: case.loop._proposed_s == {})
    assert not case.loop.raw_node.is_leader
    assert case.loop.commit_durations.count == 0


async def test_entries_are_on_disk_before_they_are_handed_out(alone: Case) -> None:
    seen: list[bool] = []
    on_committed = alone._on_committed

    def check(entries: Sequence[Entry]) -> None:
        seen.append(entries[-1].index <= alone.log.last_index)
        on_committed(entries)

    alone.loop._pump._apply = check
    alone.put(5)
    await alone.wait(lambda: alone.tip.height >= 1)
    assert seen
    assert all(seen)


async def test_an_observer_never_campaigns_and_never_proposes(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    case = Case(tmp_path, voters=(B,), learners=(A,), tick_s=3600)
    nursery.start_soon(case.run)
    case.put(1)
    case.tick(100)
    await wait_all_tasks_blocked()
    assert case.sent == []
    assert case.loop.raw_node.role is raft.Role.FOLLOWER
    assert case.log.last_index == 0
    await case.close()


async def test_rubbish_from_a_peer_is_its_fault_and_newer_kinds_are_not(
    one_of_three: Case,
) -> None:
    assert not one_of_three.loop.receive(B, b"rubbish")
    assert one_of_three.loop.receive(B, raft_wire.encode(Heartbeat(term=1, commit=10**9)))
    assert one_of_three.loop.receive(STRANGER, raft_wire.encode(HeartbeatAnswer(term=2**62)))
    await wait_all_tasks_blocked()
    assert one_of_three.loop.raw_node.term == 1


async def lead(case: Case) -> None:
    case.loop.raw_node.campaign()
    case.loop.wake()
    await case.wait(lambda: any(isinstance(m, VoteRequest) for _, _, m in case.sent))
    term = case.loop.raw_node.term + 1
    case.loop.receive(B, raft_wire.encode(VoteAnswer(term, True, True)))
    await case.wait(lambda: case.loop.raw_node.role is raft.Role.CANDIDATE)
    case.loop.receive(B, raft_wire.encode(VoteAnswer(term, True, False)))
    await case.wait(lambda: case.loop.raw_node.is_leader)


async def test_a_leader_without_its_quorum_steps_down_and_says_so(one_of_three: Case) -> None:
    case = one_of_three
    await lead(case)
    await case.wait(lambda: case.loop._seen_leader[1] == A)
    while case.loop.raw_node.is_leader:
        await wait_all_tasks_blocked()
        case.tick(1)
    # That tick left nothing to save or send: no Ready comes of it.
    await case.wait(lambda: case.loop._seen_leader[1] is None)


async def test_appends_have_a_lane_of_their_own(one_of_three: Case) -> None:
    case = one_of_three
    await lead(case)
    await case.wait(lambda: any(isinstance(m, Append) for _, _, m in case.sent))
    case.tick(3)
    await wait_all_tasks_blocked()
    lanes = {(type(message).__name__, lane) for _, lane, message in case.sent}
    assert ("Append", "bulk") in lanes
    assert ("Heartbeat", "control") in lanes
    assert all((lane == "bulk") is (name == "Append") for name, lane in lanes)


async def test_a_full_lane_is_no_busy_loop(one_of_three: Case) -> None:
    case = one_of_three
    case.takes = False
    await lead(case)
    await wait_all_tasks_blocked()
    turns = case.loop.turns
    for _ in range(20):
        case.loop.wake()
        await wait_all_tasks_blocked()
    assert case.loop.turns - turns <= 1


async def test_a_tick_a_turn_however_long_it_stood_still(tmp_path: Path) -> None:
    case = Case(tmp_path, voters=(A, B, C))
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1

    case.loop.raw_node.tick = tick  # type: ignore[method-assign]  # counted only
    async with trio.open_nursery() as nursery:
        nursery.start_soon(case.loop._tick)
        await wait_all_tasks_blocked()
        # The process stands still for the time of many ticks: nothing of the loop runs.
        until_s = trio.current_time() + 50 * TICK_S
        while trio.current_time() < until_s:
            pass
        await case.wait(lambda: ticks > 0)
        assert ticks <= 2
        nursery.cancel_scope.cancel()
    await case.close()


async def test_a_failed_sync_ends_the_loop_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(tmp_path, voters=(A, B, C), tick_s=3600)

    def save(*arguments: object) -> None:
        raise SyncFailedError("the disk refused")

    monkeypatch.setattr(case.log, "save", save)
    # A vote is asked for: it must be on the disk before it is given.
    case.loop.receive(B, raft_wire.encode(VoteRequest(5, 0, 0)))
    with pytest.raises(BaseExceptionGroup) as caught, trio.fail_after(DEADLINE_S):
        await case.loop.run()
    assert caught.group_contains(SyncFailedError)
    assert case.sent == []
    await case.close()
