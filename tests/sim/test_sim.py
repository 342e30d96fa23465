"""The simulator's seeds that every change has to pass; more with `python -m tests.sim`."""

import os
import subprocess
import sys
from typing import Final

from tests.sim.summary import Summary, kept_seeds, run_seeds

SEEDS: Final = 40
KINDS_MIN: Final = 20


def test_seeds_hold() -> None:
    """Every seed holds all that must always hold, and at least 20 kinds of fault really struck."""
    summary = Summary()
    for outcome in run_seeds([*range(SEEDS), *kept_seeds()], jobs=os.cpu_count() or 1):
        assert not outcome.failure, f"python -m tests.sim --seeds 1 --seed {outcome.seed} --trace"
        assert outcome.is_counted, f"seed {outcome.seed}: {outcome.acknowledged} acknowledged"
        summary.add(outcome)
    assert sum(count > 0 for count in summary.struck.values()) >= KINDS_MIN


def test_a_seed_is_one_run() -> None:
    """The same seeds leave the same traces, whatever order sets of strings have."""
    told = [_hashes(hash_seed) for hash_seed in ("1", "2")]
    assert told[0] == told[1]
    assert len(set(told[0])) == len(told[0]) == 5


def _hashes(hash_seed: str) -> list[str]:
    """The lines `SEED HASH` of five seeds, run by a process of their own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.sim", "--seeds", "5", "--hashes"],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return [
        line for line in done.stdout.splitlines() if len(line.split()) == 2 and line[0].isdigit()
    ]
