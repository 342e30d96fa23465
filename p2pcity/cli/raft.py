"""`p2pcity raft`: ordering, for operators."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from p2pcity.cli import exit_codes
from p2pcity.cli.node_address import node_option, open_client, token_option
from p2pcity.cli.output import json_option, print_json, print_table, watch, watch_option
from p2pcity.cli.raft_changes import add, demote, promote, remove, replace, what_if
from p2pcity.cli.recover import recover

_HEADS: Final = (
    *("MEMBER", "NODE", "ROLE", "VOTER", "REACHABLE", "TERM", "INDEX", "APPLIED", "TRAILS"),
    *("STATE", "CONTACT", "FSYNC-P99"),
)


@click.group()
def raft() -> None:
    """Look at ordering, and change who orders."""


raft.add_command(recover)


@raft.command()
@node_option
@token_option
@json_option
@watch_option
def status(
    node_address: str | None, token_file: Path | None, is_json: bool, is_watching: bool
) -> int | None:
    """Show who orders, how far each node is, and how many more may fail."""
    with open_client(node_address, token_file) as client:

        def turn() -> int:
            document: dict[str, Any] = client.get_json("/v1/raft")
            if is_json:
                print_json("raft-status", document)
            else:
                _print(document)
            return 0 if document["has_quorum"] else exit_codes.DEGRADED

        return watch(is_watching, turn)


for _command in (add, remove, promote, demote, replace, what_if):
    raft.add_command(_command)


@raft.command()
@click.argument("peer", metavar="[NODE]", required=False)
@node_option
@json_option
def transfer(peer: str | None, node_address: str | None, is_json: bool) -> None:
    """Hand leadership to NODE, or to the orderer that is furthest.

    Works on the leader's own Unix socket only.
    """
    with open_client(node_address) as client:
        document = client.post("/v1/admin/transfer", params={"to": peer})
    if is_json:
        print_json("raft-transfer", document)
    else:
        print(", ".join(f"{name} {value}" for name, value in document.items()))


def _print(document: dict[str, Any]) -> None:
    rows = [
        (
            row["name"],
            f"…{row['peer'][-8:]}",
            "leader" if row["is_leader"] else row["place"],
            row["is_voter"],
            row["is_reachable"],
            row["term"],
            row["match_index"],
            row["applied_index"],
            row["trails"],
            row["state"],
            row["contact_ticks"],
            row["sync_ms_p99"],
        )
        for row in document["nodes"]
    ]
    print_table(_HEADS, rows)
    print(
        f"term {document['term']}, index {document['last_index']}, committed "
        f"{document['commit_index']}, applied {document['applied_index']}"
    )
    if document["has_quorum"]:
        count = document["tolerates_more_failures"]
        print(f"tolerates {count} more failure{'' if count == 1 else 's'}")
    else:
        click.secho(
            f"no quorum: {document['voters_reachable']} of {document['voters']} voters are "
            "reachable from here",
            fg="red",
        )
