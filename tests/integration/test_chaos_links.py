"""Links that are half open, slow or roundabout, and a node that moves."""

import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from p2pcity.cli.chaos.wires import Wires
from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.cli.testnet.local_node import launch
from p2pcity.cli.testnet.making import change_settings, free_ports
from tests.integration import without_gossip
from tests.integration.process_case import (
    AUTHOR,
    DEADLINE_S,
    Author,
    Load,
    ask,
    kept_running,
    others,
    running_network,
    submit,
    verify,
    wait_equal,
    wait_leader,
    wait_until,
)
from tests.integration.relayed_case import open_files, running_relayed, wait_committed

pytestmark = pytest.mark.integration

IDLE_S = 130.0
SLOW_BYTES_PER_S = 8_000
SLOW_S = 20.0
MEMORY_BYTES_MAX = 96 * 1024 * 1024
FILES_SPARE = 4
"""Descriptors that a node may have more than before: a client's connection, a file just opened."""


def connected(network: LocalNetwork, name: str) -> int:
    """How many peers a node is connected to, by its own word."""
    found = ask(network, name, "/v1/status")
    return 0 if found is None else int(found["peers"]["connected"])


def wait_all_connected(network: LocalNetwork, what: str) -> float:
    count = len(network.nodes) - 1
    return wait_until(
        lambda: all(connected(network, node.name) == count for node in network.nodes),
        f"all nodes are connected {what}",
    )


def wait_files(network: LocalNetwork, before: dict[str, int]) -> None:
    for name, count in before.items():
        has_few = partial(has_at_most, network, name, count + FILES_SPARE)
        wait_until(has_few, f"{name} has no more descriptors than before ({count})")


def has_at_most(network: LocalNetwork, name: str, count: int) -> bool:
    return open_files(network, name) <= count


@pytest.mark.long
@pytest.mark.scenario("C11", tier="P")
def test_half_open_connections_are_found(tmp_path: Path) -> None:
    """One end is gone, the other hears nothing: it gives up by itself, and both meet again."""
    with running_relayed(tmp_path) as (network, wires):
        with Load(network) as load:
            load.wait_more(30)
            wait_all_connected(network, "before")
            leader = wait_leader(network)
            before = {name: open_files(network, name) for name in wires.nodes}
            for deaf, gone in [
                (leader, others(network, leader)[0]),
                (others(network, leader)[1], leader),
            ]:
                assert wires.leave_half_open(deaf, gone) > 0
                # The relay has ended all connections between the two but the one that is deaf.
                has_met = partial(is_deaf_no_more, wires, deaf, gone)
                again_s = wait_until(has_met, f"{deaf} finds that {gone} went")
                print(f"{deaf} found after {again_s:.2f} s that {gone} had gone")
                load.wait_more(30)
            wait_all_connected(network, "again")
        wait_files(network, before)
        verify(network, load.acknowledged.values())


def is_deaf_no_more(wires: Wires, one: str, other: str) -> bool:
    return wires.silent(one, other) == 0 and wires.connections(one, other) > 0


@pytest.mark.long
@pytest.mark.scenario("C11", tier="P")
def test_a_cable_out_for_two_minutes(tmp_path: Path) -> None:
    """No reset, no end, nothing for two minutes: no descriptor stays behind on either side."""
    with running_relayed(tmp_path) as (network, wires):
        wait_all_connected(network, "before")
        before = {name: open_files(network, name) for name in wires.nodes}
        one = others(network, wait_leader(network))[0]
        wires.hold(wires.around([one]))
        took_s = wait_until(lambda: connected(network, one) == 0, f"{one} gives the others up")
        with Load(network, targets=others(network, one)) as load:
            begin_s = time.monotonic()
            while time.monotonic() - begin_s < IDLE_S:
                threading.Event().wait(5)
                for name, count in before.items():
                    assert open_files(network, name) <= count + 32, f"{name} piles up descriptors"
        wires.release(wires.around([one]))
        again_s = wait_all_connected(network, "again")
        print(f"given up after {took_s:.1f} s, connected again {again_s:.1f} s after the cable")
        wait_files(network, before)
        verify(network, load.acknowledged.values())


