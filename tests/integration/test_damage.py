"""A damaged data directory: what can be made again is, and what can't stops the node.

The damage is done to copies of the directory of a node that saw a real run of a network.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from p2pcity.api.client import ApiProblem
from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.crypto.keys import PrivateKey
from p2pcity.ledger import records
from p2pcity.ledger.records import Kind, Record
from p2pcity.wire.raft import Entry
from tests.integration.process_case import (
    Acknowledgement,
    Load,
    ask,
    log_lines,
    others,
    running_network,
    verify,
    wait_equal,
    wait_serving,
    wait_until,
)
from tests.segment_case import flip, last_file

pytestmark = pytest.mark.integration

NODE: Final = "node1"
_RUN_S: Final = 120


@dataclasses.dataclass(frozen=True)
class Past:
    """A network that ran, was killed and lies still; what its clients had been told."""

    network: LocalNetwork
    told: tuple[Acknowledgement, ...]

    @property
    def data(self) -> Path:
        return self.network.node(NODE).config.node.data_dir


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Past]:
    with running_network(tmp_path_factory.mktemp("damage")) as network:
        with Load(network) as load:
            load.wait_more(150)
        verify(network, load.acknowledged.values())
        for node in network.nodes:
            network.kill(node.name)
        yield Past(network, tuple(load.acknowledged.values()))


@pytest.fixture
def data(past: Past, tmp_path: Path) -> Path:
    """A copy of the node's data directory, to be damaged."""
    return Path(shutil.copytree(past.data, tmp_path / "data"))


