"""The simulator's seeds that every change has to pass; more with `python -m tests.sim`."""

import os
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

import pytest

from tests.sim.faults import KINDS
from tests.sim.run import ACKNOWLEDGED_MIN, STORM_S_MIN, Outcome
from tests.sim.summary import Summary, kept_seeds, run_seeds

SEEDS: Final = 300
SEEDS_LONG: Final = range(1000, 2000)
SAME_SEEDS: Final = 4
SAME_SEEDS_LONG: Final = 100


def test_seeds_hold() -> None:
    """Every seed holds all that must always hold, and every kind of fault really struck."""
    summary = _hold([*range(SEEDS), *kept_seeds()])
    missing = [kind for kind in KINDS if not summary.struck[kind]]
    assert not missing, f"never struck: {missing}"
    # What only a fault's aftermath shows: tails torn by lost power, and writes lost with them.
    assert summary.struck["torn tail"]
    assert summary.struck["unsynced lost"]
    assert summary.struck["fed by others"]
    assert summary.struck["damage in several places"]


@pytest.mark.long
def test_more_seeds_hold() -> None:
    """Some thousands more."""
    started_s = time.monotonic()
    print(_hold(SEEDS_LONG).text(time.monotonic() - started_s))


def test_a_seed_is_one_run() -> None:
    """The same seeds leave the same traces, whatever order sets of strings have."""
    _compare(SAME_SEEDS)


@pytest.mark.long
def test_a_hundred_seeds_are_one_run_each() -> None:
    """100 of 100, under two hash seeds."""
    _compare(SAME_SEEDS_LONG)


def test_only_full_seeds_count() -> None:
    """A seed in which little happened says nothing, and adds nothing to the sums."""
    full = Outcome(1, acknowledged=ACKNOWLEDGED_MIN, seconds=STORM_S_MIN, struck={"crash": 1})
    few = replace(full, seed=2, acknowledged=ACKNOWLEDGED_MIN - 1)
    short = replace(full, seed=3, seconds=STORM_S_MIN - 1)
    assert (ACKNOWLEDGED_MIN, STORM_S_MIN) == (200, 60)
    summary = Summary()
    for outcome in (full, few, short):
        summary.add(outcome)
    assert (summary.seeds, summary.counted) == (3, 1)
    assert summary.uncounted == [2, 3]
    assert (summary.acknowledged, summary.struck["crash"]) == (200, 1)


def _hold(seeds: Iterable[int]) -> Summary:
    summary = Summary()
    for outcome in run_seeds(seeds, jobs=os.cpu_count() or 1):
        replay = f"python -m tests.sim --seeds 1 --seed {outcome.seed} --trace"
        assert not outcome.failure, f"{replay}: {outcome.failure}"
        assert outcome.is_counted, f"{replay}: {outcome.acknowledged} acknowledged"
        assert outcome.drawn >= 20, f"{replay}: {outcome.drawn} kinds of fault drawn"
        summary.add(outcome)
    return summary


def _compare(count: int) -> None:
    told = [_hashes(hash_seed, count) for hash_seed in ("1", "2")]
    assert told[0] == told[1]
    assert len(set(told[0])) == len(told[0]) == count


def _hashes(hash_seed: str, count: int) -> list[str]:
    """The lines `SEED HASH` of so many seeds, run by a process of their own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.sim", "--seeds", str(count), "--hashes"],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
        timeout=60 + 20 * count,
    )
    return [
        line for line in done.stdout.splitlines() if len(line.split()) == 2 and line[0].isdigit()
    ]
