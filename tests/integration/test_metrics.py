"""GET /metrics of nodes that order, of one that is cut off, and of processes."""

from pathlib import Path
from typing import Any, cast

import pytest
import trio

from p2pcity.api.client import ApiProblem
from p2pcity.cli.testnet.local_network import LocalNetwork
from tests.integration.process_case import (
    Author,
    ask,
    others,
    running_network,
    submit,
    wait_leader,
    wait_until,
)
from tests.memory_network import DEADLINE_S, City, WholeNode
from tests.metrics_case import PROMTOOL, labels_of, names, names_used, promtool, value

pytestmark = pytest.mark.integration

TESTNET = Path(__file__).resolve().parent.parent.parent / "testnet"
# Series of these appear with what happens, as many as the code has routes and reasons, and one
# once another voter's clock was heard; all others are there from the start.
GROWING = {
    "p2pcity_clock_offset_seconds",
    "p2pcity_http_requests",
    "p2pcity_raft_messages_ignored",
}


def scrape(node: WholeNode) -> str:
    return node.parts.service.metrics().decode()


def series(text: str) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    return {
        (name, tuple(sorted(labels.items())))
        for family, name, labels in labels_of(text)
        if family not in GROWING
    }


async def test_a_city_counts_what_it_does(tmp_path: Path, nursery: trio.Nursery) -> None:
    city = City(tmp_path, nursery, orderers=3, observers=1)
    with trio.fail_after(2 * DEADLINE_S):
        await city.start()
        leader = await city.wait_leader()
        before = {node.name: series(scrape(node)) for node in city.nodes}
        carried = [city.carried() for _ in range(10)]
        await leader.submit(*carried)
        await leader.submit(carried[0])
        await city.wait_same_head()
        # From here on nothing waits until all is looked at: on a busy machine leaders may change.
        await city.wait_until(lambda: all(is_well(node) for node in city.nodes), "all are ready")
        for node in city.nodes:
            check_figures(node)
            # Whoever sends what: no series comes of it.
            assert series(scrape(node)) == before[node.name]
        check_sums([scrape(node) for node in city.nodes])
        text = scrape(leader)
        accepted = {"verdict": "accept", "reason": "accepted"}
        known = {"verdict": "ignore", "reason": "duplicate"}
        assert value(text, "p2pcity_admission_verdicts_total", **accepted) == 10
        assert value(text, "p2pcity_admission_verdicts_total", **known) == 1
        await check_cut_off(city, leader)
        for node in city.nodes:
            await node.stop()


def is_well(node: WholeNode) -> bool:
    return node.parts.service.ready().is_ok and len(node.parts.network.peers()) == 3


def check_sums(texts: list[str]) -> None:
    """What leaders did, whoever they were."""
    height = value(texts[0], "p2pcity_ledger_height")
    proposed, timed, transactions, won = (
        sum(value(text, name) for text in texts)
        for name in (
            "p2pcity_ordering_proposed_blocks_total",
            "p2pcity_ordering_commit_duration_seconds_count",
            "p2pcity_ordering_proposed_transactions_total",
            "p2pcity_raft_elections_won_total",
        )
    )
    # With one leader all three are equal; what a former one proposed may be lost, or not timed.
    assert 1 <= timed <= proposed
    assert proposed >= height
    assert transactions >= 10
    assert won >= 1


def check_figures(node: WholeNode) -> None:
    text = scrape(node)
    status = cast(dict[str, Any], node.parts.status.status())
    ledger, raft = status["ledger"], status["raft"]
    assert value(text, "p2pcity_node_ready") == 1
    assert value(text, "p2pcity_raft_has_leader") == 1
    assert value(text, "p2pcity_raft_role", role="leader") == node.is_leader
    assert value(text, "p2pcity_raft_term") == raft["term"]
    assert value(text, "p2pcity_raft_applied_index") == raft["applied_index"]
    assert value(text, "p2pcity_ledger_height") == ledger["height"]
    assert value(text, "p2pcity_ledger_transactions_total") == ledger["tree_size"] == 10
    assert value(text, "p2pcity_ledger_sync_duration_seconds_count") >= 1
    assert value(text, "p2pcity_net_peers", state="connected") == 3
    assert value(text, "p2pcity_node_place", place=status["node"]["place"]) == 1
    assert value(text, "p2pcity_raft_voters") == value(text, "p2pcity_raft_voters_reachable") == 3
    assert value(text, "p2pcity_raft_failures_tolerated") == 1


