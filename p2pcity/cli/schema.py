"""`p2pcity schema`: the JSON Schemas of what commands print with --json."""

from importlib import resources
from typing import Final

import click

_ENDING: Final = ".json"
_PLACE: Final = resources.files("p2pcity.cli") / "schemas"
NAMES: Final = tuple(
    sorted(
        file.name.removesuffix(_ENDING) for file in _PLACE.iterdir() if file.name.endswith(_ENDING)
    )
)
"""One for each value of the member `schema`, p2pcity/NAME/1."""


@click.command()
@click.argument("name", required=False, type=click.Choice(NAMES), metavar="[NAME]")
def schema(name: str | None) -> None:
    """Print the JSON Schema of what a command prints with --json.

    NAME stands in such a document's member `schema`: p2pcity/NAME/1. Without NAME: all names. The
    lines of query and tail are the StoredEvent of /openapi.json.
    """
    print("\n".join(NAMES) if name is None else text_of(name), end="\n" if name is None else "")


def text_of(name: str) -> str:
    """Return the JSON Schema (draft 2020-12) of that name, as text."""
    return (_PLACE / f"{name}{_ENDING}").read_text(encoding="utf-8")
