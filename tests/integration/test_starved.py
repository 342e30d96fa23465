"""Eight busy loops on the machine, and a leader that only runs when nobody else wants to."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from p2pcity.cli.testnet.local_network import LocalNetwork
from tests.integration.process_case import (
    AUTHOR,
    Load,
    kept_running,
    verify,
    wait_leader,
    wait_until,
)
from tests.integration.relayed_case import term_of

pytestmark = pytest.mark.integration

LOOPS: Final = 8
STARVED_S: Final = 60.0
TERMS_PER_MIN: Final = 3
"""On a machine that does nothing else; a storm has one every second or two."""


@contextmanager
def busy_loops() -> Iterator[None]:
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(LOOPS)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
        for loop in loops:
            loop.wait()


def starve(network: LocalNetwork, name: str) -> int:
    """Let all threads of a node run under SCHED_IDLE (sched(7)); how many they are."""
    threads = [int(thread) for thread in os.listdir(f"/proc/{network.node(name).pid}/task")]
    for thread in threads:
        os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
    return len(threads)


@pytest.mark.long
@pytest.mark.scenario("B6", tier="P")
def test_the_leader_gets_no_processor(tmp_path: Path) -> None:
    """Transactions are ordered all the same, and leaders do not change again and again."""
    network = LocalNetwork.create(
        tmp_path / "net", nodes=3, orderers=3, authors=(AUTHOR,), raft_preset="lan"
    )
    names = [node.name for node in network.nodes]
    with kept_running(network):
        with Load(network, clients=2) as load:
            load.wait_more(30)
            leader = wait_leader(network)
            term, begin_s = term_of(network, names), time.monotonic()
            with busy_loops():
                assert starve(network, leader) > 1
                wait_until(
                    lambda: time.monotonic() - begin_s >= STARVED_S,
                    "the time is over",
                    deadline_s=STARVED_S + 10,
                )
                load.wait_more(10, deadline_s=60)
                took_s = time.monotonic() - begin_s
                count = len(load.since(begin_s))
            grown = term_of(network, names) - term
            load.wait_more(30, deadline_s=60)
        print(
            f"{count} acknowledged in {took_s:.0f} s beside {LOOPS} busy loops, {grown} terms on, "
            f"longest gap {load.longest_gap_s(begin_s, begin_s + took_s):.2f} s"
        )
        assert grown <= TERMS_PER_MIN * max(took_s, 60) / 60
        verify(network, load.acknowledged.values())
