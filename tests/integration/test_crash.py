"""SIGKILL and SIGTERM: what was acknowledged stays, what was accepted is ordered."""

import os
import random
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from signal import Signals
from typing import Final

import pytest

from p2pcity.api.client import Unreachable
from p2pcity.cli.testnet.local_network import LocalNetwork
from tests.integration.process_case import (
    DEADLINE_S,
    ELECTION_S,
    Author,
    Load,
    ask,
    freeze,
    others,
    running_network,
    submit,
    thaw,
    verify,
    wait_equal,
    wait_leader,
    wait_serving,
    wait_until,
)

pytestmark = pytest.mark.integration

ROUNDS: Final = int(os.environ.get("TESTS_KILL_ROUNDS", "100"))
HAND_OVERS: Final = 24
STOPS_MAX: Final = 5
STORM_S: Final = 60


def kill_leader_again_and_again(network: LocalNetwork, load: Load, rounds: int) -> list[float]:
    """Kill and restart the leader `rounds` times; the times without any acknowledgement."""
    gaps: list[float] = []
    for turn in range(rounds):
        load.wait_more(50)
        leader = wait_leader(network)
        killed_s = time.monotonic()
        network.kill(leader)
        wait_leader(network, others(network, leader))
        elected_s = time.monotonic() - killed_s
        load.wait_more(20)
        gaps.append(load.longest_gap_s(killed_s, time.monotonic()))
        network.restart(leader)
        print(
            f"{turn + 1}: {leader} killed; a new leader after {elected_s:.2f} s, "
            f"{gaps[-1]:.2f} s without an acknowledgement; {load.count} acknowledged"
        )
    return gaps


