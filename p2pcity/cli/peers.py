"""`p2pcity peers`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from p2pcity.cli.node_address import node_option, open_client, token_option
from p2pcity.cli.output import (
    json_option,
    print_json,
    print_table,
    show_bytes,
    watch,
    watch_option,
)


@click.command()
@click.option("-v", "is_verbose", is_flag=True, help="Whole peer ids, incarnations and refusals.")
@node_option
@token_option
@json_option
@watch_option
def peers(
    is_verbose: bool,
    node_address: str | None,
    token_file: Path | None,
    is_json: bool,
    is_watching: bool,
) -> int | None:
    """List a node's peers."""
    with open_client(node_address, token_file) as client:

        def turn() -> None:
            document: dict[str, Any] = client.get_json("/v1/peers")
            if is_json:
                print_json("peers", document)
            elif is_verbose:
                _print_verbose(document["peers"])
            else:
                _print_short(document["peers"])

        return watch(is_watching, turn)


def _print_short(rows: list[dict[str, Any]]) -> None:
    heads = ["PEER", "MEMBER", "ROLE", "DIR", "ADDRESS", "RTT", "MESH", "IN/s", "OUT/s"]
    heads += ["DUP%", "HEIGHT", "LAG", "SCORE", "STATE"]
    cells = [
        (
            f"…{row['peer'][-8:]}",
            row["member"],
            "leader" if row["is_leader"] else row["role"],
            row["direction"],
            _host_and_port(row["address"]),
            row["rtt_ms"],
            row["is_in_mesh"],
            show_bytes(row["in_bytes_per_s"]),
            show_bytes(row["out_bytes_per_s"]),
            row["duplicate_percent"],
            row["height"],
            row["lag_blocks"],
            row["score"],
            row["state"],
        )
        for row in rows
    ]
    print_table(heads, cells)


def _host_and_port(address: str) -> str:
    """The part of a TCP multiaddr that tells peers apart: 192.0.2.1:4710."""
    parts = address.split("/")
    return f"{parts[2]}:{parts[4]}" if len(parts) > 4 and parts[3] == "tcp" else address


def _print_verbose(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        print(f"{row['peer']}")
        for name, value in row.items():
            if name != "peer":
                print(f"  {name:<14} {'-' if value is None else value}")
