"""The raft_log: indexes, the tail, and conflicts."""

import pytest

from p2pcity.errors import CorruptionError
from p2pcity.raft.raft_log import ENTRIES_MAX, RaftLog
from p2pcity.wire.raft import Entry, HardState
from tests.raft.disk import Disk


def _log(terms: list[int], *, commit: int = 0, applied: int = 0, tail: int = 10**6) -> RaftLog:
    disk = Disk()
    disk.preset(terms)
    disk.hard_state = HardState(max(terms, default=0), None, commit)
    return RaftLog(disk, applied=applied, tail_bytes_max=tail)


def _entries(first: int, terms: list[int], size: int = 1) -> list[Entry]:
    return [Entry(term, index, b"x" * size) for index, term in enumerate(terms, start=first)]


def test_an_empty_log() -> None:
    log = _log([])
    assert (log.first_index, log.last_index, log.last_term, log.commit) == (1, 0, 0, 0)
    assert log.term(0) == 0
    assert log.term(1) is None


@pytest.mark.parametrize(
    ("commit", "applied", "expected"), [(0, 0, 0), (2, 0, 2), (9, 0, 3), (1, 3, 3)]
)
def test_the_commit_index_on_disk_is_a_hint(commit: int, applied: int, expected: int) -> None:
    log = _log([1, 1, 2], commit=commit, applied=applied)
    assert log.commit == expected
    assert log.handed_out == log.applied == applied


def test_a_log_that_ends_before_what_was_applied_is_corrupt() -> None:
    with pytest.raises(CorruptionError) as caught:
        _log([1, 1], applied=3)
    assert caught.value.index == 3


@pytest.mark.parametrize(
    ("index", "term", "expected"),
    [(3, 2, True), (4, 2, True), (2, 2, False), (1, 3, True), (9, 1, False)],
)
def test_up_to_date(index: int, term: int, expected: bool) -> None:
    assert _log([1, 1, 2]).is_up_to_date(index, term) is expected


@pytest.mark.parametrize(
    ("index", "term", "expected"),
    [(9, 9, 7), (7, 3, 7), (7, 2, 5), (4, 2, 4), (7, 1, 3), (2, 1, 2), (7, 0, 0), (0, 9, 0)],
)
def test_last_index_below(index: int, term: int, expected: int) -> None:
    assert _log([1, 1, 1, 2, 2, 3, 3]).last_index_below(index, term) == expected


@pytest.mark.parametrize(
    ("first", "terms", "expected"),
    [
        (1, [1, 1, 2], None),
        (2, [1, 2, 2], 4),
        (2, [1, 3], 3),
        (4, [2], 4),
        (1, [5], 1),
        (4, [], None),
    ],
)
def test_first_conflict(first: int, terms: list[int], expected: int | None) -> None:
    assert _log([1, 1, 2]).first_conflict(_entries(first, terms)) == expected


@pytest.mark.parametrize("first", [2, 3, 4])
def test_append_cuts_what_was_there(first: int) -> None:
    log = _log([1, 1, 2])
    log.append(_entries(first, [3, 3]))
    assert (log.last_index, log.last_term, log.stable) == (first + 1, 3, first - 1)
    assert [entry.index for entry in log.take_unstable()] == [first, first + 1]
    log.append(_entries(first + 1, [4]))
    assert [entry.term for entry in log.take_unstable()] == [3, 4]


@pytest.mark.parametrize(("first", "terms"), [(1, [3]), (5, [3]), (4, [1]), (4, [3, 2])])
def test_what_append_refuses(first: int, terms: list[int]) -> None:
    log = _log([1, 1, 2], commit=1)
    with pytest.raises(AssertionError):
        log.append(_entries(first, terms))


def test_what_was_replaced_while_it_was_saved_is_not_stable() -> None:
    log = _log([1])
    log.append(_entries(2, [1, 1, 1]))
    assert [entry.index for entry in log.take_unstable()] == [2, 3, 4]
    log.append(_entries(5, [1]))
    log.append(_entries(4, [2]))
    log.mark_stable(4)
    assert log.stable == 3
    assert [(entry.index, entry.term) for entry in log.take_unstable()] == [(4, 2)]
    log.append(_entries(5, [2]))
    log.mark_stable(4)
    assert log.stable == 4


def test_a_log_cut_into_what_is_stable() -> None:
    log = _log([1, 1, 1])
    log.append(_entries(4, [1]))
    log.take_unstable()
    log.append(_entries(2, [2, 2, 2]))
    log.mark_stable(4)
    assert log.stable == 1
    assert [entry.term for entry in log.take_unstable()] == [2, 2, 2]


def test_entries_come_from_disk_and_tail() -> None:
    log = _log([1, 1, 1])
    log.append(_entries(4, [1, 1]))
    assert [entry.index for entry in log.entries(1, 6, 10**6)] == [1, 2, 3]
    assert [entry.index for entry in log.entries(4, 6, 10**6)] == [4, 5]
    assert [entry.index for entry in log.entries(4, 6, 0)] == [4]
    assert [entry.index for entry in log.entries(1, 4, 0)] == [1]


def test_the_tail_is_bounded_but_keeps_what_is_not_on_disk() -> None:
    log = _log([], tail=100)
    log.append(_entries(1, [1] * 50, size=10))
    assert len(log._tail) == 50
    log.take_unstable()
    log.mark_stable(40)
    assert log._tail_first <= 41
    assert log._tail_bytes == sum(len(entry.payload) for entry in log._tail)
    assert len(log._tail) < 50
    assert [entry.index for entry in log.take_unstable()] == list(range(41, 51))


def test_only_what_is_on_disk_is_handed_out() -> None:
    log = _log([])
    log.append(_entries(1, [1, 1, 1]))
    log.commit_to(3)
    assert log.take_committed(100) == []
    log.take_unstable()
    log.mark_stable(3)
    assert [entry.index for entry in log.take_committed(100)] == [1, 2, 3]
    assert log.take_committed(100) == []


def test_apply_is_given_no_more_than_it_can_take() -> None:
    log = _log([])
    log.append(_entries(1, [1] * 10, size=10))
    log.commit_to(10)
    log.take_unstable()
    log.mark_stable(10)
    assert [entry.index for entry in log.take_committed(25)] == [1, 2]
    assert [entry.index for entry in log.take_committed(25)] == [3]  # at least one, with room
    assert log.take_committed(25) == []
    log.mark_applied(1)
    assert log.take_committed(25) == []
    log.mark_applied(2)
    assert [entry.index for entry in log.take_committed(25)] == [4]
    log.mark_applied(4)
    assert [entry.index for entry in log.take_committed(5)] == [5]
    for wrong in (3, 6):
        with pytest.raises(AssertionError):
            log.mark_applied(wrong)


def test_empty_entries_are_bounded_too() -> None:
    log = _log([1] * (ENTRIES_MAX + 10), commit=ENTRIES_MAX + 10)
    assert len(log.take_committed(2**40)) == ENTRIES_MAX
    assert log.take_committed(2**40) == []
    log.mark_applied(ENTRIES_MAX)
    assert len(log.take_committed(2**40)) == 10
