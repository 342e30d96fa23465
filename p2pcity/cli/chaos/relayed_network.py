"""Makes a local network whose nodes know each other only by the relays between them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from p2pcity.cli.chaos.wires import Wires
from p2pcity.cli.key_files import read_key
from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.cli.testnet.making import change_settings
from p2pcity.crypto.keys import peer_id

AUTHOR: Final = "chaos"


def make(
    directory: Path,
    wires: Wires,
    *,
    raft_preset: str = "local",
    authors: Sequence[str] = (AUTHOR,),
    settings: Mapping[str, Any] | None = None,
) -> LocalNetwork:
    """Make the nodes of `wires`, all of which vote; nothing is started.

    `settings` (`section.name`) go into every configuration. Raises ConfigError.
    """
    made = LocalNetwork.create(
        directory,
        nodes=len(wires.nodes),
        orderers=len(wires.nodes),
        authors=authors,
        raft_preset=raft_preset,
        name="chaos",
        # Only the relays lead to a node: what it says of its own address leads nowhere.
        announce=f"/ip4/127.0.0.1/tcp/{wires.refusing_port}",
    )
    assert tuple(node.name for node in made.nodes) == wires.nodes
    ids = {
        node.name: peer_id(read_key(node.config.node.key, "node.key").public) for node in made.nodes
    }
    for node in made.nodes:
        wires.retarget(node.name, int(node.config.net.listen[0].rpartition("/")[2]))
        peers = tuple(
            f"/ip4/{wires.host(node.name, other)}/tcp/{wires.port(node.name, other)}"
            f"/p2p/{ids[other]}"
            for other in wires.nodes
            if other != node.name
        )
        change_settings(node.config_file, {**(settings or {}), "net.peers": peers})
    return LocalNetwork(directory)
