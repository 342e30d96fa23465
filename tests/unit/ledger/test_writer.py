"""The writer thread: order, bounds, errors, cancellation, closing."""

import threading

import pytest
import trio
import trio.testing

from p2pcity.errors import SyncFailedError, Unavailable
from p2pcity.ledger.writer import WriterThread


class Gate:
    """A job that waits until the test opens it."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.open = threading.Event()

    def __call__(self) -> str:
        self.started.set()
        assert self.open.wait(10)
        return "through"


async def wait_started(gate: Gate) -> None:
    await trio.to_thread.run_sync(gate.started.wait, 10)


async def test_it_runs_in_one_thread_of_its_own_and_gives_the_result() -> None:
    writer = WriterThread("test", 4)
    names = {await writer.run(lambda: threading.current_thread().name) for _ in range(3)}
    assert names == {"p2pcity-test"}
    assert await writer.run(divmod, 17, 5) == (3, 2)
    await writer.close()


async def test_calls_run_in_the_order_of_the_callers() -> None:
    writer = WriterThread("test", 100)
    order: list[int] = []
    asked: list[int] = []

    async def ask(number: int) -> None:
        asked.append(number)
        await writer.run(order.append, number)

    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(ask, number)
    assert order == asked
    await writer.close()


async def test_an_error_reaches_its_caller_and_the_thread_goes_on() -> None:
    def fail() -> None:
        raise SyncFailedError("disk")

    writer = WriterThread("test", 4)
    for _ in range(2):
        with pytest.raises(SyncFailedError, match="disk"):
            await writer.run(fail)
    assert await writer.run(len, "abc") == 3
    await writer.close()


async def test_the_queue_is_bounded() -> None:
    writer = WriterThread("test", 2)
    gate = Gate()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run, gate)
        await wait_started(gate)
        for _ in range(3):
            nursery.start_soon(writer.run, len, "abc")
        await trio.testing.wait_all_tasks_blocked()
        assert writer.under_way == 2
        gate.open.set()
    assert writer.under_way == 0
    await writer.close()


async def test_a_cancelled_caller_waits_for_what_was_begun() -> None:
    writer = WriterThread("test", 1)
    gate = Gate()
    done: list[str] = []

    async def ask(scope: trio.CancelScope) -> None:
        with scope:
            done.append(await writer.run(gate))

    scope, waiting = trio.CancelScope(), trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, scope)
        await wait_started(gate)
        nursery.start_soon(ask, waiting)
        await trio.testing.wait_all_tasks_blocked()
        waiting.cancel()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert done == []
        gate.open.set()
    assert done == ["through"], "the one was finished, the other never begun"
    assert waiting.cancelled_caught
    await writer.close()


async def test_closing_waits_for_the_queue_and_refuses_what_comes_later() -> None:
    writer = WriterThread("test", 4)
    gate = Gate()
    order: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run, gate)
        await wait_started(gate)
        nursery.start_soon(writer.run, order.append, "late")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(writer.close)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(Unavailable):
            await writer.run(order.append, "too late")
        gate.open.set()
    assert order == ["late"]
    await writer.close()


async def test_the_event_loop_runs_while_the_disk_hangs() -> None:
    writer = WriterThread("test", 4)
    gate = Gate()
    turns = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run, gate)
        await wait_started(gate)
        for _ in range(100):
            await trio.lowlevel.checkpoint()
            turns += 1
        gate.open.set()
    assert turns == 100
    await writer.close()
