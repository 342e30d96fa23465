"""What commands print: one JSON document with a schema's name, or tables of 100 columns.

Each command's JSON is `{"schema": "p2pcity/COMMAND/1", ...}`; a change that breaks a reader
raises the number. Streams (tail, query --json) are one document a line.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import click

COLUMNS_MAX: Final = 100
WATCH_INTERVAL_S: Final = 2.0

json_option = click.option(
    "--json", "is_json", is_flag=True, help="Print JSON (one document, or one a line)."
)

watch_option = click.option(
    "--watch", "is_watching", is_flag=True, help="Print it again every two seconds."
)


def print_json(schema: str, document: Mapping[str, Any]) -> None:
    """Print a command's answer as one JSON document under its schema's name."""
    body = {"schema": f"p2pcity/{schema}/1", **document}
    indent = 2 if sys.stdout.isatty() else None
    print(json.dumps(body, indent=indent, ensure_ascii=False, default=str))


def print_line(document: Mapping[str, Any]) -> None:
    """Print one JSON document of a stream, and hand it on at once."""
    print(json.dumps(document, ensure_ascii=False, separators=(",", ":")), flush=True)


def print_table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print columns under their heads, numbers to the right; long cells are cut at 100 columns."""
    cells = [[show(cell) for cell in row] for row in rows]
    widths = [max([len(head), *(len(row[i]) for row in cells)]) for i, head in enumerate(heads)]
    while sum(widths) + 2 * (len(widths) - 1) > COLUMNS_MAX and max(widths) > 8:
        widths[widths.index(max(widths))] -= 1
    to_right = [
        bool(rows) and all(isinstance(row[i], int | float | None) for row in rows)
        for i in range(len(heads))
    ]
    for row in [list(heads), *cells]:
        parts = []
        for cell, width, right in zip(row, widths, to_right, strict=True):
            text = cell if len(cell) <= width else cell[: width - 1] + "…"
            parts.append(text.rjust(width) if right else text.ljust(width))
        print("  ".join(parts).rstrip())


def print_pairs(pairs: Sequence[tuple[str, object]]) -> None:
    """Print names and values below each other."""
    width = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        print(f"{name.ljust(width)}  {show(value)}")


def print_verdict(notes: Sequence[str], wrong: Sequence[tuple[str, str]]) -> None:
    """Print what is worth knowing, each thing that is wrong with its remedy, and the verdict."""
    for note in notes:
        print(f"note: {note}")
    for what, remedy in wrong:
        click.secho(f"WRONG: {what}. {remedy}", fg="red")
    print(f"{len(wrong)} findings" if wrong else "sound")


def show(value: object) -> str:
    """Return a value as a cell shows it: nothing is a dash, a float has one decimal."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.1f}"
    return str(value)


def show_bytes(count: float) -> str:
    """Return a number of bytes with its binary unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def watch(is_watching: bool, turn: Callable[[], int | None]) -> int | None:
    """Run `turn` once, or every two seconds on a cleared screen until Ctrl-C; return its code."""
    while is_watching:
        if sys.stdout.isatty():
            click.clear()
        turn()
        sys.stdout.flush()
        time.sleep(WATCH_INTERVAL_S)
    return turn()
