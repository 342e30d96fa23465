"""Twenty faults, one at a time: `p2pcity doctor` names the cause and the remedy.

The table says which test puts each of them in, and under which check it is named. The quick ones
and those of nodes that do not run are in test_doctor.py.
"""

import importlib
import json
import os
import shutil
import subprocess
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from p2pcity.api.client import ApiProblem
from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.cli.testnet.local_node import LocalNode
from p2pcity.cli.testnet.making import change_settings
from p2pcity.ledger.data_directory import initialise
from tests.bad_input_nodes import fill
from tests.integration.process_case import (
    AUTHOR,
    Author,
    Load,
    kept_running,
    others,
    running_network,
    submit,
    wait_leader,
    wait_until,
)
from tests.integration.relayed_case import running_relayed
from tests.integration.test_doctor import checks, doctor
from tests.integration.test_namespaces import Host, Town, exchange, ip, town
from tests.integration.warm_nodes import launch_warm

pytestmark = pytest.mark.integration
__all__ = ["town"]  # a fixture

HERE: Final = "tests.integration.test_doctor_faults"
STOPPED: Final = "tests.integration.test_doctor"
SLOW_BYTES_PER_S: Final = 4_000
ENOUGH: Final = 400
"""So many transactions of 4,000 bytes are more than the smallest mempool holds."""

FAULTS: Final[dict[str, tuple[str, str, str]]] = {
    "clock 90 s off": ("clock", STOPPED, "test_a_wrong_clock"),
    "disk full": ("disk", HERE, "test_a_full_disk"),
    "slow fsync": ("sync", STOPPED, "test_a_slow_disk"),
    "firewall one way": ("reach", HERE, "test_a_firewall_one_way"),
    "wrong genesis": ("genesis", STOPPED, "test_a_stopped_node"),
    "two nodes with one key": ("identity", HERE, "test_two_nodes_with_one_key"),
    "port taken": ("port", STOPPED, "test_a_stopped_node"),
    "follower stopped": ("reach", STOPPED, "test_nodes_that_run"),
    "leader isolated": ("isolated", STOPPED, "test_a_leader_that_is_cut_off"),
    "quorum lost": ("quorum", STOPPED, "test_nodes_that_run"),
    "corrupted entry": ("damage", STOPPED, "test_a_stopped_node"),
    "views missing": ("views", STOPPED, "test_a_stopped_node"),
    "wrong permissions": ("key", STOPPED, "test_a_stopped_node"),
    "too few descriptors": ("descriptors", STOPPED, "test_a_stopped_node"),
    "old version": ("peer", HERE, "test_another_release"),
    "unreachable bootstrap": ("isolated", HERE, "test_bootstrap_addresses_that_are_dead"),
    "mempool full": ("mempool", HERE, "test_a_full_mempool"),
    "huge lag": ("lag", HERE, "test_a_huge_lag"),
    "wrong time zone in a map": ("", "", ""),
    "API token wrong": ("token", STOPPED, "test_a_wrong_token"),
}
"""By the words of the issue: the check, and the test that finds it there."""
NOT_NAMED: Final = {"wrong time zone in a map"}
"""A map is read by `ingest` on whatever machine has the file: no node knows of it."""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk(tmp_path: Path) -> None:
    """Of a node that stopped for it, on a disk of its own; with room again nothing is said."""
    network = LocalNetwork.create(tmp_path / "net", nodes=1, orderers=1)
    node = network.nodes[0]
    data = node.config.node.data_dir
    before = data.rename(data.with_name("before"))
    data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2g", "none", data], check=True)
    try:
        shutil.copytree(before, data, dirs_exist_ok=True)
        assert checks(doctor(node)[1]) == {"daemon"}
        ballast = fill(data)
        told = [finding for finding in doctor(node)[1] if finding["check"] == "disk"]
        print(told)
        assert {finding["severity"] for finding in told} == {"error"}
        assert any(str(data) in finding["cause"] for finding in told)
        ballast.unlink()
        assert checks(doctor(node)[1]) == {"daemon"}
    finally:
        subprocess.run(["umount", "-l", data], check=True)


def test_the_table_is_true() -> None:
    assert len(FAULTS) == 20
    assert {fault for fault, (check, _, _) in FAULTS.items() if not check} == NOT_NAMED
    for _, module, name in FAULTS.values():
        if module:
            assert callable(getattr(importlib.import_module(module), name))


def of(findings: list[dict[str, Any]], check: str) -> dict[str, Any]:
    """The first finding of a check."""
    return next(finding for finding in findings if finding["check"] == check)


@pytest.mark.long
def test_two_nodes_with_one_key(tmp_path: Path) -> None:
    """A second node with a copy of the key and a log of its own, beside the first one."""
    with running_network(tmp_path) as network:
        node = network.nodes[0]
        twin_directory = tmp_path / "twin" / node.name
        shutil.copytree(node.directory, twin_directory, ignore=shutil.ignore_patterns("*.sock"))
        shutil.rmtree(twin_directory / "data")
        initialise(twin_directory / "data", os.urandom(16))
        (twin_directory.parent / "genesis.cbor").write_bytes(
            (network.directory / "genesis.cbor").read_bytes()
        )
        change_settings(twin_directory / "p2pcity.toml", {"net.listen": ("/ip4/127.0.0.1/tcp/0",)})
        twin = LocalNetwork(twin_directory.parent)
        with kept_running(twin, start=()):
            twin.start()
            wait_until(
                lambda: "identity" in checks(doctor(twin.nodes[0])[1]), "the second is found"
            )
            found = of(doctor(twin.nodes[0])[1], "identity")
            assert "a second node runs with the same key" in found["cause"]
            assert "Stop the other node" in found["remedy"]


