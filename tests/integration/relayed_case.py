"""A network of processes whose bytes pass relays that a test can hold, slow and cut."""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from p2pcity.api.client import ApiProblem
from p2pcity.cli.chaos import relayed_network
from p2pcity.cli.chaos.wires import Wires
from p2pcity.cli.testnet.local_network import LocalNetwork
from tests.integration.process_case import (
    AUTHOR,
    Acknowledgement,
    Author,
    ask,
    kept_running,
    submit,
    wait_until,
)

HALF_S = 1_500
"""Milliseconds that a client waits for a commit which cannot come."""


@contextmanager
def running_relayed(tmp_path: Path, nodes: int = 3) -> Iterator[tuple[LocalNetwork, Wires]]:
    """Make `nodes` voters with relays between them, start them, end them."""
    with Wires([f"node{number}" for number in range(1, nodes + 1)]) as wires:
        network = relayed_network.make(tmp_path / "net", wires, authors=[AUTHOR])
        with kept_running(network):
            yield network, wires


def raft_of(network: LocalNetwork, name: str) -> dict[str, Any]:
    """What a node says of its part in Raft; empty when it does not answer."""
    found = ask(network, name, "/v1/status")
    return found["raft"] if found else {}


def term_of(network: LocalNetwork, names: Collection[str]) -> int:
    """The highest term among these nodes."""
    return max(raft_of(network, name).get("term", 0) for name in names)


def wait_not_leading(network: LocalNetwork, name: str) -> float:
    """Wait until a node says itself that it does not lead; how long that took."""
    return wait_until(
        lambda: raft_of(network, name).get("role") not in (None, "leader"),
        f"{name} steps down",
    )


def check_promises_nothing(
    network: LocalNetwork, name: str, author: Author, told: Acknowledgement
) -> str:
    """A node without a quorum acknowledges nothing, and does not read `told` linearizably.

    Returns the id of a transaction that it took and could not have committed.
    """
    with network.client(name) as client, pytest.raises(ApiProblem) as refused:
        client.get_json(f"/v1/transactions/{told.id}")
    assert refused.value.status == 503, refused.value.members
    answer = submit(network, name, author.sign().data, "committed", timeout_ms=HALF_S)
    assert (answer["verdict"], answer["status"]) == ("accept", "pending")
    return str(answer["id"])


def wait_committed(network: LocalNetwork, id_: str) -> dict[str, Any]:
    """Wait until every node says that a transaction is committed, all at one place."""
    found: list[dict[str, Any]] = []

    def is_committed() -> bool:
        answers = [
            ask(network, node.name, f"/v1/transactions/{id_}", consistency="local")
            for node in network.nodes
        ]
        found[:] = [answer for answer in answers if answer is not None]
        return len(found) == len(network.nodes) and all(
            answer["status"] == "committed" for answer in found
        )

    wait_until(is_committed, f"{id_} is committed on all nodes")
    assert len({(answer["height"], answer["leaf_index"]) for answer in found}) == 1
    return found[0]


def open_files(network: LocalNetwork, name: str) -> int:
    """How many file descriptors a node's process has."""
    return len(os.listdir(f"/proc/{network.node(name).pid}/fd"))
