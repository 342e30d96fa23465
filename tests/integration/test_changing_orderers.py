"""Who orders, changed in a running city of processes: added, replaced, wiped, removed."""

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from p2pcity.cli.testnet.local_network import LocalNetwork
from tests.integration.members_case import (
    change,
    hasten,
    join,
    p2pcity,
    wait_place,
    wipe,
)
from tests.integration.process_case import (
    ELECTION_S,
    Author,
    Load,
    ask,
    log_lines,
    longest_commit_gap_s,
    others,
    running_network,
    verify,
    wait_leader,
    wait_serving,
    wait_until,
)
from tests.integration.relayed_case import (
    check_promises_nothing,
    raft_of,
    running_relayed,
    term_of,
    wait_not_leading,
)


def is_term_kept(network: LocalNetwork, name: str, load: Load) -> bool:
    """Whether 30 acknowledgements pass without another election."""
    before = raft_of(network, name).get("term")
    load.wait_more(30)
    return before is not None and raft_of(network, name).get("term") == before


@pytest.mark.scenario("D3", "D6", tier="P")
def test_a_wiped_node_and_the_leader_are_replaced_under_load(tmp_path: Path) -> None:
    with running_network(tmp_path, start=()) as network:
        # Before they start: whoever leads decides when another one may vote.
        hasten(network, *(node.name for node in network.nodes))
        network.start()
        network.wait_ready()
        with Load(network, clients=1) as load:
            load.wait_more(30)
            # A wiped node is refused as a voter, by itself and by the others.
            leader = wait_leader(network)
            victim = others(network, leader)[0]
            load.targets = others(network, victim)
            network.kill(victim)
            card = wipe(network, victim)
            network.node(victim).start()
            wait_serving(network, victim)
            wait_place(network, victim, "voter", leader)
            status = ask(network, victim, "/v1/status")
            assert status["node"]["place"] == "none"
            assert "p2pcity raft replace" in status["alarms"][0]
            load.wait_more(20)
            told: list[dict[str, Any]] = []

            def is_told() -> bool:
                # It says so when they are connected: the wiped node serves sooner.
                lines = log_lines(network, leader)
                told[:] = [line for line in lines if line["event"] == "peer_wiped"]
                return bool(told)

            wait_until(is_told, "the leader says who was wiped")
            assert len(told) == 1
            assert "p2pcity raft replace" in told[0]["remedy"]
            # While it counts for nobody, another one must not go.
            code, output = p2pcity(network.node(leader), "raft", "what-if", "remove", leader)
            assert (code, "UNSAFE" in output) == (5, True)
            code, output = p2pcity(network.node(leader), "raft", "remove", leader)
            assert (code, "--force" in output) == (5, True)
            change(network, "replace", "--remove", victim, "--add", str(card))
            wait_place(network, victim, "voter", *(node.name for node in network.nodes))
            load.wait_more(30)
            # Removing the leader hands over; what it was told stays.
            joined = join(network, "node4")
            wait_place(network, "node4", "voter", "node4")
            leader = wait_leader(network)
            load.targets = [*others(network, leader)]
            begin_s = time.monotonic()
            change(network, "remove", leader)
            load.wait_more(30)
            gap_s = load.longest_gap_s(begin_s, time.monotonic())
            status = ask(network, leader, "/v1/status")
            assert status["node"]["place"] in ("none", "leaving")
            assert status["alarms"]
            # On a busy machine the others may elect among themselves: not again and again.
            wait_until(lambda: is_term_kept(network, joined.name, load), "nobody is disturbed")
            print(f"longest gap around the leader's removal: {gap_s / ELECTION_S:.2f} elections")
        network.node(leader).send(signal.SIGTERM)
        network.nodes = tuple(node for node in network.nodes if node.name != leader)
        verify(network, load.acknowledged.values())


@pytest.mark.long
@pytest.mark.scenario("D3", tier="P")
def test_a_leader_removed_while_it_is_cut_off_disturbs_nobody(tmp_path: Path) -> None:
    """It never heard of its removal: back among the others, it campaigns and is not heard."""
    with running_relayed(tmp_path) as (network, wires):
        author = Author(network)
        with Load(network, clients=2) as load:
            load.wait_more(30)
            old = wait_leader(network)
            rest = others(network, old)
            cut, cut_s = wires.around([old]), time.monotonic()
            wires.hold(cut)
            load.targets = rest
            wait_leader(network, rest)
            wait_not_leading(network, old)
            load.wait_more(10)
            told = load.since(cut_s)[-1]
            change(network, "remove", old)
            term = term_of(network, rest)
            wires.release(cut)
            load.wait_more(200)
            check_promises_nothing(network, old, author, told)
            load.wait_more(200)
            assert term_of(network, rest) == term
            assert raft_of(network, old)["role"] != "leader"
        assert sum(wires.held_bytes[wire] for wire in cut) > 0, "nothing was cut"
        verify(network, load.acknowledged.values(), rest)


@pytest.mark.long
@pytest.mark.scenario("D1", tier="P")
def test_all_of_three_are_replaced_through_five_under_load(tmp_path: Path) -> None:
    with running_network(tmp_path, start=()) as network:
        first = [node.name for node in network.nodes]
        hasten(network, *first)
        network.start()
        network.wait_ready()
        with Load(network, clients=3) as load:
            load.wait_more(50)
            begin_s, ledger_begin_s = time.monotonic(), time.time()
            for name in ("node4", "node5"):
                join(network, name)
                wait_place(network, name, "voter", name)
            assert ask(network, "node5", "/v1/raft")["voters"] == 5
            load.wait_more(50)
            load.targets = [*first[2:], "node4", "node5"]
            change(network, "remove", *first[:2])
            load.targets = ["node4", "node5"]
            join(network, "node6")
            wait_place(network, "node6", "voter", "node6")
            load.targets = ["node4", "node5", "node6"]
            change(network, "remove", first[2])
            wait_place(network, first[2], "none", *load.targets)
            load.wait_more(50)
            gap_s = load.longest_gap_s(begin_s, time.monotonic())
            ledger_gap_s = longest_commit_gap_s(network, ledger_begin_s, time.time())
            assert ask(network, "node6", "/v1/raft")["voters"] == 3
        print(
            f"longest gap while all were replaced: {gap_s / ELECTION_S:.2f} elections without an "
            f"acknowledgement, {ledger_gap_s / ELECTION_S:.2f} without a block; {load.refused}"
        )
        for name in first:
            network.node(name).send(signal.SIGTERM)
        network.nodes = tuple(node for node in network.nodes if node.name not in first)
        verify(network, load.acknowledged.values())
