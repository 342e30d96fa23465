"""`p2pcity testnet join`: one more node for a local network that runs."""

from __future__ import annotations

import base64
import json
import socket
import time
from pathlib import Path
from typing import Final

import click

from p2pcity.api.client import ApiProblem, Unreachable
from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.errors import Unavailable

_POLL_S: Final = 0.2
_ADD_MS: Final = 10_000


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--name", help="Name of the new node [default: this host's name].")
@click.option(
    "--role",
    type=click.Choice(["orderer", "observer"]),
    default="observer",
    show_default=True,
    help="Whether it votes once it has caught up.",
)
@click.option(
    "--compose",
    "has_containers",
    is_flag=True,
    help="Inside the node's container: it listens on port 4710 and is found by its name.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0.1),
    default=60.0,
    show_default=True,
    help="Seconds that the network has to take it in.",
)
def join(
    directory: Path, name: str | None, role: str, has_containers: bool, timeout_s: float
) -> None:
    """Make one more node under DIR and let the running network take it in.

    It is not started. A node that is there already stays as it is, so that a container can do
    this at each of its starts.
    """
    name = name or socket.gethostname()
    network = LocalNetwork(directory)
    if name not in [node.name for node in network.nodes]:
        preset = next(iter(network.nodes)).config.raft.preset
        network.add(name, role=role, raft_preset=preset, has_containers=has_containers)
    _take_in(network, name, role, time.monotonic() + timeout_s)
    print(f"{name} is a node of the network; start it: p2pcity run --config {directory / name}")


def _take_in(network: LocalNetwork, name: str, role: str, until_s: float) -> None:
    """Let whoever leads add the node, unless that was done before."""
    card = network.node(name).directory / "node.card"
    carried = base64.b64encode(card.read_bytes()).decode()
    body = {
        "cards": [carried],
        "is_observer": role == "observer",
        "force": [],
        "timeout_ms": _ADD_MS,
    }
    why = "nobody leads"
    while time.monotonic() < until_s:
        leader = network.leader()
        if leader is not None:
            with network.client(leader, _ADD_MS / 1000 + 5) as client:
                try:
                    nodes = client.get_json("/v1/raft")["nodes"]
                    if any(row["name"] == f"{name}/{name}" for row in nodes):
                        return
                    client.post("/v1/admin/add", json.dumps(body).encode())
                    return
                except (Unreachable, ApiProblem) as error:
                    why = str(error)
        time.sleep(_POLL_S)
    raise Unavailable(
        f"the network has not taken {name} in: {why}",
        remedy=f"See how it is: `p2pcity testnet status {network.directory}`.",
    )
