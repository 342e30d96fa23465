"""When a process that still runs does not get on any more: the rule, without clock and thread.

A gauge counts something that has to move while it is due. What does not move for longer than the
limit stands still. Time is counted from look to look: a process that was stopped as a whole
(SIGSTOP, a frozen machine) could not move, and is not blamed for it.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

# Of the service manager's time-out: what stands still for so long ends the process. The rest is
# for the log, and for a watcher that is late.
LIMIT_OF_TIMEOUT: Final = 0.75
# Of the limit: from here on it is said.
_TELL_OF_LIMIT: Final = 1 / 3
# A look that comes later than so many periods counts as so many.
_LATE_PERIODS: Final = 3


@dataclass(frozen=True, slots=True)
class Gauge:
    """One thing that has to get on: `count` differs from before whenever it did.

    `is_due` is false while there is nothing for it to do.
    """

    name: str
    count: Hashable
    is_due: bool = True
    about: str = ""


@dataclass(frozen=True, slots=True)
class Stall:
    """A due gauge that has not moved for `age_s` s."""

    gauge: Gauge
    age_s: float

    def __str__(self) -> str:
        about = f" ({self.gauge.about})" if self.gauge.about else ""
        return f"{self.gauge.name} stands still for {self.age_s:.0f} s{about}"


class Verdict(Enum):
    """What a look found."""

    MOVES = "moves"
    SLOW = "slow"
    """Something has not moved for a third of the limit: to be told, nothing to be done."""
    STANDS = "stands"
    """Something stands still beyond the limit: the watchdog is not fed."""


class Judge:
    """Looks at gauges again and again and remembers since when each has not moved."""

    def __init__(self, *, limit_s: float, period_s: float) -> None:
        """Take the limit in s, and how often looks are meant to come, in s."""
        self.limit_s = limit_s
        self._step_max_s = _LATE_PERIODS * period_s
        self._last_look_s: float | None = None
        self._counts: dict[str, Hashable] = {}
        self._ages_s: dict[str, float] = {}

    def look(self, now_s: float, gauges: Iterable[Gauge]) -> tuple[Verdict, tuple[Stall, ...]]:
        """Return the verdict, and what it rests on, the oldest first."""
        last_s = now_s if self._last_look_s is None else self._last_look_s
        step_s = min(max(0.0, now_s - last_s), self._step_max_s)
        self._last_look_s = now_s
        counts, ages_s, stalls = {}, {}, []
        for gauge in gauges:
            has_moved = self._counts.get(gauge.name, _NOTHING) != gauge.count
            age_s = 0.0 if has_moved or not gauge.is_due else self._ages_s[gauge.name] + step_s
            counts[gauge.name], ages_s[gauge.name] = gauge.count, age_s
            if age_s > self.limit_s * _TELL_OF_LIMIT:
                stalls.append(Stall(gauge, age_s))
        # A gauge that is gone is forgotten.
        self._counts, self._ages_s = counts, ages_s
        stalls.sort(key=lambda stall: -stall.age_s)
        if not stalls:
            return Verdict.MOVES, ()
        is_over = stalls[0].age_s > self.limit_s
        return Verdict.STANDS if is_over else Verdict.SLOW, tuple(stalls)


_NOTHING: Final = object()
