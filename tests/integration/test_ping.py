"""`p2pcity ping` on real nodes: over HTTP, over libp2p, and when nobody answers."""

from pathlib import Path

import pytest

from p2pcity.cli.testnet.local_network import LocalNetwork
from tests.integration.lone_nodes import CommandLine
from tests.integration.process_case import ask, kept_running, wait_until

pytestmark = pytest.mark.integration


def test_nodes_and_peers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = CommandLine(capsys)
    network = LocalNetwork.create(tmp_path / "net", nodes=2, orderers=1)
    own, other = network.nodes
    node, there = str(own.directory), str(other.socket)

    def is_measured() -> bool:
        answer = ask(network, own.name, "/v1/peers")
        return any(row["rtt_ms"] is not None for row in answer["peers"])

    with kept_running(network):
        wait_until(is_measured, "the first heartbeat came back")
        peer = ask(network, other.name, "/v1/status")["node"]["peer"]
        arguments = ("ping", node, there, other.name, peer, "node2/node2", "--node", node)
        assert line.run(*arguments, "--count", "2", "--json") == 0
        assert line.document["schema"] == "p2pcity/ping/1"
        targets = line.document["targets"]
        assert [target["way"] for target in targets] == ["http"] * 2 + ["libp2p"] * 3
        for target in targets:
            assert target["state"] == "ok"
            assert len(target["rtt_ms"]) == target["tries"] == 2
            assert min(target["rtt_ms"]) > 0
        assert all(target["address"].startswith(peer) for target in targets[2:])
        assert line.run(*arguments, "--count", "1") == 0
        assert "1/1" in line.out

        assert line.run("ping", "nobody", "--node", node) == 2
        assert "p2pcity peers -v" in line.err

        network.kill(other.name)
        wait_until(lambda: not is_measured(), "the peer is gone")
        assert line.run("ping", node, there, other.name, "--node", node, "--count", "1") == 4
        first, second = line.err.splitlines()
        assert there in first
        assert "p2pcity run" in first
        assert "net.listen" in second
        assert "1/1" in line.out

        network.kill(own.name)
        assert line.run("ping", other.name, "--node", node) == 4
        assert "p2pcity run" in line.err
