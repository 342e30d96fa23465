"""A hole at the end of a log that nobody can fill: what others committed takes its place."""

from pathlib import Path

import pytest

from p2pcity.errors import CorruptionError
from p2pcity.ledger.segment_index import Start
from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.ledger.segment_repair import Mender
from p2pcity.ledger.segment_succession import supersede
from p2pcity.wire.raft import Entry, HardState
from tests.segment_case import ALL, NETWORK, create, entry_records, flip, last_file, make_entry

COMMIT = 3


def written(tmp_path: Path) -> Path:
    """A log of five entries, of which three are known to be committed."""
    directory = tmp_path / "log"
    log = create(directory)
    log.bind_network(NETWORK)
    log.save(HardState(1, "peer-a", 0), [make_entry(index) for index in (1, 2, 3)], True)
    log.save(HardState(1, "peer-a", COMMIT), [make_entry(4)], True)
    log.save(None, [make_entry(5)], True)
    log.close()
    return directory


def damaged(directory: Path, index: int, byte: int) -> SegmentLog:
    """Open it with a bit gone bad in one entry, and with what others have in its place."""
    file = last_file(directory)
    [record] = [record for record in entry_records(file) if record.index == index]
    flip(file, 8 * (record.offset + byte % record.length))
    log = SegmentLog.open(directory, mender=Mender(NETWORK, {index: [Entry(2, index, b"")]}))
    assert log.holes
    return log


@pytest.mark.parametrize("index", [4, 5])
def test_what_was_not_committed_is_replaced(tmp_path: Path, index: int) -> None:
    directory = written(tmp_path)
    log = damaged(directory, index, -20)
    assert list(log.holes) == [(index, index)]
    entry = Entry(2, index, b"")
    assert supersede(log, [entry])
    for _ in range(2):
        assert not log.holes
        assert log.hard_state == HardState(2, None, COMMIT)
        assert log.entries(1, index + 1, ALL) == [*map(make_entry, range(1, index)), entry]
        assert log.last_index == index, "what stood behind it went too"
        log.close()
        log = SegmentLog.open(directory, mender=Mender(NETWORK))
    log.save(None, [make_entry(index + 1, 2)], True)
    log.close()
    again = SegmentLog.open(directory, mender=Mender(NETWORK))
    assert again.last_index == index + 1
    assert len(again.gaps) == 1, "the damage is still there, and matters no more"
    again.close()


def test_what_was_committed_is_not(tmp_path: Path) -> None:
    log = damaged(written(tmp_path), COMMIT, -20)
    before = last_file(tmp_path / "log").read_bytes()
    assert not supersede(log, [Entry(2, COMMIT, b"")])
    assert last_file(tmp_path / "log").read_bytes() == before
    assert log.holes == ((COMMIT, COMMIT),)
    log.close()


def test_nor_where_a_vote_may_be_lost(tmp_path: Path) -> None:
    """The head is gone: something else than an entry may have stood there as well."""
    log = damaged(written(tmp_path), 5, 1)
    assert not log.is_vote_known
    assert not supersede(log, [Entry(2, log.holes[0][0], b"")])
    log.close()


def test_nothing_behind_it_is_in_doubt_any_more(tmp_path: Path) -> None:
    """A vote was destroyed, and with it perhaps a truncation: that is over with the entries."""
    directory = tmp_path / "log"
    log = create(directory)
    log.bind_network(NETWORK)
    log.save(HardState(1, "peer-a", 0), [make_entry(index) for index in (1, 2, 3)], True)
    log.save(HardState(2, "peer-b", 3), [make_entry(index, 2) for index in (4, 5)], True)
    start = last_file(directory).stat().st_size
    log.save(HardState(3, "peer-a", 3), [], True)
    end = last_file(directory).stat().st_size
    log.save(HardState(4, "peer-b", 3), [], True)
    log.close()
    file = last_file(directory)
    data = file.read_bytes()
    file.write_bytes(data[: start + 9] + bytes(end - start - 60) + data[end - 51 :])
    others = {index: [make_entry(index, 5)] for index in (4, 5)}
    log = SegmentLog.open(directory, mender=Mender(NETWORK, others, {4: 5, 5: 5}))
    assert list(log.holes) == [(4, 5)]
    assert log.is_vote_known
    entries = [make_entry(index, 5) for index in (4, 5)]
    assert not supersede(log, entries[:1]), "the fifth may have been acknowledged"
    assert supersede(log, entries)
    for _ in range(2):
        assert not log.holes
        assert log.term(4) == 5
        assert log.entries(1, 6, ALL) == [*map(make_entry, (1, 2, 3)), *entries]
        log.save(None, [make_entry(6, 5)], True)
        assert log.entries(6, 7, ALL) == [make_entry(6, 5)]
        log.close()
        log = SegmentLog.open(directory, mender=Mender(NETWORK))
        log.save(None, entries, True)
    log.close()


