"""`p2pcity bench`: load on three local nodes, with a verdict."""

import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from p2pcity.cli import exit_codes
from p2pcity.cli.duration import Duration
from p2pcity.cli.output import json_option, print_json, print_table
from p2pcity.errors import Unavailable

_QUICK_S: Final = 3.0


@click.command()
@click.option(
    "--nodes",
    type=click.IntRange(1, 7),
    default=3,
    show_default=True,
    help="Number of nodes; all of them vote.",
)
@click.option(
    "--for",
    "seconds",
    type=Duration(longest_s=600),
    metavar="TIME",
    help="Length of each phase [default: 20s, or 3s with --quick].",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0.1, max=10_000),
    help="Requests a second of the open loop [default: 50, then 200].",
)
@click.option("--quick", "is_quick", is_flag=True, help="Phases of 3 s, and fewer of them.")
@click.option("--no-etcd", is_flag=True, help="Do not measure etcd, even when it is installed.")
@click.option(
    "--dir",
    "directory",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the nodes' data goes, and stays [default: temporary, deleted at the end].",
)
@json_option
def bench(
    nodes: int,
    seconds: float | None,
    rate: float | None,
    is_quick: bool,
    no_etcd: bool,
    directory: Path | None,
    is_json: bool,
) -> int:
    """Put load on three local nodes and measure.

    Open loop: one transaction of one event a request, sent on schedule whether or not the nodes
    keep up; latencies count from the scheduled time. Saturated: each connection sends its next
    request when the last is answered, 64 transactions of one event or 4 of 64 events in each.
    All events have 300 bytes; everything is signed before the clock starts. After each phase
    all nodes must hold the same ledger with everything that was taken: exit code 1 otherwise.
    """
    from p2pcity.cli.bench.phases import plan

    length_s = seconds or (_QUICK_S if is_quick else 20.0)
    phases = plan(rate, length_s, is_quick)
    home = directory or Path(tempfile.mkdtemp(prefix="p2pcity-bench-"))
    is_kept = True
    try:
        measured, leader = _measure_ours(phases, nodes, home)
        rivals: list[Any] = []
        note = _why_no_etcd(no_etcd)
        if not note:
            rivals = _measure_etcd(phases, home)
        is_kept = directory is not None or any(phase.problems for phase in measured)
    finally:
        if is_kept:
            _say(f"the nodes' data and logs are in {home}")
        else:
            shutil.rmtree(home, ignore_errors=True)
    is_good = not any(phase.problems for phase in [*measured, *rivals])
    if is_json:
        print_json(
            "bench",
            {
                "nodes": nodes,
                "seconds": length_s,
                "event_bytes": _event_bytes(),
                "phases": [phase.to_json() for phase in measured],
                "etcd": [phase.to_json() for phase in rivals],
                "etcd_note": note,
                "ratios": _ratios(measured, rivals),
                "ledger": leader,
                "is_good": is_good,
            },
        )
    else:
        _print(measured, rivals, note, leader)
    return 0 if is_good else exit_codes.FAILED


def _measure_ours(
    phases: Sequence[Any], nodes: int, home: Path
) -> tuple[list[Any], dict[str, Any]]:
    """Run all phases on a new network; the figures, and where the ledger stands at the end."""
    from p2pcity.cli.bench.figures import disk_per_event
    from p2pcity.cli.bench.phases import CLIENTS, author_name, read_nodes, run_phase
    from p2pcity.cli.testnet.local_network import LocalNetwork

    network = LocalNetwork.create(
        home / "network",
        nodes=nodes,
        orderers=nodes,
        authors=[author_name(client) for client in range(CLIENTS)],
        name="bench",
    )
    figures = []
    with network:
        network.start()
        network.wait_ready()
        for number, phase in enumerate(phases):
            _say(f"{phase.name}, {phase.seconds:g} s")
            figures.append(
                run_phase(
                    phase,
                    lambda: read_nodes(network),
                    target="p2pcity",
                    run=f"{time.time_ns() // 1_000_000:x}-{number}",
                    addresses=[str(node.socket) for node in network.nodes],
                    network=network,
                )
            )
            for problem in figures[-1].problems:
                _say(f"FAILED: {problem}")
        last = read_nodes(network)
    if last is None:
        raise Unavailable("a node does not answer at the end", remedy="Read the nodes' logs.")
    end = last[0]
    data = [node.config.node.data_dir for node in network.nodes]
    return figures, {
        "height": end.height,
        "head": end.head,
        "root": end.root,
        "transactions": end.transactions,
        "events": end.events,
        "disk_bytes_per_event": disk_per_event(data, end.events),
    }


