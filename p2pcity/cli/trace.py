"""`p2pcity trace`: when each node received, proposed, committed and applied a transaction."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from p2pcity.cli import exit_codes
from p2pcity.cli.node_address import node_option, open_client, token_option
from p2pcity.cli.output import json_option, print_json, print_pairs
from p2pcity.errors import ConfigError

_COLUMNS_MAX: Final = 80
_STAGE_WIDTH: Final = 9
_AFTER_WIDTH: Final = 12
_match_id = re.compile("[0-9a-fA-F]{64}").fullmatch


@click.command()
@click.argument("id_", metavar="ID")
@node_option
@token_option
@json_option
def trace(id_: str, node_address: str | None, token_file: Path | None, is_json: bool) -> int:
    """Show a transaction's way through every node.

    ID is the transaction's, as `p2pcity submit` prints it. The node asks all others what they
    remember: the newest transactions (up to 32,768, in 16 MiB) since each was started. Times are
    each node's own; what stands behind them is counted from the first of all, clocks compared as
    far as the round trip allows.

    Exit code 1 when no node that answered knows the transaction, 3 when one did not answer.
    """
    if not _match_id(id_):
        raise ConfigError(
            f"{id_[:80]!r} is no transaction's id: not 64 hexadecimal digits",
            remedy="Take it from the answer of `p2pcity submit`, or `p2pcity ledger block H`.",
        )
    with open_client(node_address, token_file) as client:
        document: dict[str, Any] = client.get_json(f"/v1/transactions/{id_}/trace")
    if is_json:
        print_json("trace", document)
    else:
        _print(document)
    nodes = document["nodes"]
    if document["status"] == "unknown" and not any(node["moments"] for node in nodes):
        click.echo(
            "p2pcity: no node that answered knows this transaction. Check the id, or send the "
            "transaction again: it is taken once only.",
            err=True,
        )
        return exit_codes.FAILED
    is_whole = all(node["state"] != "unreachable" for node in nodes)
    return 0 if is_whole else exit_codes.DEGRADED


def _print(document: Mapping[str, Any]) -> None:
    nodes = document["nodes"]
    applied = sum(any(m["stage"] == "applied" for m in node["moments"]) for node in nodes)
    status = [document["status"], document["reason"]]
    if document["height"] is not None:
        status.append(f"height {document['height']}, leaf {document['leaf_index']}")
    pairs: list[tuple[str, object]] = [
        ("transaction", document["id"]),
        ("status", ", ".join(filter(None, status))),
    ]
    if document["begin"] is not None:
        pairs.append(("begin", document["begin"]))
    if document["total_ms"] is not None:
        total = f"{_duration(document['total_ms'])} to applied on {applied} of {len(nodes)} nodes"
        pairs.append(("total", total))
    print_pairs(pairs)
    for node in nodes:
        print()
        for line in node_lines(node):
            print(line)


def node_lines(node: Mapping[str, Any]) -> list[str]:
    """Return what a node remembers, a line for each moment, within 80 columns."""
    return [_cut(line) for line in (_head(node), *map(_moment, node["moments"]))]


def _head(node: Mapping[str, Any]) -> str:
    name = node["name"] or node["peer"]
    if node["state"] == "unreachable":
        return f"{name}: unreachable, {node['error']}"
    if node["state"] == "unsupported":
        return f"{name}: knows no traces, {node['error']}"
    told = ["the node asked" if node["is_self"] else _clock(node)]
    if node["state"] == "unknown":
        told.append("remembers nothing of it")
    elif node["total_ms"] is not None:
        told.append(f"received to applied {_duration(node['total_ms'])}")
    return f"{name}: {'; '.join(told)}"


def _clock(node: Mapping[str, Any]) -> str:
    offset_ms, error_ms = node["clock_offset_ms"], node["clock_error_ms"]
    if abs(offset_ms) <= error_ms:
        return f"clock equal (within {error_ms:.1f} ms)"
    side = "ahead" if offset_ms > 0 else "behind"
    return f"clock {_duration(abs(offset_ms))} {side} (±{error_ms:.1f} ms)"


def _moment(moment: Mapping[str, Any]) -> str:
    time = moment["time"].partition("T")[2].rstrip("Z")
    after = f"+{_duration(moment['after_ms'])}"
    stage = moment["stage"].ljust(_STAGE_WIDTH)
    return f"  {stage}  {time}  {after.rjust(_AFTER_WIDTH)}  {_what(moment)}".rstrip()


def _what(moment: Mapping[str, Any]) -> str:
    stage, outcome = moment["stage"], moment["outcome"]
    peer = moment["peer_name"] or (moment["peer"] and f"…{moment['peer'][-8:]}")
    words = []
    if peer is not None:
        words.append(f"{ {'forwarded': 'to', 'refused': 'by'}.get(stage, 'from') } {peer}")
    elif stage == "received":
        words.append("from a client")
    elif stage == "reoffered":
        words.append("from this node's own disk")
    words += [
        f"{name} {moment[name]}" for name in ("term", "index", "height") if moment[name] is not None
    ]
    if outcome and not (stage == "applied" and outcome == "committed"):
        words.append(outcome)
    return ", ".join(words)


def _duration(ms: float) -> str:
    if abs(ms) < 1000:
        return f"{ms:.3f} ms"
    return f"{ms / 1000:,.3f} s"


def _cut(line: str) -> str:
    # Why a node refused is its own text.
    line = "".join(character if character.isprintable() else "?" for character in line)
    return line if len(line) <= _COLUMNS_MAX else line[: _COLUMNS_MAX - 1] + "…"
