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
    observers: int = 0,
    spares: int = 0,
    settings: Mapping[str, Any] | None = None,
    own_settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> LocalNetwork:
    """Make the nodes of `wires`; nothing is started.

    The last ones are `spares`, which the genesis does not have; those before them observe, all
    others vote. `settings` (`section.name`) go into every configuration, `own_settings` into one
    node's. Raises ConfigError.
    """
    # Only the relays lead to a node: what it says of its own address leads nowhere.
    announce = f"/ip4/127.0.0.1/tcp/{wires.refusing_port}"
    first = len(wires.nodes) - spares
    made = LocalNetwork.create(
        directory,
        nodes=first,
        orderers=first - observers,
        authors=authors,
        raft_preset=raft_preset,
        name="chaos",
        announce=announce,
    )
    for name in wires.nodes[first:]:
        made.add(name, raft_preset=raft_preset, announce=announce)
    assert tuple(node.name for node in made.nodes) == wires.nodes
    ids = {
        node.name: peer_id(read_key(node.config.node.key, "node.key").public) for node in made.nodes
    }
    for node in made.nodes:
        wires.retarget(node.name, int(node.config.net.listen[0].rpartition("/")[2]))
        peers = tuple(
            f"/ip4/{wires.host(node.name, other)}/tcp/{wires.port(node.name, other)}"
            f"/p2p/{ids[other]}"
            # Spares dial the others: whoever waits for a spare would only dial in vain.
            for other in wires.nodes[:first]
            if other != node.name
        )
        changes = {**(settings or {}), **(own_settings or {}).get(node.name, {})}
        change_settings(node.config_file, {**changes, "net.peers": peers})
    return LocalNetwork(directory)
