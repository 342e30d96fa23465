"""The segment log: what a save promises, and what is read back."""

import errno
import os
import random
import sys
import threading
from pathlib import Path

import pytest

from p2pcity.crypto.merkle import leaf_hash
from p2pcity.errors import ConfigError, CorruptionError, P2PCityError, SyncFailedError
from p2pcity.ledger import records
from p2pcity.ledger.segment_index import Start
from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.wire import block
from p2pcity.wire.raft import Entry, HardState
from tests.segment_case import (
    ALL,
    INCARNATION,
    NETWORK,
    PAYLOADS,
    create,
    flip,
    last_file,
    make_entry,
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data" / "log"


def test_a_new_log_is_empty_and_knows_its_incarnation(directory: Path) -> None:
    log = create(directory)
    assert log.incarnation == INCARNATION
    assert log.network is None
    assert log.recovery is None
    assert (log.first_index, log.last_index, log.term(0)) == (1, 0, 0)
    assert log.hard_state == HardState()
    assert log.entries(1, 1, ALL) == []
    log.close()
    log.close()


def test_only_create_makes_a_log_and_only_once(directory: Path) -> None:
    for missing in (directory, directory.parent):
        with pytest.raises(ConfigError) as caught:
            SegmentLog.open(missing)
        assert "p2pcity init" in caught.value.remedy
        directory.parent.mkdir(exist_ok=True)
    SegmentLog.create(directory, INCARNATION)
    with pytest.raises(ConfigError):
        SegmentLog.create(directory, INCARNATION)


def test_entries_keeps_to_the_bytes_but_gives_at_least_one(directory: Path) -> None:
    log = create(directory)
    entries = [make_entry(index) for index in range(1, 7)]
    log.save(HardState(1, None, 0), entries, True)
    sizes = [len(entry.payload) for entry in entries]
    assert log.entries(2, 7, 0) == entries[1:2]
    assert log.entries(1, 7, sum(sizes[:3])) == entries[:3]
    assert log.entries(1, 7, sum(sizes[:3]) - 1) == entries[:2]
    assert log.entries(3, 5, ALL) == entries[2:4]
    log.close()


def test_entries_come_from_the_disk_when_the_cache_is_small(directory: Path) -> None:
    log = create(directory, cache_bytes_max=0, segment_bytes_max=5000)
    entries = [make_entry(index) for index in range(1, 12)]
    for entry in entries:
        log.save(HardState(1, None, 0), [entry], True)
    assert log.entries(1, 12, ALL) == entries
    assert log.statistics().files > 1
    log.close()


def test_a_payload_that_is_no_block_is_kept_whole(directory: Path) -> None:
    log = create(directory, cache_bytes_max=0)
    entries = [Entry(1, 1, b"no block"), Entry(1, 2, b"\x83@\x80"), Entry(1, 3, b"")]
    log.save(HardState(1, None, 0), entries, True)
    assert log.entries(1, 4, ALL) == entries
    log.close()
    log = SegmentLog.open(directory)
    assert log.entries(1, 4, ALL) == entries
    log.close()


def test_a_later_save_replaces_the_entries_from_its_first_index_on(directory: Path) -> None:
    log = create(directory)
    log.save(HardState(1, "a", 0), [make_entry(index) for index in range(1, 6)], True)
    log.save(HardState(2, "b", 2), [make_entry(3, 2)], True)
    expected = [make_entry(1), make_entry(2), make_entry(3, 2)]
    assert log.last_index == 3
    assert log.entries(1, 4, ALL) == expected
    log.close()
    log = SegmentLog.open(directory)
    assert log.last_index == 3
    assert log.hard_state == HardState(2, "b", 2)
    assert log.entries(1, 4, ALL) == expected
    log.close()


def test_a_save_that_breaks_a_promise_of_raft_is_a_bug(directory: Path) -> None:
    log = create(directory)
    log.save(HardState(2, None, 2), [make_entry(1, 2), make_entry(2, 2)], True)
    for hard_state, entries in (
        (HardState(2, None, 2), [make_entry(2, 2)]),
        (HardState(2, None, 2), [make_entry(4, 2)]),
        (HardState(2, None, 2), [make_entry(3, 3)]),
        (HardState(2, None, 2), [make_entry(3, 1)]),
        (HardState(1, None, 2), []),
        (HardState(2, None, 3), []),
        (HardState(2, None, 1), []),
    ):
        with pytest.raises(AssertionError):
            log.save(hard_state, entries, True)
    assert log.last_index == 2
    log.close()


def test_the_log_is_bound_to_one_network(directory: Path) -> None:
    log = create(directory)
    log.bind_network(NETWORK)
    log.bind_network(NETWORK)
    log.close()
    log = SegmentLog.open(directory)
    assert log.network == NETWORK
    with pytest.raises(ConfigError, match=NETWORK.hex()):
        log.bind_network(b"o" * 32)
    log.close()


def test_an_erased_body_is_read_as_withheld(directory: Path) -> None:
    log = create(directory)
    log.save(HardState(1, None, 0), [make_entry(1), make_entry(2)], True)
    log.close()
    path = last_file(directory)
    skeleton, bodies = block.split(PAYLOADS[1])
    erased = records.erased_body(len(bodies[2]), leaf_hash(bodies[2])[:16])
    path.write_bytes(path.read_bytes().replace(bodies[2], erased, 1))
    log = SegmentLog.open(directory)
    expected = block.join(skeleton, [body if at != 2 else None for at, body in enumerate(bodies)])
    assert expected != PAYLOADS[1]
    assert log.entries(1, 2, ALL) == [Entry(1, 1, expected)]
    log.close()


def test_an_entry_that_goes_bad_while_the_node_runs_is_noticed_when_read(directory: Path) -> None:
    log = create(directory, cache_bytes_max=0)
    log.save(HardState(1, None, 0), [make_entry(1), make_entry(2)], True)
    path = last_file(directory)
    flip(path, path.read_bytes().index(block.split(PAYLOADS[2])[1][0]) * 8)
    assert log.entries(1, 2, ALL) == [make_entry(1)]
    with pytest.raises(CorruptionError) as caught:
        log.entries(2, 3, ALL)
    assert caught.value.index == 2
    log.close()


@pytest.mark.parametrize("name", ["pwrite", "fdatasync"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_after_a_failed_write_or_sync_every_call_fails(
    directory: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: int
) -> None:
    def fail(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    log = create(directory)
    log.save(HardState(1, None, 0), [make_entry(1)], True)
    with monkeypatch.context() as patched:
        patched.setattr(os, name, fail)
        with pytest.raises(SyncFailedError) as caught:
            log.save(HardState(1, None, 1), [make_entry(2)], True)
    assert caught.value.exit_code == 11
    assert ("Make room" in caught.value.remedy) == (code == errno.ENOSPC)
    for call in (
        lambda: log.save(HardState(1, None, 1), [make_entry(2)], True),
        lambda: log.entries(1, 2, ALL),
        lambda: log.term(1),
        lambda: log.bind_network(NETWORK),
    ):
        with pytest.raises(SyncFailedError):
            call()
    log.close()
    log = SegmentLog.open(directory)
    assert log.entries(1, 2, ALL) == [make_entry(1)]
    log.close()


def test_reading_while_another_thread_saves(directory: Path) -> None:
    log = create(directory, cache_bytes_max=20_000, segment_bytes_max=50_000)
    log.save(HardState(1, None, 0), [make_entry(1)], True)
    failures: list[P2PCityError | AssertionError] = []
    stop = threading.Event()

    def read() -> None:
        rng = random.Random(1)
        while not stop.is_set():
            last = log.last_index
            low = rng.randint(1, last)
            try:
                for entry in log.entries(low, last + 1, 30_000):
                    assert entry.payload == PAYLOADS[entry.index % len(PAYLOADS)]
                    assert log.term(entry.index) == 1
            except (P2PCityError, AssertionError) as error:
                failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for index in range(2, 150):
        log.save(HardState(1, None, index - 1), [make_entry(index)], True)
    stop.set()
    for reader in readers:
        reader.join()
    assert failures == []
    log.close()


def test_a_file_is_wholly_on_the_disk_before_the_next_one_is_made(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = create(directory, segment_bytes_max=1)
    first = max(directory.glob("*.segment"))
    log.save(HardState(1, None, 0), [make_entry(1)], True)
    second = max(directory.glob("*.segment"))
    log.save(HardState(1, None, 1), [], False)
    third = max(directory.glob("*.segment"))
    assert len({first, second, third}) == 3
    synced: list[str] = []
    fdatasync = os.fdatasync

    def note_sync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fdatasync(descriptor)

    monkeypatch.setattr(os, "fdatasync", note_sync)
    log.save(HardState(1, None, 1), [make_entry(2)], False)
    # What the third file holds, the mark at its end, the fourth file's header.
    assert synced[:2] == [str(third)] * 2
    assert synced[2].endswith(".new")
    assert len(synced) == 3
    log.close()


def test_what_is_asked_for_may_go_meanwhile(directory: Path) -> None:
    """Another thread replaces the tail again and again: a reader gets what is there, or nothing."""
    log = create(directory)
    log.save(HardState(1, None, 0), [Entry(1, index, b"old") for index in range(1, 6)], True)
    stop, failures, counts = threading.Event(), list[BaseException](), set[int]()

    def read() -> None:
        while not stop.is_set() and not failures:
            try:
                counts.add(len(log.entries_from(5, 100, ALL)))
            except (P2PCityError, AssertionError) as error:
                failures.append(error)

    reader = threading.Thread(target=read)
    switches_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    reader.start()
    try:
        for term in range(2, 1500):
            many = [Entry(term, index, b"new") for index in range(6, 14)]
            log.save(HardState(term, None, 0), [Entry(term, 5, b"new")], False)
            log.save(HardState(term, None, 0), many, False)
    finally:
        sys.setswitchinterval(switches_s)
        stop.set()
        reader.join()
    assert failures == []
    assert counts >= {1, 9}
    assert log.entries_from(5, 2, ALL) == [Entry(term, 5, b"new"), Entry(term, 6, b"new")]
    assert log.entries_from(14, 2, ALL) == log.entries_from(0, 2, ALL) == []
    log.close()


def test_a_base_that_contradicts_what_was_committed_is_not_followed(directory: Path) -> None:
    """Others gave it, but this log knows of another committed entry there: nobody goes on."""
    log = create(directory)
    log.save(HardState(2, None, 0), [Entry(1, 1, b"one"), Entry(2, 2, b"two")], True)
    log.save(HardState(2, None, 2), [], True)
    log.close()
    before = last_file(directory).read_bytes()
    with pytest.raises(CorruptionError, match="another entry was committed at index 2"):
        SegmentLog.open(directory, start=Start(2, 3), may_begin_anew=True)
    assert last_file(directory).read_bytes() == before
    log = SegmentLog.open(directory, start=Start(3, 3), may_begin_anew=True)
    assert (log.first_index, log.last_index) == (4, 3)
    log.close()
