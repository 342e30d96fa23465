"""Many seeds, in one process or several, and what they add up to."""

import multiprocessing
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from tests.virtual.run import Outcome, run_seed

SEEDS_FILE: Final = Path(__file__).parent / "seeds.txt"
"""Seeds that are run for ever: one a line, then why it is there."""

_SUMS: Final = ("acknowledged", "reads", "streamed", "expired", "blocks", "changes", "steps")


def kept_seeds() -> list[int]:
    """The seeds of `SEEDS_FILE`."""
    lines = SEEDS_FILE.read_text(encoding="utf-8").splitlines()
    return [int(line.split()[0]) for line in lines if line and not line.startswith("#")]


def run_seeds(seeds: Iterable[int], *, jobs: int = 1, is_traced: bool = False) -> Iterator[Outcome]:
    """Run `seeds` and give their outcomes in order."""
    run = partial(run_seed, is_traced=is_traced)
    if jobs <= 1:
        yield from map(run, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(run, seeds)


class Summary:
    """Sums over seeds; only counted ones count."""

    def __init__(self) -> None:
        self.seeds = 0
        self.counted = 0
        self.seconds = 0.0
        self.sums: Counter[str] = Counter()
        self.struck: Counter[str] = Counter()
        self.uncounted: list[int] = []
        self.failed: list[Outcome] = []

    def add(self, outcome: Outcome) -> None:
        """Take one seed in."""
        self.seeds += 1
        if outcome.failure:
            self.failed.append(outcome)
        if not outcome.is_counted:
            self.uncounted.append(outcome.seed)
            return
        self.counted += 1
        self.seconds += outcome.seconds
        self.sums.update({name: getattr(outcome, name) for name in _SUMS})
        self.struck.update(outcome.struck)

    def text(self, wall_s: float) -> str:
        """What to print at the end; `wall_s` is how long it took."""
        kinds = "\n".join(f"  {name:24} {count:>9}" for name, count in sorted(self.struck.items()))
        uncounted = " ".join(map(str, self.uncounted[:20])) or "none"
        sums = ", ".join(f"{self.sums[name]} {name}" for name in _SUMS)
        return (
            f"faults that really struck ({len(self.struck)} kinds):\n{kinds}\n"
            f"{self.seeds} seeds, {self.counted} counted (not counted: {uncounted}), "
            f"{len(self.failed)} failed\n"
            f"{sums}, {self.seconds:.0f} virtual seconds\n"
            f"{wall_s:.1f} s, {wall_s / max(self.seeds, 1):.1f} s a seed"
        )
