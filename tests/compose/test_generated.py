"""Networks of containers that `p2pcity testnet` made and drives (`make test-compose`)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from p2pcity.cli.testnet.containers import open_network
from tests.compose.rig import IMAGE, needs_containers, p2pcity_testnet
from tests.integration.process_case import Load, verify

pytestmark = needs_containers

DEADLINE_S: Final = 120.0


@pytest.fixture
def generated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A network made by `testnet init --compose`, as root."""
    monkeypatch.setenv("P2PCITY_IMAGE", IMAGE)
    home = tmp_path / "city"
    p2pcity_testnet("init", "-n", "4", "--author", "load", "--compose", "-o", str(home))
    try:
        yield home
    finally:
        p2pcity_testnet("down", str(home))


def up(home: Path) -> str:
    return p2pcity_testnet("up", str(home), "--wait", "--timeout", str(DEADLINE_S))


def test_testnet_drives_containers_as_it_does_processes(generated: Path) -> None:
    assert "node1, node2, node3, node4" in up(generated)
    assert p2pcity_testnet("status", str(generated)).count("ready") == 4
    network = open_network(generated)
    assert sorted(network.running()) == ["node1", "node2", "node3", "node4"]
    with Load(network, clients=2) as load:
        load.wait_more(50, deadline_s=DEADLINE_S)
        network.kill("node2")
        load.wait_more(20, deadline_s=DEADLINE_S)
        assert "none" not in up(generated)
        load.wait_more(20, deadline_s=DEADLINE_S)
    verify(network, load.acknowledged.values())
    assert '"event": "ready"' in p2pcity_testnet("logs", str(generated), "node2", "-n", "10000")
    # What was written stays, and the next start goes on with it.
    assert "stopped" in p2pcity_testnet("down", str(generated))
    assert network.running() == []
    up(generated)
    verify(network, load.acknowledged.values())
