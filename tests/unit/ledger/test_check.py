"""`check` says what is wrong with a data directory, and nothing when all is well."""

import hashlib
import sqlite3
from pathlib import Path

import pytest

from p2pcity.errors import ConfigError, CorruptionError
from p2pcity.ledger.check import Report, check
from p2pcity.ledger.data_directory import DataDirectory, initialise
from p2pcity.ledger.offline_log import OfflineLog
from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.ledger.views_store import ViewsStore
from p2pcity.wire.raft import Entry, HardState
from tests.chain_case import NOW_MS, STRANGER, Chain, make_genesis

_BYTES_MAX = 1 << 30


@pytest.fixture
def chain() -> Chain:
    chain = Chain()
    event = chain.event(data="a body that can be found in the file")
    chain.add(chain.carried(event), chain.carried(key=STRANGER))
    chain.add_nothing()
    chain.add(chain.carried(event, chain.event()), time_ms=NOW_MS + 1)
    chain.add(chain.carried(), time_ms=NOW_MS + 2)
    return chain


def make_directory(path: Path, chain: Chain, *, commit: int = 4, applied: int = 4) -> DataDirectory:
    directory = initialise(path, b"i" * 16)
    raft_log = SegmentLog.open(directory.log)
    raft_log.bind_network(chain.genesis.network)
    entries = [Entry(1, index, payload or b"") for index, payload in chain.pairs()]
    raft_log.save(HardState(term=1, vote=None, commit=commit), entries, True)
    store = ViewsStore.open(directory.views, genesis=chain.genesis, raft_log=raft_log)
    store.apply_blocks(chain.pairs()[:applied])
    store.close()
    raft_log.close()
    return directory


def run(directory: DataDirectory, chain: Chain, tmp_path: Path) -> Report:
    before = fingerprint(directory)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    report = check(directory, chain.genesis, scratch)
    assert fingerprint(directory) == before, "a check changes nothing"
    return report


def fingerprint(directory: DataDirectory) -> dict[str, str]:
    files = [item for item in directory.path.rglob("*") if item.is_file()]
    return {
        item.name: hashlib.sha256(item.read_bytes()).hexdigest()
        for item in files
        if not item.name.endswith(("-shm", "-wal"))
    }


