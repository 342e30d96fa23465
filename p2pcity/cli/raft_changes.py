"""`p2pcity raft add|remove|promote|demote|replace|what-if`: who orders, for operators."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from p2pcity.cli import exit_codes
from p2pcity.cli.node_address import node_option, open_client
from p2pcity.cli.output import json_option, print_json, print_pairs
from p2pcity.errors import ChangeRefused, ConfigError

_CALL = TypeVar("_CALL", bound=Callable[..., Any])
_CHANGES = ("add", "remove", "promote", "demote", "replace")


def _force_option(function: _CALL) -> _CALL:
    return click.option(
        "--force",
        multiple=True,
        metavar="NODE",
        help="Change this node even if that is unsafe (once for each node that is changed).",
    )(function)


def _timeout_option(function: _CALL) -> _CALL:
    return click.option(
        "--timeout",
        "timeout_s",
        type=click.IntRange(1, 60),
        default=30,
        show_default=True,
        help="Seconds to wait until it is in effect.",
    )(function)


@click.command()
@click.argument("cards", metavar="CARD...", nargs=-1, required=True)
@click.option("--observer", "is_observer", is_flag=True, help="They never vote.")
@_force_option
@_timeout_option
@node_option
@json_option
def add(
    cards: tuple[str, ...],
    is_observer: bool,
    force: tuple[str, ...],
    timeout_s: int,
    node_address: str | None,
    is_json: bool,
) -> None:
    """Take new nodes in, by their cards (the node.card that init wrote).

    They follow at once, and vote by themselves once they have caught up and kept up for
    raft.promotion_ms. Works on the leader's own Unix socket only, as all changes do.
    """
    body = {"cards": _read_cards(cards), "is_observer": is_observer, "force": list(force)}
    _change("add", body, timeout_s, node_address, is_json)


def _make_command(operation: str, sentence: str) -> click.Command:
    """Return the command of a change that is about known nodes alone."""

    @click.command(operation, help=sentence)
    @click.argument("nodes", metavar="NODE...", nargs=-1, required=True)
    @_force_option
    @_timeout_option
    @node_option
    @json_option
    def command(
        nodes: tuple[str, ...],
        force: tuple[str, ...],
        timeout_s: int,
        node_address: str | None,
        is_json: bool,
    ) -> None:
        body = {"nodes": list(nodes), "force": list(force)}
        _change(operation, body, timeout_s, node_address, is_json)

    return command


remove = _make_command("remove", "Remove nodes; NODE is a name, member/name, member or peer id.")
promote = _make_command("promote", "Let learners vote at once.")
demote = _make_command("demote", "Let voters only follow, until they are promoted again.")


@click.command()
@click.option("--remove", "nodes", multiple=True, required=True, metavar="NODE", help="Who goes.")
@click.option(
    "--add", "cards", multiple=True, required=True, metavar="CARD", help="Card of who comes."
)
@_force_option
@_timeout_option
@node_option
@json_option
def replace(
    nodes: tuple[str, ...],
    cards: tuple[str, ...],
    force: tuple[str, ...],
    timeout_s: int,
    node_address: str | None,
    is_json: bool,
) -> None:
    """Take new nodes in and remove others, in one change of who votes.

    The new ones catch up first. A node that lost its log is replaced by itself, with its new card.
    """
    body = {"nodes": list(nodes), "cards": _read_cards(cards), "force": list(force)}
    _change("replace", body, timeout_s, node_address, is_json)


@click.command(name="what-if")
@click.argument("operation", type=click.Choice(_CHANGES))
@click.argument("nodes", metavar="NODE|CARD...", nargs=-1, required=True)
@click.option("--add", "cards", multiple=True, metavar="CARD", help="Who comes (with replace).")
@click.option("--observer", "is_observer", is_flag=True, help="What is added never votes.")
@node_option
@json_option
def what_if(
    operation: str,
    nodes: tuple[str, ...],
    cards: tuple[str, ...],
    is_observer: bool,
    node_address: str | None,
    is_json: bool,
) -> int:
    """Say whether a change would be SAFE or UNSAFE, and why, without making it.

    Exit code 5 for UNSAFE. What is added may be a card, or any name for a node to come.
    """
    given = list(cards)
    if operation == "add":
        given += [name for name in nodes if Path(name).is_file()]
        nodes = tuple(name for name in nodes if name not in given)
    body = {
        "operation": operation,
        "nodes": list(nodes),
        "cards": _read_cards(given),
        "is_observer": is_observer,
    }
    document = _post("what-if", body, node_address)
    if is_json:
        print_json("raft-what-if", document)
    else:
        colour = "green" if document["verdict"] == "SAFE" else "red"
        click.secho(f"{document['verdict']}: {document['reason']}", fg=colour)
    return 0 if document["verdict"] == "SAFE" else exit_codes.CHECK_SAYS_NO


def _read_cards(files: Sequence[str]) -> list[str]:
    from p2pcity.cli.key_files import read_file

    return [base64.b64encode(read_file(Path(file), "CARD")).decode() for file in files]


def _change(
    operation: str,
    body: Mapping[str, object],
    timeout_s: int,
    node_address: str | None,
    is_json: bool,
) -> None:
    document = _post(operation, {**body, "timeout_ms": timeout_s * 1000}, node_address)
    if is_json:
        print_json(f"raft-{operation}", document)
        return
    names = ("voters", "learners", "observers")
    rows = [(name, ", ".join(document[name]) or "none") for name in names]
    print_pairs([*rows, ("before", document["judgement"]["reason"])])


def _post(operation: str, body: Mapping[str, object], node_address: str | None) -> dict[str, Any]:
    from p2pcity.api.client import ApiProblem

    with open_client(node_address) as client:
        try:
            document = client.post(f"/v1/admin/{operation}", json.dumps(body).encode())
        except ApiProblem as problem:
            if problem.reason == "change-refused":
                error = ChangeRefused(problem.detail, remedy=problem.remedy)
                error.exit_code = exit_codes.CHECK_SAYS_NO
                raise error from None
            if problem.reason == "bad-parameter":
                raise ConfigError(problem.detail, remedy=problem.remedy) from None
            raise
    assert isinstance(document, dict)
    return document