async def check_cut_off(city: City, leader: WholeNode) -> None:
    alone = next(node for node in city.nodes[:3] if node is not leader)
    city.wires.cut_off(alone.peer)

    def is_told() -> bool:
        return value(scrape(alone), "p2pcity_raft_has_leader") == 0

    await city.wait_until(is_told, "it hears no leader")
    text = scrape(alone)
    health = alone.parts.service.ready()
    shown = [
        labels["reason"]
        for _, name, labels in labels_of(text)
        if name == "p2pcity_node_not_ready" and value(text, "p2pcity_node_not_ready", **labels) == 1
    ]
    assert not health.is_ok
    assert len(shown) == len(health.reasons) == 1
    assert shown[0] in ("no-leader", "leader-silent")
    assert alone.parts.service.live().is_ok
    assert value(text, "p2pcity_node_ready") == 0
    assert value(text, "p2pcity_node_alarms") >= 1
    assert value(text, "p2pcity_net_peers", state="connected") == 0
    assert value(scrape(leader), "p2pcity_raft_failures_tolerated") == 0


def get(network: LocalNetwork, name: str) -> str:
    with network.client(name) as client:
        reply = client.get("/metrics")
    return bytes(reply.body).decode()


def test_processes_are_scraped(tmp_path: Path) -> None:
    with running_network(tmp_path) as network:
        leader = wait_leader(network)
        rest = others(network, leader)
        author = Author(network)
        committed = 0

        def is_gossiped() -> bool:
            """Whether what came from a client of a follower went to the leader by gossip too."""
            nonlocal committed
            # Until the mesh is up a message reaches nobody.
            answer = submit(network, rest[0], author.sign().data, "committed")
            committed += answer["status"] == "committed"
            return all(
                value(get(network, name), f"p2pcity_gossip_messages_{what}_total") >= 1
                for name, what in (
                    (rest[0], "published"),
                    (rest[0], "sent"),
                    (leader, "received"),
                )
            )

        wait_until(is_gossiped, "gossip came")
        text = get(network, leader)
        used = {
            name
            for file in ("alerts.yml", "grafana-dashboard.json")
            for name in names_used((TESTNET / file).read_text(encoding="utf-8"))
        }
        assert used - names(text) == set()
        if PROMTOOL is not None:
            assert promtool("check", "metrics", text=text) == (0, "")
        assert value(text, "p2pcity_process_open_fds") > 10
        label = {"method": "POST", "route": "/v1/transactions", "status": "200"}
        assert value(get(network, rest[0]), "p2pcity_http_requests_total", **label) == committed
        for name in rest:
            network.kill(name)
        check_without_quorum(network, leader)


def check_without_quorum(network: LocalNetwork, name: str) -> None:
    wait_until(
        lambda: value(get(network, name), "p2pcity_raft_has_leader") == 0,
        "the leader steps down",
    )
    assert ask(network, name, "/livez") == {"is_ok": True, "reasons": []}
    with network.client(name) as client, pytest.raises(ApiProblem) as caught:
        client.get("/readyz")
    problem = caught.value
    assert (problem.status, problem.reason) == (503, "not-ready")
    assert problem.members["is_ok"] is False
    assert "leader" in " ".join(problem.members["reasons"])
    text = get(network, name)
    assert value(text, "p2pcity_node_ready") == 0
    assert value(text, "p2pcity_raft_failures_tolerated") == 0
    asked = {"method": "GET", "route": "/readyz", "status": "503"}
    assert value(text, "p2pcity_http_requests_total", **asked) >= 1