@pytest.mark.long
def test_another_release(tmp_path: Path) -> None:
    """A node of a later release, alone among those of this one."""
    network = LocalNetwork.create(
        tmp_path / "net", nodes=3, orderers=3, authors=(AUTHOR,), raft_preset="local"
    )
    with kept_running(network, start=()):
        newer = network.nodes[2]
        newer.launch = partial(launch_warm, plugin="tests.integration.other_release")
        network.start()
        for node in (newer, network.nodes[0]):
            wait_until(partial(_names_release, node), f"{node.name} says why")


def _names_release(node: LocalNode) -> bool:
    _, findings = doctor(node)
    return any(
        finding["check"] == "peer" and "p2pcity version" in finding["remedy"]
        for finding in findings
    )


@pytest.mark.long
def test_bootstrap_addresses_that_are_dead(tmp_path: Path) -> None:
    """Every card names an address where nobody listens, so no node finds another."""
    network = LocalNetwork.create(
        tmp_path / "net",
        nodes=3,
        orderers=3,
        authors=(AUTHOR,),
        raft_preset="local",
        announce="/ip4/127.0.0.1/tcp/1",
    )
    with kept_running(network, start=()):
        network.start()
        node = network.nodes[0]
        wait_until(
            lambda: {"isolated", "reach"} <= checks(doctor(node)[1]), "the addresses are named"
        )
        _, findings = doctor(node)
        assert "/ip4/127.0.0.1/tcp/1" in of(findings, "reach")["cause"]
        assert "net.peers" in of(findings, "reach")["remedy"]


@pytest.mark.long
def test_a_full_mempool(tmp_path: Path) -> None:
    """Without a quorum what is accepted stays, until nothing more fits in."""
    network = LocalNetwork.create(
        tmp_path / "net", nodes=3, orderers=3, authors=(AUTHOR,), raft_preset="local"
    )
    room = {"mempool.bytes_max": 1024 * 1024, "mempool.author_bytes_max": 1024 * 1024}
    for node in network.nodes:
        change_settings(node.config_file, room)
    with kept_running(network):
        leader = wait_leader(network)
        for name in others(network, leader):
            network.kill(name)
        with pytest.raises(ApiProblem, match="the mempool is full"):
            _submit_many(network, leader)
        found = of(doctor(network.node(leader))[1], "mempool")
        assert "the mempool holds" in found["cause"]
        assert "mempool.bytes_max" in found["remedy"]


def _submit_many(network: LocalNetwork, name: str) -> None:
    author = Author(network)
    for _ in range(ENOUGH):
        submit(network, name, author.sign(data="y" * 4_000).data, "accepted")


@pytest.mark.long
def test_a_huge_lag(tmp_path: Path) -> None:
    """One follower behind a wire so thin that the others leave it behind."""
    with running_relayed(tmp_path) as (network, wires), ExitStack() as stack:
        leader = wait_leader(network)
        slow, quick = others(network, leader)
        wires.slow([(leader, slow)], SLOW_BYTES_PER_S)
        load = stack.enter_context(Load(network, targets=[leader, quick]))
        load.wait_more(300)
        wait_until(lambda: "lag" in checks(doctor(network.node(slow))[1]), "the lag is named")
        assert "blocks" in of(doctor(network.node(slow))[1], "lag")["cause"]
        load.stop()
        wires.mend()


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
@pytest.mark.skipif(not (shutil.which("ip") and shutil.which("nft")), reason="no ip or nft")
def test_a_firewall_one_way(town: Town) -> None:
    """The one reaches the other, and is not reached: what is dialled there is dropped."""
    exchange(town, lambda host: ("--announce", f"/ip4/{host.address}/tcp/4710"))
    town.wait_leader(town.hosts)
    parks, water, _ = town.hosts
    rule = f"ip daddr {water.address} tcp dport 4710 tcp flags syn drop"
    for words in (
        "add table inet wall",
        "add chain inet wall out { type filter hook output priority 0 ; }",
        f"add rule inet wall out {rule}",
    ):
        ip("netns", "exec", parks.namespace, "nft", *words.split())
    # Its connection from before goes, and only the other side can make a new one.
    ip("-n", parks.namespace, "link", "set", "eth0", "down")
    wait_until(lambda: not _connected(parks), "parks hears nobody")
    ip("-n", parks.namespace, "link", "set", "eth0", "up")
    wait_until(lambda: len(_connected(parks)) == 2, "water has dialled")
    found = of(_findings(parks), "reach")
    assert "reaches this node" in found["cause"]
    assert water.address in found["cause"]
    assert "Let TCP" in found["remedy"]


def _connected(host: Host) -> list[str]:
    peers = json.loads(host.p2pcity("peers", "--node", "node", "--json"))["peers"]
    return [row["member"] for row in peers if row["is_connected"]]


def _findings(host: Host) -> list[dict[str, Any]]:
    said = host.p2pcity("doctor", "--config", "node/p2pcity.toml", "--json")
    findings: list[dict[str, Any]] = json.loads(said)["findings"]
    return findings
