"""The segment log at a start: what it makes of a crash, and of a bad bit."""

import errno
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from p2pcity.errors import ConfigError, CorruptionError, SyncFailedError
from p2pcity.ledger import records
from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.wire.raft import Entry, HardState
from tests.segment_case import (
    ALL,
    INCARNATION,
    MARK_KEY,
    NETWORK,
    create,
    flip,
    last_file,
    make_entry,
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data" / "log"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of three files with 20 entries, an overwritten tail, and everything committed."""
    directory = tmp_path_factory.mktemp("written") / "log"
    log = create(directory, segment_bytes_max=12_000)
    log.bind_network(NETWORK)
    log.save(HardState(1, "peer-a", 0), [make_entry(1), make_entry(2), make_entry(3)], True)
    log.save(HardState(1, "peer-a", 1), [make_entry(4), make_entry(5)], True)
    log.save(HardState(2, None, 1), [make_entry(3, 2), make_entry(4, 2)], True)
    for index in range(5, 21):
        log.save(HardState(2, None, index - 1), [make_entry(index, 2)], True)
    log.save(HardState(2, None, 20), [], False)
    log.close()
    assert len(list(directory.glob("*.segment"))) >= 3
    return directory


def expected_entries() -> list[Entry]:
    return [make_entry(index, 1 if index < 3 else 2) for index in range(1, 21)]


def test_what_was_saved_comes_back_identical(written: Path) -> None:
    log = SegmentLog.open(written, segment_bytes_max=12_000)
    assert log.recovery is None
    assert log.network == NETWORK
    assert log.hard_state == HardState(2, None, 20)
    assert log.entries(1, 21, ALL) == expected_entries()
    assert [log.term(index) for index in range(21)] == [0, 1, 1] + [2] * 18
    log.close()


def test_opening_again_and_again_does_not_grow_the_log(written: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(written, tmp_path / "log")
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    for _ in range(2):
        SegmentLog.open(copy).close()
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before


def test_a_sync_is_one_for_a_group_and_none_without_need(directory: Path) -> None:
    now = iter(range(1000))
    SegmentLog.create(directory, INCARNATION)
    log = SegmentLog.open(directory, clock=lambda: next(now) / 1000)
    start = log.statistics().syncs
    log.save(HardState(1, None, 0), [make_entry(1), make_entry(2)], True)
    assert log.statistics().syncs == start + 1
    log.save(HardState(1, None, 2), [], False)
    assert log.statistics().syncs == start + 1
    assert log.statistics().bytes_written > 0
    assert log.statistics().sync_ms_quantile(0.99) == pytest.approx(1.0)
    log.close()


def open_copy(source: Path, target: Path, change: Callable[[Path], None]) -> SegmentLog:
    """Open a copy of the log with one thing changed; the copy is made at `target`."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    change(target)
    return SegmentLog.open(target, segment_bytes_max=12_000)


def open_flipped(written: Path, target: Path, name: str, bit: int) -> SegmentLog:
    return open_copy(written, target, lambda copy: flip(copy / name, bit))


def assert_refused(written: Path, target: Path, name: str, bit: int) -> int:
    """Return the index that the refusal to open with one bit flipped names."""
    with pytest.raises(CorruptionError) as caught:
        open_flipped(written, target, name, bit)
    assert caught.value.exit_code == 10
    assert "p2pcity init" in caught.value.remedy
    assert caught.value.index is not None
    assert 1 <= caught.value.index <= 21
    return caught.value.index


def last_mark_offset(path: Path) -> int:
    return path.stat().st_size - records.MARK_RECORD_BYTES


@pytest.mark.scenario("A4", tier="U")
def test_one_flipped_bit_anywhere_below_the_last_mark_is_refused(
    written: Path, tmp_path: Path
) -> None:
    files = sorted(written.glob("*.segment"))
    sizes = [path.stat().st_size for path in files]
    sizes[-1] = last_mark_offset(files[-1])
    rng = random.Random(7)
    for _ in range(400):
        bit = rng.randrange(sum(sizes) * 8)
        for path, size in zip(files, sizes, strict=True):
            if bit < size * 8:
                assert_refused(written, tmp_path / "log", path.name, bit)
                break
            bit -= size * 8


def record_places(path: Path) -> list[records.Record]:
    buffer = path.read_bytes()
    _, record = records.parse_file_header(buffer)
    found = [record]
    while record.offset + record.length < len(buffer):
        record = records.parse_record(buffer, record.offset + record.length, record.checksum)
        found.append(record)
    return found


def test_every_field_of_every_kind_of_record_is_guarded(written: Path, tmp_path: Path) -> None:
    path = min(written.glob("*.segment"))
    seen = set()
    for record in record_places(path):
        if record.kind in seen:
            continue
        seen.add(record.kind)
        end = record.offset + record.length
        body = record.offset + records.HEAD_BYTES + len(record.data)
        # Length, data length, kind, index, data, the bodies' first and last byte, checksum.
        places = [*range(record.offset, record.offset + 60), body, end - 17, end - 16, end - 1]
        for offset in sorted({place for place in places if place < end}):
            for bit in (offset * 8, offset * 8 + 7):
                assert_refused(written, tmp_path / "log", path.name, bit)
    assert seen == set(records.Kind)


def test_the_refusal_names_the_entry(written: Path, tmp_path: Path) -> None:
    for path in sorted(written.glob("*.segment"))[1:]:
        for record in record_places(path):
            if record.kind != records.Kind.ENTRY:
                continue
            checks = [record.offset + 3, record.offset + records.HEAD_BYTES]
            if record.length > records.RECORD_BYTES_MIN + len(record.data):
                checks.append(record.offset + record.length - records.CHECKSUM_BYTES - 1)
            for offset in checks:
                index = assert_refused(written, tmp_path / "log", path.name, offset * 8)
                assert index == record.index


def test_a_bit_in_the_last_mark_changes_no_entry(written: Path, tmp_path: Path) -> None:
    path = last_file(written)
    start = last_mark_offset(path)
    for bit in range(start * 8, path.stat().st_size * 8):
        log = open_flipped(written, tmp_path / "log", path.name, bit)
        assert log.recovery is not None
        assert log.entries(1, 21, ALL) == expected_entries()
        assert log.hard_state == HardState(2, None, 20)
        log.close()


@pytest.mark.scenario("A4", tier="U")
@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.long)])
def test_a_tail_torn_at_any_byte_is_cut_and_the_log_goes_on(directory: Path, step: int) -> None:
    log = create(directory)
    log.save(HardState(1, None, 0), [make_entry(1)], True)
    log.save(HardState(1, None, 1), [], False)
    path = last_file(directory)
    promised = path.stat().st_size
    log.save(HardState(1, None, 1), [make_entry(2), make_entry(3)], False)
    whole = path.read_bytes()
    log.close()
    seen = set()
    for size in range(promised, len(whole) + 1, step):
        path.write_bytes(whole[:size])
        log = SegmentLog.open(directory)
        cut = 0 if log.recovery is None else log.recovery.bytes_cut
        seen.add(log.last_index)
        assert cut < len(whole) - promised
        assert log.entries(1, log.last_index + 1, ALL) == [
            make_entry(index) for index in range(1, log.last_index + 1)
        ]
        if (size - promised) % 51 == 0:
            log.save(HardState(1, None, log.last_index), [make_entry(log.last_index + 1)], True)
            log.close()
            log = SegmentLog.open(directory)
            assert log.recovery is None
        log.close()
    assert seen == {1, 2, 3}


def test_a_log_cut_anywhere_behind_a_mark_starts_and_in_a_full_file_is_refused(
    written: Path, tmp_path: Path
) -> None:
    files = sorted(written.glob("*.segment"))
    rng = random.Random(3)

    def open_cut(path: Path, size: int) -> SegmentLog:
        return open_copy(
            written, tmp_path / "log", lambda copy: os.truncate(copy / path.name, size)
        )

    for _ in range(60):
        log = open_cut(
            files[-1], rng.randrange(records.FILE_HEADER_BYTES, files[-1].stat().st_size)
        )
        assert log.entries(1, log.last_index + 1, ALL) == expected_entries()[: log.last_index]
        log.close()
        with pytest.raises(CorruptionError):
            open_cut(files[0], rng.randrange(files[0].stat().st_size))


@pytest.mark.parametrize("tail", [bytes(5000), b"\xff" * 33, random.Random(1).randbytes(9000)])
def test_garbage_behind_the_end_is_cut(written: Path, tmp_path: Path, tail: bytes) -> None:
    def append(copy: Path) -> None:
        with last_file(copy).open("ab") as file:
            file.write(tail)

    log = open_copy(written, tmp_path / "log", append)
    assert log.recovery is not None
    assert log.recovery.bytes_cut == len(tail)
    assert log.entries(1, 21, ALL) == expected_entries()
    log.close()


def test_missing_swapped_and_foreign_files_are_refused(written: Path, tmp_path: Path) -> None:
    names = [path.name for path in sorted(written.glob("*.segment"))]
    other = tmp_path / "other" / "log"
    log = create(other, segment_bytes_max=12_000)
    for index in range(1, 12):
        log.save(HardState(1, None, 0), [make_entry(index)], True)
    log.close()
    foreign = sorted(other.glob("*.segment"))[1]

    def remove(position: int) -> Callable[[Path], None]:
        return lambda copy: (copy / names[position]).unlink()

    def swap(copy: Path) -> None:
        first = (copy / names[0]).read_bytes()
        (copy / names[0]).write_bytes((copy / names[1]).read_bytes())
        (copy / names[1]).write_bytes(first)

    def rename(copy: Path) -> None:
        (copy / names[1]).rename(copy / (names[1][:-9] + "9.segment"))

    def replace(copy: Path) -> None:
        shutil.copy(foreign, copy / names[1])

    def misname(copy: Path) -> None:
        (copy / names[-1]).rename(copy / "backup.segment")

    def repeat(copy: Path) -> None:
        shutil.copy(copy / names[-1], copy / (names[-1][:-9] + "f.segment"))

    for change in (remove(0), remove(1), swap, rename, replace, misname, repeat):
        with pytest.raises(CorruptionError):
            open_copy(written, tmp_path / "log", change)


def test_a_newer_format_is_left_alone(directory: Path) -> None:
    SegmentLog.create(directory, INCARNATION)
    header = records.FileHeader(INCARNATION, MARK_KEY, 1, 1, records.ZERO_CHECKSUM, version=2)
    last_file(directory).write_bytes(records.encode_file_header(header))
    with pytest.raises(ConfigError, match="format 2"):
        SegmentLog.open(directory)


def test_a_crash_while_a_file_is_made_leaves_the_log_whole(directory: Path) -> None:
    log = create(directory, segment_bytes_max=1)
    log.save(HardState(1, None, 0), [make_entry(1)], True)
    log.close()
    (directory / "0000000000000003-0000000000000002.new").write_bytes(b"torn")
    log = SegmentLog.open(directory, segment_bytes_max=1)
    log.save(HardState(1, None, 0), [make_entry(2)], True)
    log.close()
    log = SegmentLog.open(directory)
    assert log.entries(1, 3, ALL) == [make_entry(1), make_entry(2)]
    log.close()


def test_a_group_torn_before_its_hard_state_takes_the_term_over(directory: Path) -> None:
    log = create(directory)
    log.save(HardState(1, "a", 0), [make_entry(1)], True)
    path = last_file(directory)
    size = path.stat().st_size
    log.save(HardState(4, "b", 1), [make_entry(2, 4)], False)
    length = records.parse_record(
        path.read_bytes(), size, path.read_bytes()[size - 16 : size]
    ).length
    log.close()
    os.truncate(path, size + length)
    log = SegmentLog.open(directory)
    assert log.last_index == 2
    assert log.hard_state == HardState(4, None, 0)
    log.close()


def test_a_start_writes_the_tail_anew_before_it_is_trusted(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = create(directory)
    for index in range(1, 10):
        log.save(HardState(1, None, 0), [make_entry(index)], True)
    log.save(HardState(1, None, 8), [make_entry(10)], False)
    size = last_file(directory).stat().st_size
    calls: list[tuple[str, int, int]] = []
    pwrite, fdatasync = os.pwrite, os.fdatasync

    def note_pwrite(descriptor: int, data: bytes, offset: int) -> int:
        calls.append(("write", offset, offset + len(data)))
        return pwrite(descriptor, data, offset)

    def note_sync(descriptor: int) -> None:
        calls.append(("sync", 0, 0))
        fdatasync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", note_pwrite)
        patched.setattr(os, "fdatasync", note_sync)
        second = SegmentLog.open(directory)
    assert [call[0] for call in calls] == ["write", "sync", "write", "sync"]
    tail, mark = calls[0], calls[2]
    assert tail[1] % 4096 == 0
    assert tail[2] == size == mark[1]
    assert size - tail[1] < 3 * 4096
    assert second.last_index == 10
    second.close()


@pytest.mark.scenario("A11", tier="U")
def test_a_failed_sync_at_the_start_stops_the_start(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "input/output error")

    create(directory).close()
    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(SyncFailedError):
        SegmentLog.open(directory)


@pytest.mark.scenario("A3", "A4", tier="U")
def test_power_loss_after_any_write_loses_nothing_that_was_synced(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replays prefixes of the writes, the unsynced ones also torn, dropped and out of order."""
    log = create(directory)
    path = last_file(directory)
    base = path.read_bytes()
    trace: list[tuple[int, bytes] | int] = []
    pwrite, fdatasync = os.pwrite, os.fdatasync

    def note_pwrite(descriptor: int, data: bytes, offset: int) -> int:
        trace.append((offset, bytes(data)))
        return pwrite(descriptor, data, offset)

    def note_sync(descriptor: int) -> None:
        trace.append(0)
        fdatasync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", note_pwrite)
        patched.setattr(os, "fdatasync", note_sync)
        for index in range(1, 8):
            log.save(HardState(1, None, index - 1), [make_entry(index)], True)
            trace.append(-index)  # From here on the entry is acknowledged.
            log.save(HardState(1, None, index), [], False)
        log.close()
    rng = random.Random(5)
    copy = directory.parent / "copy" / "log"
    copy.mkdir(parents=True)
    for stop in range(len(trace) + 1):
        durable, pending, acknowledged = bytearray(base), list[tuple[int, bytes]](), 0
        for step in trace[:stop]:
            if isinstance(step, tuple):
                pending.append(step)
            elif step < 0:
                acknowledged = -step
            else:
                for offset, data in pending:
                    durable[offset : offset + len(data)] = data
                pending.clear()
        for _ in range(6):
            image = bytearray(durable)
            for offset, data in pending:
                for start in range(0, len(data), 512):
                    if rng.random() < 0.5:
                        piece = data[start : start + 512]
                        end = offset + start + len(piece)
                        image.extend(bytes(max(0, end - len(image))))
                        image[offset + start : end] = piece
            (copy / path.name).write_bytes(image)
            after = SegmentLog.open(copy)
            assert after.last_index >= acknowledged
            assert after.entries(1, after.last_index + 1, ALL) == [
                make_entry(index) for index in range(1, after.last_index + 1)
            ]
            after.close()


def append_record(directory: Path, encode: Callable[[int, bytes], bytes]) -> None:
    """Add a record with a right checksum to the last file; `encode` gets offset and checksum."""
    path = max(directory.glob("*.segment"))
    data = path.read_bytes()
    path.write_bytes(data + encode(len(data), data[-records.CHECKSUM_BYTES :]))


@pytest.mark.parametrize(
    "encode",
    [
        lambda _, previous: records.encode_entry(make_entry(4), previous),
        lambda _, previous: records.encode_entry(make_entry(2), previous),
        lambda _, previous: records.encode_entry(make_entry(3, 0), previous),
        lambda _, previous: records.encode_hard_state(HardState(1, None, 3), 2, previous),
        lambda _, previous: records.encode_hard_state(HardState(0, None, 1), 2, previous),
        lambda _, previous: records.encode_record(records.Kind.TRUNCATION, 1, b"", previous),
        lambda _, previous: records.encode_record(records.Kind.TRUNCATION, 3, b"", previous),
        lambda offset, previous: records.encode_mark(MARK_KEY, 1, offset + 1, 2, previous),
        lambda offset, previous: records.encode_mark(b"o" * 16, 1, offset, 2, previous),
        lambda _, previous: records.encode_record(records.Kind.NETWORK, 2, b"o" * 32, previous),
        lambda _, previous: records.encode_record(records.Kind.FILE, 2, b"", previous),
    ],
)
def test_a_record_that_contradicts_those_before_is_refused_however_right_its_checksum(
    directory: Path, encode: Callable[[int, bytes], bytes]
) -> None:
    log = create(directory)
    log.bind_network(NETWORK)
    log.save(HardState(1, None, 1), [make_entry(1), make_entry(2)], True)
    log.close()
    append_record(directory, encode)
    with pytest.raises(CorruptionError):
        SegmentLog.open(directory)


def test_a_full_file_that_lost_its_last_whole_record_is_refused(
    written: Path, tmp_path: Path
) -> None:
    path = min(written.glob("*.segment"))
    last = record_places(path)[-1]
    with pytest.raises(CorruptionError):
        open_copy(written, tmp_path / "log", lambda c: os.truncate(c / path.name, last.offset))
