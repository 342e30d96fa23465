"""A node that ends by itself is found, whatever it wrote; one that a fault ended is not."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from signal import SIGKILL, SIGSEGV, SIGTERM
from typing import IO

import pytest

from p2pcity.cli.chaos.nemeses import kill, knows, term
from p2pcity.cli.chaos.plan import Strike
from p2pcity.cli.chaos.site import Site, wait
from p2pcity.cli.chaos.wires import Wires
from p2pcity.cli.demo.watching import Watcher
from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.cli.testnet.local_node import LocalNode, Process
from p2pcity.cli.testnet.local_node import launch as real_launch
from p2pcity.errors import SyncFailedError

SECONDS = 10.0


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    network = LocalNetwork.create(tmp_path / "city", nodes=1, orderers=1)
    with Wires(("node1",), 1) as wires, network:
        yield Site(network, wires, Watcher(network))


def _start(site: Site, script: str) -> LocalNode:
    """Start node1 as a shell that ends as `script` says."""

    def launch(node: LocalNode, output: IO[bytes]) -> Process:
        return subprocess.Popen(["sh", "-c", script], stdout=output, stderr=output)

    node = site.network.node("node1")
    node.launch = launch
    node.start()
    return node


def _wait_gone(node: LocalNode) -> None:
    assert node.wait_gone(time.monotonic() + SECONDS)


def _strike(name: str) -> Strike:
    return Strike(name, 0.0, 1.0, "any", 0.1)


@pytest.mark.parametrize(
    ("script", "code"),
    [("kill -SEGV $$", -SIGSEGV), ("kill -KILL $$", -SIGKILL), ("exit 0", 0), ("exit 1", 1)],
)
def test_an_end_that_no_fault_explains_is_found(site: Site, script: str, code: int) -> None:
    node = _start(site, script)
    _wait_gone(node)
    # It died before the nemesis came: that is no strike, and explains nothing.
    act = kill(site, _strike("kill"))
    next(act)
    with pytest.raises(StopIteration) as ended:
        next(act)
    assert ended.value.value == 0
    assert site.findings == [f"node1 ended with exit code {code}, which no fault explains"]


def test_a_fault_explains_one_end_of_its_node(site: Site) -> None:
    node = _start(site, "exec sleep 60")
    act = kill(site, _strike("kill"))
    next(act)
    with pytest.raises(StopIteration) as ended:
        next(act)
    assert (ended.value.value, site.findings) == (1, [])
    # Started again, it may not end in that way once more.
    node.send(SIGKILL)
    _wait_gone(node)
    site.start_ended(["node1"])
    assert site.findings == ["node1 ended with exit code -9, which no fault explains"]


def test_another_exit_code_than_the_fault_explains_is_found(site: Site) -> None:
    node = _start(site, "trap 'exit 3' TERM; while :; do sleep 0.05; done")
    assert wait(lambda: knows(node, SIGTERM), SECONDS)
    act = term(site, _strike("term"))
    next(act)
    with pytest.raises(StopIteration):
        next(act)
    # It heard the signal, and did not hand over and end with 0, as a node must.
    assert site.findings == ["node1 ended with exit code 3, which no fault explains"]


def test_a_process_that_does_not_know_the_signal_yet_ends_by_it(site: Site) -> None:
    node = _start(site, "exec sleep 60")
    assert not knows(node, SIGTERM)
    act = term(site, _strike("term"))
    next(act)
    with pytest.raises(StopIteration):
        next(act)
    assert site.findings == []


@pytest.mark.parametrize(("script", "found"), [("exit 11", 0), ("kill -SEGV $$", 1)])
def test_a_full_disk_explains_a_failed_sync_alone(site: Site, script: str, found: int) -> None:
    site.explain("node1", SyncFailedError.exit_code)
    _wait_gone(_start(site, script))
    site.start_ended(["node1"])
    assert len(site.findings) == found


def test_one_that_a_fault_ended_belatedly_is_started_again(site: Site) -> None:
    """The fault is over, and its victim still takes leave."""
    node = _start(site, "exec tail -f /dev/null")
    site.explain("node1", SyncFailedError.exit_code)
    site.start_ended(["node1"])
    assert node.pid is not None
    node.launch = real_launch
    node.send(SIGKILL)
    site.explain("node1", -SIGKILL)
    site.wait_ready(["node1"], 6 * SECONDS)
    assert site.findings == []
