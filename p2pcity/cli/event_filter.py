"""The filters that `query` and `tail` share, and how an event is shown on one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--type", "type_", help="Exactly, or every type with a prefix: permit.*"),
    click.option("--source", help="Exactly."),
    click.option("--subject", help="Exactly."),
    click.option("--member", help="Name of the author's member."),
    click.option("--author", help="Public key of the author (64 hex digits)."),
    click.option("--since", help="From this time on (RFC 3339)."),
    click.option("--until", help="Before this time (RFC 3339)."),
    click.option("--bbox", metavar="W,S,E,N", help="Within, in decimal degrees."),
)


def filter_options(command: _Command) -> _Command:
    """Add the filters' options to a command; they arrive as keyword arguments."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def to_params(given: dict[str, Any]) -> dict[str, str | int | None]:
    """Return the filters as the API's parameters."""
    names = ("source", "subject", "member", "author", "since", "until", "bbox")
    return {"type": given["type_"], **{name: given[name] for name in names}}


def one_line(event: dict[str, Any]) -> str:
    """Return an event as a line for people: cursor, time, member, type, subject, data."""
    cursor = str(event["p2pcitycursor"])
    if event.get("p2pcitytombstone"):
        return f"{cursor:<12} {event['p2pcityblocktime']}  (body withheld or erased)"
    time = str(event.get("time") or event["p2pcityblocktime"])
    who = str(event.get("p2pcitymember") or f"{event['p2pcityauthor'][:8]}…")
    data = json.dumps(event["data"], ensure_ascii=False) if "data" in event else ""
    parts = [f"{cursor:<12}", time, who, str(event["type"]), str(event.get("subject") or ""), data]
    return "  ".join(part for part in parts if part)
