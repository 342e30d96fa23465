"""Cells to values: templates, times with zones, places, numbers. Pure.

A cell is text (CSV) or any JSON value (NDJSON); a missing value is None. What a cell can't be
read as is a RowError, which costs that row and nothing else.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from zoneinfo import ZoneInfo

Row = Mapping[str, Any]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_PART = re.compile(r"\{([^{}]+)\}")
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII).fullmatch
# What every reader of the ledger can hold exactly (RFC 7493 section 2.2).
_INTEGER_MAX: Final = 2**53 - 1
_WORDS: Final = {
    "true": True, "t": True, "yes": True, "y": True, "1": True,
    "false": False, "f": False, "no": False, "n": False, "0": False,
}  # fmt: skip


class RowError(Exception):
    """This row can't become an event; the text says which column and why."""


@dataclass(frozen=True, slots=True)
class Template:
    """Text with `{column}` in it."""

    text: str
    columns: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "Template":
        """Take the names out of the braces."""
        return cls(text, tuple(dict.fromkeys(_PART.findall(text))))

    def fill(self, row: Row) -> str | None:
        """Return the text with the row's values; None when one of them is missing."""
        if not self.columns:
            return self.text
        filled: dict[str, str] = {}
        for column in self.columns:
            value = row.get(column)
            if value is None:
                return None
            filled[column] = to_text(value, column)
        return _PART.sub(lambda match: filled[match[1]], self.text)


def to_text(value: Any, column: str) -> str:
    """Return a cell as text; numbers as JSON writes them."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    raise RowError(f"{column}: not a text or a number")


def to_integer(value: Any, column: str) -> int:
    """Return a cell as a whole number, within 2**53."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str):
        match = _INTEGER(value.strip())
        if match is None:
            raise RowError(f"{column}: {value[:40]!r} is not a whole number")
        value = int(match[0])
    if type(value) is not int or abs(value) > _INTEGER_MAX:
        raise RowError(f"{column}: {str(value)[:40]!r} is not a whole number below 2**53")
    return value


def to_number(value: Any, column: str) -> float | int:
    """Return a cell as a finite number; one without a fraction becomes an integer."""
    try:
        number = float(value) if type(value) in (int, float, str) else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise RowError(f"{column}: {str(value)[:40]!r} is not a number")
    if number.is_integer() and abs(number) <= _INTEGER_MAX:
        return int(number)
    return number


def to_boolean(value: Any, column: str) -> bool:
    """Return a cell as true or false, from the usual words."""
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word not in _WORDS:
        raise RowError(f"{column}: {str(value)[:40]!r} is neither true nor false")
    return _WORDS[word]


def to_degrees_e7(value: Any, column: str, maximum: int) -> int:
    """Return decimal degrees as 1e-7 degrees, rounded to even; `maximum` is 180 or 90."""
    try:
        number = Decimal(str(value).strip())
    except InvalidOperation:
        number = Decimal("nan")
    # The bound comes first: as an integer, 1e400000 would take seconds.
    if not (number.is_finite() and abs(number) <= maximum):
        raise RowError(f"{column}: {str(value)[:40]!r} is not degrees within {maximum}")
    return int((number * 10_000_000).to_integral_value())


@dataclass(frozen=True, slots=True)
class TimeReader:
    """How text becomes Unix milliseconds.

    `format` is `iso`, `unix_s`, `unix_ms` or strptime's. Text without an offset is local time of
    `zone`. Clocks set back give an hour twice: `ambiguous` takes its `first` or `second` pass.
    Clocks set forward leave an hour out: `gap` moves a time in it on `forward` by the jump, or
    makes it an error (`reject`).
    """

    format: str = "iso"
    zone: ZoneInfo | None = None
    ambiguous: str = "first"
    gap: str = "forward"

    def read_ms(self, text: str, column: str) -> int:
        """Return Unix milliseconds, negative before 1970; RowError for text of another form."""
        if self.format in ("unix_s", "unix_ms"):
            number = to_number(text, column)
            return int(number * 1000) if self.format == "unix_s" else int(number)
        return (self._moment(text.strip(), column) - _EPOCH) // _MILLISECOND

    def _moment(self, text: str, column: str) -> datetime:
        try:
            if self.format == "iso":
                moment = datetime.fromisoformat(text)
            else:
                moment = datetime.strptime(text, self.format)  # noqa: DTZ007  # the zone follows
        except ValueError:
            raise RowError(f"{column}: {text[:40]!r} is not a time ({self.format})") from None
        try:
            if moment.tzinfo is not None:
                return moment.astimezone(UTC)
            if self.zone is None:
                raise RowError(f"{column}: {text[:40]!r} has no offset, and the map no time.zone")
            local = moment.replace(tzinfo=self.zone, fold=int(self.ambiguous == "second"))
            utc = local.astimezone(UTC)
            if utc.astimezone(self.zone).replace(tzinfo=None) != moment:
                # In the gap. PEP 495: fold=0 takes the offset before, which moves it forward.
                if self.gap == "reject":
                    raise RowError(f"{column}: {text[:40]!r} does not exist in {self.zone.key}")
                utc = moment.replace(tzinfo=self.zone, fold=0).astimezone(UTC)
        except OverflowError:
            raise RowError(f"{column}: {text[:40]!r} is not between the years 1 and 9999") from None
        return utc
