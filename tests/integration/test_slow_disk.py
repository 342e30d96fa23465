"""A disk that is slow, and one that stands still: under the leader, a follower, or all of them."""

import threading
import time
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from p2pcity.api.client import ApiProblem, Unreachable
from p2pcity.cli.testnet.local_network import LocalNetwork
from tests.integration.process_case import (
    Load,
    ask,
    others,
    running_network,
    verify,
    wait_leader,
    wait_until,
)
from tests.integration.strace import Strace, needs_strace

pytestmark = [pytest.mark.integration, needs_strace]

SLOW_US: Final = 300_000
"""Added to each sync; the networks here have the preset `lan`, an election time-out of 1 s."""
_ALIVE_S: Final = 5.0
"""An answer of a living event loop on a busy machine; the disk stands still for longer."""


def hang(network: LocalNetwork, name: str, stack: ExitStack, tmp_path: Path, hang_s: int) -> Strace:
    """Let the next sync of each thread of a node take that long."""
    pid = network.node(name).pid
    assert pid is not None
    fault = f"delay_exit={hang_s * 1_000_000}:when=1"
    return stack.enter_context(Strace(pid, tmp_path / "strace", "fdatasync", fault))


def alarms(network: LocalNetwork, name: str) -> str:
    """The alarms of a node, which must answer."""
    answer = ask(network, name, "/v1/status")
    assert answer is not None, f"{name} does not answer"
    return " ".join(answer["alarms"])


def check_hang(tmp_path: Path, hang_s: int) -> None:
    with running_network(tmp_path, raft_preset="lan") as network, ExitStack() as stack:
        leader = wait_leader(network)
        rest = others(network, leader)
        with Load(network, targets=rest) as load:
            load.wait_more(20)
            begin_s = time.monotonic()
            hang(network, leader, stack, tmp_path, hang_s)
            wait_until(lambda: "the disk" in alarms(network, leader), "the alarm")
            heir = wait_leader(network, rest)
            elected_s = time.monotonic() - begin_s
            wait_until(
                lambda: ask(network, leader, "/v1/raft")["role"] != "leader",
                "it does not think that it leads",
            )
            load.wait_more(20)
            told = load.since(begin_s)[-1]
            # What it has is old, and it does not give it out as new.
            with network.client(leader, 1.0) as client, pytest.raises((ApiProblem, Unreachable)):
                client.get_json(f"/v1/transactions/{told.id}")
            slowest_s = 0.0
            with network.client(leader, _ALIVE_S) as client:
                while time.monotonic() < begin_s + hang_s - 1:
                    asked_s = time.monotonic()
                    client.get("/livez")
                    slowest_s = max(slowest_s, time.monotonic() - asked_s)
                    threading.Event().wait(0.05)
            assert slowest_s > 0, "the time was over too soon"
            wait_until(lambda: not alarms(network, leader), "the alarm ends")
            load.wait_more(20)
            gap_s = load.longest_gap_s(begin_s, time.monotonic())
        verify(network, load.acknowledged.values())
        print(
            f"the disk of {leader} stood still for {hang_s} s: {heir} led after {elected_s:.2f} s, "
            f"longest gap {gap_s:.2f} s, slowest /livez {slowest_s * 1000:.0f} ms"
        )


@pytest.mark.long
@pytest.mark.scenario("A13", tier="P")
def test_the_disk_of_the_leader_stands_still(tmp_path: Path) -> None:
    check_hang(tmp_path, 12)


@pytest.mark.long
@pytest.mark.scenario("A13", tier="P")
def test_the_disk_of_the_leader_stands_still_for_30_s(tmp_path: Path) -> None:
    check_hang(tmp_path, 30)


def term(network: LocalNetwork) -> int:
    """The highest term of all."""
    answers = [ask(network, node.name, "/v1/raft") for node in network.nodes]
    return max(answer["term"] for answer in answers if answer is not None)


def check_slow(tmp_path: Path, who: str, slow_s: float) -> None:
    with running_network(tmp_path, raft_preset="lan") as network, ExitStack() as stack:
        leader = wait_leader(network)
        slow: Collection[str] = {
            "leader": [leader],
            "follower": others(network, leader)[:1],
            "all": [node.name for node in network.nodes],
        }[who]
        with Load(network) as load:
            load.wait_more(20)
            before = term(network)
            begin_s = time.monotonic()
            traces = []
            for name in slow:
                pid = network.node(name).pid
                assert pid is not None
                report = tmp_path / f"{name}.strace"
                fault = f"delay_exit={SLOW_US}"
                traces.append(stack.enter_context(Strace(pid, report, "fdatasync", fault)))
            threading.Event().wait(slow_s)
            end_s = time.monotonic()
            elections = term(network) - before
            rate = load.rate(begin_s, end_s)
            gap_s = load.longest_gap_s(begin_s, end_s)
            struck = sum(trace.struck for trace in traces)
            stack.close()
            load.wait_more(20)
        verify(network, load.acknowledged.values())
        print(
            f"{SLOW_US // 1000} ms a sync on {who} for {slow_s:.0f} s ({struck} syncs): "
            f"{elections} elections, {rate:.1f} acknowledged a second, longest gap {gap_s:.2f} s"
        )
        assert struck > 5
        assert rate > 0
        # A hand-over to a faster disk is one.
        assert elections <= 1


@pytest.mark.long
@pytest.mark.scenario("A12", tier="P")
def test_the_disk_of_the_leader_is_slow(tmp_path: Path) -> None:
    check_slow(tmp_path, "leader", 8.0)


@pytest.mark.long
@pytest.mark.parametrize("who", ["leader", "follower", "all"])
@pytest.mark.scenario("A12", tier="P")
def test_slow_disks_for_a_minute(tmp_path: Path, who: str) -> None:
    check_slow(tmp_path, who, 60.0)
