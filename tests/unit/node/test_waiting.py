"""Waits for transactions: each is told once, late ones stay missing, and there is a bound."""

import pytest
import trio
from trio.testing import MockClock

from p2pcity.errors import Unavailable
from p2pcity.node.waiting import Settled, Waiters

A, B, C = (bytes([number]) * 32 for number in (1, 2, 3))
DONE = Settled("committed", "", 7, 3)


async def test_a_wait_ends_with_the_last_of_its_transactions(autojump_clock: MockClock) -> None:
    waiters = Waiters()
    group = waiters.open([A, B])
    waiters.settle(A, DONE)
    assert not group.done.is_set()
    waiters.settle(B, Settled("expired", "expired"))
    begin_s = trio.current_time()
    found = await waiters.wait_settled(group, 5)
    assert found == {A: DONE, B: Settled("expired", "expired")}
    assert trio.current_time() == begin_s


async def test_what_does_not_end_in_time_is_missing_and_forgotten(
    autojump_clock: MockClock,
) -> None:
    waiters = Waiters()
    group = waiters.open([A, B])
    waiters.settle(A, DONE)
    begin_s = trio.current_time()
    assert await waiters.wait_settled(group, 5) == {A: DONE}
    assert trio.current_time() == begin_s + 5
    assert len(waiters) == 0
    waiters.settle(B, DONE)  # told too late: nobody is there


async def test_everyone_who_waits_for_a_transaction_is_told(autojump_clock: MockClock) -> None:
    waiters = Waiters()
    groups = [waiters.open([A]) for _ in range(3)]
    waiters.close(groups[0])
    waiters.settle(A, DONE)
    assert [group.settled for group in groups] == [{}, {A: DONE}, {A: DONE}]
    assert len(waiters) == 0


async def test_a_client_that_goes_away_is_forgotten(autojump_clock: MockClock) -> None:
    waiters = Waiters()
    group = waiters.open([A])
    with trio.move_on_after(1):
        await waiters.wait_settled(group, 60)
    assert len(waiters) == 0


async def test_the_number_of_waits_is_bounded() -> None:
    waiters = Waiters(ids_max=2)
    waiters.open([A, B])
    with pytest.raises(Unavailable):
        waiters.open([C])
    assert len(waiters) == 2


async def test_waiting_for_nothing_is_over_at_once(autojump_clock: MockClock) -> None:
    waiters = Waiters()
    assert await waiters.wait_settled(waiters.open([]), 5) == {}
    assert trio.current_time() < 5
