"""`p2pcity raft recover --json`: all that the text says stands in the document, before the yes."""

import json
from pathlib import Path

import pytest

from p2pcity.cli.main import main
from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.wire import genesis as genesis_wire
from p2pcity.wire.raft import Entry, HardState

pytestmark = pytest.mark.scenario("D13", tier="U")
_YES = ("--yes-lose-what-is-missing", "T")


def _run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    return int(caught.value.code or 0)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Node a of three that is stopped: 5 entries without blocks in its log, 2 of them committed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    cards = []
    for name in ("a", "b", "c"):
        assert _run("init", name, "--member", "works", "--name", name) == 0
        cards += ["--card", f"{name}/node.card"]
    assert _run("genesis", "new", "--name", "T", *cards, "-o", "a/genesis.cbor") == 0
    log = SegmentLog.open(tmp_path / "a" / "data" / "log")
    log.bind_network(genesis_wire.decode((tmp_path / "a" / "genesis.cbor").read_bytes()).network)
    log.save(HardState(3, None, 2), [Entry(3, index, b"") for index in range(1, 6)], True)
    log.close()
    return str(tmp_path / "a" / "p2pcity.toml")


def test_the_document_says_what_the_text_says(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert _run("raft", "recover", "--config", config) == 2
    text = capsys.readouterr().out
    assert _run("raft", "recover", "--config", config, "--json") == 2
    told = json.loads(capsys.readouterr().out)
    assert (told["is_recovered"], told["epoch"]) == (False, 1)
    assert (told["index"], told["term"]) == (None, None)
    assert (told["last_index"], told["last_term"], told["height"]) == (5, 3, 0)
    assert (told["commit_index"], told["height_committed"]) == (2, 0)
    assert told["kept"] == {"entries": 3, "blocks": 0, "transactions": 0}
    assert told["may_be_lost"] == {"after_index": 5, "after_height": 0}
    assert told["left_out"] == ["works/b", "works/c"]
    assert (told["network"], told["node"]) == ("T", "works/a")
    for key in ("network_id", "peer_id", "time", "head"):
        assert told[key] in text
    assert "3 entries (0 blocks, 0 transactions)" in text
    assert "beyond index 5, after height 0" in text
    assert "works/b, works/c" in text

    assert _run("raft", "recover", "--config", config, "--json", *_YES) == 0
    done = json.loads(capsys.readouterr().out)
    assert done == {**told, "is_recovered": True, "index": 6, "term": 4}