@pytest.mark.parametrize(("term", "last"), [(1, 5), (2, 4)])
def test_what_stands_behind_a_lost_entry_follows_the_base_or_goes(
    tmp_path: Path, term: int, last: int
) -> None:
    """The base ends at the entry that was lost: its term says whether the rest came later."""
    directory = written(tmp_path)
    log = damaged(directory, 4, -20)
    log.close()
    start = Start(4, term)
    log = SegmentLog.open(directory, mender=Mender(NETWORK), start=start, may_begin_anew=True)
    assert not log.holes
    assert (log.first_index, log.last_index) == (5, last)
    log.close()


def test_a_log_does_not_begin_anew_where_a_vote_may_be_lost(tmp_path: Path) -> None:
    directory = written(tmp_path)
    damaged(directory, 5, 1).close()
    before = last_file(directory).read_bytes()
    with pytest.raises(CorruptionError, match="vote may have stood there"):
        SegmentLog.open(directory, mender=Mender(NETWORK), start=Start(9, 1), may_begin_anew=True)
    assert last_file(directory).read_bytes() == before


def test_a_later_gap_puts_in_doubt_what_stands_before_an_earlier_one(tmp_path: Path) -> None:
    """Two bits in two entries: one hole, which begins where nothing is known to be committed."""
    directory = tmp_path / "log"
    log = create(directory)
    log.bind_network(NETWORK)
    log.save(HardState(1, "peer-a", 0), [make_entry(index) for index in (1, 2, 3)], True)
    log.save(HardState(2, "peer-b", 3), [make_entry(4, 2)], True)
    for index in (5, 6):
        log.save(None, [make_entry(index, 2)], True)
    log.save(HardState(3, "peer-a", 3), [], True)
    log.close()
    places = {record.index: record for record in entry_records(last_file(directory))}
    flip(last_file(directory), 8 * (places[5].offset + places[5].length - 20))
    flip(last_file(directory), 8 * (places[6].offset + 1))
    others = {index: [Entry(5, index, b"")] for index in (4, 5, 6)}
    mender = Mender(NETWORK, others, dict.fromkeys(others, 5))
    log = SegmentLog.open(directory, mender=mender)
    assert list(log.holes) == [(4, 6)]
    theirs = [entry for [entry] in others.values()]
    assert not supersede(log, theirs[:2]), "the sixth may have been acknowledged"
    assert supersede(log, theirs)
    for _ in range(2):
        assert log.entries(1, 7, ALL) == [*map(make_entry, (1, 2, 3)), *theirs]
        assert log.last_index == 6
        log.close()
        log = SegmentLog.open(directory, mender=Mender(NETWORK))
    log.close()


def test_what_may_have_been_acknowledged_behind_it_stays(tmp_path: Path) -> None:
    """Two records are lost side by side, and what others hold may be just what was there."""
    directory = tmp_path / "log"
    log = create(directory)
    log.bind_network(NETWORK)
    log.save(HardState(1, "peer-a", 0), [make_entry(index) for index in (1, 2, 3)], True)
    log.save(HardState(1, "peer-a", 3), [make_entry(index) for index in (4, 5, 6, 7)], True)
    log.save(HardState(2, "peer-a", 3), [make_entry(8, 2)], True)
    log.close()
    file = last_file(directory)
    places = {record.index: record for record in entry_records(file)}
    flip(file, 8 * (places[5].offset + places[5].length - 1))
    flip(file, 8 * (places[6].offset + 40))
    # The sixth is known to nobody who answers.
    known = dict.fromkeys(range(1, 6), 1)
    log = SegmentLog.open(directory, mender=Mender(NETWORK, {5: [make_entry(5)]}, known))
    assert list(log.holes) == [(5, 6)]
    before = file.read_bytes()
    assert not supersede(log, [make_entry(5)])
    assert (file.read_bytes(), log.last_index) == (before, 8)
    # Of a newer term than all that stands behind: then it is another one.
    assert supersede(log, [make_entry(5, 3)])
    assert log.last_index == 5
    log.close()
