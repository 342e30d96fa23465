"""Sync: every question and answer comes back."""

import pytest

from p2pcity.wire import sync
from p2pcity.wire.moment import Moment
from p2pcity.wire.raft import Entry

MOMENTS = (Moment("received", 1, "a"), Moment("applied", 2, None, 3, 4, 5, "committed"))


@pytest.mark.parametrize(
    "message",
    [
        sync.PendingQuery(bytes(16), 3, 10),
        sync.Fetch((bytes(32),)),
        sync.StatusQuery(),
        sync.StatusQuery(bytes(32)),
        sync.BlockQuery(7),
        sync.EntriesQuery(7),
    ],
)
def test_requests_come_back(message: sync.Request) -> None:
    assert sync.decode_request(sync.encode(message)) == message


@pytest.mark.parametrize(
    "message",
    [
        sync.PendingAnswer(bytes(16), 3, (bytes(32),)),
        sync.Fetched((b"a",)),
        sync.StatusAnswer(1, bytes(32), 2, 3, 4, "leader", "0.1.0", 5, 6),
        sync.StatusAnswer(1, bytes(32), 2, 3, 4, "leader", "0.1.0", 5, 6, (), 1_800),
        sync.StatusAnswer(1, bytes(32), 2, 3, 4, "leader", "0.1.0", 5, trace=()),
        sync.StatusAnswer(1, bytes(32), 2, 3, 4, "leader", "0.1.0", 5, trace=MOMENTS),
        sync.BlockAnswer(7, b"block"),
        sync.BlockAnswer(7, None),
        sync.EntriesAnswer(7, 2, 9, (Entry(1, 7, b"block"), Entry(2, 8))),
        sync.EntriesAnswer(7, 2, 6, ()),
    ],
)
def test_answers_come_back(message: sync.Answer) -> None:
    assert sync.decode_answer(sync.encode(message)) == message
