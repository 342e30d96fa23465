"""`p2pcity testnet`: local networks for trying things out."""

import time
from functools import partial
from pathlib import Path
from typing import Any

import click

from p2pcity.cli import exit_codes
from p2pcity.cli.chaos.command import chaos
from p2pcity.cli.output import json_option, print_json, print_table
from p2pcity.cli.scenario.command import scenario
from p2pcity.cli.testnet.containers import ContainerNetwork, open_network
from p2pcity.cli.testnet.joining import join
from p2pcity.cli.testnet.local_network import READY_S, STOP_S, LocalNetwork
from p2pcity.cli.testnet.local_node import LocalNode
from p2pcity.cli.testnet.making import NODES_MAX
from p2pcity.node.config import RAFT_PRESETS

_directory = click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))


@click.group()
def testnet() -> None:
    """Make and run a network of processes, or of containers, on this machine."""


@testnet.command("init")
@click.option(
    "-n",
    "--nodes",
    type=click.IntRange(1, NODES_MAX),
    default=4,
    show_default=True,
    help="Number of nodes, named node1 to nodeN.",
)
@click.option(
    "--orderers",
    type=click.IntRange(1, NODES_MAX),
    help="How many of them vote; the others observe [default: 3, or 1 of fewer than 3].",
)
@click.option("--author", "authors", multiple=True, metavar="NAME", help="An author; repeat.")
@click.option(
    "--raft-preset",
    type=click.Choice(list(RAFT_PRESETS)),
    help="Heartbeat and election time-outs [default: local, with --compose lan].",
)
@click.option("--name", default="testnet", show_default=True, help="Name of the network.")
@click.option(
    "-o",
    "--output",
    "directory",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to make it.",
)
@click.option(
    "--compose", "has_containers", is_flag=True, help="Of containers: a compose.yaml too."
)
@click.option("--prometheus", "has_prometheus", is_flag=True, help="With --compose: a Prometheus.")
@json_option
def init_(
    nodes: int,
    orderers: int | None,
    authors: tuple[str, ...],
    raft_preset: str | None,
    name: str,
    directory: Path,
    has_containers: bool,
    has_prometheus: bool,
    is_json: bool,
) -> None:
    """Make keys, genesis and configurations of a network.

    Each author's private key is DIR/authors/NAME.key; the genesis lists it for all event types.
    With --compose each node is a container; the image is built by `make image`.
    """
    if has_prometheus and not has_containers:
        raise click.UsageError("--prometheus goes with --compose")
    make = (
        partial(ContainerNetwork.make, has_prometheus=has_prometheus)
        if has_containers
        else LocalNetwork.create
    )
    network = make(
        directory,
        nodes=nodes,
        orderers=orderers or (3 if nodes >= 3 else 1),
        authors=authors,
        raft_preset=raft_preset or ("lan" if has_containers else "local"),
        name=name,
    )
    if is_json:
        rows = [
            {"name": n.name, "role": n.role, "directory": str(n.directory), "socket": str(n.socket)}
            for n in network.nodes
        ]
        print_json(
            "testnet-init",
            {
                "directory": str(network.directory),
                "network": network.network_id.hex(),
                "nodes": rows,
                "authors": list(authors),
            },
        )
        return
    print_table(
        ["NODE", "ROLE", "LISTENS", "SOCKET"],
        [(n.name, n.role, " ".join(n.config.net.listen), _short(n)) for n in network.nodes],
    )
    print(f"\nStart it with: p2pcity testnet up {directory}")


@testnet.command()
@_directory
@click.option("--wait", "is_waiting", is_flag=True, help="Return once all nodes are ready.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0.1),
    default=READY_S,
    show_default=True,
    help="Seconds to wait at most.",
)
def up(directory: Path, is_waiting: bool, timeout_s: float) -> None:
    """Start the nodes that do not run."""
    network = open_network(directory)
    started = network.start()
    if is_waiting:
        network.wait_ready(deadline_s=timeout_s)
    print(f"started: {', '.join(started) or 'none, all of them ran already'}")