def _measure_etcd(phases: Sequence[Any], home: Path) -> list[Any]:
    """Run the phases that have a counterpart: what etcd answers is committed."""
    from dataclasses import replace

    from p2pcity.cli.bench.etcd import EtcdCluster
    from p2pcity.cli.bench.phases import run_phase

    figures = []
    with EtcdCluster(home / "etcd") as cluster:
        for number, phase in enumerate(phases):
            if phase.wait != "committed":
                continue
            name = f"etcd {phase.name.removesuffix(' committed')}"
            _say(f"{name}, {phase.seconds:g} s")
            figures.append(
                run_phase(
                    replace(phase, name=name, transactions_per_request=1),
                    cluster.reader(phase.events_per_transaction),
                    target="etcd",
                    run=f"{number}",
                    addresses=cluster.addresses,
                )
            )
    return figures


def _why_no_etcd(is_unwanted: bool) -> str:
    """Return why etcd is not measured; empty when it is."""
    from p2pcity.cli.bench.etcd import is_installed

    if is_unwanted:
        return "etcd was not measured: --no-etcd"
    if not is_installed():
        return (
            "etcd was not measured: it is not installed "
            "(Debian: apt install etcd-server etcd-client)"
        )
    return ""


def _event_bytes() -> int:
    from p2pcity.cli.bench.bodies import EVENT_BYTES

    return EVENT_BYTES


def _ratios(measured: Sequence[Any], rivals: Sequence[Any]) -> list[str]:
    from p2pcity.cli.bench.figures import ratio_line

    ours = [phase for phase in measured if phase.wait == "committed"]
    return [ratio_line(one, other) for one, other in zip(ours, rivals, strict=False)]


def _print(
    measured: Sequence[Any], rivals: Sequence[Any], note: str, ledger: dict[str, Any]
) -> None:
    from p2pcity.cli.bench.figures import HEADS, row

    print_table(HEADS, [row(phase) for phase in [*measured, *rivals]])
    print(
        "Milliseconds are the clients'. CPU (seconds for 1,000 events), log and syncs are the mean"
    )
    print("of the nodes, RSS the largest. An etcd request is one put, or a transaction of 64 puts.")
    disk = ledger["disk_bytes_per_event"]
    print(
        "Bytes on disk an event and node, after all: "
        f"log {disk['log']}, views {disk['views']}, outbox {disk['outbox']}"
    )
    print()
    for phase in measured:
        if phase.refused or phase.unanswered:
            reasons = ", ".join(f"{reason}: {count}" for reason, count in phase.reasons.items())
            print(f"{phase.name}: {phase.refused} refused, {phase.unanswered} unanswered")
            print(f"  ({reasons})")
    for line in _ratios(measured, rivals):
        print(line)
    if note:
        print(note)
    problems = [problem for phase in measured for problem in phase.problems]
    problems += [problem for phase in rivals for problem in phase.problems]
    for problem in problems:
        print(f"FAILED: {problem}")
    if not problems:
        print(
            f"Nothing lost, nothing doubled: every node stands at height {ledger['height']}, "
            f"{ledger['events']} events,"
        )
        print(f"head {ledger['head']}")


def _say(line: str) -> None:
    """Say on standard error what is under way: the table and the JSON stand alone."""
    print(line, file=sys.stderr, flush=True)
