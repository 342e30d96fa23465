"""`p2pcity compare`: do two nodes have the same ledger, and if not, where do they part?"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from p2pcity.cli import exit_codes
from p2pcity.cli.node_address import open_client, token_option
from p2pcity.cli.output import json_option, print_json, print_table

if TYPE_CHECKING:
    from p2pcity.cli.compare_ledgers import Comparison, Difference, NodeLedger

_CODES: Final = {"equal": 0, "behind": 0, "unknown": exit_codes.FAILED}
_HASH_DIGITS: Final = 16
_LISTED_MAX: Final = 10
"""Transactions that the text lists of each kind; --json has them all."""


@click.command()
@click.argument("nodes", nargs=2, metavar="NODE NODE")
@token_option
@json_option
def compare(nodes: tuple[str, str], token_file: Path | None, is_json: bool) -> int:
    """Compare the ledgers of two nodes.

    A NODE is a URL, a Unix socket or a node's directory. Exit code 0: the same ledger, or one is
    the beginning of the other; 5: they differ; 4: one can't be reached; 1: the blocks that both
    had were pruned on one of them.

    \b
    With --json:
      verdict      equal, behind, differ, applied-differently (the same blocks, another
                   tree), other-network, unknown
      nodes        address, name, peer, network, height, first_height, head of each
      height       the highest that both have
      behind       by how many blocks each is behind the other
      difference   null, or: height, is_first (false: one pruned what lies below), blocks,
                   fields that differ, and transactions: only in one, other outcomes, order
    """
    from p2pcity.cli.compare_ledgers import NodeLedger, compare_ledgers

    with contextlib.ExitStack() as stack:
        one, other = (
            NodeLedger(stack.enter_context(open_client(node, token_file))) for node in nodes
        )
        result = compare_ledgers(one, other)
    if is_json:
        print_json("compare", _document([one, other], result))
    else:
        _print([one, other], result)
    return _CODES.get(result.verdict, exit_codes.CHECK_SAYS_NO)


def _document(ledgers: Sequence[NodeLedger], result: Comparison) -> dict[str, Any]:
    highest = max(ledger.height for ledger in ledgers)
    found = result.difference
    return {
        "verdict": result.verdict,
        "nodes": [
            {
                "address": ledger.address,
                "name": ledger.name,
                "peer": ledger.status["node"]["peer"],
                "network": ledger.network,
                "height": ledger.height,
                "first_height": ledger.status["ledger"]["first_height"],
                "head": ledger.head,
            }
            for ledger in ledgers
        ],
        "height": result.height,
        "behind": [highest - ledger.height for ledger in ledgers],
        "difference": None
        if found is None
        else {
            "height": found.height,
            "is_first": found.is_first,
            "blocks": list(found.blocks),
            "fields": found.fields,
            "transactions": found.transactions,
        },
    }


def _print(ledgers: Sequence[NodeLedger], result: Comparison) -> None:
    rows = [
        ("node", *(ledger.name for ledger in ledgers)),
        ("peer id", *(f"…{ledger.status['node']['peer'][-8:]}" for ledger in ledgers)),
        ("network", *(_short(ledger.network) for ledger in ledgers)),
        ("oldest block", *(str(ledger.status["ledger"]["first_height"]) for ledger in ledgers)),
        ("height", *(str(ledger.height) for ledger in ledgers)),
        ("head", *(_short(ledger.head) for ledger in ledgers)),
    ]
    print_table(["", *(ledger.address for ledger in ledgers)], rows)
    print()
    one, other = ledgers
    if one.status["node"]["peer"] == other.status["node"]["peer"]:
        print("note: both addresses lead to the same peer id")
    if result.verdict == "equal":
        print(f"equal up to height {result.height}")
    elif result.verdict == "behind":
        late, ahead = sorted(ledgers, key=lambda ledger: ledger.height)
        print(f"{late.name} is behind by {ahead.height - late.height}; no difference")
    elif result.verdict == "unknown":
        print(
            f"not comparable: one of them pruned block {result.height}, the highest that both had. "
            "Compare each with a node that keeps older blocks (ledger.keep_blocks)."
        )
    else:
        _print_difference(ledgers, result)


def _print_difference(ledgers: Sequence[NodeLedger], result: Comparison) -> None:
    if result.verdict == "other-network":
        click.secho("DIFFERENT: they belong to two networks", fg="red")
        return
    found = result.difference
    if found is None:
        click.secho(
            f"DIFFERENT: the same blocks up to height {result.height}, and another tree over their "
            "transactions: one node applied them wrongly. Stop both and run `p2pcity check` on "
            "each; keep the data directory of the one that fails.",
            fg="red",
        )
        return
    if found.is_first:
        click.secho(f"DIFFERENT from height {found.height} on", fg="red")
    else:
        click.secho(
            f"DIFFERENT at height {found.height}, and perhaps below it: what lies there was pruned",
            fg="red",
        )
    print_table(["", *(ledger.name for ledger in ledgers)], _difference_rows(found))
    print(_remedy(found))


def _difference_rows(found: Difference) -> list[tuple[str, ...]]:
    hashes = ("pruned" if x is None else _short(x["hash"]) for x in found.blocks)
    rows: list[tuple[str, ...]] = [("hash", *hashes)]
    rows += [(name, *map(_short, pair)) for name, pair in found.fields.items()]
    transactions = found.transactions
    if None not in found.blocks:
        rows.append(("only here", *(f"{len(ids)} transactions" for ids in transactions["only"])))
        if transactions["is_other_order"]:
            rows.append(("order", "", "another"))
    for number in range(min(_LISTED_MAX, max(map(len, transactions["only"])))):
        cells = (ids[number : number + 1] for ids in transactions["only"])
        rows.append(("", *(_short(cell[0]) if cell else "" for cell in cells)))
    for id_, outcomes in list(transactions["outcomes"].items())[:_LISTED_MAX]:
        rows.append((f"outcome of {_short(id_)}", *outcomes))
    return rows


def _remedy(found: Difference) -> str:
    if "epoch" in found.fields:
        return (
            "The city went on under another epoch (`p2pcity raft recover`) without one of them: "
            "let that node join anew, with `p2pcity init` in an empty directory and "
            "`p2pcity raft add`."
        )
    return (
        "Two ledgers of one network must never differ. Stop both, keep both data directories as "
        "they are, run `p2pcity check` on each, and compare each with the other nodes: the one "
        "that stands alone has to join anew (`p2pcity init --rejoin`)."
    )


def _short(value: object) -> str:
    text = "-" if value is None else str(value)
    is_hash = len(text) == 64 and text.isalnum()
    return f"{text[:_HASH_DIGITS]}…" if is_hash else text
