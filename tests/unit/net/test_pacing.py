"""Back-off, token buckets, log limits and demerits, with the clock in hand."""

import random

import pytest

from p2pcity.net.pacing import Backoff, Demerits, OncePer, TokenBucket


def test_backoff_doubles_up_to_its_maximum() -> None:
    backoff = Backoff(0.2, 10.0, random.Random(1))
    bounds = [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    for bound in bounds:
        assert bound / 2 <= backoff.next_s() <= bound


def test_backoff_begins_again() -> None:
    backoff = Backoff(0.2, 10.0, random.Random(1))
    for _ in range(9):
        backoff.next_s()
    backoff.reset()
    assert backoff.next_s() <= 0.2


def test_two_backoffs_do_not_stay_in_step() -> None:
    one, two = Backoff(1, 10, random.Random(1)), Backoff(1, 10, random.Random(2))
    assert [one.next_s() for _ in range(5)] != [two.next_s() for _ in range(5)]


def test_a_bucket_lets_a_burst_through_and_then_its_rate() -> None:
    bucket = TokenBucket(rate=10, burst=5, now_s=0)
    assert [bucket.take(0) for _ in range(6)] == [True] * 5 + [False]
    assert not bucket.take(0.05)
    assert bucket.take(0.1)
    assert not bucket.take(0.1)
    assert sum(bucket.take(100) for _ in range(20)) == 5


def test_a_bucket_ignores_a_clock_that_goes_back() -> None:
    bucket = TokenBucket(rate=1, burst=1, now_s=100)
    assert bucket.take(100)
    assert not bucket.take(50)
    assert not bucket.take(100)
    assert bucket.take(101)


def test_a_line_a_minute_for_each_key() -> None:
    once = OncePer(60)
    assert once.is_due("a", 0) == 0
    assert once.is_due("a", 1) is None
    assert once.is_due("b", 1) == 0
    assert once.is_due("a", 59) is None
    assert once.is_due("a", 60) == 2
    assert once.is_due("a", 61) is None


def test_the_keys_are_bounded() -> None:
    once = OncePer(60, keys_max=10)
    for number in range(1000):
        once.is_due(str(number), number)
    assert len(once) == 10


def test_demerits_halve() -> None:
    demerits = Demerits(half_life_s=60)
    assert demerits.add(40, now_s=0) == 40
    assert demerits.value(60) == pytest.approx(20)
    assert demerits.add(40, now_s=60) == pytest.approx(60)
    assert demerits.value(180) == pytest.approx(15)
