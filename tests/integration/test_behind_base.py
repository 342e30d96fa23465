"""Bases of real processes: one that is behind them all joins again; one that has no room waits."""

import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

import pytest

from p2pcity.cli.testnet.local_network import LocalNetwork
from tests.integration.process_case import (
    AUTHOR,
    DEADLINE_S,
    Acknowledgement,
    Author,
    Load,
    ask,
    kept_running,
    log_lines,
    others,
    set_keys,
    submit,
    verify,
    wait_leader,
    wait_until,
)
from tests.integration.strace import Strace, needs_strace

pytestmark = pytest.mark.integration

KEEP_BLOCKS: Final = 1024
"""About ten seconds of full load: so long the node may take from the base to the others' logs."""
_KEEP_BLOCKS_MIN: Final = 256
_EARLY: Final = 10
_PROBES: Final = 100
_JOINING_S: Final = 4 * DEADLINE_S


def ledger_of(network: LocalNetwork, name: str) -> dict[str, Any]:
    """What a node's status says of its ledger; empty while it does not answer."""
    status = ask(network, name, "/v1/status")
    return {} if status is None else dict(status["ledger"])


def probe(network: LocalNetwork, leader: str, author: Author) -> float:
    """How long the leader takes to commit one transaction, in seconds."""
    carried = author.sign()
    begin_s = time.monotonic()
    assert submit(network, leader, carried.data, "committed")["status"] == "committed"
    return time.monotonic() - begin_s


def p99_ms(durations_s: list[float]) -> int:
    return round(sorted(durations_s)[int(len(durations_s) * 0.99) - 1] * 1000)


def wait_heads(network: LocalNetwork) -> None:
    """Wait until all nodes have the same last block; how much they pruned may differ."""
    heads: list[Any] = []

    def are_equal() -> bool:
        ledgers = [ledger_of(network, node.name) for node in network.nodes]
        heads[:] = [(x.get("height"), x.get("head")) for x in ledgers]
        return heads[0][0] is not None and len(set(heads)) == 1

    wait_until(are_equal, f"equal heads: {heads}")


def check_told(network: LocalNetwork, name: str, told: Collection[Acknowledgement]) -> None:
    """A node knows where everything stands that was acknowledged, pruned or not."""
    with network.client(name) as client:
        for one in told:
            found = client.get_json(f"/v1/transactions/{one.id}", {"consistency": "local"})
            assert (found["status"], found["height"]) == ("committed", one.height)


@pytest.mark.long
@pytest.mark.scenario("D7", "E2", tier="P")
def test_a_follower_behind_every_base_joins_under_full_load(tmp_path: Path) -> None:
    network = LocalNetwork.create(
        tmp_path / "net", nodes=3, orderers=3, authors=(AUTHOR,), raft_preset="local"
    )
    for node in network.nodes:
        set_keys(network, node.name, ledger={"keep_blocks": KEEP_BLOCKS})
    with kept_running(network):
        leader = wait_leader(network)
        late = others(network, leader)[0]
        running = others(network, late)
        author = Author(network)
        early = [author.sign() for _ in range(_EARLY)]
        told = [submit(network, leader, item.data, "committed") for item in early]
        wait_until(
            lambda: ledger_of(network, late).get("height", 0) >= told[-1]["height"],
            "the follower has the first transactions",
        )
        network.kill(late)
        with Load(network, clients=4, targets=running, pause_s=0) as load:
            wait_until(
                lambda: all(ledger_of(network, x).get("first_height", 1) > 1 for x in running),
                "the others pruned what the follower lacks",
                deadline_s=_JOINING_S,
            )
            leader = wait_leader(network, running)
            alone = [probe(network, leader, author) for _ in range(_PROBES)]
            network.start([late])
            joining: list[float] = []
            begin_s, target = time.monotonic(), ledger_of(network, leader)["height"]
            while ledger_of(network, late).get("height", 0) < target:
                assert time.monotonic() - begin_s < _JOINING_S, "the follower does not join"
                joining.append(probe(network, leader, author))
            joined_s = time.monotonic() - begin_s
            joining += [probe(network, leader, author) for _ in range(_PROBES)]
            load.wait_more(20)
        wait_heads(network)
        events = [line["event"] for line in log_lines(network, late)]
        assert "base_fetched" in events
        assert "base_installed" in events
        # It knows what stood in blocks that nobody has any more.
        for item, answer in zip(early, told, strict=True):
            again = submit(network, late, item.data, "committed")
            assert (again["id"], again["height"]) == (answer["id"], answer["height"])
        check_told(network, late, load.acknowledged.values())
        assert load.count > KEEP_BLOCKS
        print(
            f"joined in {joined_s:.1f} s with {events.count('base_installed')} bases; "
            f"leader's p99 alone {p99_ms(alone)} ms, while it joined {p99_ms(joining)} ms; "
            f"{load.count} acknowledged"
        )


@pytest.mark.long
@needs_strace
@pytest.mark.scenario("A10", tier="P")
def test_a_disk_without_room_for_the_base(tmp_path: Path) -> None:
    """Old blocks stay, and everything else goes on; they go by themselves once there is room."""
    network = LocalNetwork.create(
        tmp_path / "net", nodes=3, orderers=3, authors=(AUTHOR,), raft_preset="local"
    )
    name = network.nodes[1].name
    set_keys(network, name, ledger={"keep_blocks": _KEEP_BLOCKS_MIN})
    base = network.node(name).config.node.data_dir / "base"
    with kept_running(network):
        pid, rest = network.node(name).pid, others(network, name)
        assert pid is not None
        with (
            Load(network, clients=4, targets=rest, pause_s=0) as load,
            Strace(
                *(pid, tmp_path / "strace", "pwrite64", "error=ENOSPC:when=1+"),
                paths=[base / "records", base / "head.new"],
            ) as trace,
        ):
            wait_until(
                lambda: "pruned" in " ".join((ask(network, name, "/v1/status") or {})["alarms"]),
                "an alarm says that old blocks stay",
                deadline_s=_JOINING_S,
            )
            ledger = ledger_of(network, name)
            assert ledger["first_height"] == 1
            load.wait_more(20)
            wait_until(
                lambda: ledger_of(network, name)["height"] > ledger["height"], f"{name} follows"
            )
            struck = trace.struck
        assert struck > 0
        wait_until(
            lambda: ledger_of(network, name)["first_height"] > 1, "they go once there is room"
        )
        wait_until(lambda: not ask(network, name, "/v1/status")["alarms"], "the alarm ends")
        assert network.node(name).pid == pid, "it went on by itself"
        wait_heads(network)
        check_told(network, name, load.acknowledged.values())
        verify(network, load.acknowledged.values(), rest)
    print(f"{struck} writes of a base failed; {load.count} acknowledged")
