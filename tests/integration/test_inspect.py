"""`p2pcity inspect` on a real node's directory: running, killed, stopped, with the data alone."""

import shutil
from pathlib import Path

import pytest

from tests.integration.lone_nodes import NAME, CommandLine, make_chain, make_lone
from tests.integration.process_case import ask, kept_running, wait_until
from tests.segment_case import entry_records, flip, last_file

pytestmark = pytest.mark.integration


def contents(directory: Path) -> dict[str, tuple[int, bytes]]:
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_a_node_killed_stopped_and_damaged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = CommandLine(capsys)
    chain = make_chain(12)
    network = make_lone(tmp_path / "net", chain)
    own = network.node(NAME).directory
    data = own / "data"

    def inspect(place: Path, *arguments: str) -> int:
        before = contents(own)
        code = line.run("inspect", str(place), *arguments)
        assert contents(own) == before, "not a byte is written"
        return code

    with kept_running(network, start=()):
        assert inspect(own, "--json") == 0
        assert line.document["last_stop"] == "clean"
        assert line.document["views"] is None
        network.start()
        network.wait_ready()
        assert line.run("inspect", str(own)) == 12
        assert line.err.count("\n") == 1
        assert str(network.node(NAME).pid) in line.err
        assert "p2pcity status" in line.err

        # The leader's first entry has no block; a node serves before it is elected.
        wait_until(
            lambda: ask(network, NAME, "/v1/raft")["commit_index"] > chain.last_index,
            "the lone leader's own first entry is committed",
        )
        network.kill(NAME)
        assert inspect(own, "--json") == 0
        killed = line.document
        assert killed["schema"] == "p2pcity/inspect/1"
        assert killed["last_stop"] == "not-clean"
        assert killed["is_sound"] is True
        assert killed["network"] == chain.genesis.network.hex()
        assert killed["incarnation"] == (b"i" * 16).hex()
        assert killed["hard_state"]["vote"] == killed["peer"]
        assert killed["log"]["last_index"] >= chain.last_index + 1
        assert killed["views"]["height"] == 12
        assert killed["views"]["head"] == chain.blocks[-1].hash.hex()
        assert killed["outbox"] == {"pending": 0, "pending_bytes": 0, "settled": 0}

        network.start()
        network.wait_ready()
        assert network.stop() == []
        # The data alone is enough, by either name.
        for name in ("p2pcity.toml", "node.key", "author.key", "genesis.cbor"):
            (own / name).unlink()
        for place in (own, data):
            assert inspect(place, "--json") == 0
            assert line.document["last_stop"] == "clean"
            assert line.document["directory"] == str(data)
        assert inspect(data) == 0
        assert "sound" in line.out
        assert "term" in line.out

        record = entry_records(last_file(data / "log"))[2]
        flip(last_file(data / "log"), (record.offset + 40) * 8)
        assert inspect(data, "--json") == 5
        [finding] = line.document["findings"]
        assert finding["index"] == record.index
        assert inspect(data) == 5
        assert "WRONG" in line.out

        shutil.rmtree(data / "log")
        assert line.run("inspect", str(own)) == 2
        assert "--rejoin" in line.err
