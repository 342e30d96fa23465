"""The memory of moments: what it tells, and that it stays within its bounds."""

from itertools import count

from p2pcity.node.moments import Moments
from p2pcity.wire.moment import MOMENTS_MAX, Moment
from p2pcity.wire.sync import StatusAnswer, decode_answer, encode

A, B, C = (bytes([number]) * 32 for number in range(3))


def make(*, transactions_max: int = 100, bytes_max: int = 1 << 20) -> Moments:
    clock = count(1)
    return Moments(lambda: next(clock), transactions_max=transactions_max, bytes_max=bytes_max)


def test_a_way_through_a_leader_in_order() -> None:
    moments = make()
    moments.note("received", [A], time_us=0, peer="peer")
    moments.note("admitted", [A])
    moments.note("proposed", [A], term=2, index=7, height=5)
    moments.committed(6, 7)
    moments.applied(7, 5, [(A, "committed"), (B, "expired")])
    moments.note("answered", [A], outcome="committed")
    assert moments.of(A) == (
        Moment("received", 0, "peer"),
        Moment("admitted", 1),
        Moment("proposed", 2, None, 2, 7, 5),
        Moment("committed", 3, None, None, 7, 5),
        Moment("applied", 4, None, None, 7, 5, "committed"),
        Moment("answered", 5, outcome="committed"),
    )
    assert [moment.stage for moment in moments.of(B)] == ["committed", "applied"]
    assert moments.of(B)[-1].outcome == "expired"
    assert moments.of(C) == ()


def test_a_commit_that_was_not_seen_is_not_made_up() -> None:
    moments = make()
    moments.committed(5, 9)
    moments.committed(10, 12)
    moments.applied(4, 1, [(A, "committed")])
    assert [moment.stage for moment in moments.of(A)] == ["applied"]
    moments.applied(12, 2, [(B, "committed")])
    assert moments.of(B)[0] == Moment("committed", 2, None, None, 12, 2)


def test_commits_are_remembered_within_a_bound_and_the_oldest_is_then_unknown() -> None:
    moments = make()
    for index in range(1, 2000):
        moments.committed(index, index)
    moments.applied(1, 1, [(A, "committed")])
    moments.applied(1999, 2, [(B, "committed")])
    assert [moment.stage for moment in moments.of(A)] == ["applied"]
    assert [moment.stage for moment in moments.of(B)] == ["committed", "applied"]


def test_the_longest_known_goes_first() -> None:
    moments = make(transactions_max=2)
    moments.note("admitted", [A, B])
    moments.note("gossiped", [A])
    moments.note("admitted", [C])
    assert (moments.of(A), len(moments)) == ((), 2)
    assert moments.of(B)
    assert moments.of(C)


def test_bytes_are_bounded_and_given_back() -> None:
    moments = make(transactions_max=1_000_000, bytes_max=100_000)
    for number in range(5_000):
        id_ = number.to_bytes(32, "big")
        moments.note("received", [id_], peer="p" * 52)
        moments.note("admitted", [id_])
    held = len(moments)
    assert 50 < held < 200
    # Many that share their moments take less each.
    moments.note("admitted", [number.to_bytes(32, "little") for number in range(1, 5_000)])
    assert held < len(moments) < 300


def test_what_is_offered_for_ever_keeps_room_for_its_end() -> None:
    moments = make()
    moments.note("received", [A])
    for _ in range(1_000):
        moments.note("forwarded", [A], peer="leader")
        moments.note("refused", [A], peer="leader", outcome="queue-full")
    moments.committed(1, 1)
    moments.applied(1, 1, [(A, "committed")])
    stages = [moment.stage for moment in moments.of(A)]
    assert len(stages) <= MOMENTS_MAX
    assert stages[0] == "received"
    assert stages[-2:] == ["committed", "applied"]
    # So they always fit into an answer.
    answer = StatusAnswer(1, A, 1, 1, 1, "leader", "0", 1, trace=moments.of(A))
    assert decode_answer(encode(answer)) == answer
