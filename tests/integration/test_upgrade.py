"""One release after another on the same data directories, mixed meanwhile."""

import subprocess
import time
from pathlib import Path
from signal import SIGTERM
from typing import Final

import pytest

from p2pcity.api.client import ApiProblem, Unreachable
from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.cli.testnet.local_node import LocalNode
from p2pcity.crypto.keys import PrivateKey, peer_id
from tests import previous_release
from tests.bad_input_city import clean_environment
from tests.integration.process_case import (
    DEADLINE_S,
    Load,
    running_network,
    verify,
    wait_serving,
    wait_until,
)

pytestmark = pytest.mark.integration

NAMES: Final = ("node1", "node2", "node3")
MORE: Final = 10
"""Acknowledgements in each mixture."""
Program = tuple[str, ...]


@pytest.fixture(scope="session")
def previous(pytestconfig: pytest.Config) -> Program:
    """The command line of the previous release."""
    assert pytestconfig.cache is not None
    return previous_release.install(pytestconfig.cache.mkdir("previous-release"))


def change_program(network: LocalNetwork, name: str, program: Program) -> None:
    """Stop a node as an operator does, and start the other release on its data directory."""
    node = network.node(name)
    assert node.send(SIGTERM)
    assert node.wait_gone(time.monotonic() + DEADLINE_S)
    assert node.exit_code == 0, node.last_lines(3)
    node.program = program
    network.start([name])
    wait_serving(network, name)


def lead(network: LocalNetwork, name: str) -> None:
    """Hand leadership to a node, whoever has it."""
    key = PrivateKey.from_pem(network.node(name).config.node.key.read_bytes())
    to = peer_id(key.public)

    def is_leader() -> bool:
        leader = network.leader()
        if leader not in (None, name):
            with network.client(leader) as client:
                try:
                    client.post("/v1/admin/transfer", params={"to": to})
                except (Unreachable, ApiProblem):
                    return False
        return leader == name

    wait_until(is_leader, f"{name} leads")


def check(node: LocalNode, program: Program) -> None:
    """`p2pcity check` of a stopped node, by the release that runs it."""
    done = subprocess.run(
        [*program, "check", "--config", str(node.config_file)],
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, (node.name, done.stdout, done.stderr)


@pytest.mark.scenario("D11", tier="P")
def test_one_node_after_the_other_and_one_back(tmp_path: Path, previous: Program) -> None:
    with running_network(tmp_path, start=()) as network:
        present = network.nodes[0].program
        for node in network.nodes:
            node.program = previous
        network.start()
        network.wait_ready()
        with Load(network) as load:
            load.wait_more(MORE)
            for name in NAMES:
                # Whoever leads hands over by itself; then each release leads the mixture.
                change_program(network, name, present)
                for leader in dict.fromkeys((NAMES[-1], name)):
                    lead(network, leader)
                    load.wait_more(MORE)
            # And one back, which follows and leads.
            change_program(network, NAMES[0], previous)
            lead(network, NAMES[0])
            load.wait_more(MORE)
        verify(network, list(load.acknowledged.values()))
        assert network.stop() == []
        for node in network.nodes:
            assert node.exit_code == 0
            check(node, node.program)
            check(node, present)
        print(f"{load.count} acknowledged, {dict(load.refused)} refused")
