"""`p2pcity query`: the events that match, page by page."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from p2pcity.cli.event_filter import filter_options, one_line, to_params
from p2pcity.cli.node_address import node_option, open_client, token_option
from p2pcity.cli.output import json_option, print_line

PAGE_EVENTS_MAX: Final = 500


@click.command()
@filter_options
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True)
@click.option("--cursor", help="Begin after this event.")
@click.option("--local", "is_local", is_flag=True, help="What this node has applied, unconfirmed.")
@node_option
@token_option
@json_option
def query(
    limit: int,
    cursor: str | None,
    is_local: bool,
    node_address: str | None,
    token_file: Path | None,
    is_json: bool,
    **given: Any,
) -> None:
    """Print the events that match.

    In the ledger's order; with --json one CloudEvent a line.
    """
    params = {**to_params(given), "consistency": "local" if is_local else None}
    left = limit
    with open_client(node_address, token_file) as client:
        while left:
            page = client.get_json(
                "/v1/events", {**params, "cursor": cursor, "limit": min(left, PAGE_EVENTS_MAX)}
            )
            for event in page["events"]:
                if is_json:
                    print_line(event)
                else:
                    print(one_line(event))
            left -= len(page["events"])
            cursor = page["next"]
            if cursor is None:
                return
