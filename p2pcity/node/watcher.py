"""The thread that feeds the service manager's watchdog, and says why when it does not.

It stands outside of the event loop, so that a loop that hangs or spins still has somebody to
accuse it. What stands still beyond three quarters of WatchdogSec is written to the log with the
stacks of all threads; one look later, when that is written, the service manager is told to act on
it (WATCHDOG=trigger: SIGABRT, then the restart). A process in which not even this thread gets on
is not fed either, and ends a little later, with the stacks that `faulthandler` writes on SIGABRT.
"""

import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import structlog

from p2pcity.node.systemd import Notifier
from p2pcity.node.vitals import LOOP, Vitals
from p2pcity.node.watchdog import Judge, Stall, Verdict

_LOOKS_PER_LIMIT: Final = 45
_FRAMES_MAX: Final = 10
# `journalctl -o json` leaves out what is longer than 4096 bytes; all stacks come with SIGABRT.
_STACKS_BYTES_MAX: Final = 3000
_CLOSE_S: Final = 2.0

_logger = structlog.get_logger("p2pcity.node.watcher")


class Watcher:
    """Looks at the vitals once in a while, and feeds the watchdog as long as all of them move."""

    def __init__(
        self,
        notifier: Notifier,
        vitals: Vitals,
        *,
        limit_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the limit in s; `clock` (s) is asked at each look."""
        self._notifier = notifier
        self._vitals = vitals
        self._period_s = limit_s / _LOOKS_PER_LIMIT
        self._judge = Judge(limit_s=limit_s, period_s=self._period_s)
        self._clock = clock
        self._told: Verdict = Verdict.MOVES
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="p2pcity-watcher", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """End the thread; waits for it, 2 s at most."""
        self._ended.set()
        self._thread.join(_CLOSE_S)

    def look(self) -> Verdict:
        """Look once, and do what follows."""
        verdict, stalls = self._judge.look(self._clock(), self._vitals.gauges())
        if verdict is Verdict.STANDS:
            self._accuse(stalls)
        else:
            self._feed()
            if verdict is Verdict.SLOW and self._told is Verdict.MOVES:
                _logger.warning("stands_still", reason=_reason(stalls))
            elif verdict is Verdict.MOVES and self._told is not Verdict.MOVES:
                _logger.warning("goes_on")
        if any(stall.gauge.name == LOOP for stall in stalls):
            # Otherwise the loop itself says where the node stands.
            self._notifier.status(_reason(stalls))
        self._told = verdict
        return verdict

    def _feed(self) -> None:
        if self._vitals.is_starting:
            # The watchdog begins with READY=1; until then it is the time-out of the start that
            # counts, and it is put off for as long as the start gets on.
            extension_us = round(self._judge.limit_s * 1_000_000)
            self._notifier.send("WATCHDOG=1", f"EXTEND_TIMEOUT_USEC={extension_us}")
        else:
            self._notifier.send("WATCHDOG=1")

    def _accuse(self, stalls: Sequence[Stall]) -> None:
        if self._told is Verdict.STANDS:
            self._notifier.send("WATCHDOG=trigger")
            return
        _logger.critical(
            "watchdog_not_fed",
            reason=_reason(stalls),
            remedy="the service manager restarts this node; if it happens again, report the stacks",
            stacks=stacks([stall.gauge.name for stall in stalls]),
        )

    def _work(self) -> None:
        while not self._ended.wait(self._period_s):
            self.look()


def _reason(stalls: Sequence[Stall]) -> str:
    return "; ".join(str(stall) for stall in stalls)


def stacks(accused: Sequence[str] = ()) -> dict[str, list[str]]:
    """Return threads and their innermost frames, the innermost last, as many as a line may hold.

    Those come first whose names are in one of `accused`, then the one that turns the loop.
    """
    frames = sys._current_frames()
    main = threading.main_thread()
    threads = [thread for thread in threading.enumerate() if thread.ident in frames]
    threads.sort(key=lambda one: (not any(one.name in text for text in accused), one is not main))
    found: dict[str, list[str]] = {}
    room = _STACKS_BYTES_MAX
    for thread in threads:
        assert thread.ident is not None, "it has frames, so it runs"
        summary = traceback.extract_stack(frames[thread.ident])[-_FRAMES_MAX:]
        lines = [f"{Path(item.filename).name}:{item.lineno} {item.name}" for item in summary]
        room -= len(thread.name) + sum(len(line) + 4 for line in lines)
        if room < 0:
            break
        found[thread.name] = lines
    return found
