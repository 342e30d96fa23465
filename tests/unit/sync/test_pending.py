"""What a node asks its peers for: cursors, sessions, and what a peer's answer may do to them."""

import pytest

from p2pcity.sync.pending import PendingSync
from p2pcity.wire.limits import SYNC_IDS_MAX
from p2pcity.wire.sync import PendingAnswer

A, B = bytes([1]) * 16, bytes([2]) * 16


def ids(*numbers: int) -> tuple[bytes, ...]:
    return tuple(number.to_bytes(32, "big") for number in numbers)


def nothing(_id: bytes) -> bool:
    return False


def test_the_first_question_starts_at_zero() -> None:
    query = PendingSync().query("peer")
    assert (query.since, query.limit) == (0, SYNC_IDS_MAX)


def test_the_cursor_moves_with_the_answer_and_only_forward() -> None:
    sync = PendingSync()
    assert sync.missing("peer", PendingAnswer(A, 5, ids(1, 2)), nothing) == ids(1, 2)
    assert sync.query("peer").since == 5
    sync.missing("peer", PendingAnswer(A, 3, ()), nothing)
    assert sync.query("peer").since == 5


def test_what_is_known_is_not_fetched_and_nothing_twice() -> None:
    sync = PendingSync()
    known = set(ids(1, 3))
    answer = PendingAnswer(A, 4, ids(1, 2, 3, 2))
    assert sync.missing("peer", answer, known.__contains__) == ids(2)


def test_a_new_session_starts_the_count_anew() -> None:
    sync = PendingSync()
    sync.missing("peer", PendingAnswer(A, 900, ()), nothing)
    assert sync.missing("peer", PendingAnswer(B, 2, ids(7)), nothing) == ids(7)
    query = sync.query("peer")
    assert (query.session, query.since) == (B, 2)


def test_forgetting_a_peer_starts_from_its_beginning() -> None:
    sync = PendingSync()
    sync.missing("peer", PendingAnswer(A, 9, ()), nothing)
    sync.forget("peer")
    assert sync.query("peer").since == 0


@pytest.mark.parametrize("count", [1, 3])
def test_the_memory_of_peers_is_bounded(count: int) -> None:
    sync = PendingSync(peers_max=count)
    for number in range(count + 2):
        sync.missing(f"peer{number}", PendingAnswer(A, 1, ()), nothing)
    remembered = [n for n in range(count + 2) if sync.query(f"peer{n}").since]
    assert len(remembered) == count
