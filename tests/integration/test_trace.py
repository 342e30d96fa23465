"""`p2pcity trace` on three real nodes: every stage, a node that is down, and an id of nobody."""

import os
from pathlib import Path
from typing import Any, Final

import pytest

from p2pcity.cli.testnet.local_network import LocalNetwork
from tests.integration.lone_nodes import CommandLine
from tests.integration.process_case import (
    Author,
    ask,
    freeze,
    others,
    running_network,
    submit,
    thaw,
    wait_equal,
    wait_leader,
    wait_until,
)

pytestmark = pytest.mark.integration

LEADER: Final = ["received", "admitted", "proposed", "committed", "applied"]
FOLLOWER: Final = ["received", "admitted", "committed", "applied"]


def stages(node: dict[str, Any]) -> list[str]:
    return [moment["stage"] for moment in node["moments"]]


def moment(node: dict[str, Any], stage: str) -> dict[str, Any]:
    return next(item for item in node["moments"] if item["stage"] == stage)


def run_until(line: CommandLine, code: int, *arguments: str) -> None:
    """Run `p2pcity trace` until it ends with this code: a busy node is late with its answer."""
    wait_until(lambda: line.run("trace", *arguments) == code, f"exit code {code}")


def traced(line: CommandLine, id_: str, on: str, code: int = 0) -> dict[str, Any]:
    """The trace by node name, as --json has it."""
    run_until(line, code, id_, "--node", on, "--json")
    return {node["name"].partition("/")[2]: node for node in line.document["nodes"]}


def test_a_way_through_three_nodes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = CommandLine(capsys)
    with running_network(tmp_path) as network:
        author = Author(network)
        # Gossip needs its mesh first: before that a transaction takes the straight way alone. And
        # a block may overtake both gossip's pace and what the third node has from it.
        names: list[str] = []
        data: list[dict[str, Any]] = []

        def is_gossiped() -> bool:
            leader = wait_leader(network)
            asked, third = others(network, leader)
            answer = submit(network, asked, author.sign().data, "committed")
            wait_equal(network)
            found = traced(line, answer["id"], str(network.node(asked).socket))
            names[:] = [leader, asked, third]
            data[:] = [answer, found]
            return (
                {"gossiped", "forwarded", "answered"} <= {*stages(found[asked])}
                and "received" in stages(found[third])
                and "proposed" in stages(found[leader])
            )

        wait_until(is_gossiped, "gossip reaches the third node before the block does")
        leader, asked, third = names
        answer, found = data
        assert line.document["status"] == "committed"
        assert line.document["height"] == answer["height"]
        _check_ways(found, answer, leader, asked, third)
        _check_times(found, line.document, leader, asked)
        _check_text(line, answer["id"], network, asked, leader)
        _check_absences(line, answer["id"], network, asked, third)


def connected(network: LocalNetwork, name: str) -> list[str]:
    answer = ask(network, name, "/v1/peers")
    rows = [] if answer is None else answer["peers"]
    return [row["peer"] for row in rows if row["is_connected"]]


def _check_ways(
    found: dict[str, dict[str, Any]], answer: dict[str, Any], leader: str, asked: str, third: str
) -> None:
    own = found[asked]
    assert {node["state"] for node in found.values()} == {"known"}
    assert own["is_self"]
    assert {*stages(own)} == {*FOLLOWER, "gossiped", "forwarded", "answered"}
    assert moment(own, "received")["peer"] is None
    assert moment(own, "forwarded")["peer"] == found[leader]["peer"]
    assert moment(own, "answered")["outcome"] == "committed"
    assert stages(found[leader]) == LEADER
    assert stages(found[third]) == FOLLOWER
    # Whoever was first with it: the node that took it, or the other that had it from there.
    assert moment(found[leader], "received")["peer"] in (own["peer"], found[third]["peer"])
    assert moment(found[third], "received")["peer"] in (own["peer"], found[leader]["peer"])
    proposed = moment(found[leader], "proposed")
    assert proposed["term"] >= 1
    assert proposed["height"] == answer["height"]
    for node in found.values():
        assert moment(node, "committed")["index"] == proposed["index"]
        assert moment(node, "applied")["height"] == answer["height"]
        assert moment(node, "applied")["outcome"] == "committed"


def _check_times(
    found: dict[str, dict[str, Any]], document: dict[str, Any], leader: str, asked: str
) -> None:
    for node in found.values():
        # One host, one clock: what is told apart lies within the error.
        assert abs(node["clock_offset_ms"]) <= node["clock_error_ms"]
        times = {item["stage"]: item["time"] for item in node["moments"]}
        # A node that only follows may hear of the commit before gossip brings the transaction.
        assert times["received"] <= times["admitted"] <= times["applied"]
        assert times["committed"] <= times["applied"]
        assert node["total_ms"] >= 0
    own, there = found[asked], found[leader]
    begin = [moment(own, "received"), moment(own, "admitted")]
    # Gossip, by way of the third node even, may reach the leader before the straight way does.
    check_order(*begin, moment(own, "forwarded"))
    check_order(
        *begin,
        moment(there, "received"),
        moment(there, "proposed"),
        moment(there, "committed"),
        moment(own, "committed"),
        moment(own, "applied"),
        moment(own, "answered"),
    )
    assert begin[0]["after_ms"] == 0
    assert document["begin"] == begin[0]["time"]
    ends = [moment(node, "applied")["after_ms"] for node in found.values()]
    assert document["total_ms"] == max(ends)


def check_order(*moments: dict[str, Any]) -> None:
    times = [item["after_ms"] for item in moments]
    assert times == sorted(times)


def _check_text(
    line: CommandLine, id_: str, network: LocalNetwork, asked: str, leader: str
) -> None:
    run_until(line, 0, id_, "--node", str(network.node(asked).directory))
    shown = line.out.splitlines()
    assert all(len(text) <= 80 for text in shown)
    assert id_ in shown[0]
    assert "to applied on 3 of 3 nodes" in line.out
    assert "from a client" in line.out
    assert f"/{leader}: clock equal" in line.out


def _check_absences(
    line: CommandLine, id_: str, network: LocalNetwork, asked: str, third: str
) -> None:
    on = str(network.node(asked).socket)
    assert line.run("trace", "zz", "--node", on) == 2
    assert "64 hexadecimal digits" in line.err
    nobody = os.urandom(32).hex()

    def is_nowhere() -> bool:
        assert line.run("trace", nobody, "--node", on) == 1
        return line.out.count("remembers nothing of it") == 3

    wait_until(is_nowhere, "all three answer")
    assert "no node that answered knows this transaction" in line.err

    freeze(network, third)
    found = traced(line, id_, on, code=3)
    thaw(network, third)
    assert found[third]["state"] == "unreachable"
    assert found[third]["error"] == "it gave no status answer in 2 s"
    assert found[third]["moments"] == []
    assert found[asked]["state"] == "known"

    network.kill(third)
    peer = found[third]["peer"]
    wait_until(lambda: peer not in connected(network, asked), "the peer is gone")
    assert line.run("trace", id_, "--node", on) == 3
    assert f"/{third}: unreachable, it is not connected" in line.out
    network.start([third])

    def is_back() -> bool:
        return line.run("trace", id_, "--node", on, "--json") == 0

    # What it did in an earlier run it does not remember; what the ledger has it has.
    wait_until(is_back, "the peer is back")
    [node] = [node for node in line.document["nodes"] if node["peer"] == peer]
    assert node["state"] == "unknown"
    assert line.document["status"] == "committed"
