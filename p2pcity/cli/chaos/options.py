"""What `testnet chaos` and `testnet scenario` are told alike."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from p2pcity.cli.output import json_option

_F = TypeVar("_F", bound=Callable[..., Any])

_DIRECTORY = click.Path(path_type=Path, file_okay=False)


def trial_options(command: _F) -> _F:
    """Give a command `network`, `seed`, `directory` and `is_json`."""
    for add in (
        json_option,
        click.option(
            "-o",
            "--output",
            "directory",
            metavar="DIR",
            type=_DIRECTORY,
            help="Keep logs, history.ndjson and ledgers.ndjson here, and processes with all they "
            "have [default: only of a failed run].",
        ),
        click.option(
            "--seed",
            type=int,
            default=1,
            show_default=True,
            help="Draws what strikes whom when, as far as nothing else says it.",
        ),
        click.argument("network", metavar="[NETWORK]", type=_DIRECTORY, required=False),
    ):
        command = add(command)
    return command
