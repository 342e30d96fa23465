"""Which ports local networks take, and what those who make them side by side can say of it."""

import os
from pathlib import Path

import pytest

from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.cli.testnet.making import PORTS_VARIABLE, free_ports, port_range
from p2pcity.errors import ConfigError
from tests.conftest import share


def test_no_share_is_taken_twice() -> None:
    """Nor by one test worker from another."""
    among = range(20_000, 32_768)
    shares = [share(among, worker, 3) for worker in range(3)]
    assert len({port for own in shares for port in own}) == sum(map(len, shares)) == 12_768


def test_ports_that_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    low = port_range()[0]
    monkeypatch.setenv(PORTS_VARIABLE, f"{low}-{low + 9}")
    assert port_range() == range(low, low + 10)
    assert {*free_ports(3)} <= {*range(low, low + 10)}
    left = {*range(low + 5, low + 10)}
    assert {*free_ports(2, but=range(low, low + 5))} <= left
    with pytest.raises(ConfigError, match=f"TCP ports {low}-{low + 9} of 127.0.0.1") as caught:
        free_ports(11)
    assert PORTS_VARIABLE in caught.value.remedy


def test_who_joins_takes_no_port_of_a_node_that_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node of the network that does not run has its port bound by nobody."""
    low = free_ports(1)[0]
    monkeypatch.setenv(PORTS_VARIABLE, f"{low}-{low}")
    network = LocalNetwork.create(tmp_path / "net", nodes=1, orderers=1)
    assert network.nodes[0].config.net.listen == (f"/ip4/127.0.0.1/tcp/{low}",)
    with pytest.raises(ConfigError, match="too few of the TCP ports"):
        network.add("node2")


@pytest.mark.parametrize(
    "text", ["", "20000", "20000-", "-20000", "a-b", "9-8", "0-9", "20000-65536", "1-2-3", "²-³"]
)
def test_ports_that_are_none(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(PORTS_VARIABLE, text)
    with pytest.raises(ConfigError, match="P2PCITY_TESTNET_PORTS is") as caught:
        port_range()
    assert "20000-25999" in caught.value.remedy


def test_ports_below_those_for_outgoing_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PORTS_VARIABLE, raising=False)
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
        below = int(file.read().split()[0])
    assert port_range()[-1] < below or below < 21_000
    assert PORTS_VARIABLE not in os.environ
