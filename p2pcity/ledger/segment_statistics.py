"""What a segment log did since it was opened."""

from collections import deque
from dataclasses import dataclass
from typing import Final

from p2pcity.ledger.durations import Durations, Histogram

_NEWEST_MAX: Final = 1000
# From a disk with its own battery to one that makes a leader lose its followers.
_BOUNDS_S: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts of syncs, bytes and files.

    `sync_ms` holds the newest 1,000 sync durations, `sync_durations` counts all of them.
    """

    syncs: int
    bytes_written: int
    files: int
    sync_ms: tuple[float, ...]
    sync_durations: Histogram

    def sync_ms_quantile(self, fraction: float) -> float:
        """Return the sync duration in ms that `fraction` (0.99: p99) stayed below; 0 for none."""
        ordered = sorted(self.sync_ms)
        return ordered[min(int(len(ordered) * fraction), len(ordered) - 1)] if ordered else 0.0


class SyncTimes:
    """How long syncs took: each of the newest ones, and all by size."""

    def __init__(self) -> None:
        self._newest_ms: deque[float] = deque(maxlen=_NEWEST_MAX)
        self.durations = Durations(_BOUNDS_S)

    def add(self, duration_ms: float) -> None:
        """Note one."""
        self._newest_ms.append(duration_ms)
        self.durations.add(duration_ms / 1000)

    def newest_ms(self) -> tuple[float, ...]:
        """Return the newest ones, in order."""
        return tuple(self._newest_ms)
