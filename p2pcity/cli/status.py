"""`p2pcity status`: one screen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from p2pcity.cli import exit_codes
from p2pcity.cli.node_address import node_option, open_client, token_option
from p2pcity.cli.output import (
    json_option,
    print_json,
    print_pairs,
    show_bytes,
    watch,
    watch_option,
)


@click.command()
@node_option
@token_option
@json_option
@watch_option
@click.option("-q", "--quiet", "is_quiet", is_flag=True, help="Print nothing: the exit code says.")
def status(
    node_address: str | None,
    token_file: Path | None,
    is_json: bool,
    is_watching: bool,
    is_quiet: bool,
) -> int | None:
    """Show a node on one screen.

    Exit code 0: it serves; 3: it answers and is not ready (see its alarms). An alarm that does not
    keep it from serving, such as of a clock, changes nothing in that.
    """
    with open_client(node_address, token_file) as client:

        def turn() -> int:
            document: dict[str, Any] = client.get_json("/v1/status")
            if is_json:
                print_json("status", document)
            elif not is_quiet:
                print_pairs(_pairs(document))
                for alarm in document["alarms"]:
                    click.secho(f"ALARM  {alarm}", fg="red")
            return 0 if document["is_ready"] else exit_codes.DEGRADED

        return watch(is_watching, turn)


def _pairs(document: dict[str, Any]) -> list[tuple[str, object]]:
    node, raft, ledger = document["node"], document["raft"], document["ledger"]
    lag, peers, pool, disk = (document[part] for part in ("lag", "peers", "mempool", "disk"))
    leader = "none" if raft["leader"] is None else f"{raft['leader_name']} {raft['leader']}"
    return [
        ("node", f"{node['member']} / {node['name']}, {node['role']}, up {node['uptime_s']:.0f} s"),
        ("peer id", node["peer"]),
        ("network", f"{document['network']['name']} ({document['network']['id'][:16]}…)"),
        ("raft", f"{raft['role']} in term {raft['term']}, commit index {raft['commit_index']}"),
        ("leader", leader),
        ("height", f"{ledger['height']}, head {ledger['head'][:16]}…"),
        ("oldest block", ledger["first_height"]),
        ("tree", f"{ledger['tree_size']} transactions, root {ledger['root'][:16]}…"),
        ("events", ledger["events"]),
        ("lag", f"{lag['blocks']} blocks, {lag['seconds']} s"),
        ("peers", f"{peers['connected']} of {peers['known']} connected, {peers['mesh']} in mesh"),
        (
            "mempool",
            f"{pool['transactions']} transactions, {show_bytes(pool['bytes'])} of "
            f"{show_bytes(pool['bytes_max'])}; {document['outbox']['pending']} in the outbox",
        ),
        (
            "disk",
            f"log {show_bytes(disk['log_bytes'])}, views {show_bytes(disk['views_bytes'])}, "
            f"{show_bytes(disk['free_bytes'])} free, sync p99 {disk['sync_ms_p99']:.1f} ms",
        ),
        ("growth", growth_text(disk)),
        ("clock", clock_text(document["clock"])),
        ("memory", show_bytes(document["process"]["rss_bytes"])),
        ("release", document["release"]),
    ]


def growth_text(disk: dict[str, Any]) -> str:
    """How fast the data directory grows, and until when the disk will do."""
    bytes_per_day = disk["grows_bytes_per_day"]
    if bytes_per_day is None:
        return "not known yet: it is looked at every ten minutes"
    seen = f"seen over {disk['grows_seen_s'] / 3600:.1f} h"
    if bytes_per_day == 0:
        return f"none ({seen})"
    if bytes_per_day < 0:
        return f"{show_bytes(-bytes_per_day)} a day less ({seen})"
    days = disk["free_bytes"] / bytes_per_day
    return f"{show_bytes(bytes_per_day)} a day ({seen}): the disk is full in {days:,.1f} days"


def clock_text(clock: dict[str, Any]) -> str:
    """How this clock stands beside the peers'."""
    offset_ms = clock["offset_ms"]
    if offset_ms is None:
        return "no peer was heard"
    direction = "behind" if offset_ms > 0 else "ahead of"
    return f"{abs(offset_ms)} ms {direction} its peers' (the middle of {clock['peers']})"
