"""Durations counted by their size since the start, which costs the same however many there are."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many durations were at most so long, in s.

    `cumulative` has a count for each of `bounds_s`, and behind them that of all.
    """

    bounds_s: tuple[float, ...]
    cumulative: tuple[int, ...]
    sum_s: float


class Durations:
    """Counts durations into the buckets that `bounds_s` (rising, in s) make."""

    def __init__(self, bounds_s: Sequence[float]) -> None:
        self._bounds_s = tuple(bounds_s)
        assert self._bounds_s == tuple(sorted(set(self._bounds_s))), "bounds rise"
        self._counts = [0] * (len(self._bounds_s) + 1)
        self._sum_s = 0.0

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self._counts)

    def add(self, duration_s: float) -> None:
        """Count one."""
        self._counts[bisect_left(self._bounds_s, duration_s)] += 1
        self._sum_s += duration_s

    def histogram(self) -> Histogram:
        """Return what was counted so far."""
        return Histogram(self._bounds_s, tuple(accumulate(self._counts)), self._sum_s)
