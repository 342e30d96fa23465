"""Reads records out of CSV, NDJSON and files of CloudEvents, plain, .gz or .zip, row by row.

A record that can't be read comes out as a BadRow with its line number; it never ends the file.
Memory stays at one record, whatever the file's size.
"""

import csv
import gzip
import io
import json
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from p2pcity.cli.ingest.values import Row
from p2pcity.errors import ConfigError

LINE_BYTES_MAX: Final = 1024 * 1024
_REMEDY: Final = "Name a file with records; `p2pcity ingest --help` says of which formats."


@dataclass(frozen=True, slots=True)
class GoodRow:
    """A record: the line that it starts on, and its cells by column; missing ones are left out."""

    line: int
    row: Row
    text: str


@dataclass(frozen=True, slots=True)
class BadRow:
    """What can't be read, where, and why."""

    line: int
    reason: str
    text: str


class Source:
    """An open file of records; `position` of `size` bytes were read, compressed as they are."""

    def __init__(self, path: Path) -> None:
        """Open the file; ConfigError when that can't be done or it is empty."""
        self.path = path
        try:
            self._raw: IO[bytes] = path.open("rb")
            self.size = path.stat().st_size
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}", remedy=_REMEDY) from None
        if self.size == 0:
            raise ConfigError(f"{path} is empty", remedy=_REMEDY)
        self.stream = self._open()

    @property
    def position(self) -> int:
        """How many bytes of the file were read."""
        return self._raw.tell()

    def _open(self) -> IO[bytes]:
        if self.path.suffix == ".gz":
            return io.BufferedReader(gzip.GzipFile(fileobj=self._raw))
        if self.path.suffix == ".zip":
            try:
                archive = zipfile.ZipFile(self._raw)
            except zipfile.BadZipFile as error:
                raise ConfigError(f"{self.path}: {error}", remedy=_REMEDY) from None
            names = [name for name in archive.namelist() if not name.endswith("/")]
            if len(names) != 1:
                raise ConfigError(
                    f"{self.path} has {len(names)} files", remedy="Unpack it and name one of them."
                )
            return archive.open(names[0])
        return self._raw

    def close(self) -> None:
        """Close the file."""
        self.stream.close()
        self._raw.close()

    def lines(self) -> Iterator[str]:
        """Yield lines; a byte that is not UTF-8 becomes a surrogate, for `is_utf8` to find."""
        try:
            while line := self.stream.readline(LINE_BYTES_MAX):
                yield line.decode("utf-8", "surrogateescape")
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise ConfigError(
                f"{self.path}: {error}",
                remedy="The file is damaged or cut off: fetch it again. What was read is sent.",
            ) from None


def is_utf8(text: str) -> bool:
    """Whether the bytes behind `text` were UTF-8."""
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


class CsvRows:
    """The records of a CSV file (RFC 4180, any delimiter) whose first line names the columns."""

    def __init__(self, source: Source, delimiter: str, missing: frozenset[str]) -> None:
        """Read the header; ConfigError when there is none."""
        self._source = source
        self._missing = missing
        try:
            self._reader = csv.reader(source.lines(), delimiter=delimiter)
        except TypeError:
            raise ConfigError(
                f"the delimiter {delimiter!r} is not one character", remedy="Use one character."
            ) from None
        try:
            header = next(self._reader, [])
        except csv.Error as error:
            raise ConfigError(f"{source.path}, line 1: {error}", remedy=_REMEDY) from None
        if header:
            header[0] = header[0].removeprefix("\ufeff")
        self.columns: Sequence[str] = header
        if not any(name.strip() for name in header):
            raise ConfigError(f"{source.path} has no line with column names", remedy=_REMEDY)
        if not all(map(is_utf8, header)):
            raise ConfigError(
                f"{source.path}, line 1: not UTF-8", remedy="Convert the file to UTF-8."
            )
        if len(set(header)) < len(header):
            twice = next(name for name in header if header.count(name) > 1)
            raise ConfigError(
                f"{source.path}: the column {twice!r} stands twice", remedy="Rename one of them."
            )

    def __iter__(self) -> Iterator[GoodRow | BadRow]:
        """Yield each record, good or bad, in the file's order."""
        while True:
            line = self._reader.line_num + 1
            try:
                cells = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield BadRow(line, str(error), "")
                continue
            if not cells:
                continue
            text = self._source_text(cells)
            if len(cells) != len(self.columns):
                reason = f"{len(cells)} columns instead of {len(self.columns)}"
                yield BadRow(line, reason, text)
            elif not is_utf8("".join(cells)):
                yield BadRow(line, "not UTF-8", text)
            else:
                missing = self._missing
                named = zip(self.columns, cells, strict=True)
                row = {name: cell for name, cell in named if cell.strip() not in missing}
                yield GoodRow(line, row, text)

    @staticmethod
    def _source_text(cells: list[str]) -> str:
        out = io.StringIO()
        csv.writer(out, lineterminator="").writerow(cells)
        return out.getvalue()


class JsonRows:
    """The objects of an NDJSON file, one a line; members of inner objects are `outer.inner`."""

    SAMPLE_ROWS: Final = 100

    def __init__(self, source: Source, missing: frozenset[str]) -> None:
        """Read the first rows, to know the columns; ConfigError when there is no row at all."""
        self._missing = missing
        self._rows = self._read(source)
        self._first: list[GoodRow | BadRow] = []
        for row in self._rows:
            self._first.append(row)
            if len(self._first) == self.SAMPLE_ROWS:
                break
        if not self._first:
            raise ConfigError(f"{source.path} has no rows", remedy=_REMEDY)
        good = [item.row for item in self._first if isinstance(item, GoodRow)]
        self.columns: Sequence[str] = list(dict.fromkeys(name for row in good for name in row))

    def __iter__(self) -> Iterator[GoodRow | BadRow]:
        """Yield each record, good or bad, in the file's order."""
        yield from self._first
        yield from self._rows

    def _read(self, source: Source) -> Iterator[GoodRow | BadRow]:
        for number, line in enumerate(source.lines(), 1):
            text = line.strip()
            if not text:
                continue
            if not is_utf8(text):
                yield BadRow(number, "not UTF-8", text)
                continue
            try:
                document = json.loads(text)
            except (ValueError, RecursionError) as error:
                yield BadRow(number, f"not JSON: {error}", text)
                continue
            if isinstance(document, dict):
                yield GoodRow(number, dict(self._flatten(document)), text)
            else:
                yield BadRow(number, "not a JSON object", text)

    def _flatten(self, document: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
        for name, value in document.items():
            if value is None or (isinstance(value, str) and value in self._missing):
                continue
            yield prefix + name, value
            if isinstance(value, dict) and prefix.count(".") < 4:
                yield from self._flatten(value, f"{prefix}{name}.")
