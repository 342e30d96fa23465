"""What is seen while the demo runs: a live screen on a terminal, plain lines elsewhere."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from p2pcity.cli.demo.watching import NodeView

PLAIN_INTERVAL_S: Final = 2.0
_LINES_KEPT: Final = 9
_REFRESHES_PER_S: Final = 8


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the load is; `elapsed_s` since the start, `p50_ms` of the last acknowledgements."""

    elapsed_s: float
    committed: int
    total: int
    p50_ms: float | None
    views: Sequence[NodeView]


class Screen(Protocol):
    """Where the demo says what happens."""

    def say(self, text: str) -> None:
        """Print one line that stays."""
        ...

    def show(self, progress: Progress) -> None:
        """Show how far things are; called about ten times a second."""
        ...

    def close(self) -> None:
        """End; the terminal is as it was before. May be called again."""
        ...


def open_screen(stream: TextIO) -> Screen:
    """Return the live screen when `stream` is a terminal that can show it."""
    console = Console(file=stream, highlight=False)
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveScreen(console)
    return PlainScreen(stream)


class PlainScreen:
    """Lines without control characters: what happens, and the progress every two seconds."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._start_s = time.monotonic()
        self._shown_s = 0.0

    def say(self, text: str) -> None:
        """Print one line with the seconds since the start."""
        self._print(text)

    def show(self, progress: Progress) -> None:
        """Print the progress, unless that was done less than two seconds ago."""
        now_s = time.monotonic()
        if now_s - self._shown_s < PLAIN_INTERVAL_S:
            return
        self._shown_s = now_s
        nodes = "  ".join(
            f"{view.name}{'*' if view.is_leader else ''} "
            f"{'down' if view.height is None else view.height}"
            for view in progress.views
        )
        latency = "" if progress.p50_ms is None else f"  {progress.p50_ms:.0f} ms"
        self._print(f"{progress.committed:,} of {progress.total:,} committed{latency}  {nodes}")

    def close(self) -> None:
        """Nothing is left to do."""

    def _print(self, text: str) -> None:
        print(f"{time.monotonic() - self._start_s:6.1f} s  {text}", file=self._stream, flush=True)


class LiveScreen:
    """A table of the nodes, a bar, and what happened, drawn in place."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._start_s = time.monotonic()
        self._lines: deque[str] = deque(maxlen=_LINES_KEPT)
        self._progress: Progress | None = None
        self._live = Live(
            console=console,
            get_renderable=self._render,
            refresh_per_second=_REFRESHES_PER_S,
        )
        self._live.start()

    def say(self, text: str) -> None:
        """Add a line below the table."""
        self._lines.append(f"{time.monotonic() - self._start_s:6.1f} s  {text}")

    def show(self, progress: Progress) -> None:
        """Draw this from now on."""
        self._progress = progress

    def close(self) -> None:
        """Draw for the last time and give the cursor back."""
        self._live.stop()

    def _render(self) -> RenderableType:
        parts: list[RenderableType] = [Text("p2pcity demo", style="bold")]
        if self._progress is not None:
            parts += [_table(self._progress.views), _bar(self._progress), Text()]
        parts += [Text(line) for line in self._lines]
        return Group(*parts)


def _table(views: Sequence[NodeView]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    # Fixed widths, so that nothing jumps; together less than 80 columns.
    for head, width in (("NODE", 6), ("ROLE", 8), ("STATE", 9), ("RAFT", 9)):
        table.add_column(head, width=width, no_wrap=True)
    for head, width in (("TERM", 4), ("HEIGHT", 6), ("LAG", 4), ("EVENTS", 7), ("EV/s", 5)):
        table.add_column(head, width=width, justify="right", no_wrap=True)
    for head in ("CPU s", "MiB"):
        table.add_column(head, width=5, justify="right", no_wrap=True)
    top = max((view.height or 0 for view in views), default=0)
    for view in views:
        status = view.status
        if status is None:
            table.add_row(view.name, view.role, Text("down", style="bold red"))
            continue
        is_ready = status["is_ready"]
        role = Text(status["raft"]["role"], style="bold green" if view.is_leader else "")
        process = status["process"]
        table.add_row(
            view.name,
            view.role,
            Text("ready" if is_ready else "not ready", style="" if is_ready else "yellow"),
            role,
            str(view.term),
            f"{view.height:,}",
            str(top - (view.height or 0)),
            f"{view.events:,}",
            f"{view.events_per_s:.0f}",
            f"{process['cpu_s']:.1f}",
            f"{process['rss_bytes'] / 2**20:.0f}",
        )
    return table


def _bar(progress: Progress) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    latency = "" if progress.p50_ms is None else f"commit p50 {progress.p50_ms:.0f} ms"
    grid.add_row(
        ProgressBar(total=max(1, progress.total), completed=progress.committed, width=40),
        f"{progress.committed:,} of {progress.total:,} events committed",
        latency,
    )
    return grid