def change(path: Path, sql: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        assert connection.execute(sql).rowcount > 0
    connection.close()


def test_all_is_well(chain: Chain, tmp_path: Path) -> None:
    directory = make_directory(tmp_path / "data", chain)
    seen = []
    (tmp_path / "scratch").mkdir()
    report = check(
        directory,
        chain.genesis,
        tmp_path / "scratch",
        lambda done, last: seen.append((done, last)),
    )
    assert report.is_sound, report.findings
    assert report.notes == []
    assert (report.last_index, report.committed, report.height) == (4, 4, 3)
    assert (report.head, report.tree_size) == (chain.blocks[-1].hash, 3)
    assert (report.events, report.outcomes) == (3, {"applied": 3, "unauthorised": 1})
    assert seen[-1] == (4, 4)


@pytest.mark.parametrize(("commit", "applied"), [(4, 2), (2, 4), (4, 0), (0, 0)])
def test_views_and_commit_index_may_be_behind(
    chain: Chain, tmp_path: Path, commit: int, applied: int
) -> None:
    directory = make_directory(tmp_path / "data", chain, commit=commit, applied=applied)
    report = run(directory, chain, tmp_path)
    assert report.is_sound, report.findings
    assert report.committed == max(commit, applied)


def test_missing_views_are_no_finding(chain: Chain, tmp_path: Path) -> None:
    directory = make_directory(tmp_path / "data", chain)
    directory.views.unlink()
    report = run(directory, chain, tmp_path)
    assert report.is_sound
    assert len(report.notes) == 1
    assert report.height == 3


@pytest.mark.parametrize(
    ("sql", "height"),
    [
        ("UPDATE events SET subject = 5 WHERE position >> 26 = 2", 2),
        ("DELETE FROM events WHERE position >> 26 = 1", 1),
        ("INSERT INTO events VALUES (9 << 26, 1, 1, 1, 1, 1, 1, 1)", 9),
        ("UPDATE transactions SET outcome = 1 WHERE position >> 26 = 3", 3),
        ("UPDATE blocks SET time_ms = 5 WHERE height = 2", 2),
        ("DELETE FROM names", None),
        ("DELETE FROM transaction_ids", None),
        ("UPDATE spans SET time_max = 0", None),
        ("UPDATE types SET text = 'other'", None),
        ("UPDATE meta SET events = 9", None),
        ("PRAGMA user_version = 7", None),
    ],
)
def test_a_changed_row_is_found(chain: Chain, tmp_path: Path, sql: str, height: int | None) -> None:
    directory = make_directory(tmp_path / "data", chain)
    connection = sqlite3.connect(directory.views)
    with connection:
        connection.execute(sql)
    connection.close()
    report = run(directory, chain, tmp_path)
    assert [item.height for item in report.findings] == [height]
    assert "rebuild" in report.findings[0].remedy


def test_a_damaged_views_file_is_found(chain: Chain, tmp_path: Path) -> None:
    directory = make_directory(tmp_path / "data", chain)
    directory.views.write_bytes(b"x" * 4096)
    report = run(directory, chain, tmp_path)
    assert len(report.findings) == 1
    assert report.height == 3


def test_a_harmed_body_in_the_log_is_found(chain: Chain, tmp_path: Path) -> None:
    directory = make_directory(tmp_path / "data", chain)
    (segment,) = [item for item in directory.log.iterdir() if item.is_file()]
    data = segment.read_bytes()
    at = data.index(b"a body that can be found")
    segment.write_bytes(data[:at] + b"A" + data[at + 1 :])
    report = run(directory, chain, tmp_path)
    assert [item.index for item in report.findings] == [1]
    assert report.findings[0].remedy


def test_a_log_behind_its_views_is_found(chain: Chain, tmp_path: Path) -> None:
    directory = make_directory(tmp_path / "data", chain)
    shorter = Chain()
    shorter.add(shorter.carried())
    other = make_directory(tmp_path / "other", shorter, commit=1, applied=1)
    directory.views.replace(other.views)
    report = run(other, shorter, tmp_path)
    assert [item.index for item in report.findings] == [2]


def test_a_broken_chain_is_found(tmp_path: Path) -> None:
    chain = Chain()
    chain.add(chain.carried())
    chain.add(chain.carried())
    # A checksum can be made right by whoever changes the file; the chain of hashes can't.
    other = Chain()
    other.add(other.carried(other.event(id="forged")))
    chain._payloads[0] = other.blocks[0].data
    directory = make_directory(tmp_path / "data", chain, commit=2, applied=0)
    report = run(directory, chain, tmp_path)
    assert [item.height for item in report.findings] == [2]
    assert "parent" in report.findings[0].what


def test_another_networks_directory_is_refused(chain: Chain, tmp_path: Path) -> None:
    directory = make_directory(tmp_path / "data", chain)
    with pytest.raises(ConfigError):
        check(directory, make_genesis("other"), tmp_path)


def test_a_torn_tail_is_a_note(chain: Chain, tmp_path: Path) -> None:
    directory = make_directory(tmp_path / "data", chain)
    (segment,) = [item for item in directory.log.iterdir() if item.is_file()]
    with segment.open("ab") as file:
        file.write(b"torn")
    report = run(directory, chain, tmp_path)
    assert report.is_sound
    assert "4 bytes" in report.notes[0]


def test_the_offline_log_reads_what_the_log_has(chain: Chain, tmp_path: Path) -> None:
    directory = make_directory(tmp_path / "data", chain)
    raft_log = OfflineLog(directory.log)
    assert raft_log.entries(1, 5, _BYTES_MAX) == chain.entries(1, 5, _BYTES_MAX)
    assert len(raft_log.entries(1, 5, 1)) == 1
    assert (raft_log.last_index, raft_log.hard_state.commit) == (4, 4)
    assert (raft_log.network, raft_log.incarnation) == (chain.genesis.network, b"i" * 16)
    (segment,) = [item for item in directory.log.iterdir() if item.is_file()]
    data = segment.read_bytes()
    at = data.index(b"a body that can be found")
    segment.write_bytes(data[:at] + b"A" + data[at + 1 :])
    with pytest.raises(CorruptionError) as caught:
        raft_log.entries(1, 2, 1)
    assert caught.value.index == 1
    raft_log.close()
