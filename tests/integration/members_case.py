"""What the tests of changes of who orders share: the operator's commands, joiners, wiped nodes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.cli.testnet.local_node import LocalNode
from tests.integration.process_case import ask, wait_until

CHANGE_S: Final = 60.0
"""For an operator's command to be in effect on a busy machine."""
PROMOTION_MS: Final = 500
_TRIES: Final = 8


def p2pcity(node: LocalNode, *arguments: str) -> tuple[int, str]:
    """Run a command with --json against a node's socket; its exit code and what it printed."""
    command = [sys.executable, "-m", "p2pcity", *arguments, "--node", str(node.socket), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=CHANGE_S + 30)
    return done.returncode, done.stdout + done.stderr


def change(network: LocalNetwork, *arguments: str) -> dict[str, Any]:
    """Run `p2pcity raft ...` on whoever leads until it is done; its document.

    Leadership may move between the look and the command, and a removed leader answers last.
    """
    output = ""
    for _ in range(_TRIES):
        leader = leading(network)
        code, output = p2pcity(network.node(leader), "raft", *arguments)
        if code == 0:
            document: dict[str, Any] = json.loads(output)
            return document
        if "does not lead" not in output and "only just begun" not in output:
            break
    raise AssertionError(f"raft {' '.join(arguments)}: {output}")


def leading(network: LocalNetwork) -> str:
    """Whoever leads by its own word and that of most running voters.

    Unlike `wait_leader` it leaves out nodes that are no voters any more, or not yet.
    """
    found: list[str] = []

    def has_leader() -> bool:
        asked = {
            node.name: ask(network, node.name, "/v1/status")
            for node in network.nodes
            if node.pid is not None
        }
        rafts = {
            name: status["raft"]
            for name, status in asked.items()
            if status is not None and status["node"]["place"] == "voter"
        }
        for name, raft in rafts.items():
            same = [x for x in rafts.values() if x["term"] == raft["term"] and x["leader"]]
            if raft["role"] == "leader" and 2 * len(same) > len(rafts):
                found.append(name)
                return True
        return False

    wait_until(has_leader, "one of the voters leads", deadline_s=CHANGE_S)
    return found[-1]


def hasten(network: LocalNetwork, *names: str) -> None:
    """Let nodes that were added vote soon."""
    for name in names:
        text = network.node(name).config_file.read_text("utf-8")
        network.node(name).config_file.write_text(
            text.replace("[raft]\n", f"[raft]\npromotion_ms = {PROMOTION_MS}\n"), "utf-8"
        )


def join(network: LocalNetwork, name: str, *, role: str = "orderer") -> LocalNode:
    """Make and start one more node, and let the city add it."""
    node = network.add(name, role=role)
    hasten(network, name)
    node.start()
    change(network, "add", str(node.directory / "node.card"))
    return node


def wait_place(network: LocalNetwork, name: str, place: str, *seen_by: str) -> None:
    """Wait until the nodes (itself without any) see `name` in this place."""

    def is_there() -> bool:
        for observer in seen_by or (name,):
            document = ask(network, observer, "/v1/raft")
            rows = {} if document is None else {row["member"]: row for row in document["nodes"]}
            found = rows[name]["place"] if name in rows else "none"
            if document is None or document["is_joint"] or found != place:
                return False
        return True

    wait_until(is_there, f"{name} is {place}", deadline_s=CHANGE_S)


def wipe(network: LocalNetwork, name: str) -> Path:
    """Take a stopped node's disk away and give it a new log, as an operator does; its new card."""
    node = network.node(name)
    assert node.pid is None
    shutil.rmtree(node.config.node.data_dir)
    command = [sys.executable, "-m", "p2pcity", "init", str(node.directory), "--rejoin"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return node.directory / "node.card"
