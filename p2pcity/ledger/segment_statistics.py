"""What a segment log did since it was opened."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts of syncs, bytes and files; `sync_ms` holds the newest 1,000 sync durations."""

    syncs: int
    bytes_written: int
    files: int
    sync_ms: tuple[float, ...]

    def sync_ms_quantile(self, fraction: float) -> float:
        """Return the sync duration in ms that `fraction` (0.99: p99) stayed below; 0 for none."""
        ordered = sorted(self.sync_ms)
        return ordered[min(int(len(ordered) * fraction), len(ordered) - 1)] if ordered else 0.0