@testnet.command()
@_directory
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0.1),
    default=STOP_S,
    show_default=True,
    help="Seconds that the nodes have to stop by themselves.",
)
def down(directory: Path, timeout_s: float) -> int:
    """Stop all nodes: SIGTERM, and SIGKILL to those that take too long."""
    network = open_network(directory)
    running = network.running()
    late = network.down(timeout_s)
    print(f"stopped: {', '.join(running) or 'none, nothing ran'}")
    if late:
        print(f"killed after {timeout_s:.0f} s: {', '.join(late)}")
    return exit_codes.FAILED if late else 0


@testnet.command()
@_directory
@json_option
def status(directory: Path, is_json: bool) -> int:
    """Show every node in a line; exit code 3 when one is not ready, 4 when none answers."""
    network = open_network(directory)
    rows = [_row(node, found) for node, found in _pairs(network)]
    if is_json:
        document = {"directory": str(network.directory), "network": network.network_id.hex()}
        print_json("testnet-status", {**document, "nodes": rows})
    else:
        heads = ["NODE", "ROLE", "STATE", "PID", "RAFT", "TERM", "HEIGHT", "HEAD", "EVENTS"]
        names = ["name", "role", "state", "pid", "raft", "term", "height", "head", "events"]
        table = []
        for row in rows:
            cells = {**row, "head": row["head"] and row["head"][:12]}
            table.append([cells[name] for name in names])
        print_table(heads, table)
    states = {row["state"] for row in rows}
    if states == {"ready"}:
        return 0
    return exit_codes.DEGRADED if states & {"ready", "not ready"} else exit_codes.UNREACHABLE


@testnet.command()
@_directory
@click.argument("name", required=False)
@click.option(
    "-n", "--lines", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many."
)
@click.option("-f", "--follow", "is_following", is_flag=True, help="Go on until Ctrl-C.")
def logs(directory: Path, name: str | None, lines: int, is_following: bool) -> None:
    """Print the last lines of the nodes' logs (or of one node's)."""
    network = open_network(directory)
    nodes = network.nodes if name is None else (network.node(name),)
    mark = name is None
    for node in nodes:
        for line in node.last_lines(lines):
            print(f"{node.name}  {line}" if mark else line)
    if not is_following:
        return
    if isinstance(network, ContainerNetwork):
        network.engine.follow_logs(*(() if name is None else (name,)))
        return
    files = [(node, node.log_file.open("a+", encoding="utf-8", errors="replace")) for node in nodes]
    while True:
        for node, file in files:
            for line in file:
                print(f"{node.name}  {line}" if mark else line, end="", flush=True)
        time.sleep(0.2)


testnet.add_command(chaos)
testnet.add_command(join)
testnet.add_command(scenario)


def _pairs(network: LocalNetwork) -> list[tuple[LocalNode, dict[str, Any] | None]]:
    statuses = network.statuses()
    return [(node, statuses[node.name]) for node in network.nodes]


def _row(node: LocalNode, found: dict[str, Any] | None) -> dict[str, Any]:
    if found is None:
        state = "down" if node.pid is None else "no answer"
    else:
        state = "ready" if found["is_ready"] else "not ready"
    raft, ledger = (found["raft"], found["ledger"]) if found else ({}, {})
    return {
        "name": node.name,
        "role": node.role,
        "state": state,
        "pid": node.pid,
        "raft": raft.get("role"),
        "term": raft.get("term"),
        "height": ledger.get("height"),
        "head": ledger.get("head"),
        "tree_size": ledger.get("tree_size"),
        "root": ledger.get("root"),
        "events": ledger.get("events"),
        "alarms": found["alarms"] if found else [],
        "socket": str(node.socket),
    }


def _short(node: LocalNode) -> str:
    home = node.directory.parent
    return str(node.socket.relative_to(home)) if home in node.socket.parents else str(node.socket)
