"""The threads of a node on virtual time: the same order, the same waits, a seeded duration.

`ledger.writer.WriterThread` makes its calls in another thread, one after the other, and tells
the caller a little later. So does `VirtualWriter`: the call itself is made at one instant, a
drawn time after its turn came, and the caller hears of it a drawn time after that. A node that
was killed makes no call any more; what its last call did to the file stays.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeVar, TypeVarTuple

import trio

from p2pcity.errors import Unavailable
from p2pcity.ledger import promises_file

ResultT = TypeVar("ResultT")
ArgumentTs = TypeVarTuple("ArgumentTs")


class Machine(Protocol):
    """The node's machine, as far as its threads meet it."""

    is_dead: bool

    def work_time(self, thread: str) -> float:
        """How long the next piece of work of this thread takes, in seconds."""

    def point(self, name: str) -> None:
        """Hear that a point is passed at which the node may be killed, or its disk fail."""

    def opened(self, thing: object) -> None:
        """Hear of a result: it may have to be closed when the node is killed, or be looked at."""

    @property
    def shields(self) -> dict[trio.CancelScope, None]:
        """Scopes that keep a cancelled task waiting; a killed node has none."""


class VirtualWriter:
    """What `WriterThread` is to the node."""

    def __init__(self, machine: Machine, name: str, queue_max: int) -> None:
        self._machine = machine
        self._name = name
        self._room = trio.Semaphore(queue_max)
        self._last = trio.Event()
        self._last.set()
        self._is_closed = False
        self.under_way = 0

    async def run(
        self, function: Callable[[*ArgumentTs], ResultT], *arguments: *ArgumentTs
    ) -> ResultT:
        """`WriterThread.run`."""
        try:
            self._room.acquire_nowait()
        except trio.WouldBlock:
            await self._room.acquire()
        try:
            if self._is_closed:
                raise Unavailable(f"the writer thread {self._name} is closed")
            self.under_way += 1
            try:
                return await shielded(self._machine, partial(self._take_turn, function, arguments))
            finally:
                self.under_way -= 1
        finally:
            self._room.release()

    async def _take_turn(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        machine = self._machine
        before, done = self._last, trio.Event()
        self._last = done
        await before.wait()
        await pass_time(machine.work_time(self._name))
        name = call_name(function, arguments)
        try:
            machine.point(f"before {name}")
            result = function(*arguments)
            machine.opened(result)
            machine.point(f"after {name}")
        finally:
            # The thread goes on with the next call, whenever the loop hears of this one.
            done.set()
            await pass_time(machine.work_time(self._name) / 2)
        return result

    async def close(self) -> None:
        """`WriterThread.close`."""
        self._is_closed = True
        await shielded(self._machine, self._last.wait)


async def run_in_thread(
    machine: Machine, function: Callable[[], Any], *, limiter: trio.CapacityLimiter
) -> Any:
    """`trio.to_thread.run_sync`: not cancelled once it has begun."""

    async def call() -> Any:
        await pass_time(machine.work_time("worker"))
        result = function()
        await pass_time(machine.work_time("worker") / 2)
        return result

    async with limiter:
        return await shielded(machine, call)


async def shielded(machine: Machine, call: Callable[[], Any]) -> Any:
    """Await `call` whatever is cancelled, unless the node is killed."""
    with trio.CancelScope(shield=not machine.is_dead) as scope:
        machine.shields[scope] = None
        try:
            return await call()
        finally:
            machine.shields.pop(scope, None)


async def pass_time(seconds: float) -> None:
    """Sleep; nothing at all is a turn of the scheduler."""
    if seconds > 0:
        await trio.sleep(seconds)
    else:
        await trio.lowlevel.checkpoint()


def call_name(function: Callable[..., Any], arguments: tuple[Any, ...]) -> str:
    """How a call is named in traces and by those who kill nodes: save, write, apply_blocks..."""
    inner = function.func if isinstance(function, partial) else function
    if inner is promises_file.write:
        # It raises nothing but OSError: the faults of `write`, the outbox's, do not fit.
        return "save_promises"
    name = getattr(inner, "__name__", "call")
    if name == "save":
        hard_state, entries, _ = arguments
        if entries:
            return "append"
        known = inner.__self__.hard_state  # type: ignore[attr-defined]  # it is SegmentLog's
        is_vote = (hard_state.term, hard_state.vote) != (known.term, known.vote)
        return "vote" if is_vote else "commit"
    return name
