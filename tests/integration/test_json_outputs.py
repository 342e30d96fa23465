"""Every command's --json, on a real network, against the schema that the release carries.

No schema takes a field that it does not name: to add, rename or drop one means to change its file
in `p2pcity/cli/schemas`, where a reader of the change sees it.
"""

import json
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

import pytest

from p2pcity.cli.main import main
from p2pcity.cli.schema import NAMES
from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.cli.testnet.making import AUTHORS_DIRECTORY
from tests.integration.members_case import change, leading
from tests.integration.process_case import (
    ask,
    others,
    running_network,
    wait_equal,
    wait_leader,
    wait_until,
)
from tests.json_schemas import SHOWN_ELSEWHERE, check

pytestmark = pytest.mark.integration

EVENT: Final = '{"id": "%s", "kind": "permit.granted", "who": "parks"}\n'
MAP: Final = """\
[event]
id = "{id}"
type = "{kind}"
source = "urn:{who}"
[author]
name = "load"
member = "load"
types = ["*"]
"""


HOW_IT_IS: Final = (0, 3)
"""Well, or an election is under way just then: the document is the same."""


class Said:
    """Runs commands in this process, checks each document that they print, and counts kinds."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.checked: set[str] = set()

    def __call__(self, *arguments: object, codes: Collection[int] = (0,)) -> list[dict[str, Any]]:
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        printed = self._capsys.readouterr()
        assert int(ended.value.code or 0) in codes, printed
        documents = [json.loads(line) for line in printed.out.splitlines()]
        for document in documents:
            self.take(document)
        return documents

    def take(self, document: dict[str, Any]) -> None:
        self.checked.add(check(document))


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    return Said(capsys)


def test_each_output_is_what_its_schema_says(tmp_path: Path, said: Said) -> None:
    _without_a_node(tmp_path, said)
    with running_network(tmp_path) as network:
        leader = wait_leader(network)
        _of_a_node(network, leader, said)
        wait_equal(network)
        wait_until(lambda: _syncs_known(network), "all told how long their syncs take")
        _of_orderers(network, said)
        network.stop()
        _of_a_stopped_node(network, said)
    assert {*said.checked, *SHOWN_ELSEWHERE} == {*NAMES, "StoredEvent"}


def _syncs_known(network: LocalNetwork) -> bool:
    """Whether whoever leads knows of each other, too, how long its disk takes."""
    answer = ask(network, wait_leader(network), "/v1/raft")
    nodes = [] if answer is None else answer["nodes"]
    return len(nodes) == 3 and all((row["sync_ms_p99"] or 0) > 0 for row in nodes)


def _without_a_node(home: Path, said: Said) -> None:
    said("version", "--json")
    said("config", "--keys", "--json")
    said("systemd", "install", "--print", "--json")
    said("key", "new", home / "key.pem", "--json")
    said("key", "show", home / "key.pem", "--json")
    said("init", home / "new", "--member", "Parks", "--json")
    card, genesis = home / "new/node.card", home / "genesis.cbor"
    said("genesis", "new", "--name", "City", "--card", card, "-o", genesis, "--json")
    said("genesis", "show", genesis, "--json")
    said("genesis", "sign", genesis, "--key", home / "new/node.key", "--json")
    [made] = said("init", home / "other", "--member", "Roads", "--genesis", genesis, "--json")
    assert len(made["network"]) == 64
    shutil.rmtree(home / "new/data")
    [made] = said("init", home / "new", "--rejoin", "--json")
    assert "raft replace" in made["next"]
    said("testnet", "init", "-n", 2, "-o", home / "two", "--json")


def _of_a_node(network: LocalNetwork, leader: str, said: Said) -> None:
    node = network.node(leader)
    on, config = ("--node", node.socket), ("--config", node.config_file)
    [answer] = said("submit", "--type", "permit.granted", "--data", "{}", *on, "--json")
    said("ledger", "info", *on, "--json")
    said("ledger", "block", 1, *on, "--json")
    said("ledger", "transaction", answer["answers"][0]["id"], *on, "--json")
    said("ledger", "transaction", "00" * 32, *on, "--json", codes=[1])
    said("trace", answer["answers"][0]["id"], *on, "--json", codes=HOW_IT_IS)
    said("trace", "00" * 32, *on, "--json", codes=[1])
    rows = network.directory / "rows.ndjson"
    rows.write_text("".join(EVENT % number for number in range(3)) + "{}\n", encoding="utf-8")
    map_file = network.directory / "map.toml"
    map_file.write_text(MAP, encoding="utf-8")
    keys = network.directory / "made"
    said("ingest", "ndjson", rows, "--map", map_file, "--make-keys", "--keys", keys, "--json")
    keys = network.directory / AUTHORS_DIRECTORY
    said("ingest", "ndjson", rows, "--map", map_file, "--keys", keys, *on, "--json")
    said("query", "--limit", 2, *on, "--json")
    said("tail", "--from", 0, "--limit", 2, *on, "--json")
    said("status", *on, "--json", codes=HOW_IT_IS)
    said("peers", *on, "--json")
    said("bw", "--seconds", 0.2, *on, "--json")
    said("raft", "status", *on, "--json")
    said("doctor", *config, "--json", codes=HOW_IT_IS)
    said("config", *config, "--json")
    other = next(other for other in network.nodes if other.name != leader)
    said("ping", node.socket, other.name, "--count", 2, *on, "--json")
    said("compare", node.socket, other.socket, "--json")
    said("debug", "bundle", *config, "-o", network.directory / "bundle.tar.gz", "--json")
    said("testnet", "status", network.directory, "--json", codes=HOW_IT_IS)


def _of_orderers(network: LocalNetwork, said: Said) -> None:
    leader = leading(network)
    on = ("--node", network.node(leader).socket)
    said("raft", "what-if", "remove", leader, *on, "--json", codes=[5])
    # Who leads may have changed since, so these ask whoever does.
    follower = others(network, leader)[0]
    forced = ("--force", f"{follower}/{follower}")
    said.take(change(network, "demote", follower, *forced))
    said.take(change(network, "transfer"))


def _of_a_stopped_node(network: LocalNetwork, said: Said) -> None:
    node = network.nodes[0]
    config = ("--config", node.config_file)
    said("check", *config, "--json")
    said("rebuild", *config, "--json")
    said("inspect", node.config.node.data_dir, "--json")
    said("testnet", "status", network.directory, "--json", codes=[4])
    said("doctor", *config, "--json", codes=[4])
