"""What `inspect` says of data directories that are sound, torn or damaged; it writes nothing."""

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from p2pcity.errors import ConfigError, LockedError
from p2pcity.ledger.data_directory import DataDirectory, initialise
from p2pcity.ledger.inspection import Inspection, inspect
from p2pcity.ledger.lock import DataLock
from p2pcity.ledger.outbox import Outbox
from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.ledger.segment_repair import Mender
from p2pcity.wire.limits import BASE_INTERVAL_BLOCKS
from p2pcity.wire.raft import HardState
from tests.pruned_case import HEIGHT, INCARNATION, TERM, VOTE, Opened, make_chain, make_directory
from tests.segment_case import entry_records, flip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few hundred blocks in some files, all committed and applied."""
    path = tmp_path_factory.mktemp("made") / "data"
    make_directory(path)
    return path


@pytest.fixture
def directory(made: Path, tmp_path: Path) -> DataDirectory:
    """A copy of it to damage."""
    shutil.copytree(made, tmp_path / "data")
    return DataDirectory(tmp_path / "data")


def fingerprint(directory: DataDirectory) -> dict[str, tuple[int, bytes]]:
    """Every file there is, when it was changed, and what is in it."""
    files = [item for item in directory.path.rglob("*") if item.is_file()]
    return {str(item): (item.stat().st_mtime_ns, item.read_bytes()) for item in files}


def look(directory: DataDirectory) -> Inspection:
    before = fingerprint(directory)
    found = inspect(directory)
    assert fingerprint(directory) == before, "not a byte is written"
    return found


def files_of(directory: DataDirectory) -> list[Path]:
    return sorted(directory.log.glob("*.segment"))


def test_a_sound_directory(directory: DataDirectory) -> None:
    chain, _ = make_chain()
    found = look(directory)
    assert found.findings == []
    assert found.notes == []
    assert found.is_clean is True
    assert found.log is not None
    assert found.log.hard_state == HardState(TERM, VOTE, chain.last_index)
    assert (found.log.index.start.index, found.log.index.last_index) == (0, chain.last_index)
    assert found.log.header.incarnation == INCARNATION
    assert found.network == chain.genesis.network
    assert [item.name for item in found.segments] == [path.name for path in files_of(directory)]
    assert len(found.segments) > 3
    assert sum(item.bytes for item in found.segments) == sum(
        path.stat().st_size for path in files_of(directory)
    )
    assert found.views is not None
    assert (found.views.tip.height, found.views.tip.hash) == (HEIGHT, chain.blocks[-1].hash)
    assert found.base is None
    assert found.outbox is None
    assert found.free_bytes > 0
    assert set(found.formats) == {"log", "views"}


def test_a_new_directory_was_never_started(tmp_path: Path) -> None:
    directory = initialise(tmp_path / "data", INCARNATION)
    found = look(directory)
    assert found.is_sound
    assert found.is_clean is None
    assert found.network is None
    assert found.peer is None
    assert found.log is not None
    assert found.log.index.last_index == 0


def test_a_pruned_directory(directory: DataDirectory) -> None:
    opened = Opened.open(directory.path)
    base = opened.prune()
    opened.close()
    found = look(directory)
    assert found.is_sound, found.findings
    assert found.base is not None
    assert found.base.head.height == BASE_INTERVAL_BLOCKS
    assert found.log is not None
    assert found.log.index.start.index == base.head.index
    with (directory.base / "records").open("r+b") as file:
        file.seek(100)
        file.write(b"\xff\xff\xff")
    found = look(directory)
    [finding] = found.findings
    assert "records behind height 0 are damaged" in finding.what


def test_after_a_kill_what_the_wal_holds_is_read(directory: DataDirectory) -> None:
    chain, _ = make_chain()
    directory.views.unlink()
    opened = Opened.open(directory.path)
    outbox = Outbox.open(directory.outbox)
    outbox.write([(b"i" * 32, 1 << 45, b"carried"), (b"j" * 32, 1 << 45, b"x")], {})
    outbox.settle([b"j" * 32], "committed")
    # The databases stay open, as the kernel would leave the files of a process that is killed.
    wals = [path.with_name(path.name + "-wal") for path in (directory.views, directory.outbox)]
    assert all(path.stat().st_size > 0 for path in wals)
    killed = DataDirectory(directory.path.with_name("killed"))
    shutil.copytree(directory.path, killed.path)
    outbox.close()
    opened.close()
    found = look(killed)
    assert found.is_sound, found.findings
    assert found.is_clean is False
    assert found.views is not None
    assert found.views.applied_index == chain.last_index
    assert found.outbox == (1, 7, 1)
    # Only a writer could make the index of a WAL again.
    for database in killed.views, killed.outbox:
        database.with_name(database.name + "-shm").unlink()
    found = look(killed)
    assert found.is_sound
    assert (found.views, found.outbox) == (None, None)
    assert [note.partition(" ")[0] for note in found.notes] == ["views.db", "outbox.db"]


def test_a_torn_tail_is_no_damage(directory: DataDirectory) -> None:
    last = files_of(directory)[-1]
    size = last.stat().st_size
    with last.open("ab") as file:
        file.write(b"half a record")
    found = look(directory)
    assert found.is_sound
    assert found.is_clean is False
    assert found.log is not None
    report = found.log.report()
    assert (report.cut_file, report.cut_offset, report.bytes_cut) == (last.name, size, 13)
    [note] = found.notes
    assert f"from offset {size} on" in note
    # It says what the next start does.
    log = SegmentLog.open(directory.log)
    assert log.recovery == report
    log.close()


def test_every_damaged_place_of_the_log_is_named(directory: DataDirectory) -> None:
    first, second = files_of(directory)[:2]
    places = [(path, entry_records(path)[3]) for path in (first, second)]
    for path, record in places:
        flip(path, (record.offset + record.length // 2) * 8)
    found = look(directory)
    assert [finding.index for finding in found.findings] == [record.index for _, record in places]
    for finding, (path, record) in zip(found.findings, places, strict=True):
        assert f"{path.name}, offset {record.offset}" in finding.what
        assert f"fetches entry {record.index} from the other nodes" in finding.remedy
    assert found.log is not None
    assert found.log.hard_state.term == TERM


def test_a_damaged_hard_state_is_made_again(directory: DataDirectory) -> None:
    last = files_of(directory)[-1]
    flip(last, last.read_bytes().rindex(VOTE.encode()) * 8)
    found = look(directory)
    assert found.log is not None
    [finding] = found.findings
    assert "hard state" in finding.what
    assert "makes it again" in finding.remedy
    log = SegmentLog.open(directory.log, mender=Mender(make_chain()[0].genesis.network))
    assert list(log.mended) == found.log.mended
    log.close()


def test_a_missing_file_of_the_log(directory: DataDirectory) -> None:
    files_of(directory)[1].unlink()
    found = look(directory)
    [finding] = found.findings
    assert "is missing" in finding.what
    assert finding.index is not None
    assert found.log is None
    assert found.views is not None


def test_damaged_views_and_outbox(directory: DataDirectory) -> None:
    outbox = Outbox.open(directory.outbox)
    outbox.write([(b"i" * 32, 1 << 45, b"carried")], {})
    outbox.close()
    for path, statement in (
        (directory.outbox, "UPDATE pending SET carried = x'00'"),
        (directory.views, "DELETE FROM names WHERE position = (SELECT min(position) FROM names)"),
    ):
        connection = sqlite3.connect(path)
        with connection:
            assert connection.execute(statement).rowcount == 1
        connection.close()
    found = look(directory)
    views, rows = found.findings
    assert "names" in views.what
    assert "Nothing is lost" in views.remedy
    assert "fails its checksum" in rows.what
    # Whose applied index is right all the same.
    assert found.views is not None


def test_views_beyond_the_log(directory: DataDirectory) -> None:
    last = files_of(directory)[-1]
    index = min(record.index for record in entry_records(last))
    last.unlink()
    found = look(directory)
    [finding] = found.findings
    assert "committed entries are missing" in finding.what
    assert finding.index == index


def test_views_of_another_schema_are_no_damage(directory: DataDirectory) -> None:
    connection = sqlite3.connect(directory.views)
    connection.execute("PRAGMA user_version=1").fetchall()
    connection.close()
    found = look(directory)
    assert found.is_sound
    assert found.views is None
    assert found.formats["views"] == 1
    assert "makes them anew" in found.notes[0]


def test_a_running_node_is_left_alone(directory: DataDirectory) -> None:
    with DataLock(directory.path, "somebody"), pytest.raises(LockedError, match=str(os.getpid())):
        inspect(directory)
    assert look(directory).peer == "somebody"
    # The question took nothing: a start finds the lock free.
    with DataLock(directory.path, "somebody"):
        pass


def test_no_log(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    with pytest.raises(ConfigError) as caught:
        inspect(DataDirectory(tmp_path))
    assert "--rejoin" in caught.value.remedy
