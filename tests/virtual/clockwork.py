"""trio on virtual time under a seeded scheduler: the one place that reaches into trio.

`_ALLOW_DETERMINISTIC_SCHEDULING` and `_r` are private to trio, and so is the queue of tasks that
may run, from which the tasks of a paused node are taken. constraints.txt pins trio.
"""

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Final, Protocol
from unittest import mock

import trio
from trio._core import _run
from trio.testing import MockClock

# So many steps of tasks at one instant are no work any more: something turns without end.
_STEPS_AT_ONCE_MAX: Final = 100_000


class Process(Protocol):
    """What the scheduler knows of a node: whose tasks must not run now."""

    is_paused: bool
    held: list[trio.lowlevel.Task]

    def step(self) -> None:
        """Hear that one of its tasks is about to run."""


PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)
"""Whose task this is; inherited by the tasks that it starts."""


class Stuck(AssertionError):
    """The nodes turned without end, and no time passed."""


class _Scheduler(trio.abc.Instrument):
    """Counts the steps of each node, and holds back those of a node that is paused."""

    def __init__(self) -> None:
        self.steps = 0
        self._looked_s = -1.0
        self.is_stuck = False
        self.scope = trio.CancelScope()

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        process = task.context.get(PROCESS)
        if process is not None and process.is_paused:
            # It was queued just now, as the last one.
            _queue().pop()
            process.held.append(task)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps += 1
        process = task.context.get(PROCESS)
        if process is not None:
            process.step()
        if self.steps % _STEPS_AT_ONCE_MAX == 0:
            now_s = trio.current_time()
            if now_s == self._looked_s:
                self.is_stuck = True
                self.scope.cancel()
            self._looked_s = now_s


def let_run(tasks: list[trio.lowlevel.Task]) -> None:
    """Queue tasks that were held back."""
    _queue().extend(tasks)
    tasks.clear()


def _queue() -> Any:
    """trio's queue of the tasks that may run."""
    return _run.GLOBAL_RUN_CONTEXT.runner.runq


def run_virtual(seed: int, main: Callable[[], Awaitable[None]]) -> int:
    """Run `main` to its end on virtual time; how many steps its tasks took.

    Raises what `main` raises, and Stuck when time stands still while tasks run.
    """
    scheduler = _Scheduler()

    async def run_bounded() -> None:
        with scheduler.scope:
            await main()
        if scheduler.is_stuck:
            raise Stuck(f"{_STEPS_AT_ONCE_MAX} steps at {trio.current_time():.6f} s")

    run: Any = _run
    before = run._r.getstate()
    with mock.patch.object(run, "_ALLOW_DETERMINISTIC_SCHEDULING", True):
        run._r.seed(seed)
        try:
            trio.run(
                run_bounded,
                clock=MockClock(autojump_threshold=0),
                instruments=[scheduler],
                strict_exception_groups=True,
            )
        finally:
            run._r.setstate(before)
    return scheduler.steps
