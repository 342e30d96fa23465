"""`p2pcity ledger`: the ledger, its blocks and transactions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from p2pcity.cli import exit_codes
from p2pcity.cli.node_address import node_option, open_client, token_option
from p2pcity.cli.output import json_option, print_json, print_pairs, print_table


@click.group()
def ledger() -> None:
    """Look at the ledger, its blocks and transactions."""


@ledger.command()
@node_option
@token_option
@json_option
def info(node_address: str | None, token_file: Path | None, is_json: bool) -> None:
    """Show how high the ledger is, its head, and its tree's size and root."""
    with open_client(node_address, token_file) as client:
        status: dict[str, Any] = client.get_json("/v1/status")
    document = {"network": status["network"], **status["ledger"]}
    if is_json:
        print_json("ledger-info", document)
        return
    network = document.pop("network")
    print_pairs([("network", network["id"]), ("name", network["name"]), *document.items()])


@ledger.command()
@click.argument("height", metavar="HEIGHT|latest")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write its bytes here.")
@node_option
@token_option
@json_option
def block(
    height: str,
    output: Path | None,
    node_address: str | None,
    token_file: Path | None,
    is_json: bool,
) -> None:
    """Show a block and what became of its transactions."""
    with open_client(node_address, token_file) as client:
        if output is not None:
            output.write_bytes(client.get(f"/v1/blocks/{height}", accept="application/cbor").body)
            return
        document: dict[str, Any] = client.get_json(f"/v1/blocks/{height}")
    if is_json:
        print_json("block", document)
        return
    transactions = document.pop("transactions")
    print_pairs(list(document.items()))
    print()
    rows = [
        (t["id"], f"{t['author'][:8]}…", t["count"], t["outcome"], t["leaf_index"])
        for t in transactions
    ]
    print_table(["TRANSACTION", "AUTHOR", "EVENTS", "OUTCOME", "LEAF"], rows)


@ledger.command()
@click.argument("id_", metavar="ID")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write its bytes here.")
@node_option
@token_option
@json_option
def transaction(
    id_: str,
    output: Path | None,
    node_address: str | None,
    token_file: Path | None,
    is_json: bool,
) -> int:
    """Show where a transaction stands; exit code 1 when the node never heard of it."""
    path = f"/v1/transactions/{id_}"
    with open_client(node_address, token_file) as client:
        if output is not None:
            output.write_bytes(client.get(path, accept="application/cbor").body)
            return 0
        document: dict[str, Any] = client.get_json(path)
    if is_json:
        print_json("transaction", document)
    else:
        print_pairs(list(document.items()))
    return exit_codes.FAILED if document["status"] == "unknown" else 0