@pytest.mark.long
@pytest.mark.scenario("C12", tier="P")
def test_64_kbit_to_one_follower(tmp_path: Path) -> None:
    """The leader keeps a bounded queue for it, and the others do not wait for it."""
    with running_relayed(tmp_path) as (network, wires):
        with Load(network) as load:
            load.wait_more(50)
            leader = wait_leader(network)
            slow, quick = others(network, leader)
            load.targets = [leader, quick]
            before_s = time.monotonic()
            threading.Event().wait(SLOW_S / 2)
            rss = memory(network, leader)
            slowed_s = time.monotonic()
            wires.slow([(leader, slow)], SLOW_BYTES_PER_S)
            threading.Event().wait(SLOW_S)
            ended_s = time.monotonic()
            grown = memory(network, leader) - rss
            behind = height(network, quick) - height(network, slow)
            wires.slow([(leader, slow)], 0)
            load.targets = list(wires.nodes)
            load.wait_more(50)
        rates = load.rate(before_s, slowed_s), load.rate(slowed_s, ended_s)
        print(
            f"{rates[0]:.0f}/s before, {rates[1]:.0f}/s meanwhile, the slow one {behind} blocks "
            f"behind, the leader {grown / 2**20:.1f} MiB larger"
        )
        assert wires.late_bytes[leader, slow] > 0
        assert rates[1] > rates[0] / 4, "the others wait for the slow one"
        assert grown < MEMORY_BYTES_MAX
        verify(network, load.acknowledged.values())


def memory(network: LocalNetwork, name: str) -> int:
    found = ask(network, name, "/v1/status")
    return int(found["process"]["rss_bytes"])


def height(network: LocalNetwork, name: str) -> int:
    found = ask(network, name, "/v1/status")
    return int(found["ledger"]["height"])


@pytest.mark.long
@pytest.mark.scenario("C13", tier="P")
def test_gossip_goes_round_a_cut_raft_link(tmp_path: Path) -> None:
    """The leader and a follower do not hear each other; what the follower takes is ordered."""
    with running_relayed(tmp_path) as (network, wires):
        leader = wait_leader(network)
        cut_off, between = others(network, leader)
        wait_all_connected(network, "before")
        link = [(leader, cut_off), (cut_off, leader)]
        wires.hold(link)
        author = Author(network)
        ids = [submit(network, cut_off, author.sign().data, "accepted")["id"] for _ in range(20)]

        def is_ordered(name: str) -> bool:
            answers = [
                ask(network, name, f"/v1/transactions/{id_}", consistency="local") for id_ in ids
            ]
            return all(answer is not None and answer["status"] == "committed" for answer in answers)

        took_s = wait_until(lambda: is_ordered(between), "all that was gossiped is ordered")
        assert wires.held_bytes[leader, cut_off] + wires.held_bytes[cut_off, leader] > 0
        wires.release(link)
        for id_ in ids:
            wait_committed(network, id_)
        assert wait_equal(network)["tree_size"] == len(ids)
        print(f"{len(ids)} transactions went round by gossip and were ordered in {took_s:.2f} s")


@pytest.mark.long
@pytest.mark.scenario("C13", tier="P")
def test_raft_goes_on_without_gossip(tmp_path: Path) -> None:
    """What a follower takes comes to the leader all the same; anti-entropy brings others a few."""
    network = LocalNetwork.create(
        tmp_path / "net", nodes=3, orderers=3, authors=(AUTHOR,), raft_preset="local"
    )
    with kept_running(network, start=()):
        for node in network.nodes:
            node.program = (sys.executable, "-m", without_gossip.__name__)
            node.launch = launch
        network.start()
        network.wait_ready(deadline_s=DEADLINE_S)
        one, other = others(network, wait_leader(network))
        with Load(network, targets=[one]) as load:
            load.wait_more(100)
            told = ask(network, other, "/v1/status")["verdicts"]
        heard = sum(count for name, count in told.items() if name.startswith("accept."))
        assert heard < load.count / 4, told
        verify(network, load.acknowledged.values())


@pytest.mark.long
@pytest.mark.scenario("C14", tier="P")
def test_a_node_moves_to_another_port(tmp_path: Path) -> None:
    """It is known by its peer id: it comes back elsewhere, and is found there by whom it told."""
    with running_network(tmp_path) as network:
        with Load(network) as load:
            load.wait_more(30)
            leader = wait_leader(network)
            moving, staying = others(network, leader)
            load.targets = [leader, staying]
            network.kill(moving)
            [port] = free_ports(1)
            listen = f"/ip4/127.0.0.1/tcp/{port}"
            change_settings(network.node(moving).config_file, {"net.listen": (listen,)})
            network.restart(moving)
            wait_all_connected(network, "after the move")
            # Only with it is there a majority, once another one is down.
            network.kill(staying)
            load.targets = [leader, moving]
            load.wait_more(30)
            network.restart(staying)
            load.wait_more(30)
        verify(network, load.acknowledged.values())
