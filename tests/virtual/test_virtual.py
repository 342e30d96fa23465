"""The seeds of whole nodes that every change has to pass; more with `python -m tests.virtual`."""

import os
import subprocess
import sys
from collections.abc import Iterable
from typing import Final

import pytest

from tests.virtual.run import is_changing, is_pruning
from tests.virtual.summary import Summary, kept_seeds, run_seeds

SEEDS: Final = 2
SEEDS_LONG: Final = 300
SAME_SEEDS: Final = 10
KINDS_MIN: Final = 25
CHANGING_MIN: Final = 100
PRUNING: Final = 9
PRUNING_MIN: Final = 60


def _run(seeds: Iterable[int]) -> Summary:
    summary = Summary()
    for outcome in run_seeds(seeds, jobs=os.cpu_count() or 1):
        assert not outcome.failure, (
            f"python -m tests.virtual --seeds 1 --seed {outcome.seed} --trace\n{outcome.failure}"
        )
        summary.add(outcome)
    assert summary.counted >= 0.9 * summary.seeds, summary.uncounted
    return summary


@pytest.mark.scenario("D1", tier="T")
def test_seeds_hold() -> None:
    """Every seed holds all that must always hold, whether its city changes, prunes or neither."""
    seeds = [*range(SEEDS), PRUNING, *kept_seeds()]
    assert any(map(is_changing, seeds))
    assert is_pruning(PRUNING)
    summary = _run(seeds)
    assert summary.sums["changes"] > 0
    assert summary.struck["base fetched"] > 0


@pytest.mark.long
@pytest.mark.scenario("D1", "D4", "D7", "D10", tier="T")
def test_many_seeds_hold() -> None:
    """The same, of hundreds of seeds; in many of them the city changes, or prunes."""
    seeds = range(1000, 1000 + SEEDS_LONG)
    assert sum(map(is_changing, seeds)) >= CHANGING_MIN
    assert sum(map(is_pruning, seeds)) >= PRUNING_MIN
    summary = _run(seeds)
    assert len(summary.struck) >= KINDS_MIN
    print(summary.text(0.0))


@pytest.mark.long
def test_a_seed_is_one_run() -> None:
    """The same seeds leave the same traces, whatever order sets of strings have."""
    told = [_hashes(hash_seed, SAME_SEEDS) for hash_seed in ("1", "2")]
    assert told[0] == told[1]
    assert len(set(told[0])) == len(told[0]) == SAME_SEEDS


def _hashes(hash_seed: str, seeds: int) -> list[str]:
    """The lines `SEED HASH` of some seeds, run by a process of their own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.virtual", "--seeds", str(seeds), "--seed", "15", "--hashes"],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
        timeout=1800,
    )
    return [
        line for line in done.stdout.splitlines() if len(line.split()) == 2 and line[0].isdigit()
    ]
