"""Linearizable reads: a round is asked for after its reads arrived, and never used again."""

import random

import pytest
import trio
from trio.testing import MockClock

from p2pcity.errors import NotLeader, Unavailable
from p2pcity.node.reads import Reads
from p2pcity.raft.config import RaftConfig
from p2pcity.raft.configuration import Configuration
from p2pcity.raft.raw_node import RawNode
from p2pcity.raft.reads import ReadState
from p2pcity.wire.raft import Entry, HardState


class Asked:
    """A raw node that only notes what it is asked; `error` is raised instead when set."""

    def __init__(self) -> None:
        self.contexts: list[bytes] = []
        self.error: Exception | None = None

    def read_index(self, context: bytes) -> None:
        if self.error is not None:
            raise self.error
        self.contexts.append(context)


class Case:
    def __init__(self, retry_s: float = 1.0) -> None:
        self.raw_node = Asked()
        self.applied = 0
        self.woken = 0
        self.done: list[str] = []
        self.reads = Reads(
            self.raw_node,  # type: ignore[arg-type]  # all that Reads uses of a raw node
            wake=self.wake,
            applied_index=lambda: self.applied,
            retry_s=retry_s,
        )

    def wake(self) -> None:
        self.woken += 1

    async def read(self, name: str, timeout_s: float = 30) -> None:
        try:
            await self.reads.wait_linearizable(timeout_s)
            self.done.append(name)
        except Unavailable:
            self.done.append(f"{name} refused")

    def confirm(self, number: int, index: int = 0) -> None:
        self.reads.answer([ReadState(self.raw_node.contexts[number], index)], [])


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def test_a_read_waits_for_its_round_and_for_apply(nursery: trio.Nursery) -> None:
    case = Case()
    nursery.start_soon(case.reads.run)
    nursery.start_soon(case.read, "a")
    await settle()
    assert len(case.raw_node.contexts) == case.woken == 1
    case.confirm(0, index=5)
    await settle()
    assert case.done == []
    case.applied = 4
    case.reads.applied()
    await settle()
    assert case.done == []
    case.applied = 5
    case.reads.applied()
    await settle()
    assert case.done == ["a"]


async def test_a_read_that_arrives_during_a_round_gets_the_next_one(
    nursery: trio.Nursery,
) -> None:
    case = Case()
    nursery.start_soon(case.reads.run)
    nursery.start_soon(case.read, "early")
    await settle()
    nursery.start_soon(case.read, "late")
    nursery.start_soon(case.read, "late too")
    await settle()
    assert len(case.raw_node.contexts) == 1
    case.confirm(0)
    await settle()
    assert case.done == ["early"]
    assert len(case.raw_node.contexts) == 2
    case.confirm(1)
    await settle()
    assert sorted(case.done) == ["early", "late", "late too"]
    assert len(set(case.raw_node.contexts)) == 2


async def test_a_lost_round_is_asked_again_under_a_new_context(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    case = Case()
    nursery.start_soon(case.reads.run)
    nursery.start_soon(case.read, "a")
    await settle()
    case.reads.answer([], [case.raw_node.contexts[0]])
    await trio.sleep(1.5)
    assert len(case.raw_node.contexts) == 2
    # The leader of the dropped one answers after all: that answer is nobody's any more.
    case.confirm(0)
    await settle()
    assert case.done == []
    case.confirm(1)
    await settle()
    assert case.done == ["a"]


@pytest.mark.parametrize("error", [NotLeader("nobody leads"), Unavailable("too many reads")])
async def test_without_a_leader_a_read_is_refused_in_time(
    nursery: trio.Nursery, autojump_clock: MockClock, error: Exception
) -> None:
    case = Case()
    case.raw_node.error = error
    nursery.start_soon(case.reads.run)
    begin_s = trio.current_time()
    await case.read("a", timeout_s=5)
    assert case.done == ["a refused"]
    assert trio.current_time() - begin_s == pytest.approx(5)


async def test_a_leader_that_comes_back_serves_the_waiting_read(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    case = Case()
    case.raw_node.error = NotLeader("nobody leads")
    nursery.start_soon(case.reads.run)
    nursery.start_soon(case.read, "a")
    await trio.sleep(2.5)
    case.raw_node.error = None
    await trio.sleep(1)
    case.confirm(0)
    await settle()
    assert case.done == ["a"]


async def test_a_round_that_nobody_confirms_does_not_hold_up_later_reads(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    case = Case()
    nursery.start_soon(case.reads.run)
    await case.read("lost", timeout_s=2)
    await trio.sleep(10)
    nursery.start_soon(case.read, "next")
    await settle()
    case.confirm(-1)
    await settle()
    assert case.done == ["lost refused", "next"]


class OneEntry:
    """A log on disk with one entry of term 1."""

    first_index = 1
    last_index = 1
    hard_state = HardState(1, None, 1)

    def term(self, index: int) -> int:
        return min(index, 1)

    def entries(self, low: int, high: int, bytes_max: int) -> list[Entry]:
        return [Entry(1, 1, b"")]


async def test_the_real_core_confirms_nothing_without_its_quorum(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    raw_node = RawNode(
        RaftConfig(id="a"), OneEntry(), Configuration(("a", "b", "c")), random.Random(1)
    )
    reads = Reads(raw_node, wake=lambda: None, applied_index=lambda: 9, retry_s=1)
    nursery.start_soon(reads.run)
    with pytest.raises(Unavailable):
        await reads.wait_linearizable(5)
