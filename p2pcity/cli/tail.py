"""`p2pcity tail`: events as they are committed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from p2pcity.cli.event_filter import filter_options, one_line, to_params
from p2pcity.cli.node_address import node_option, open_client, token_option
from p2pcity.cli.output import json_option, print_line
from p2pcity.errors import ConfigError


@click.command()
@click.option("--from", "start", metavar="HEIGHT|CURSOR", help="Begin there [default: now].")
@click.option("--limit", type=click.IntRange(1), help="Stop after so many events.")
@filter_options
@node_option
@token_option
@json_option
def tail(
    start: str | None,
    limit: int | None,
    node_address: str | None,
    token_file: Path | None,
    is_json: bool,
    **given: Any,
) -> None:
    """Print events as they are committed.

    In the ledger's order, gap-free and once each, also when the node restarts meanwhile. Each
    event has a cursor (HEIGHT.TRANSACTION.EVENT); --from CURSOR goes on after it.
    """
    params = to_params(given)
    cursor = None
    if start is not None and start.isdecimal():
        params["from"] = int(start)
    elif start is not None:
        if start.count(".") != 2:
            raise ConfigError(
                f"--from {start} is neither a height nor a cursor",
                remedy="Use a number, or the first column of an earlier line.",
            )
        cursor = start
    with open_client(node_address, token_file) as client:
        for number, event in enumerate(client.stream(params, last_event_id=cursor), 1):
            document = dict(event.document)
            if is_json:
                print_line(document)
            else:
                print(one_line(document), flush=True)
            if number == limit:
                return
