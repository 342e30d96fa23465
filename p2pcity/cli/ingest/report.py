"""What an ingest run says: rejected rows in a file, progress on the terminal, totals at the end."""

import csv
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

from p2pcity.cli.ingest.rows import BadRow, Source
from p2pcity.errors import ConfigError

PLAIN_INTERVAL_S: Final = 5.0
_SHOWN_BYTES_MAX: Final = 4096


@dataclass(slots=True)
class Totals:
    """Counts of one run; `known` are events that stood on the ledger (or in the file) before."""

    rows: int = 0
    sent: int = 0
    known: int = 0
    rejected: int = 0
    transactions: int = 0
    retries: int = 0

    def document(self) -> dict[str, int]:
        """Return the counts by name."""
        return asdict(self)


class Rejects:
    """The file of rows that became no event: line, reason, and the row itself. Made when needed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self._file: IO[str] | None = None

    def add(self, line: int, reason: str, text: str) -> None:
        """Write a row down; ConfigError when the file can't be written."""
        self.count += 1
        try:
            if self._file is None:
                self._file = self.path.open(
                    "w", encoding="utf-8", errors="backslashreplace", newline=""
                )
                csv.writer(self._file).writerow(["line", "reason", "row"])
            csv.writer(self._file).writerow([line, reason, text[:_SHOWN_BYTES_MAX]])
        except OSError as error:
            raise ConfigError(
                f"{self.path}: {error.strerror}",
                remedy="Name a file that can be written with --rejects.",
            ) from None

    def add_bad(self, row: BadRow) -> None:
        """Write down a row that could not be read."""
        self.add(row.line, row.reason, row.text)

    def close(self) -> None:
        """Close the file, if there is one."""
        if self._file is not None:
            self._file.close()


class Progress:
    """A bar on a terminal; elsewhere one plain line every five seconds, on standard error."""

    def __init__(self, source: Source, totals: Totals, *, is_quiet: bool = False) -> None:
        self._source = source
        self._totals = totals
        self._is_quiet = is_quiet
        self._started = self._said = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        """Show the bar."""
        if sys.stderr.isatty() and not self._is_quiet:
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f} %  {task.fields[counts]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            name = self._source.path.name
            self._task = self._bar.add_task(name, total=self._source.size, counts="")
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()

    def show(self) -> None:
        """Show how far it is."""
        if self._bar is not None:
            self._bar.update(self._task, completed=self._source.position, counts=self._counts())
        elif not self._is_quiet and time.monotonic() - self._said >= PLAIN_INTERVAL_S:
            self._said = time.monotonic()
            done = 100 * self._source.position // max(1, self._source.size)
            print(f"{self._source.path.name}: {done} %, {self._counts()}", file=sys.stderr)

    def _counts(self) -> str:
        totals = self._totals
        rate = (totals.sent + totals.known) / max(0.001, time.monotonic() - self._started)
        parts = [f"{totals.sent} sent", f"{totals.known} known", f"{rate:.0f}/s"]
        if totals.rejected:
            parts.insert(2, f"{totals.rejected} rejected")
        return ", ".join(parts)
