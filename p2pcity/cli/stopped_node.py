"""What `check` and `rebuild` need of a node that does not run: its files, under its lock."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from p2pcity.cli.key_files import read_file, read_key
from p2pcity.cli.node_address import load_config
from p2pcity.crypto.keys import peer_id
from p2pcity.wire import genesis as genesis_wire
from p2pcity.wire.genesis import Genesis

if TYPE_CHECKING:
    from p2pcity.ledger.data_directory import DataDirectory


@dataclass(frozen=True, slots=True)
class StoppedNode:
    """The data directory and the genesis of a node, locked until the end of the block.

    `key` is its public node key.
    """

    directory: DataDirectory
    genesis: Genesis
    key: bytes


@contextmanager
def stopped_node(config_file: Path | None) -> Iterator[StoppedNode]:
    """Lock the node's data directory; LockedError (exit code 12) while it runs."""
    from p2pcity.ledger.data_directory import open_directory
    from p2pcity.ledger.lock import DataLock

    config = load_config(config_file)
    genesis = genesis_wire.decode(read_file(config.node.genesis, "node.genesis"))
    key = read_key(config.node.key, "node.key").public
    directory = open_directory(config.node.data_dir)
    with DataLock(directory.path, peer_id(key)):
        yield StoppedNode(directory, genesis, key)


def show_progress(done: int, last: int) -> None:
    """Show how far it is, on a terminal."""
    if sys.stderr.isatty():
        print(f"\r{done} of {last}", end="" if done < last else "\n", file=sys.stderr, flush=True)
