"""Saved indexes of the segment log: a start with them finds what a walk finds, or walks."""

import errno
import os
import random
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from p2pcity.errors import CorruptionError
from p2pcity.ledger import records, segment_file, segment_index_file
from p2pcity.ledger.segment_found import Recovered
from p2pcity.ledger.segment_index_file import SUFFIX
from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.ledger.segment_recovery import recover
from p2pcity.wire.raft import Entry, HardState
from tests.segment_case import ALL, NETWORK, create, flip, make_entry

FILE_BYTES = 16_000
DISTANCE = FILE_BYTES // segment_index_file.SEGMENT_SHARE
HOW = {"digest", "saved_indexes", "indexed_end", "index"}


def write_at_random(directory: Path, seed: int) -> None:
    """A log with several files, votes, terms, and tails that were overwritten."""
    rng = random.Random(seed)
    log = create(directory, segment_bytes_max=FILE_BYTES)
    log.bind_network(NETWORK)
    state = HardState(1, None, 0)
    for _ in range(60):
        term = state.term + (rng.random() < 0.2)
        vote = state.vote if term == state.term else rng.choice((None, "peer-a", "peer-b"))
        last = log.last_index
        first = rng.randint(state.commit + 1, last + 1) if rng.random() < 0.2 else last + 1
        end = first + rng.randint(0, 2)
        new = [make_entry(index, term) for index in range(first, end)] if term >= 1 else []
        reach = end - 1 if new else last
        commit = rng.randint(state.commit, reach)
        state = HardState(term, vote, commit)
        log.save(state, new, rng.random() < 0.7)
    if rng.random() < 0.5:
        log.close()
    else:
        log._tail.file.close()


def found(directory: Path, index_bytes: int | None) -> dict[str, Any]:
    """What a start finds, without what only says how it did."""
    state = recover(directory, index_bytes=index_bytes)
    names = {field.name for field in fields(state)} - HOW
    return {name: getattr(state, name) for name in names} | {"entries": columns(state)}


def columns(state: Recovered) -> list[Any]:
    return [state.index.place(index) for index in range(1, state.index.last_index + 1)]


def saved_indexes(directory: Path) -> list[Path]:
    return sorted(directory.glob(f"*{SUFFIX}"))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data" / "log"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The offsets of the records that were walked."""
    real, offsets = records.parse_record, []

    def parse_record(buffer: bytes, offset: int, previous: bytes) -> records.Record:
        offsets.append(offset)
        return real(buffer, offset, previous)

    monkeypatch.setattr(records, "parse_record", parse_record)
    return offsets


@pytest.mark.parametrize("seed", range(12))
def test_it_finds_what_a_walk_finds(directory: Path, seed: int, calls: list[int]) -> None:
    write_at_random(directory, seed)
    assert saved_indexes(directory)
    calls.clear()
    walked = found(directory, None)
    long = len(calls)
    calls.clear()
    assert found(directory, DISTANCE) == walked
    assert len(calls) < long / 2
    # A start makes those that are missing, and goes on with them as a walk would.
    for path in saved_indexes(directory):
        path.unlink()
    SegmentLog.open(directory, segment_bytes_max=FILE_BYTES).close()
    assert len(saved_indexes(directory)) >= len(list(directory.glob("*.segment"))) - 1
    calls.clear()
    assert found(directory, DISTANCE) == found(directory, None)
    log = SegmentLog.open(directory, segment_bytes_max=FILE_BYTES)
    log.save(None, [make_entry(log.last_index + 1, log.hard_state.term)], True)
    log.close()
    assert found(directory, DISTANCE) == found(directory, None)


def test_a_damaged_index_file_is_as_good_as_none(directory: Path) -> None:
    write_at_random(directory, 1)
    walked = found(directory, None)
    rng = random.Random(2)
    for path in saved_indexes(directory):
        whole = path.read_bytes()
        for _ in range(60):
            flip(path, rng.randrange(len(whole) * 8))
            assert found(directory, DISTANCE) == walked
            path.write_bytes(whole)
        for size in (0, 7, 50, len(whole) - 1):
            path.write_bytes(whole[:size])
            assert found(directory, DISTANCE) == walked
        path.write_bytes(whole + b"\0")
        assert found(directory, DISTANCE) == walked
        path.write_bytes(whole)


def test_one_in_another_format_is_as_good_as_none_and_is_written_anew(directory: Path) -> None:
    write_at_random(directory, 1)
    walked = found(directory, None)
    for path in saved_indexes(directory):
        # Right in itself: only the number in its first bytes is another.
        later = segment_index_file.MAGIC[:-1] + b"2" + path.read_bytes()[8:-32]
        path.write_bytes(later + segment_index_file.begin_digest(later).digest())
        assert found(directory, DISTANCE) == walked
    SegmentLog.open(directory, segment_bytes_max=FILE_BYTES).close()
    for path in saved_indexes(directory):
        assert segment_index_file.decode(path.read_bytes()) is not None


