"""Many seeds, in one process or several, and what they add up to."""

import gc
import multiprocessing
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Final

from tests.planted import PLANTED
from tests.sim.run import Outcome, run_seed

SEEDS_FILE: Final = Path(__file__).parent.parent / "seeds.txt"
"""Seeds that are run for ever: one a line, then why it is there."""


def kept_seeds() -> list[int]:
    """The seeds of `SEEDS_FILE`."""
    lines = SEEDS_FILE.read_text(encoding="utf-8").splitlines()
    return [int(line.split()[0]) for line in lines if line and not line.startswith("#")]


def run_seeds(
    seeds: Iterable[int], *, jobs: int = 1, is_traced: bool = False, planted: str | None = None
) -> Iterator[Outcome]:
    """Run `seeds` and give their outcomes in order; `planted` names a bug to switch on."""
    run = partial(_run_one, is_traced=is_traced, planted=planted)
    if jobs <= 1:
        yield from map(run, seeds)
        return
    # Few objects of a seed are in cycles: looking for them less often saves a tenth of the time.
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs, gc.set_threshold, (50_000, 20, 100)) as pool:
        yield from pool.imap(run, seeds, chunksize=4)


def _run_one(seed: int, *, is_traced: bool, planted: str | None) -> Outcome:
    with PLANTED[planted].plant() if planted else nullcontext():
        return run_seed(seed, is_traced=is_traced)


class Summary:
    """Sums over seeds; only counted ones count."""

    def __init__(self) -> None:
        self.seeds = 0
        self.counted = 0
        self.acknowledged = 0
        self.reads = 0
        self.expired = 0
        self.seconds = 0.0
        self.events = 0
        self.struck: Counter[str] = Counter()
        self.drawn: list[int] = []
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
        self.acknowledged += outcome.acknowledged
        self.reads += outcome.reads
        self.expired += outcome.expired
        self.seconds += outcome.seconds
        self.events += outcome.events
        self.struck.update(outcome.struck)
        self.drawn.append(outcome.drawn)

    def text(self, wall_s: float) -> str:
        """What to print at the end; `wall_s` is how long it took."""
        kinds = "\n".join(f"  {name:24} {count:>9}" for name, count in sorted(self.struck.items()))
        uncounted = " ".join(map(str, self.uncounted[:20])) or "none"
        return (
            f"faults that really struck ({len(self.struck)} kinds):\n{kinds}\n"
            f"{min(self.drawn, default=0)} to {max(self.drawn, default=0)} kinds drawn by a seed\n"
            f"{self.seeds} seeds, {self.counted} counted (not counted: {uncounted}), "
            f"{len(self.failed)} failed\n"
            f"{self.acknowledged} acknowledged, {self.reads} reads checked, "
            f"{self.expired} expired, {self.seconds:.0f} virtual seconds, {self.events} events\n"
            f"{wall_s:.1f} s, {self.seeds / max(wall_s, 0.001):.1f} seeds/s"
        )
