"""What a leader knows about a peer."""

import pytest

from p2pcity.errors import ConfigError
from p2pcity.raft import RaftConfig
from p2pcity.raft.progress import Progress, ProgressState

CONFIG = RaftConfig(id="a", in_flight_messages_max=3, append_bytes_max=10, in_flight_bytes_max=20)


def _replicating(match: int) -> Progress:
    progress = Progress(match=0, next_index=match + 1, tick=0)
    progress.note_accepted(match, 0)
    assert progress.state is ProgressState.REPLICATE
    assert progress.next == match + 1
    return progress


def test_a_probe_is_sent_once() -> None:
    progress = Progress(match=0, next_index=5, tick=0)
    assert not progress.is_paused(CONFIG)
    progress.note_sent(9, 3, 0)
    assert progress.is_paused(CONFIG)
    assert progress.next == 5
    assert not progress.is_retry_due(1, CONFIG, 1)
    assert progress.is_retry_due(2, CONFIG, 1)


def test_who_lacks_what_was_pruned_is_asked_again() -> None:
    """The leader's log begins at 6 now; the peer rejected everything above 2."""
    progress = Progress(match=0, next_index=9, tick=0)
    progress.note_sent(9, 3, 0)
    assert progress.note_rejected(8, 2, 1)
    assert progress.next == 3
    assert not progress.is_retry_due(3, CONFIG, 3)
    assert progress.is_retry_due(3, CONFIG, 6)
    progress.probe_again(12)
    assert progress.is_paused(CONFIG)
    assert progress.note_accepted(11, 4)
    assert (progress.match, progress.next) == (11, 12)
    assert progress.state is ProgressState.REPLICATE


@pytest.mark.parametrize(
    ("rejected", "hint", "is_news", "following"),
    [
        (4, 3, True, 4),
        (4, 9, True, 4),
        (4, 0, True, 1),
        (3, 1, False, 5),
        (9, 1, False, 5),
        (0, 0, False, 5),
    ],
)
def test_a_rejected_probe(rejected: int, hint: int, is_news: bool, following: int) -> None:
    progress = Progress(match=0, next_index=5, tick=0)
    progress.note_sent(5, 1, 0)
    assert progress.note_rejected(rejected, hint, 1) is is_news
    assert progress.next == following
    assert progress.is_probe_sent is not is_news


def test_the_window_is_bounded_in_messages() -> None:
    progress = _replicating(5)
    for index in (6, 7, 8):
        assert not progress.is_paused(CONFIG)
        progress.note_sent(index, 0, 0)
    assert progress.is_paused(CONFIG)
    progress.note_accepted(6, 1)
    assert (progress.match, progress.next, progress.in_flight_messages) == (6, 9, 2)
    assert not progress.is_paused(CONFIG)


def test_the_window_is_bounded_in_bytes() -> None:
    progress = _replicating(5)
    progress.note_sent(6, 10, 0)
    assert not progress.is_paused(CONFIG)
    progress.note_sent(7, 10, 0)
    assert progress.is_paused(CONFIG)
    assert progress.in_flight_bytes == CONFIG.in_flight_bytes_max
    progress.note_accepted(7, 1)
    assert progress.in_flight_bytes == 0


@pytest.mark.parametrize(("rejected", "is_news"), [(5, False), (4, False), (9, False), (6, True)])
def test_a_rejection_while_replicating(rejected: int, is_news: bool) -> None:
    progress = _replicating(5)
    progress.note_sent(8, 5, 0)
    assert progress.note_rejected(rejected, 0, 1) is is_news
    assert (progress.state is ProgressState.PROBE) is is_news
    if is_news:
        assert (progress.next, progress.in_flight_bytes) == (6, 0)


def test_old_acceptance_changes_nothing() -> None:
    progress = _replicating(5)
    assert not progress.note_accepted(3, 1)
    assert (progress.match, progress.next) == (5, 6)
    progress.become_probe()
    states = []
    for index, is_news in ((3, False), (5, True)):
        assert progress.note_accepted(index, 1) is is_news
        states.append(progress.state)
    assert states == [ProgressState.PROBE, ProgressState.REPLICATE]


@pytest.mark.parametrize(
    "wrong",
    [
        {"heartbeat_ticks": 0},
        {"election_ticks": 1},
        {"retry_ticks": 0},
        {"in_flight_messages_max": 0},
        {"append_bytes_max": 0},
        {"append_bytes_max": 30, "in_flight_bytes_max": 20},
        {"uncommitted_bytes_max": 0},
        {"apply_bytes_max": 0},
    ],
)
def test_settings_that_cannot_work(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        RaftConfig(id="a", **wrong)