def p2pcity(
    past: Past, command: str, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command with the node's configuration; it must end by itself."""
    config = past.network.node(NODE).config_file
    return subprocess.run(
        [sys.executable, "-m", "p2pcity", command, "--config", str(config), *arguments],
        capture_output=True,
        text=True,
        timeout=_RUN_S,
        check=False,
        env={**os.environ, **environment},
    )


def run_refuses(past: Past, data: Path, code: int, *arguments: str) -> dict[str, Any]:
    """`p2pcity run` ends with this code; what its last line says."""
    done = p2pcity(past, "run", "--data-dir", str(data), *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    last: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert last["exit_code"] == code
    assert last["remedy"], "it says what is wrong and not what to do"
    return last


def check(past: Past, data: Path, code: int) -> dict[str, Any]:
    """`p2pcity check` ends with this code; its report."""
    # It takes the directory from the configuration alone.
    done = p2pcity(past, "check", "--json", P2PCITY_NODE_DATA_DIR=str(data))
    assert done.returncode == code, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["is_sound"] == (code == 0)
    return report


def read_records(file: Path) -> list[Record]:
    """All records of a segment, the header left out."""
    buffer = file.read_bytes()
    _, record = records.parse_file_header(buffer)
    offset, checksum = records.FILE_HEADER_BYTES, record.checksum
    found = []
    while offset < len(buffer):
        record = records.parse_record(buffer, offset, checksum)
        found.append(record)
        offset, checksum = offset + record.length, record.checksum
    return found


def committed_blocks(file: Path) -> list[Record]:
    """The records of committed entries that hold a block."""
    found = read_records(file)
    [*_, last] = [item for item in found if item.kind == Kind.HARD_STATE]
    commit = records.parse_hard_state(last.data).commit
    return [
        item
        for item in found
        if item.kind == Kind.ENTRY
        and item.index <= commit
        and records.parse_entry(item.data).bodies
    ]


PLACES: Final = {
    "length": lambda record: record.offset,
    "kind": lambda record: record.offset + 8,
    "index": lambda record: record.offset + 16,
    "term": lambda record: record.offset + records.HEAD_BYTES + 8,
    "skeleton": lambda record: record.offset + records.HEAD_BYTES + len(record.data) - 40,
    "body": lambda record: record.offset + records.HEAD_BYTES + len(record.data) + 30,
    "checksum": lambda record: record.offset + record.length - 3,
}
ENTRIES: Final = {"first": 0, "middle": 0.5, "last": 1}
# Each part of an entry once in the middle, and what matters most in the first and the last.
FLIPS: Final = [
    *(("middle", place) for place in PLACES),
    ("first", "skeleton"),
    ("first", "body"),
    ("last", "length"),
    ("last", "skeleton"),
    ("last", "body"),
    ("last", "checksum"),
]


def test_check_names_a_damaged_entry(past: Past, data: Path) -> None:
    file = last_file(data / "log")
    record = committed_blocks(file)[-1]
    flip(file, 8 * PLACES["body"](record) + 5)
    [finding] = check(past, data, 5)["findings"]
    assert finding["index"] == record.index


@pytest.mark.long
@pytest.mark.scenario("A5", tier="P")
def test_a_flipped_bit_in_a_committed_entry(tmp_path: Path) -> None:
    """Each part of an entry: the node takes no part until the others gave it, then goes on."""
    with running_network(tmp_path) as network:
        with Load(network) as load:
            load.wait_more(100)
        wait_equal(network)
        data = network.node(NODE).config.node.data_dir
        for which, place in FLIPS:
            network.kill(NODE)
            file = last_file(data / "log")
            blocks = committed_blocks(file)
            record = blocks[round(ENTRIES[which] * (len(blocks) - 1))]
            flip(file, 8 * PLACES[place](record) + 5)
            lines = len(log_lines(network, NODE))
            network.restart(NODE)
            wait_serving(network, NODE)
            new = log_lines(network, NODE)[lines:]
            [line] = [line for line in new if line["event"] == "log_repaired"]
            assert line["index"] == record.index, f"{which} {place}"
        verify(network, load.acknowledged.values())


@pytest.mark.long
@pytest.mark.scenario("A5", tier="P")
def test_an_entry_that_goes_bad_while_the_node_runs(tmp_path: Path) -> None:
    """Who asks for it gets no answer; the node fetches it from the others, as the same process."""
    with running_network(tmp_path) as network:
        with Load(network) as load:
            load.wait_more(100)
        wait_equal(network)
        network.kill(NODE)
        network.restart(NODE)
        wait_equal(network)
        node = network.node(NODE)
        pid = node.pid
        other = others(network, NODE)[0]
        right = {height: ask(network, other, f"/v1/blocks/{height}") for height in range(1, 8)}
        # What was read at the start is not kept in memory: the next reader goes to the disk.
        file = last_file(node.config.node.data_dir / "log")
        record = committed_blocks(file)[3]
        flip(file, 8 * PLACES["body"](record))

        def asks() -> bool:
            for height in range(1, 8):
                # None: it refused, or began again just then.
                assert ask(network, NODE, f"/v1/blocks/{height}") in (None, right[height])
            events = [line["event"] for line in log_lines(network, NODE)]
            return "log_repaired" in events

        wait_until(asks, "the entry is fetched again")
        wait_equal(network)
        assert node.pid == pid
        verify(network, load.acknowledged.values())


def test_the_copy_is_sound_until_it_is_damaged(past: Past, data: Path) -> None:
    report = check(past, data, 0)
    assert report["is_sound"]
    assert report["tree_size"] == len(past.told)


@pytest.mark.scenario("A7", tier="P")
def test_acknowledged_entries_cut_off_are_missed(past: Past, data: Path) -> None:
    file = last_file(data / "log")
    first = committed_blocks(file)[-3]
    os.truncate(file, first.offset)
    said = run_refuses(past, data, 10)
    assert "committed entries are missing" in said["reason"]
    assert check(past, data, 5)["findings"][0]["index"] == first.index


@pytest.mark.scenario("A7", tier="P")
def test_a_log_that_is_gone_or_empty(past: Past, data: Path) -> None:
    """A node that forgot what it voted for is no voter: it does not start."""
    file = last_file(data / "log")
    os.truncate(file, 0)
    assert "corrupt" in run_refuses(past, data, 10)["reason"]
    file.unlink()
    assert "p2pcity init" in run_refuses(past, data, 2)["remedy"]


@pytest.mark.scenario("A7", tier="P")
def test_a_damaged_outbox(past: Past, data: Path) -> None:
    (data / "outbox.db").write_bytes(b"garbage" * 5_000)
    for name in ("outbox.db-wal", "outbox.db-shm"):
        (data / name).unlink(missing_ok=True)
    said = run_refuses(past, data, 10)
    assert "outbox.db" in said["reason"]
    assert f"move {data}/outbox.db away" in said["remedy"]


@pytest.mark.scenario("A9", tier="P")
def test_another_nodes_key(past: Past, data: Path, tmp_path: Path) -> None:
    keys = {"genesis": past.network.node("node2").config.node.key, "none": tmp_path / "node.key"}
    keys["none"].write_bytes(PrivateKey.generate().to_pem())
    keys["none"].chmod(0o600)
    reasons = {
        name: run_refuses(past, data, 2, "--set", f"node.key={key}")["reason"]
        for name, key in keys.items()
    }
    assert all("belongs to peer id" in reason for reason in reasons.values()), reasons


@pytest.mark.scenario("A9", tier="P")
def test_a_directory_of_another_node(past: Past) -> None:
    said = run_refuses(past, past.network.node("node2").config.node.data_dir, 2)
    assert "belongs to peer id" in said["reason"]


def delete_views(data: Path) -> None:
    for path in data.glob("views.db*"):
        path.unlink()


def fill_views_with_garbage(data: Path) -> None:
    delete_views(data)
    (data / "views.db").write_bytes(b"garbage" * 5_000)


def empty_views(data: Path) -> None:
    delete_views(data)
    (data / "views.db").touch()


def damage_pages_of_views(data: Path) -> None:
    with contextlib.closing(sqlite3.connect(data / "views.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    path = data / "views.db"
    for page in range(1, path.stat().st_size // 4096):
        # The type of the page, and somewhere in its content.
        flip(path, 8 * 4096 * page + 3)
        flip(path, 8 * (4096 * page + 3_900))


def damage_the_wal_of_views(data: Path) -> None:
    path = data / "views.db-wal"
    for page in range(path.stat().st_size // 4096):
        flip(path, 8 * (page * 4096 + 200))


def delete_shared_memory(data: Path) -> None:
    for name in ("views.db-shm", "outbox.db-shm"):
        (data / name).unlink(missing_ok=True)


def cut_the_wal_of_views(data: Path) -> None:
    path = data / "views.db-wal"
    os.truncate(path, path.stat().st_size // 2)


def delete_the_wal_of_views(data: Path) -> None:
    (data / "views.db-wal").unlink()


def tear_a_record(data: Path) -> None:
    """As a crash in the middle of a write leaves it: half of the next entry."""
    file = last_file(data / "log")
    last = read_records(file)[-1]
    entry = Entry(1, last.index + 1, b"not a block, but an entry" * 100)
    record = records.encode_entry(entry, last.checksum)
    with file.open("ab") as stream:
        stream.write(record[: len(record) // 2])


def tear_the_last_record(data: Path) -> None:
    """The last record is cut short; it is no entry, or the views would miss it."""
    file = last_file(data / "log")
    last = read_records(file)[-1]
    assert last.kind in (Kind.SYNC_MARK, Kind.HARD_STATE)
    os.truncate(file, last.offset + last.length - 5)


def leave_zeros_at_the_end(data: Path) -> None:
    """As a file system does that wrote the new size and not the data."""
    with last_file(data / "log").open("ab") as stream:
        stream.write(bytes(3_000))


HARMLESS: Final[list[tuple[Callable[[Path], None], str]]] = [
    (delete_views, ""),
    (fill_views_with_garbage, "views_rebuilt"),
    (empty_views, "views_rebuilt"),
    (damage_pages_of_views, "views_rebuilt"),
    (damage_the_wal_of_views, ""),
    (tear_a_record, "log_tail_cut"),
    (tear_the_last_record, "log_tail_cut"),
    (leave_zeros_at_the_end, "log_tail_cut"),
]


MISSING: Final[list[tuple[Callable[[Path], None], str]]] = [
    (delete_shared_memory, ""),
    (cut_the_wal_of_views, ""),
    (delete_the_wal_of_views, ""),
]


@pytest.mark.long
@pytest.mark.parametrize("damages", [HARMLESS, MISSING], ids=["most", "missing"])
@pytest.mark.scenario("A4", "A7", tier="P")
def test_what_can_be_mended_is(
    tmp_path: Path, damages: list[tuple[Callable[[Path], None], str]]
) -> None:
    """Killed, damaged and started again, once for each damage, while the others go on."""
    with running_network(tmp_path) as network:
        told: list[Acknowledgement] = []
        data = network.node(NODE).config.node.data_dir
        for damage, said in damages:
            with Load(network) as load:
                load.wait_more(30)
            wait_equal(network)
            network.kill(NODE)
            lines = len(log_lines(network, NODE))
            damage(data)
            with Load(network, targets=others(network, NODE)) as more:
                more.wait_more(10)
            network.restart(NODE)
            told += [*load.acknowledged.values(), *more.acknowledged.values()]
            ledger = wait_equal(network)
            events = [line["event"] for line in log_lines(network, NODE)[lines:]]
            assert not said or said in events, f"{damage.__name__}: {events}"
            print(f"{damage.__name__}: height {ledger['height']} again")
        verify(network, told)


def test_a_damaged_row_that_only_a_client_meets(tmp_path: Path) -> None:
    """It is not served: the node begins again with new views, as the same process."""
    with running_network(tmp_path) as network:
        with Load(network) as load:
            load.wait_more(30)
        wait_equal(network)
        node = network.node(NODE)
        network.kill(NODE)
        views = node.config.node.data_dir / "views.db"
        with contextlib.closing(sqlite3.connect(views)) as connection:
            changed = connection.execute("UPDATE blocks SET time_ms = time_ms + 1 WHERE height = 3")
            assert changed.rowcount == 1
            connection.commit()
        network.restart(NODE)
        pid = node.pid
        with node.client() as client, pytest.raises(ApiProblem) as caught:
            client.get_json("/v1/blocks/3")
        assert (caught.value.status, caught.value.reason) == (503, "ledger")
        wait_until(lambda: ask(network, NODE, "/v1/blocks/3") is not None, "the block is served")
        assert node.pid == pid
        verify(network, load.acknowledged.values())


@pytest.mark.scenario("A9", tier="P")
def test_a_second_start_is_refused(tmp_path: Path) -> None:
    with running_network(tmp_path, start=[NODE]) as network:
        wait_serving(network, NODE)
        past = Past(network, ())
        said = run_refuses(past, past.data, 12)
        assert f"process {network.node(NODE).pid} " in said["reason"]
        assert p2pcity(past, "check").returncode == 12
        assert p2pcity(past, "rebuild").returncode == 12
        # The first one does not mind.
        assert ask(network, NODE, "/livez") is not None