def test_one_of_another_file_fits_nothing(directory: Path) -> None:
    write_at_random(directory, 1)
    walked = found(directory, None)
    first, second, *_ = saved_indexes(directory)
    shutil.copy(first, second)
    assert found(directory, DISTANCE) == walked


def test_damage_below_a_saved_index_is_found(directory: Path) -> None:
    write_at_random(directory, 3)
    rng = random.Random(4)
    file = min(directory.glob("*.segment"))
    whole = file.read_bytes()
    for _ in range(60):
        flip(file, rng.randrange(len(whole) * 8))
        said = []
        for distance in (None, DISTANCE):
            with pytest.raises(CorruptionError) as caught:
                recover(directory, index_bytes=distance)
            said.append((str(caught.value), caught.value.index))
        assert said[0] == said[1]
        file.write_bytes(whole)


def test_bytes_that_never_reached_the_disk(directory: Path) -> None:
    """The saved index did, by itself: what it speaks of is gone, and the rest is walked."""
    log = create(directory, segment_bytes_max=FILE_BYTES)
    for index in range(1, 9):
        log.save(HardState(1, None, index - 1), [make_entry(index)], True)
    log.close()
    file, end = min(directory.glob("*.segment")), 0
    saved = segment_index_file.decode(saved_indexes(directory)[0].read_bytes())
    assert saved is not None
    with file.open("r+b") as opened:
        end = opened.truncate(saved.end - 20)
    log = SegmentLog.open(directory, segment_bytes_max=FILE_BYTES)
    assert log.recovery is not None
    assert log.size_bytes <= end + records.MARK_RECORD_BYTES
    assert log.entries(1, log.last_index + 1, ALL)[-1] == make_entry(log.last_index)
    log.close()


@pytest.mark.parametrize("call", ["open", "pwrite", "rename"])
def test_a_disk_that_refuses_it_does_not_stop_the_log(
    directory: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    log = create(directory, segment_bytes_max=FILE_BYTES)
    real = segment_file.put

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def put(path: Path, new: Path, data: bytes) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Path if call == "rename" else os, call, refuse)
            real(path, new, data)

    monkeypatch.setattr(segment_index_file, "put", put)
    for index in range(1, 9):
        log.save(HardState(1, None, index - 1), [make_entry(index)], True)
    assert not saved_indexes(directory)
    monkeypatch.undo()
    log.close()
    log = SegmentLog.open(directory, segment_bytes_max=FILE_BYTES)
    assert log.entries(1, 9, ALL) == [make_entry(index) for index in range(1, 9)]
    assert saved_indexes(directory)
    assert not list(directory.glob(f"*{segment_index_file.NEW_SUFFIX}"))
    log.close()


def test_those_of_files_that_were_pruned_go_too(directory: Path) -> None:
    log = create(directory, segment_bytes_max=FILE_BYTES)
    for index in range(1, 41):
        log.save(HardState(1, None, index - 1), [make_entry(index)], True)
    first, *_ = saved_indexes(directory)
    log.forget(30)
    assert log.remove_files()
    log.close()
    assert not first.exists()
    # One that a crash left over goes at the next start.
    first.write_bytes(b"left over")
    start = log._index.start
    log = SegmentLog.open(directory, segment_bytes_max=FILE_BYTES, start=start)
    assert not first.exists()
    assert log.first_index == 31
    assert log.entries(31, 41, ALL) == [make_entry(index) for index in range(31, 41)]
    log.close()


@pytest.mark.parametrize("is_saved", [True, False])
def test_none_hides_what_it_forgot_in_its_own_file(directory: Path, is_saved: bool) -> None:
    """A file that begins with a truncation has entries from below its name.

    Killed between a base and the removal of files, a log goes on from the base all the same.
    """
    log = create(directory, segment_bytes_max=900)
    log.bind_network(NETWORK)
    index = 0
    while len(list(directory.glob("*.segment"))) < 2:
        index += 1
        log.save(HardState(1, "peer-a", max(0, index - 6)), [Entry(1, index, b"old")], True)
    # The last of the first file and the first of the second are replaced.
    entries = [Entry(2, index + at, b"new") for at in (-1, 0, 1)]
    log.save(HardState(2, None, max(0, index - 7)), entries, True)
    log.save(HardState(2, None, index + 1), [], True)
    log.forget(index - 1)
    start, last = log._index.start, index + 1
    while len(list(directory.glob("*.segment"))) < 3:
        last += 1
        log.save(HardState(2, None, last - 1), [Entry(2, last, b"more" * 8)], True)
    log._tail.file.close()
    if not is_saved:
        for path in saved_indexes(directory):
            path.unlink()
    log = SegmentLog.open(directory, segment_bytes_max=900, start=start)
    assert (log.first_index, log.last_index) == (index, last)
    assert log.entries(index, index + 2, ALL) == entries[1:]
    log.close()
