"""The outbox's group commit: nobody is told "accepted" before the row is on the disk."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from p2pcity.errors import SyncFailedError, Unavailable
from p2pcity.ledger.outbox import Outbox, Row, SettledState
from p2pcity.ledger.writer import WriterThread
from p2pcity.node.outbox_loop import OutboxLoop
from p2pcity.wire.transaction import Carried
from tests.chain_case import NOW_MS, Chain
from tests.node_case import DEADLINE_S, ids


class SlowOutbox:
    """The real outbox behind a gate: `open` lets one write through; `error` is raised instead."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.gate = threading.Semaphore(0)
        self.error: Exception | None = None
        self.groups: list[tuple[list[bytes], dict[bytes, SettledState]]] = []

    def open(self, count: int = 1) -> None:
        self.gate.release(count)

    def write(self, rows: Sequence[Row], settled: Mapping[bytes, SettledState]) -> None:
        assert self.gate.acquire(timeout=DEADLINE_S)
        self.groups.append(([row[0] for row in rows], dict(settled)))
        error, self.error = self.error, None
        if error is not None:
            raise error
        self.outbox.write(rows, settled)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    outbox = Outbox.open(tmp_path / "outbox.db", clock_ms=lambda: NOW_MS)
    yield outbox
    outbox.close()


class Case:
    def __init__(self, outbox: Outbox) -> None:
        self.slow = SlowOutbox(outbox)
        self.writer = WriterThread("test", 8)
        self.loop = OutboxLoop(self.slow, self.writer)  # type: ignore[arg-type]  # its `write`
        self.chain = Chain()
        self.done: list[str] = []

    async def accept(self, name: str, *carried: Carried) -> None:
        try:
            await self.loop.accept(carried)
            self.done.append(name)
        except Unavailable:
            self.done.append(f"{name} refused")

    async def wait_done(self, count: int) -> None:
        with trio.fail_after(DEADLINE_S):
            while len(self.done) < count:  # noqa: ASYNC110 - the writer's thread is real
                await trio.sleep(0.001)


@pytest.fixture
async def case(outbox: Outbox, nursery: trio.Nursery) -> Case:
    case = Case(outbox)
    nursery.start_soon(case.loop.run)
    return case


async def test_accepted_means_on_the_disk(
    case: Case, outbox: Outbox, nursery: trio.Nursery
) -> None:
    carried = case.chain.carried()
    nursery.start_soon(case.accept, "a", carried)
    await wait_all_tasks_blocked()
    assert case.done == []
    case.slow.open()
    await case.wait_done(1)
    assert [row.id for row in outbox.pending()] == ids([carried])
    assert case.loop.pending_count == 1
    # Again: it is there already, nothing is written and nobody waits.
    await case.accept("again", carried)
    assert case.done == ["a", "again"]
    await case.writer.close()


async def test_who_brings_it_a_second_time_waits_for_the_same_write(
    case: Case, nursery: trio.Nursery
) -> None:
    carried, other = case.chain.carried(), case.chain.carried()
    nursery.start_soon(case.accept, "first", carried)
    await wait_all_tasks_blocked()
    nursery.start_soon(case.accept, "second", carried)
    nursery.start_soon(case.accept, "both", carried, other)
    await wait_all_tasks_blocked()
    assert case.done == []
    case.slow.open(2)
    await case.wait_done(3)
    assert case.slow.groups == [(ids([carried]), {}), (ids([other]), {})]
    await case.writer.close()


async def test_a_full_disk_is_told_to_all_who_wait_for_it(
    case: Case, outbox: Outbox, nursery: trio.Nursery
) -> None:
    carried = case.chain.carried()
    case.slow.error = Unavailable("the disk is full")
    nursery.start_soon(case.accept, "first", carried)
    nursery.start_soon(case.accept, "second", carried)
    await wait_all_tasks_blocked()
    case.slow.open()
    await case.wait_done(2)
    assert sorted(case.done) == ["first refused", "second refused"]
    assert not case.loop.is_pending(carried.transaction.id)
    case.slow.open()
    await case.accept("later", carried)
    assert case.done[-1] == "later"
    assert len(outbox.pending()) == 1
    await case.writer.close()


async def test_one_submission_may_hold_the_same_transaction_twice(
    case: Case, outbox: Outbox
) -> None:
    carried = case.chain.carried()
    case.slow.open()
    await case.accept("a", carried, carried)
    assert case.done == ["a"]
    assert len(outbox.pending()) == 1
    await case.writer.close()


async def test_an_end_that_comes_before_the_row_is_written_is_not_lost(
    case: Case, outbox: Outbox, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2pcity.node.outbox_loop._GROUP_MAX", 1)
    first, second, third = (case.chain.carried() for _ in range(3))
    for name, item in (("first", first), ("second", second), ("third", third)):
        nursery.start_soon(case.accept, name, item)
    await wait_all_tasks_blocked()
    # All three end while the first is being written and the others have not even begun.
    case.loop.settle(ids([first, second, third]), "committed")
    case.slow.open(4)
    await case.wait_done(3)
    with trio.fail_after(DEADLINE_S):
        while outbox.pending():  # noqa: ASYNC110 - the writer's thread is real
            await trio.sleep(0.001)
    assert case.loop.pending_count == 0
    for item in (first, second, third):
        state = outbox.state(item.transaction.id)
        assert state is not None
        assert state.state == "committed"
    await case.writer.close()


async def test_ends_wait_until_the_disk_has_room(
    case: Case, outbox: Outbox, nursery: trio.Nursery
) -> None:
    carried = case.chain.carried()
    case.slow.open()
    await case.accept("a", carried)
    case.slow.error = Unavailable("the disk is full")
    case.loop.settle(ids([carried]), "expired")
    case.slow.open(2)
    with trio.fail_after(DEADLINE_S):
        while outbox.pending():  # noqa: ASYNC110 - the writer's thread is real
            await trio.sleep(0.01)
    assert [settled for _, settled in case.slow.groups[1:]] == [
        {carried.transaction.id: "expired"}
    ] * 2
    await case.writer.close()


async def test_what_is_not_in_the_outbox_is_not_settled(case: Case) -> None:
    case.loop.settle([bytes(32)], "committed")
    await wait_all_tasks_blocked()
    assert case.slow.groups == []
    await case.writer.close()


async def test_a_failed_sync_ends_the_loop(outbox: Outbox) -> None:
    case = Case(outbox)
    case.slow.error = SyncFailedError("the disk refused")
    case.slow.open()

    async def run_and_accept() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(case.loop.run)
            await case.accept("a", case.chain.carried())

    with pytest.raises(BaseExceptionGroup) as caught:
        await run_and_accept()
    assert caught.group_contains(SyncFailedError)
    assert case.done == []
    await case.writer.close()
