"""Cities of one node whose ledger was written beforehand: real nodes with the blocks one wants."""

import json
import shutil
from pathlib import Path
from typing import Any, Final

import pytest

from p2pcity.cli.key_files import write_key
from p2pcity.cli.main import main
from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.cli.testnet.making import change_settings
from p2pcity.crypto.keys import peer_id
from p2pcity.ledger.data_directory import initialise
from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.wire import genesis as genesis_wire
from p2pcity.wire.raft import Entry, HardState
from tests.chain_case import AUTHOR, NODE, Chain
from tests.integration.warm_nodes import launch_warm

NAME: Final = "node1"
_INCARNATION: Final = b"i" * 16


def make_chain(height: int, *, parts_at: int = 0) -> Chain:
    """A chain of `height` blocks of one transaction each.

    All are beginnings of each other, up to where one parts from the rest (0: nowhere).
    """
    chain = Chain()
    for number in range(1, height + 1):
        if number == parts_at:
            # What is numbered from here on is something else.
            chain.event()
        chain.add(chain.carried())
    return chain


def make_lone(directory: Path, chain: Chain, *, keep_blocks: int = 0) -> LocalNetwork:
    """A node that orders alone and has the chain in its log, committed; it is not started."""
    network = LocalNetwork.create(directory, nodes=1, orderers=1)
    own = network.node(NAME).directory
    for name, key in ("node.key", NODE), ("author.key", AUTHOR):
        (own / name).unlink()
        write_key(own / name, key)
    for place in (own, directory):
        (place / "genesis.cbor").write_bytes(genesis_wire.encode(chain.genesis))
    change_settings(own / "p2pcity.toml", {"ledger.keep_blocks": keep_blocks})
    shutil.rmtree(own / "data")
    write_data(own / "data", chain)
    network = LocalNetwork(directory)
    network.node(NAME).launch = launch_warm
    return network


def write_data(path: Path, chain: Chain) -> None:
    """A data directory with the chain in its log, as that of a node that never applied it."""
    log_directory = initialise(path, _INCARNATION).log
    log = SegmentLog.open(log_directory)
    log.bind_network(chain.genesis.network)
    entries = [Entry(1, index, payload or b"") for index, payload in chain.pairs()]
    log.save(HardState(1, peer_id(NODE.public), chain.last_index), entries, must_sync=True)
    log.close()


class CommandLine:
    """Runs commands in this process; `out` and `err` are what the last one printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.out = ""
        self.err = ""

    def run(self, *arguments: str) -> int:
        """Run one command and return its exit code."""
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main(list(arguments))
        self.out, self.err = self._capsys.readouterr()
        return int(caught.value.code or 0)

    @property
    def document(self) -> dict[str, Any]:
        """What it printed as JSON."""
        document: dict[str, Any] = json.loads(self.out)
        return document