def quantiles(gaps_s: list[float]) -> str:
    """The middle one and the 99th percent, in ms and in election time-outs."""
    ordered = sorted(gaps_s)
    found = ordered[len(ordered) // 2], ordered[min(len(ordered) * 99 // 100, len(ordered) - 1)]
    return ", ".join(
        f"{name} {gap_s * 1000:.0f} ms ({gap_s / ELECTION_S:.2f}x)"
        for name, gap_s in zip(("p50", "p99"), found, strict=True)
    )


def check_leader_kills(tmp_path: Path, rounds: int) -> None:
    with running_network(tmp_path, is_told_to_stop=True) as network:
        with Load(network) as load:
            gaps = kill_leader_again_and_again(network, load, rounds)
            load.wait_more(50)
        verify(network, load.acknowledged.values())
        print(
            f"{rounds} kills, {load.count} acknowledged, 0 lost; without acknowledgements: "
            f"{quantiles(gaps)} of an election time-out of {ELECTION_S} s; {dict(load.refused)}"
        )


@pytest.mark.long
def test_the_leader_is_killed_100_times_in_a_row(tmp_path: Path) -> None:
    check_leader_kills(tmp_path, ROUNDS)


@pytest.mark.long
@pytest.mark.scenario("A16", tier="P")
def test_all_three_are_killed_at_once(tmp_path: Path) -> None:
    with running_network(tmp_path) as network:
        with Load(network) as load:
            for _ in range(2):
                load.wait_more(100)
                for node in network.nodes:
                    assert node.send(Signals.SIGKILL)
                for node in network.nodes:
                    assert node.wait_gone(time.monotonic() + 5)
                began_s = time.monotonic()
                network.start()
                wait_leader(network)
                led_s = time.monotonic() - began_s
                network.wait_ready()
                # Most of it is three interpreters that start on one machine.
                print(
                    f"all killed; a leader {led_s:.2f} s after the start, all ready after "
                    f"{time.monotonic() - began_s:.2f} s"
                )
            load.wait_more(50)
        verify(network, load.acknowledged.values())


@pytest.mark.scenario("A15", tier="P")
@pytest.mark.long
def test_a_storm_of_restarts(tmp_path: Path) -> None:
    """One or two nodes at a time are killed and started again at once, for a minute."""
    choice = random.Random(15)
    with running_network(tmp_path, is_told_to_stop=True) as network:
        kills = 0
        with Load(network) as load:
            until_s = time.monotonic() + STORM_S
            while time.monotonic() < until_s:
                names = choice.sample(others(network, ""), choice.choice((1, 1, 2)))
                for name in names:
                    network.kill(name)
                network.start(names)
                kills += len(names)
                # The storm is in the times between: some kills meet a node that only starts.
                threading.Event().wait(choice.uniform(0.2, 0.8))
            ended_s = time.monotonic()
            load.wait_more(1)
            print(f"{kills} kills; an acknowledgement {time.monotonic() - ended_s:.2f} s after")
            network.wait_ready()
            load.wait_more(50)
        verify(network, load.acknowledged.values())
        print(f"{load.count} acknowledged, 0 lost; {dict(load.refused)}")


def status_of(network: LocalNetwork, name: str, id_: str) -> str | None:
    answer = ask(network, name, f"/v1/transactions/{id_}", consistency="local")
    return None if answer is None else answer["status"]


def is_committed(network: LocalNetwork, name: str, id_: str) -> bool:
    return status_of(network, name, id_) == "committed"


def accept(network: LocalNetwork, name: str, count: int) -> list[str]:
    """Let a node that can't have it committed accept `count` transactions; their ids."""
    author = Author(network)
    ids = []
    for _ in range(count):
        answer = submit(network, name, author.sign().data, "accepted")
        assert (answer["verdict"], answer["status"]) == ("accept", "pending")
        ids.append(answer["id"])
    return ids


def check_all_are_ordered(network: LocalNetwork, ids: list[str]) -> None:
    for node in network.nodes:
        for id_ in ids:
            is_ordered = partial(is_committed, network, node.name, id_)
            wait_until(is_ordered, f"{id_} is committed on {node.name}")
    assert wait_equal(network)["tree_size"] == len(ids)


def test_killed_right_after_it_accepted(tmp_path: Path) -> None:
    with running_network(tmp_path, start=["node1"]) as network:
        wait_serving(network, "node1")
        ids = accept(network, "node1", 40)
        network.kill("node1")
        network.start()
        network.wait_ready()
        check_all_are_ordered(network, ids)


def test_accepted_while_it_was_cut_off(tmp_path: Path) -> None:
    """The others are killed, later stopped: what one node accepts meanwhile is ordered after."""
    with running_network(tmp_path) as network:
        for name in ("node2", "node3"):
            network.kill(name)
        gone = accept(network, "node1", 20)
        assert {status_of(network, "node1", id_) for id_ in gone} == {"pending"}
        network.start()
        network.wait_ready()
        check_all_are_ordered(network, gone)
        leader = wait_leader(network)
        acceptor, other = others(network, leader)
        for name in (leader, other):
            freeze(network, name)
        still = accept(network, acceptor, 20)
        assert {status_of(network, acceptor, id_) for id_ in still} == {"pending"}
        for name in (leader, other):
            thaw(network, name)
        check_all_are_ordered(network, [*gone, *still])


def hand_over(network: LocalNetwork, load: Load) -> tuple[float, float]:
    """Tell the leader to stop; the time without an acknowledgement, and until it was gone."""
    load.wait_more(50)
    leader = wait_leader(network)
    told_s = time.monotonic()
    network.kill(leader, Signals.SIGTERM)
    node = network.node(leader)
    assert node.wait_gone(told_s + DEADLINE_S)
    gone_s = time.monotonic() - told_s
    assert node.exit_code == 0
    # It goes once another one leads, or after 2 s: then there is an election.
    wait_leader(network, others(network, leader))
    load.wait_more(50)
    gap_s = load.longest_gap_s(told_s, time.monotonic())
    network.restart(leader)
    load.wait_more(20)
    return gap_s, gone_s


def check_hand_overs(tmp_path: Path, rounds: int) -> list[float]:
    with running_network(tmp_path) as network:
        with Load(network) as load:
            found = [hand_over(network, load) for _ in range(rounds)]
        gaps = [gap_s for gap_s, _ in found]
        print(
            f"{rounds} hand-overs at SIGTERM; without an acknowledgement: {quantiles(gaps)}; "
            f"gone after at most {max(gone_s for _, gone_s in found):.2f} s"
        )
        verify(network, load.acknowledged.values())
    return gaps


@pytest.mark.scenario("A17", tier="P")
def test_a_leader_that_is_told_to_stop_hands_over(tmp_path: Path) -> None:
    check_hand_overs(tmp_path, 1)


@pytest.mark.long
@pytest.mark.scenario("A17", tier="P")
def test_leaders_hand_over_again_and_again(tmp_path: Path) -> None:
    gaps = check_hand_overs(tmp_path, HAND_OVERS)
    assert statistics.median(gaps) < ELECTION_S, "somebody waited for an election"


def submit_and_stop(network: LocalNetwork, author: Author) -> str:
    """Tell a follower to stop that a client waits on, and can't be answered yet; what it hears."""
    leader = wait_leader(network)
    name = others(network, leader)[0]
    freeze(network, leader)
    try:
        with ThreadPoolExecutor(1) as pool:
            heard = pool.submit(submit, network, name, author.sign().data, "committed")
            wait_until(
                lambda: (
                    (found := ask(network, name, "/v1/mempool")) is not None
                    and found["transactions"] == 1
                ),
                f"{name} has the transaction",
            )
            network.kill(name, Signals.SIGTERM)
            thaw(network, leader)
            try:
                return str(heard.result()["status"])
            except Unreachable:
                return "nothing"
    finally:
        thaw(network, leader)
        assert network.node(name).wait_gone(time.monotonic() + DEADLINE_S)
        assert network.node(name).exit_code == 0
        network.restart(name)


def test_who_waits_on_a_node_that_is_told_to_stop_hears_of_the_commit(tmp_path: Path) -> None:
    with running_network(tmp_path) as network:
        author = Author(network)
        # It waits for 1.5 s: on a machine that has more to do that may be too short now and then.
        heard = (submit_and_stop(network, author) for _ in range(STOPS_MAX))
        assert "committed" in heard
