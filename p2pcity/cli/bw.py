"""`p2pcity bw`: how much goes to and comes from each peer, and on what."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from p2pcity.cli.node_address import node_option, open_client, token_option
from p2pcity.cli.output import json_option, print_json, print_table, show_bytes
from p2pcity.cli.ping import find_peer

TOPICS: Final = ("control", "bulk", "forward", "sync", "status", "gossip", "rest")
_ALL: Final = "all"
_FIGURES: Final = ("in_bytes_per_s", "out_bytes_per_s", "bytes_in", "bytes_out")


@click.command()
@click.option("--peer", "peers", multiple=True, metavar="NAME", help="Only this peer; repeat.")
@click.option(
    "--topic", "topics", multiple=True, type=click.Choice(TOPICS), help="Only this topic; repeat."
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 3600),
    default=2.0,
    show_default=True,
    help="How long to look.",
)
@node_option
@token_option
@json_option
def bw(
    peers: tuple[str, ...],
    topics: tuple[str, ...],
    seconds: float,
    node_address: str | None,
    token_file: Path | None,
    is_json: bool,
) -> None:
    """Show how much goes to and comes from each peer, and on what.

    The topics: bulk (Raft's appends) and control (the rest of Raft, pings), forward, sync and
    status for questions, gossip, and rest: hello, and what yamux and Noise add. A peer is named by
    its id, its name or member/name.
    """
    with open_client(node_address, token_file) as client:
        before, begin_s = client.get_json("/v1/peers")["peers"], time.monotonic()
        wanted = {find_peer(before, name)["peer"] for name in peers}
        time.sleep(seconds)
        after, passed_s = client.get_json("/v1/peers")["peers"], time.monotonic() - begin_s
    rows = [
        row
        for row in rates(before, after, passed_s)
        if (not wanted or row["peer"] in wanted) and (not topics or row["topic"] in topics)
    ]
    if is_json:
        print_json("bw", {"seconds": round(passed_s, 3), "rows": rows})
        return
    total = {
        "name": _ALL,
        "topic": "",
        **{name: sum(row[name] for row in rows) for name in _FIGURES},
    }
    heads = ["PEER", "TOPIC", "IN/s", "OUT/s", "IN", "OUT"]
    cells = [
        (row["name"], row["topic"], *(show_bytes(row[name]) for name in _FIGURES))
        for row in [*rows, total]
    ]
    print_table(heads, cells)


def rates(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], passed_s: float
) -> list[dict[str, Any]]:
    """Return a row a connected peer and topic, from two looks at /v1/peers `passed_s` s apart.

    A connection that was made in between begins at nothing.
    """
    old = {row["peer"]: row["traffic"] for row in before}
    found = []
    for row in after:
        for topic, now in sorted(row["traffic"].items()):
            then = old.get(row["peer"], {}).get(topic, {"bytes_in": 0, "bytes_out": 0})
            if now["bytes_in"] < then["bytes_in"] or now["bytes_out"] < then["bytes_out"]:
                then = {"bytes_in": 0, "bytes_out": 0}
            found.append(
                {
                    "peer": row["peer"],
                    "name": row["name"] or row["peer"],
                    "topic": topic,
                    "in_bytes_per_s": round((now["bytes_in"] - then["bytes_in"]) / passed_s),
                    "out_bytes_per_s": round((now["bytes_out"] - then["bytes_out"]) / passed_s),
                    **now,
                }
            )
    return found
