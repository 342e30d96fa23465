"""A flipped bit anywhere in a log: made again, fetched again or refused, and never served."""

import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from p2pcity.errors import CorruptionError
from p2pcity.ledger import records
from p2pcity.ledger.records import Kind
from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.ledger.segment_repair import Mender
from p2pcity.wire.raft import Entry, HardState
from tests.segment_case import ALL, NETWORK, create, entry_records, flip, last_file, make_entry

LAST = 12
Known = Mapping[int, Sequence[Entry]]


def right_entry(index: int) -> Entry:
    return make_entry(index, 1 if index < 3 else 2)


KNOWN: Known = {index: [right_entry(index)] for index in range(1, LAST + 1)}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of several files: small and large entries, an overwritten tail, votes, commits."""
    directory = tmp_path_factory.mktemp("written") / "log"
    log = create(directory, segment_bytes_max=9_000)
    log.bind_network(NETWORK)
    log.save(HardState(1, "peer-a", 0), [make_entry(index) for index in (1, 2, 3)], True)
    log.save(HardState(1, "peer-a", 1), [make_entry(4), make_entry(5)], True)
    log.save(HardState(2, "peer-b", 1), [make_entry(3, 2), make_entry(4, 2)], True)
    log.save(HardState(2, "peer-b", 4), [], False)
    for index in range(5, LAST + 1):
        log.save(HardState(2, "peer-b", index - 1), [make_entry(index, 2)], True)
    log.save(HardState(2, "peer-b", LAST), [], False)
    log.close()
    assert len(list(directory.glob("*.segment"))) >= 3
    return directory


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.glob("*.segment"))}


def open_mending(directory: Path, known: Known | None = None) -> SegmentLog:
    committed = {index: entries[0].term for index, entries in (known or {}).items()}
    mender = Mender(NETWORK, known or {}, committed)
    return SegmentLog.open(directory, mender=mender, cache_bytes_max=0)


def copy_of(source: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(source, target))


def assert_serves_only_what_is_right(log: SegmentLog) -> None:
    """Every entry is the right one or none; those of no hole are there."""
    missing = {index for first, last in log.holes for index in range(first, last + 1)}
    for index in range(1, log.last_index + 1):
        if index in missing:
            with pytest.raises(CorruptionError):
                log.entries(index, log.last_index + 1, ALL)
            continue
        found = log.entries(index, log.last_index + 1, ALL)
        assert found == [right_entry(entry.index) for entry in found]


def mend(directory: Path, whole: dict[str, bytes]) -> str:
    """Open a damaged log, again with the entries of others, and compare; what was needed."""
    log = open_mending(directory)
    assert_serves_only_what_is_right(log)
    holes, mended = log.holes, log.mended
    log.close()
    if not holes:
        after = contents(directory)
        if log.recovery is None and not log.gaps:
            assert after == whole
        assert log.hard_state == HardState(2, "peer-b", LAST)
        assert log.last_index == LAST
        return "mended" if mended else "dead" if log.gaps else "cut"
    wrong = {index: [make_entry(index, 3), Entry(2, index, b"forged")] for index in KNOWN}
    log = open_mending(directory, wrong)
    assert log.holes == holes, "what nothing proves was taken"
    log.close()
    log = open_mending(directory, KNOWN)
    assert log.holes == ()
    assert log.entries(1, LAST + 1, ALL) == [right_entry(index) for index in KNOWN]
    assert log.hard_state == HardState(2, "peer-b", LAST)
    log.close()
    if log.gaps:
        return "dead"
    assert contents(directory) == whole
    # And from then on it is a log like any other.
    SegmentLog.open(directory).close()
    return "fetched"


@pytest.mark.scenario("A5", tier="U")
@pytest.mark.parametrize("step", [23, pytest.param(1, marks=pytest.mark.long)])
def test_a_flipped_bit_at_every_byte(written: Path, tmp_path: Path, step: int) -> None:
    whole = contents(written)
    rng = random.Random(11)
    seen: dict[str, int] = {}
    for name, data in whole.items():
        # Bodies are long and all alike: every byte of what stands around them, some of theirs.
        offsets = {rng.randrange(len(data)) for _ in range(150)}
        offsets |= set(range(records.FILE_HEADER_BYTES))
        for record in record_places(data):
            ends = (record.offset, record.offset + record.length)
            offsets |= set(range(ends[0], min(ends[0] + 50, ends[1])))
            offsets |= set(range(ends[1] - 17, ends[1]))
        for offset in sorted(offsets)[::step]:
            directory = copy_of(written, tmp_path / "log")
            flip(directory / name, 8 * offset + rng.randrange(8))
            what = mend(directory, whole)
            seen[what] = seen.get(what, 0) + 1
    print(seen)
    # The dead: entries that were truncated later are nowhere any more, and nobody misses them.
    assert min(seen[what] for what in ("fetched", "mended", "dead")) > 100 // step


def record_places(data: bytes) -> list[records.Record]:
    _, record = records.parse_file_header(data)
    found = []
    while record.offset + record.length < len(data):
        record = records.parse_record(data, record.offset + record.length, record.checksum)
        found.append(record)
    return found


def assert_mends_or_refuses(directory: Path, whole: dict[str, bytes]) -> bool:
    """Whatever was damaged: what is served is right; whether all of it was made whole again."""
    try:
        log = open_mending(directory, KNOWN)
    except CorruptionError:
        return False
    assert_serves_only_what_is_right(log)
    is_whole = not log.holes
    if is_whole:
        assert log.entries(1, log.last_index + 1, ALL) == [
            right_entry(index) for index in range(1, log.last_index + 1)
        ]
        assert log.hard_state.term == 2 or log.recovery is not None
    log.close()
    return is_whole


@pytest.mark.scenario("A5", tier="U")
@pytest.mark.parametrize("flips", [2, 5, 20])
def test_several_bits_at_once(written: Path, tmp_path: Path, flips: int) -> None:
    whole = contents(written)
    rng = random.Random(flips)
    mended = 0
    for _ in range(10):
        directory = copy_of(written, tmp_path / "log")
        for _ in range(flips):
            name = rng.choice(list(whole))
            size = len(whole[name]) - records.MARK_RECORD_BYTES
            flip(directory / name, rng.randrange(8 * size))
        mended += assert_mends_or_refuses(directory, whole)
    assert mended >= 4, "most are in places where one proves the other"


@pytest.mark.scenario("A5", tier="U")
@pytest.mark.parametrize("filler", [b"\0", b"\xff", b"\x5a"])
def test_a_lost_sector(written: Path, tmp_path: Path, filler: bytes) -> None:
    whole = contents(written)
    for name, data in whole.items():
        for start in range(0, len(data) - 512, 2_048):
            directory = copy_of(written, tmp_path / "log")
            damaged = data[:start] + filler * 512 + data[start + 512 :]
            (directory / name).write_bytes(damaged)
            assert_mends_or_refuses(directory, whole)


@pytest.mark.scenario("A5", tier="U")
def test_a_lost_vote_is_never_guessed(tmp_path: Path) -> None:
    """The newest hard state as garbage: it is worked out if that can be proven, else refused."""
    directory = tmp_path / "log"
    log = create(directory)
    log.bind_network(NETWORK)
    log.save(HardState(1, "peer-a", 0), [make_entry(1)], True)
    log.save(HardState(40, "peer-z", 1), [], True)
    log.close()
    path = last_file(directory)
    [*_, state, _mark] = record_places(path.read_bytes())
    assert state.kind == Kind.HARD_STATE
    data = path.read_bytes()
    start, end = state.offset, state.offset + state.length
    path.write_bytes(data[: start + 17] + bytes(end - start - 33) + data[end - 16 :])
    with pytest.raises(CorruptionError, match="vote"):
        open_mending(directory, {1: [make_entry(1)]})


def test_records_inside_of_an_event_are_never_taken_for_the_log(tmp_path: Path) -> None:
    """Somebody puts a whole forged log into an entry, and then its length is destroyed."""
    forged, previous = b"", bytes(16)
    for index in (2, 3):
        forged += previous[:0] + records.encode_entry(Entry(1, index, b"forged"), previous)
        previous = forged[-16:]
    payload = bytes(100) + bytes(16) + forged + bytes(100)
    directory = tmp_path / "log"
    log = create(directory)
    log.bind_network(NETWORK)
    log.save(HardState(1, None, 0), [Entry(1, 1, payload)], True)
    log.save(HardState(1, None, 1), [Entry(1, 2, b"true")], True)
    log.close()
    [entry, *_] = [
        record
        for record in record_places(last_file(directory).read_bytes())
        if record.kind == Kind.ENTRY
    ]
    flip(last_file(directory), 8 * entry.offset + 20)
    log = open_mending(directory)
    assert log.holes == ((1, 1),)
    assert log.entries(2, 3, ALL) == [Entry(1, 2, b"true")]
    log.close()
    log = open_mending(directory, {1: [Entry(1, 1, payload)]})
    assert log.entries(1, 3, ALL) == [Entry(1, 1, payload), Entry(1, 2, b"true")]
    log.close()


def test_a_file_that_is_cut_short_before_the_last_one_is_named(tmp_path: Path) -> None:
    """Wherever in a record it ends: the log is refused, or opens with what is missing."""
    directory = tmp_path / "log"
    log = create(directory, segment_bytes_max=2000)
    log.bind_network(NETWORK)
    for index in range(1, 12):
        log.save(HardState(1, None, index - 1), [Entry(1, index, b"entry")], True)
    log.close()
    first = min(directory.glob("*.segment"))
    data = first.read_bytes()
    [*_, before, last] = record_places(data)
    refused = 0
    for size in range(before.offset + 1, last.offset + last.length):
        first.write_bytes(data[:size])
        for path in directory.glob("*.index"):
            path.unlink()
        try:
            opened = open_mending(directory)
        except CorruptionError:
            refused += 1
        else:
            assert opened.holes or opened.mended
            opened.close()
    assert refused


def _two_bits(data: bytearray, end: int) -> None:
    """In the checksum of one record, and in the one behind it."""
    data[end - 1] ^= 1
    data[end + 40] ^= 1


def _sector(data: bytearray, end: int) -> None:
    data[end - 256 : end + 256] = bytes(512)


@pytest.mark.parametrize("hurt", [_two_bits, _sector])
@pytest.mark.parametrize("commit", [3, 8])
def test_damage_over_the_end_of_a_record_is_mended(
    tmp_path: Path, hurt: Callable[[bytearray, int], None], commit: int
) -> None:
    """Neither record proves the other; the checksum that the second ends with proves both."""
    directory = tmp_path / "log"
    log = create(directory)
    log.bind_network(NETWORK)
    log.save(HardState(1, "peer-a", 0), [make_entry(index) for index in (1, 2, 3)], True)
    log.save(HardState(1, "peer-a", 3), [make_entry(index) for index in (4, 5, 6, 7)], True)
    log.save(HardState(1, "peer-a", commit), [make_entry(8)], True)
    log.save(HardState(1, "peer-a", commit), [make_entry(9)], True)
    log.close()
    file = last_file(directory)
    whole = file.read_bytes()
    [fifth] = [record for record in entry_records(file) if record.index == 5]
    data = bytearray(whole)
    hurt(data, fifth.offset + fifth.length)
    file.write_bytes(data)
    log = SegmentLog.open(directory, mender=Mender(NETWORK))
    assert log.holes
    log.close()
    others = {index: [Entry(1, index, b"wrong"), make_entry(index)] for index in range(1, 10)}
    log = SegmentLog.open(directory, mender=Mender(NETWORK, others))
    assert not log.holes
    assert file.read_bytes()[: len(whole)] == whole
    log.close()


def test_a_search_for_a_run_ends(tmp_path: Path) -> None:
    """Whatever others give: so much is tried, and then the hole stays."""
    directory = tmp_path / "log"
    log = create(directory)
    log.bind_network(NETWORK)
    log.save(HardState(1, "peer-a", 0), [make_entry(index) for index in range(1, 60)], True)
    log.save(HardState(1, "peer-a", 59), [make_entry(60)], True)
    log.close()
    file = last_file(directory)
    places = {record.index: record for record in entry_records(file)}
    data = bytearray(file.read_bytes())
    data[places[5].offset : places[40].offset] = bytes(places[40].offset - places[5].offset)
    file.write_bytes(data)
    wrong = {index: [Entry(1, index, b"%d" % way) for way in range(8)] for index in range(61)}
    log = SegmentLog.open(directory, mender=Mender(NETWORK, wrong))
    assert log.holes
    log.close()


def test_a_hard_state_that_says_nothing_is_no_part_of_a_run(tmp_path: Path) -> None:
    """Bits of its vote and of its checksum are gone, and the record behind it is damaged too."""
    directory = tmp_path / "log"
    log = create(directory)
    log.bind_network(NETWORK)
    log.save(HardState(1, "peer-a", 0), [make_entry(index) for index in (1, 2, 3)], True)
    log.save(HardState(1, "peer-b", 3), [make_entry(4)], True)
    log.save(HardState(1, "peer-b", 4), [make_entry(5)], True)
    log.close()
    file = last_file(directory)
    [fourth] = [record for record in entry_records(file) if record.index == 4]
    data = bytearray(file.read_bytes())
    data[data.index(b"peer-b")] = 0xFF
    data[fourth.offset - 1] ^= 1
    data[fourth.offset + 40] ^= 1
    file.write_bytes(data)
    others = {index: [make_entry(index)] for index in (4, 5)}
    log = SegmentLog.open(directory, mender=Mender(NETWORK, others))
    assert log.holes
    log.close()
