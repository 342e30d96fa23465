"""Twelve containers, three of them orderers, under a steady load: when the last observer has it."""

import os
import statistics
import subprocess
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any, Final

import pytest

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
LATER: Final = 5
"""A transaction is asked about so many samples after it was seen: by then all have applied it."""
DEADLINE_S: Final = 300.0


class Sample:
    """One transaction a second, by what all nodes remember of its way: they have one clock here.

    Streams to every node would cost the machine more than the nodes themselves.
    """

    def __init__(self, network: LocalNetwork, leader: str, stack: ExitStack) -> None:
        self._client = stack.enter_context(network.client(leader, DEADLINE_S))
        self._ids: deque[str] = deque()
        self.traces: list[dict[str, Any]] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()
        stack.callback(self.end)

    def _follow(self) -> None:
        while not self._is_over.wait(1.0):
            block = self._client.get_json("/v1/blocks/latest")
            self._ids.extend(item["id"] for item in block["transactions"][-1:])
            if len(self._ids) > LATER:
                self._trace(self._ids.popleft())

    def _trace(self, id_: str) -> None:
        self.traces.append(self._client.get_json(f"/v1/transactions/{id_}/trace"))

    def end(self) -> None:
        """Ask for what is left, once all of it was applied everywhere."""
        self._is_over.set()
        self._thread.join(DEADLINE_S)
        while self._ids:
            self._trace(self._ids.popleft())

    def spreads_ms(self) -> list[float]:
        """From the leader's commit to the last observer that had applied it, in ms."""
        found = []
        for trace in self.traces:
            by_node = {node["name"]: _times(node) for node in trace["nodes"]}
            committed = [times["committed"] for times in by_node.values() if "proposed" in times]
            applied = [times["applied"] for times in by_node.values() if "applied" in times]
            if len(committed) == 1 and len(applied) == NODES:
                found.append((max(applied) - committed[0]) / timedelta(milliseconds=1))
        return found


def _times(node: dict[str, Any]) -> dict[str, datetime]:
    return {item["stage"]: datetime.fromisoformat(item["time"]) for item in node["moments"]}


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
        sample = Sample(network, leader, stack)
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
        sample.end()
        spreads = sample.spreads_ms()
        assert len(spreads) > SECONDS / 2
        print(
            f"{result.taken} transactions in {result.last_s - result.first_s:.1f} s, answered "
            f"after {_p50_p99(result.latencies_ms)}; from the commit to the last observer "
            f"{_p50_p99(spreads)}, of {len(spreads)} transactions; a node has "
            f"{statistics.mean(idle):.0f} MiB before, {statistics.mean(loaded):.0f} at the end, at "
            f"most {max(loaded):.0f}"
        )
        print(subprocess.run(["uptime"], capture_output=True, text=True, check=True).stdout)


def _p50_p99(values_ms: Sequence[float]) -> str:
    return f"p50 {percentile(values_ms, 0.5):.0f} ms, p99 {percentile(values_ms, 0.99):.0f} ms"
