"""`p2pcity testnet`, and LocalNetwork below it: made, up, one node killed, up again, down."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.errors import ConfigError, Unavailable
from tests.integration.process_case import wait_leader, wait_until

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parent.parent.parent


def _testnet(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "p2pcity", "testnet", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        check=False,
    )


def _is_quietly_well(node: str) -> bool:
    """Whether `status -q` says so by its exit code; it says nothing else."""
    quiet = subprocess.run(
        [sys.executable, "-m", "p2pcity", "status", "-q", "--node", node],
        capture_output=True,
        check=False,
    )
    assert (quiet.stdout, quiet.stderr) == (b"", b"")
    return quiet.returncode == 0


def test_init_up_status_kill_up_down(tmp_path: Path) -> None:
    place = str(tmp_path / "net")
    made = _testnet("init", "-n", "4", "--author", "lamps", "--json", "-o", place)
    assert made.returncode == 0, made.stderr
    document = json.loads(made.stdout)
    assert [row["name"] for row in document["nodes"]] == ["node1", "node2", "node3", "node4"]
    assert [row["role"] for row in document["nodes"]] == ["orderer"] * 3 + ["observer"]
    network = LocalNetwork(tmp_path / "net")
    assert (tmp_path / "net" / "authors" / "lamps.key").stat().st_mode & 0o777 == 0o600
    assert len(network.author_key("lamps").public) == 32
    with pytest.raises(ConfigError):
        network.author_key("nobody")

    again = _testnet("init", "-o", place)
    assert again.returncode == 2
    assert "holds a network already" in again.stderr
    assert _testnet("status", place).returncode == 4

    with network:
        up = _testnet("up", "--wait", place)
        assert up.returncode == 0, up.stderr
        # All were ready, and are again, whatever an election between two looks says.
        found: list[subprocess.CompletedProcess[str]] = []

        def is_well() -> bool:
            found[:] = [_testnet("status", "--json", place)]
            return found[0].returncode == 0

        wait_until(is_well, "all nodes are ready")
        rows = json.loads(found[0].stdout)["nodes"]
        assert {row["state"] for row in rows} == {"ready"}
        assert len({row["head"] for row in rows}) == 1
        leader = wait_leader(network, ("node1", "node2", "node3"))
        wait_until(lambda: _is_quietly_well(f"{place}/{leader}"), f"{leader} is well")

        for _ in range(2):  # it can be said again
            joined = _testnet("join", place, "--name", "node5")
            assert joined.returncode == 0, joined.stderr
        more = LocalNetwork(tmp_path / "net")
        more.restart("node5")
        assert more.node("node5").role == "observer"
        more.kill("node5")
        shutil.rmtree(tmp_path / "net" / "node5")

        network.kill(leader)
        assert network.node(leader).pid is None
        killed = _testnet("status", "--json", place)
        assert killed.returncode == 3
        states = {row["name"]: row["state"] for row in json.loads(killed.stdout)["nodes"]}
        assert states[leader] == "down"
        with pytest.raises(Unavailable):
            network.kill(leader)

        up = _testnet("up", "--wait", place)
        assert up.returncode == 0, up.stderr
        assert up.stdout.strip() == f"started: {leader}"
        logs = _testnet("logs", "-n", "2", place, leader)
        assert logs.returncode == 0
        assert len(logs.stdout.splitlines()) == 2
        assert _testnet("logs", place, "node9").returncode == 2

        down = _testnet("down", place)
        assert down.returncode == 0, down.stdout
        assert [node.name for node in network.nodes if node.pid is not None] == []
    assert "nothing ran" in _testnet("down", place).stdout


def test_a_node_that_ends_is_reported_at_once_with_its_last_lines(tmp_path: Path) -> None:
    with LocalNetwork.create(tmp_path / "net", nodes=1, orderers=1) as network:
        (tmp_path / "net" / "node1" / "genesis.cbor").write_bytes(b"\x00")
        network.start()
        # At the deadline it would say that the node is not ready.
        with pytest.raises(Unavailable, match=r"node1 ended with exit code 2: .*genesis\.cbor"):
            network.wait_ready(deadline_s=60)


def test_a_deep_directory_puts_the_sockets_elsewhere(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    with LocalNetwork.create(deep, nodes=1, orderers=1) as network:
        socket = network.node("node1").socket
        assert len(os.fsencode(socket)) <= 107
        network.start()
        network.wait_ready()
        assert network.leader() == "node1"
        network.stop()
        network.remove()
        assert not socket.parent.exists()


def test_a_stopped_process_is_ended_too(tmp_path: Path) -> None:
    with LocalNetwork.create(tmp_path / "net", nodes=1, orderers=1) as network:
        network.start()
        network.wait_ready()
        network.kill("node1", signal.SIGSTOP)
        assert network.statuses() == {"node1": None}
        assert network.stop() == []
        assert network.node("node1").pid is None


def test_a_pid_of_somebody_else_is_never_signalled(tmp_path: Path) -> None:
    network = LocalNetwork.create(tmp_path / "net", nodes=1, orderers=1)
    node = network.node("node1")
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            node.pid_file.write_text(f"{other.pid}\n")
            assert node.pid is None
            assert not node.send(signal.SIGKILL)
            network.stop()
            assert other.poll() is None
        finally:
            other.kill()


@pytest.mark.parametrize(("nodes", "orderers"), [(0, 0), (3, 0), (3, 4), (33, 3)])
def test_numbers_that_make_no_network(tmp_path: Path, nodes: int, orderers: int) -> None:
    with pytest.raises(ConfigError):
        LocalNetwork.create(tmp_path / "net", nodes=nodes, orderers=orderers)
    assert not (tmp_path / "net").exists()
