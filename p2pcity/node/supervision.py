"""One process under a service manager: what it is told, from the start to the end.

STATUS is one line that stays true: the event loop says it anew once a second when it has changed,
and while the loop hangs the watcher says so instead.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import structlog
import trio

from p2pcity.errors import P2PCityError
from p2pcity.node.systemd import Notifier
from p2pcity.node.vitals import Vitals, transferred_bytes
from p2pcity.node.watchdog import LIMIT_OF_TIMEOUT
from p2pcity.node.watcher import Watcher

_STATUS_PERIOD_S: Final = 1.0
_AGAIN_S: Final = 0.1
_TRIES: Final = 50
# Without WatchdogSec= a start is watched all the same, by the limit of the unit that comes along.
_WATCHDOG_S: Final = 60.0

_logger = structlog.get_logger("p2pcity.node.supervision")


class Supervision:
    """Says where the node is in its life, and has it watched. Without a service manager, mute."""

    def __init__(self, notifier: Notifier | None = None) -> None:
        """Take whom to tell; nobody by default."""
        self._notifier = notifier or Notifier()
        self._limit_s = LIMIT_OF_TIMEOUT * (self._notifier.watchdog_s or _WATCHDOG_S)
        self.vitals = Vitals(limit_s=self._limit_s, transferred_bytes=transferred_bytes)
        self._is_silent = False

    @property
    def is_heard(self) -> bool:
        """Whether there is a service manager, which sees to the node's starts."""
        return self._notifier.is_heard

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Have the process watched from another thread, where there is somebody to be told."""
        if not self._notifier.is_heard:
            yield
            return
        watcher = Watcher(self._notifier, self.vitals, limit_s=self._limit_s)
        watcher.start()
        try:
            yield
        finally:
            watcher.close()

    def begin(self) -> None:
        """The node begins, for the first time or again; called in its event loop."""
        self.vitals.begin()
        self._is_silent = False
        trio.lowlevel.spawn_system_task(self.vitals.beat)
        self.say("starting: opening the ledger")

    def say(self, what: str) -> None:
        """Say what the node is at; for what lasts longer than a moment."""
        self._notifier.status(what)

    async def ready(self, line: str) -> None:
        """The node serves and has applied its own log; returns once that was heard, 5 s at most."""
        self.vitals.is_starting = False
        await self._insist(line, "READY=1")

    async def report(self, line: Callable[[], str]) -> None:
        """Keep the status line as `line()` has it, for as long as the node serves."""
        while not self._is_silent:
            self._notifier.status(line())
            await trio.sleep(_STATUS_PERIOD_S)

    async def reloading(self) -> None:
        """The settings are read anew; `ready` ends that."""
        clock_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        await self._insist("reading the settings anew", "RELOADING=1", f"MONOTONIC_USEC={clock_us}")

    def stopping(self, what: str) -> None:
        """The node is about to end; `report` is silent from here on."""
        self._is_silent = True
        self._notifier.status(what, "STOPPING=1")

    def failed(self, error: P2PCityError) -> None:
        """The node ended with an error: what `systemctl status` shows from here on."""
        self._notifier.status(f"stopped with exit code {error.exit_code}: {error}", "STOPPING=1")

    async def _insist(self, text: str, *lines: str) -> None:
        for _ in range(_TRIES):
            if self._notifier.status(text, *lines):
                return
            await trio.sleep(_AGAIN_S)
        _logger.warning("not_notified", reason=f"the service manager does not take {lines[0]}")
