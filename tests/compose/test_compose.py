"""The checked-in compose.yaml in real containers (`make test-compose`)."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from p2pcity.cli.testnet.local_network import LocalNetwork
from tests.compose.rig import ROOT, Compose, needs_containers, run
from tests.integration.process_case import Load, verify, wait_leader

pytestmark = needs_containers

PROJECT: Final = "p2pcity-test"
HEALTHY_S: Final = 120.0
DEADLINE_S: Final = 120.0


@pytest.fixture(scope="module")
def compose() -> Iterator[Compose]:
    """The checked-in file, up and healthy."""
    compose = Compose(ROOT / "testnet" / "compose.yaml", PROJECT)
    compose("down", "-v")
    begin_s = time.monotonic()
    try:
        compose("up", "-d")
        compose.wait_healthy(4, HEALTHY_S)
        print(f"four healthy nodes {time.monotonic() - begin_s:.1f} s after `up`")
        yield compose
    finally:
        compose("down", "-v")
    for kind in ("container", "volume", "network"):
        label = f"label=com.docker.compose.project={PROJECT}"
        command = ["docker", kind, "ls", "-q", "--filter", label]
        assert not run(*command, *(["-a"] if kind == "container" else [])), f"a {kind} is left"


@pytest.fixture(scope="module")
def network(compose: Compose) -> LocalNetwork:
    """The network in the volume, by its sockets on this host."""
    place = run("docker", "volume", "inspect", "-f", "{{.Mountpoint}}", f"{PROJECT}_network")
    return LocalNetwork(Path(place.strip()))


def p2pcity(compose: Compose, service: str, *arguments: str) -> str:
    return compose("exec", "-T", service, "p2pcity", *arguments)


@pytest.mark.short
def test_it_runs_as_nobody_who_could_do_harm(compose: Compose) -> None:
    [node] = compose.containers("node1")
    shown = "{{.Config.User}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}}"
    assert run("docker", "inspect", "-f", shown, node).split() == ["4710:4710", "true", "[ALL]"]
    assert "4710" in compose("exec", "-T", "node1", "id", "-u")


@pytest.mark.short
def test_the_commands_of_the_file_s_head(compose: Compose) -> None:
    assert "leader" in p2pcity(compose, "node1", "status")
    said = p2pcity(compose, "node4", "submit", "--type", "permit.granted", "--data", '{"n": 1}')
    assert "committed" in said
    assert "ready" in p2pcity(compose, "node2", "testnet", "status", "/network")


@pytest.mark.short
def test_nothing_is_lost_whatever_happens_to_the_containers(
    compose: Compose, network: LocalNetwork
) -> None:
    names = [node.name for node in network.nodes]
    [bridge] = run(
        *("docker", "network", "ls", "-q"),
        *("--filter", f"label=com.docker.compose.project={PROJECT}"),
    ).split()
    with Load(network, clients=2, targets=names) as load:
        load.wait_more(50, deadline_s=DEADLINE_S)
        leader = wait_leader(network)
        # kill -9
        compose("kill", "-s", "SIGKILL", leader)
        load.wait_more(50, deadline_s=DEADLINE_S)
        compose("start", leader)
        compose.wait_healthy(4, HEALTHY_S)
        # A pause
        leader = wait_leader(network)
        compose("pause", leader)
        load.wait_more(50, deadline_s=DEADLINE_S)
        compose("unpause", leader)
        load.wait_more(50, deadline_s=DEADLINE_S)
        # No cable
        leader = wait_leader(network)
        [container] = compose.containers(leader)
        run("docker", "network", "disconnect", bridge, container)
        load.targets = [name for name in names if name != leader]
        load.wait_more(50, deadline_s=DEADLINE_S)
        run("docker", "network", "connect", "--alias", leader, bridge, container)
        load.targets = names
        load.wait_more(50, deadline_s=DEADLINE_S)
        # All anew
        compose("restart")
        load.wait_more(50, deadline_s=DEADLINE_S)
    compose.wait_healthy(4, HEALTHY_S)
    ledger = verify(network, load.acknowledged.values())
    print(f"{load.count} acknowledged, none lost, at height {ledger['height']}")


def test_observers_are_scaled(compose: Compose, network: LocalNetwork) -> None:
    compose("up", "-d", "--scale", "observer=2")
    compose.wait_healthy(6, HEALTHY_S)
    places = LocalNetwork(network.directory)
    assert len(places.nodes) == 6
    with Load(places, clients=2) as load:
        load.wait_more(50, deadline_s=DEADLINE_S)
    verify(places, load.acknowledged.values())
