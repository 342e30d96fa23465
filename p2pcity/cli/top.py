"""`p2pcity top`: a node and its city, live."""

from __future__ import annotations

import os
import select
import shutil
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from p2pcity.api.client import ApiProblem, Unreachable
from p2pcity.cli.node_address import node_option, open_client, token_option
from p2pcity.cli.top_frame import Look, Order, make_frame

if TYPE_CHECKING:
    from p2pcity.api.client import Client

_SIZE: Final = (80, 24)
_ENTER: Final = "\x1b[?1049h\x1b[?25l"
_LEAVE: Final = "\x1b[?25h\x1b[?1049l"
_HOME: Final = "\x1b[H"
_REST_OF_LINE: Final = "\x1b[K"
_RED: Final = "\x1b[31m"
_BOLD: Final = "\x1b[1m"
_PLAIN: Final = "\x1b[0m"


@click.command()
@node_option
@token_option
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(0.2, 60),
    default=1.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option("--once", "is_once", is_flag=True, help="Look twice, print one screen, and end.")
def top(
    node_address: str | None, token_file: Path | None, interval_s: float, is_once: bool
) -> None:
    """Show a node, what it is at, and how far each other node is; live.

    A key sorts by its column, the same key again turns the order round; q ends it. Rates are
    those since the look before. Without a terminal one screen is printed, as with --once.
    """
    with open_client(node_address, token_file) as client:
        before = _look(client)
        if is_once or not (sys.stdout.isatty() and sys.stdin.isatty()):
            time.sleep(interval_s)
            columns, lines = _SIZE
            frame = make_frame(before, _look(client), Order(), columns=columns, lines=lines)
            print("\n".join(frame))
            return
        with _screen():
            _run(client, before, interval_s)


def _look(client: Client) -> Look:
    status = client.get_json("/v1/status")
    peers, raft = client.get_json("/v1/peers"), client.get_json("/v1/raft")
    return Look(time.monotonic(), status, peers, raft)


def _run(client: Client, before: Look, interval_s: float) -> None:
    """Draw until `q`; a node that does not answer is asked again."""
    order, now = Order(), before
    due_s = time.monotonic()
    why = ""
    while True:
        if time.monotonic() >= due_s:
            due_s = time.monotonic() + interval_s
            try:
                before, now, why = now, _look(client), ""
            except (Unreachable, ApiProblem) as error:
                why = str(error)
        _draw(before, now, order, why)
        key = _key(max(0.0, due_s - time.monotonic()))
        if key in ("q", "\x03", "\x04"):
            return
        order = order.after(key)


def _draw(before: Look, now: Look, order: Order, why: str) -> None:
    columns, lines = shutil.get_terminal_size(_SIZE)
    frame = make_frame(before, now, order, columns=columns, lines=lines)
    if why:
        frame[0] = f"NO ANSWER since {time.monotonic() - now.at_s:.0f} s: {why}"[:columns]
    texts = []
    for number, line in enumerate(frame):
        style = _RED if line.startswith(("ALARM", "NO ANSWER")) else _BOLD if number == 0 else ""
        texts.append(f"{style}{line}{_PLAIN}{_REST_OF_LINE}")
    sys.stdout.write(_HOME + "\r\n".join(texts))
    sys.stdout.flush()


def _key(wait_s: float) -> str:
    """The next key that is pressed within a time; empty for none, q when the terminal is gone."""
    ready, _, _ = select.select([sys.stdin], [], [], wait_s)
    if not ready:
        return ""
    return os.read(sys.stdin.fileno(), 1).decode("ascii", "replace") or "q"


@contextmanager
def _screen() -> Iterator[None]:
    """The terminal's other screen, with keys that come at once; all as before afterwards."""
    descriptor = sys.stdin.fileno()
    settings = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor)
        sys.stdout.write(_ENTER)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, settings)
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()
