"""What shows from outside of the event loop whether the node gets on: the watchdog's gauges.

Counters that the loop and the writer threads move, read by a thread that must not wait for any of
them. While the node starts, a call may rightly last for minutes (all of the views are looked at);
then what counts is that the process reads or writes.
"""

import resource
from collections.abc import Callable
from typing import Final, Protocol

import trio

from p2pcity.ledger.writer import WriterThread
from p2pcity.node.watchdog import Gauge

_BEATS_PER_LIMIT: Final = 20
LOOP: Final = "the event loop"


class Applying(Protocol):
    """As much of the apply loop as is looked at."""

    alarm: str

    @property
    def applied_index(self) -> int:
        """The newest entry that was applied."""

    @property
    def target_index(self) -> int:
        """The newest entry that is to be applied."""


class Vitals:
    """The gauges of one process; begun anew with each beginning of the node in it."""

    def __init__(
        self,
        *,
        limit_s: float,
        transferred_bytes: Callable[[], int],
        make_thread: Callable[[str, int], WriterThread] = WriterThread,
    ) -> None:
        """Take how long something may stand still, and who says what the process transferred."""
        self._beat_s = limit_s / _BEATS_PER_LIMIT
        self._transferred_bytes = transferred_bytes
        self._make_thread = make_thread
        self._beats = 0
        self._threads: tuple[WriterThread, ...] = ()
        self._apply: Applying | None = None
        self.is_starting = True
        # Whether the loop runs at all: between two beginnings there is none to beat.
        self._is_beating = False

    def begin(self) -> None:
        """Begin anew: the threads and parts of an earlier beginning are gone."""
        self._threads, self._apply, self.is_starting = (), None, True

    def make_thread(self, name: str, calls_max: int) -> WriterThread:
        """Make a writer thread and watch it."""
        thread = self._make_thread(name, calls_max)
        self._threads = (*self._threads, thread)
        return thread

    def follow(self, apply: Applying) -> None:
        """Watch that what is committed gets applied."""
        self._apply = apply

    async def beat(self) -> None:
        """Show that the event loop turns, for as long as it does."""
        self._is_beating = True
        try:
            while True:
                self._beats += 1
                await trio.sleep(self._beat_s)
        finally:
            self._is_beating = False

    def gauges(self) -> tuple[Gauge, ...]:
        """Return where everything stands; any thread may ask."""
        moved = self._transferred_bytes() if self.is_starting else 0
        found = [Gauge(LOOP, (self._beats, moved if not self._is_beating else 0))]
        for thread in self._threads:
            doing = thread.doing
            found.append(
                Gauge(
                    f"thread p2pcity-{thread.name}",
                    (thread.finished_count, moved),
                    thread.is_busy,
                    f"in {doing}" if doing else "",
                )
            )
        apply = self._apply
        if apply is not None:
            # With an alarm it waits for room on the disk, which a restart would not make.
            is_due = apply.target_index > apply.applied_index and not apply.alarm
            about = f"at index {apply.applied_index} of {apply.target_index}"
            found.append(Gauge("applying", apply.applied_index, is_due, about))
        return tuple(found)


def transferred_bytes() -> int:
    """How many bytes this process has read and written so far, from the page cache too.

    Where the kernel does not account for it: blocks and page faults, which come to the same.
    """
    try:
        with open("/proc/self/io", encoding="ascii") as file:
            fields = dict(line.split(": ") for line in file.read().splitlines())
    except OSError:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_inblock + used.ru_oublock + used.ru_majflt + used.ru_minflt
    return int(fields["rchar"]) + int(fields["wchar"])
