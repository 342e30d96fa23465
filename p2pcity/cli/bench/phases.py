"""The phases of the bench, and how one of them is run against local nodes and checked."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from p2pcity.cli.bench.clients import run_clients
from p2pcity.cli.bench.figures import (
    NodeReading,
    PhaseFigures,
    directory_bytes,
    judge,
    node_figures,
    percentile,
)
from p2pcity.cli.bench.job import Job, Result, Target
from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.cli.testnet.making import AUTHORS_DIRECTORY
from p2pcity.errors import Unavailable

CLIENTS: Final = 2
OPEN_CONNECTIONS: Final = 64
CLOSED_CONNECTIONS: Final = 8
SEQUENCE: Final = 64
BUNDLE: Final = 64
SETTLE_S: Final = 60.0
"""How long the nodes have after a phase until all of them hold everything."""
# So many transactions a second are signed ahead for a closed loop, far above what is reached;
# a phase whose bodies run out ends early and is measured over its true length.
_PREPARED_PER_S: Final = {1: 3_000, BUNDLE: 400}
_POLL_S: Final = 0.05

Read = Callable[[], Sequence[NodeReading] | None]
"""Reads all nodes; None when one of them does not answer."""


@dataclass(frozen=True, slots=True)
class Phase:
    """One load: on schedule when `rate` (requests a second) is given, closed loop when it is 0."""

    name: str
    seconds: float
    wait: str = "committed"
    rate: float = 0.0
    connections: int = CLOSED_CONNECTIONS
    transactions_per_request: int = 1
    events_per_transaction: int = 1

    @property
    def requests(self) -> int:
        """How many requests are made ahead, by all clients together."""
        if self.rate:
            return max(CLIENTS, round(self.rate * self.seconds))
        per_s = _PREPARED_PER_S.get(self.events_per_transaction, 1_000)
        return max(CLIENTS, round(per_s * self.seconds / self.transactions_per_request))


def plan(rate: float | None, seconds: float, is_quick: bool) -> list[Phase]:
    """Return the phases in order; without a rate the open loop runs at 50/s, then at 200/s."""
    waits = ("accepted", "committed")
    rates = [rate] if rate else [50.0] if is_quick else [50.0, 200.0]
    phases = [
        Phase(f"{at:g}/s {wait}", seconds, wait, at, OPEN_CONNECTIONS)
        for at in rates
        for wait in waits
    ]
    phases += [
        Phase(f"singles {wait}", seconds, wait, transactions_per_request=SEQUENCE) for wait in waits
    ]
    return phases + [
        Phase(
            f"by {BUNDLE} {wait}",
            seconds,
            wait,
            transactions_per_request=4,
            events_per_transaction=BUNDLE,
        )
        for wait in waits
    ]


def run_phase(
    phase: Phase,
    read: Read,
    *,
    target: Target,
    run: str,
    addresses: Sequence[str],
    network: LocalNetwork | None = None,
) -> PhaseFigures:
    """Put the phase's load on the nodes, wait until they hold it all, and measure; BLOCKING.

    Raises Unavailable when a node does not answer before the load, or a client fails.
    """
    before = read()
    if before is None:
        raise Unavailable("a node does not answer", remedy="Read the nodes' logs.")
    result = run_clients(_jobs(phase, target, run, addresses, network))
    after, settled_s = _settle(read, before, result)
    if after is None:
        raise Unavailable("a node does not answer after the load", remedy="Read the nodes' logs.")
    seconds = max(settled_s - result.first_s, 1e-3)
    answered_s = max(result.last_s - result.first_s, 1e-3)
    # What ends a commit is its answer; only where that is not waited for, the ledger says when.
    measured_s = seconds if phase.wait == "accepted" else answered_s
    events = result.taken * phase.events_per_transaction
    return PhaseFigures(
        name=phase.name,
        wait=phase.wait,
        rate=phase.rate,
        connections=phase.connections,
        transactions_per_request=phase.transactions_per_request,
        events_per_transaction=phase.events_per_transaction,
        transactions=result.taken,
        events=events,
        refused=result.refused,
        unanswered=result.unanswered,
        seconds=round(seconds, 3),
        settle_s=round(settled_s - result.last_s, 3),
        transactions_per_s=round(result.taken / measured_s, 1),
        events_per_s=round(events / measured_s, 1),
        answered_per_s=round(result.taken / answered_s, 1),
        p50_ms=percentile(result.latencies_ms, 0.5),
        p99_ms=percentile(result.latencies_ms, 0.99),
        clients_cpu_s=round(result.cpu_s, 2),
        nodes=tuple(
            node_figures(old, new, events, seconds) for old, new in zip(before, after, strict=True)
        ),
        reasons=result.reasons,
        problems=judge(before, after, result, phase.events_per_transaction),
    )


def read_nodes(network: LocalNetwork) -> Sequence[NodeReading] | None:
    """Return what each node says of itself, with the size of its log."""
    statuses = network.statuses()
    readings = []
    for node in network.nodes:
        status = statuses[node.name]
        if status is None:
            return None
        readings.append(_reading(node.name, node.config.node.data_dir, status))
    return readings


def _reading(name: str, data: Path, status: dict[str, Any]) -> NodeReading:
    ledger, disk, process = status["ledger"], status["disk"], status["process"]
    return NodeReading(
        name=name,
        is_leader=status["raft"]["role"] == "leader",
        height=ledger["height"],
        head=ledger["head"],
        root=ledger["root"],
        transactions=ledger["tree_size"],
        events=ledger["events"],
        cpu_s=process["cpu_s"],
        rss_bytes=process["rss_bytes"],
        syncs=disk["syncs"],
        sync_ms_p50=disk["sync_ms_p50"],
        log_bytes=directory_bytes(data / "log"),
    )


def _jobs(
    phase: Phase,
    target: Target,
    run: str,
    addresses: Sequence[str],
    network: LocalNetwork | None,
) -> list[Job]:
    jobs = []
    for client in range(CLIENTS):
        key_file = ""
        if network is not None:
            key_file = str(network.directory / AUTHORS_DIRECTORY / f"{author_name(client)}.key")
        jobs.append(
            Job(
                target=target,
                run=run,
                client=client,
                clients=CLIENTS,
                addresses=tuple(addresses),
                connections=max(1, phase.connections // CLIENTS),
                requests=max(1, phase.requests // CLIENTS),
                transactions_per_request=phase.transactions_per_request,
                events_per_transaction=phase.events_per_transaction,
                duration_s=phase.seconds,
                rate=phase.rate,
                wait=phase.wait,
                network="" if network is None else network.network_id.hex(),
                key_file=key_file,
            )
        )
    return jobs


def author_name(client: int) -> str:
    """Return the author that a client signs as."""
    return f"bench{client}"


def _settle(
    read: Read, before: Sequence[NodeReading], result: Result
) -> tuple[Sequence[NodeReading] | None, float]:
    """Wait until every node holds what was taken and all are equal; the readings, and when.

    At the deadline the readings are returned as they are: `judge` says what is wrong then.
    """
    until_s = time.monotonic() + SETTLE_S
    while True:
        now_s = time.monotonic()
        after = read()
        if after is not None and _is_settled(before, after, result.taken):
            # Never before the last answer, which came between two looks.
            return after, max(now_s, result.last_s)
        if now_s > until_s:
            return after, now_s
        time.sleep(_POLL_S)


def _is_settled(before: Sequence[NodeReading], after: Sequence[NodeReading], taken: int) -> bool:
    is_one = len({(item.height, item.head, item.root) for item in after}) == 1
    return is_one and all(
        new.transactions - old.transactions >= taken for old, new in zip(before, after, strict=True)
    )
