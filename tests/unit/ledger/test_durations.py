"""Durations in buckets: a bound belongs to its bucket, and the last one has everything."""

import pytest

from p2pcity.ledger.durations import Durations
from p2pcity.ledger.segment_statistics import SyncTimes


def test_each_duration_is_in_every_bucket_that_it_fits_into() -> None:
    durations = Durations((0.001, 0.01, 0.1))
    for duration_s in (0.0, 0.001, 0.0011, 0.1, 7.0):
        durations.add(duration_s)
    found = durations.histogram()
    assert found.bounds_s == (0.001, 0.01, 0.1)
    assert found.cumulative == (2, 3, 4, 5)
    assert found.sum_s == pytest.approx(7.1021)
    assert durations.count == 5


def test_what_was_taken_does_not_change_afterwards() -> None:
    durations = Durations((1.0,))
    before = durations.histogram()
    durations.add(0.5)
    assert before.cumulative == (0, 0)
    assert durations.histogram().cumulative == (1, 1)


def test_all_syncs_are_counted_and_the_newest_are_kept() -> None:
    times = SyncTimes()
    for number in range(1500):
        times.add(float(number))
    assert times.durations.count == 1500
    assert times.newest_ms() == tuple(map(float, range(500, 1500)))
    # 0 to 1,000 ms are at most 1 s.
    found = times.durations.histogram()
    assert found.cumulative[found.bounds_s.index(1.0)] == 1001
