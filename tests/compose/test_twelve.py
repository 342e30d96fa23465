"""Twelve containers, three of them orderers, under a steady load: when the last observer has it."""

import os
import statistics
import subprocess
import threading
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import Final

import pytest

from p2pcity.api.client import Client
from p2pcity.cli.bench.clients import run_clients
from p2pcity.cli.bench.figures import percentile
from p2pcity.cli.bench.job import Job
from p2pcity.cli.ingest.authors import key_path
from p2pcity.cli.testnet.containers import open_network
from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.cli.testnet.making import AUTHORS_DIRECTORY
from tests.compose.rig import IMAGE, needs_containers, p2pcity_testnet
from tests.integration.process_case import ask, wait_equal, wait_leader

pytestmark = [*needs_containers, pytest.mark.long]

NODES: Final = 12
ORDERERS: Final = 3
RATE: Final = int(os.environ.get("TESTS_TWELVE_RATE", "200"))
"""Transactions a second, on schedule; 0: as many as are answered."""
SECONDS: Final = float(os.environ.get("TESTS_TWELVE_SECONDS", "120"))
REQUESTS_MAX: Final = 10_000
PER_REQUEST: Final = 10
DEADLINE_S: Final = 300.0


class Arrivals:
    """When each height came out of each node's stream, by one clock."""

    def __init__(self, network: LocalNetwork, stack: ExitStack) -> None:
        self.seen: dict[int, dict[str, float]] = defaultdict(dict)
        for node in network.nodes:
            client = stack.enter_context(network.client(node.name, DEADLINE_S))
            threading.Thread(target=self._follow, args=(node.name, client), daemon=True).start()

    def _follow(self, name: str, client: Client) -> None:
        for event in client.stream():
            height = int(event.cursor.partition(".")[0])
            self.seen[height].setdefault(name, monotonic())

    def spreads_ms(self, first: str) -> list[float]:
        """From a height's first event at `first` to the last node that shows it, in ms."""
        whole = [at for at in self.seen.values() if len(at) == NODES]
        return [1000 * (max(at.values()) - at[first]) for at in whole]


def rss_mib(network: LocalNetwork) -> list[float]:
    return [
        ask(network, node.name, "/v1/status")["process"]["rss_bytes"] / 2**20
        for node in network.nodes
    ]


def test_two_hundred_a_second_for_two_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("P2PCITY_IMAGE", IMAGE)
    home = tmp_path / "city"
    numbers = ("-n", str(NODES), "--orderers", str(ORDERERS))
    p2pcity_testnet("init", *numbers, "--author", "load", "--compose", "-o", str(home))
    with ExitStack() as stack:
        stack.callback(p2pcity_testnet, "down", str(home))
        begin_s = monotonic()
        p2pcity_testnet("up", str(home), "--wait", "--timeout", str(DEADLINE_S))
        print(f"{NODES} containers ready after {monotonic() - begin_s:.1f} s")
        network = open_network(home)
        leader = wait_leader(network)
        idle = rss_mib(network)
        arrivals = Arrivals(network, stack)
        requests = RATE // PER_REQUEST
        job = Job(
            "p2pcity",
            run="twelve",
            client=0,
            clients=1,
            addresses=tuple(str(node.socket) for node in network.nodes[:ORDERERS]),
            connections=8,
            requests=int(requests * SECONDS) or REQUESTS_MAX,
            transactions_per_request=PER_REQUEST,
            events_per_transaction=1,
            duration_s=SECONDS,
            rate=requests,
            network=network.network_id.hex(),
            key_file=str(key_path(home / AUTHORS_DIRECTORY, "load")),
        )
        result = run_clients([job])
        loaded = rss_mib(network)
        wait_equal(network, deadline_s=DEADLINE_S)
        assert not result.refused, result.reasons
        assert not result.unanswered, result.reasons
        ledgers = [ask(network, node.name, "/v1/status")["ledger"] for node in network.nodes]
        assert {ledger["tree_size"] for ledger in ledgers} == {result.taken}
        spreads = arrivals.spreads_ms(leader)
        assert len(spreads) > 0.9 * max(ledger["height"] for ledger in ledgers)
        print(
            f"{result.taken} transactions in {result.last_s - result.first_s:.1f} s, answered "
            f"after {_p50_p99(result.latencies_ms)}; from the leader's stream to the last of "
            f"{NODES} nodes' {_p50_p99(spreads)}, of {len(spreads)} heights; a node has "
            f"{statistics.mean(idle):.0f} MiB before, {statistics.mean(loaded):.0f} at the end, at "
            f"most {max(loaded):.0f}"
        )
        print(subprocess.run(["uptime"], capture_output=True, text=True, check=True).stdout)


def _p50_p99(values_ms: Sequence[float]) -> str:
    return f"p50 {percentile(values_ms, 0.5):.0f} ms, p99 {percentile(values_ms, 0.99):.0f} ms"
