"""A thread of its own for a file, so that a slow disk never stops the event loop.

Jobs run one after the other in the order in which `run` was called. The thread is no daemon
thread: the interpreter waits for a job that writes. It ends with `close`, or by itself once
the main thread has ended.
"""

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, TypeVarTuple

import trio

from p2pcity.errors import Unavailable

_MAIN_THREAD_CHECK_S = 1.0

ResultT = TypeVar("ResultT")
ArgumentTs = TypeVarTuple("ArgumentTs")


class _Job:
    """One call, and how it ended."""

    __slots__ = ("arguments", "done", "error", "function", "result", "token")

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.function = function
        self.arguments = arguments
        self.token = trio.lowlevel.current_trio_token()
        self.done = trio.Event()
        self.result: Any = None
        self.error: BaseException | None = None

    def carry_out(self) -> None:
        """Make the call and wake the caller; in the writer's thread."""
        try:
            self.result = self.function(*self.arguments)
        except BaseException as error:  # noqa: BLE001 - the root: the caller gets it
            self.error = error
        # When the event loop has ended meanwhile, nobody waits any more.
        with suppress(trio.RunFinishedError):
            self.token.run_sync_soon(self.done.set)


class WriterThread:
    """Runs blocking calls in order, in one thread; at most `queue_max` are under way."""

    def __init__(self, name: str, queue_max: int) -> None:
        """Start the thread; `name` shows in stack dumps."""
        self._name = name
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._room = trio.Semaphore(queue_max)
        self._under_way = 0
        # Each is written by one thread alone: the caller's, then twice the writer's own.
        self._queued_count = self._finished_count = 0
        self._present: _Job | None = None
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name=f"p2pcity-{name}", daemon=False)
        self._thread.start()

    @property
    def under_way(self) -> int:
        """How many calls are in the queue or running."""
        return self._under_way

    @property
    def name(self) -> str:
        """What the thread writes; it is `p2pcity-NAME` in stack dumps."""
        return self._name

    @property
    def finished_count(self) -> int:
        """How many calls have ended; any thread may ask."""
        return self._finished_count

    @property
    def is_busy(self) -> bool:
        """Whether a call is in the queue or running, as the thread itself sees it."""
        return self._queued_count > self._finished_count

    @property
    def doing(self) -> str:
        """The name of the function that runs, empty between two; any thread may ask."""
        job = self._present
        return "" if job is None else getattr(job.function, "__qualname__", "a call")

    async def run(
        self, function: Callable[[*ArgumentTs], ResultT], *arguments: *ArgumentTs
    ) -> ResultT:
        """Return `function(*arguments)`, called in the thread; what it raises is raised here.

        Waits while `queue_max` calls are under way. A caller that is cancelled before its call
        is in the queue is cancelled; afterwards the call is made and waited for, so that no
        caller goes on while the disk still changes under it. Raises Unavailable once closed.
        """
        try:
            # Without a wait where there is room: calls stay in the order of the callers.
            self._room.acquire_nowait()
        except trio.WouldBlock:
            await self._room.acquire()
        try:
            if self._is_closed:
                raise Unavailable(f"the writer thread {self._name} is closed")
            job = _Job(function, arguments)
            self._under_way += 1
            self._queued_count += 1
            self._jobs.put(job)
            with trio.CancelScope(shield=True):
                await job.done.wait()
            self._under_way -= 1
        finally:
            self._room.release()
        if job.error is not None:
            try:
                raise job.error
            finally:
                # The traceback holds this frame, and the frame the error: break the circle.
                del job
        result: ResultT = job.result
        return result

    async def close(self) -> None:
        """Let the calls in the queue finish, then end the thread; waits for both."""
        if not self._is_closed:
            self._is_closed = True
            self._jobs.put(None)
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._thread.join)

    def _work(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=_MAIN_THREAD_CHECK_S)
            except queue.Empty:
                if threading.main_thread().is_alive():
                    continue
                return
            if job is None:
                return
            self._present = job
            try:
                job.carry_out()
            finally:
                self._present = None
                self._finished_count += 1
            del job
