"""Reads what a request says beside its body: query, path, Accept, Content-Type.

Every reader raises `Problem` 400 (`bad-parameter`), 406 or 415, never anything else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Final, cast

from starlette.requests import Request

from p2pcity.api.problems import Problem, bad_parameter
from p2pcity.api.service import Cursor, EventFilter, Wait
from p2pcity.api.times import read_time_ms
from p2pcity.errors import DecodeError

TIMEOUT_MS_DEFAULT: Final = 10_000
TIMEOUT_MS_MAX: Final = 60_000
PAGE_DEFAULT: Final = 100
PAGE_MAX: Final = 1000
HEIGHT_MAX: Final = 2**63 - 1
TEXT_LENGTH_MAX: Final = 2048

LONGITUDE_E7_MAX: Final = 1_800_000_000
LATITUDE_E7_MAX: Final = 900_000_000
_DECIMAL_LENGTH_MAX: Final = 24

_WAITS: Final = ("none", "accepted", "committed")
_find_control = re.compile("[\x00-\x1f\x7f-\x9f]").search
_match_hash = re.compile("[0-9a-fA-F]{64}").fullmatch
_match_number = re.compile("0|[1-9][0-9]{0,18}", re.ASCII).fullmatch
_match_decimal = re.compile(r"-?[0-9]+(\.[0-9]+)?", re.ASCII).fullmatch


class Query:
    """The query of a request: each parameter at most once, and none that is not known."""

    def __init__(self, request: Request, known: frozenset[str]) -> None:
        self._values: dict[str, str] = {}
        for name, value in request.query_params.multi_items():
            if name not in known:
                raise bad_parameter(
                    name[:40], "unknown here", f"Known are: {', '.join(sorted(known)) or 'none'}."
                )
            if name in self._values:
                raise bad_parameter(name, "given more than once")
            self._values[name] = value

    def text(self, name: str) -> str | None:
        """Return a text of 1 to 2,048 characters without controls, None when absent."""
        value = self._values.get(name)
        if value is not None and (
            not 0 < len(value) <= TEXT_LENGTH_MAX or _find_control(value) is not None
        ):
            raise bad_parameter(name, "empty, too long, or with a control character")
        return value

    def number(self, name: str, default: int, minimum: int, maximum: int) -> int:
        """Return an integer within the bounds, `default` when absent."""
        value = self._values.get(name)
        return default if value is None else read_number(name, value, minimum, maximum)

    def wait(self) -> tuple[Wait, int]:
        """Return `wait` (default `accepted`) and `timeout_ms` (default 10,000)."""
        wait = self._values.get("wait", "accepted")
        if wait not in _WAITS:
            raise bad_parameter("wait", f"none of {', '.join(_WAITS)}")
        return cast(Wait, wait), self.number("timeout_ms", TIMEOUT_MS_DEFAULT, 1, TIMEOUT_MS_MAX)

    def is_linearizable(self) -> bool:
        """Return whether `consistency` is `linearizable`, which it is by default."""
        value = self._values.get("consistency", "linearizable")
        if value not in ("linearizable", "local"):
            raise bad_parameter("consistency", "neither linearizable nor local")
        return value == "linearizable"

    def cursor(self, name: str = "cursor") -> Cursor | None:
        """Return the cursor, None when absent."""
        value = self._values.get(name)
        if value is None:
            return None
        return read_cursor(name, value)

    def filter(self) -> EventFilter:
        """Return the filter of events that the query describes."""
        author = self._values.get("author")
        bbox = self._values.get("bbox")
        return EventFilter(
            type=self.text("type"),
            source=self.text("source"),
            subject=self.text("subject"),
            author=None if author is None else read_hash("author", author),
            member=self.text("member"),
            since_ms=self._time("since"),
            until_ms=self._time("until"),
            bbox_e7=None if bbox is None else read_bbox(bbox),
        )

    def _time(self, name: str) -> int | None:
        value = self._values.get(name)
        if value is None:
            return None
        try:
            return read_time_ms(value)
        except DecodeError as error:
            raise bad_parameter(name, str(error)) from error


def read_cursor(name: str, value: str) -> Cursor:
    """Return the cursor in `value`."""
    try:
        return Cursor.parse(value)
    except DecodeError as error:
        raise bad_parameter(name, str(error), error.remedy) from error


def read_hash(name: str, value: str) -> bytes:
    """Return the 32 bytes of 64 hexadecimal digits."""
    if not _match_hash(value):
        raise bad_parameter(name, "not 64 hexadecimal digits")
    return bytes.fromhex(value)


def read_number(name: str, value: str, minimum: int, maximum: int) -> int:
    """Return the decimal integer in `value`, within the bounds."""
    number = int(value) if _match_number(value) else -1
    if not minimum <= number <= maximum:
        raise bad_parameter(name, f"not an integer from {minimum} to {maximum}")
    return number


def read_degrees_e7(value: str, maximum_e7: int) -> int:
    """Return decimal degrees in 1e-7 degrees, rounded; DecodeError outside the globe."""
    if len(value) <= _DECIMAL_LENGTH_MAX and _match_decimal(value):
        try:
            scaled = int((Decimal(value) * 10_000_000).to_integral_value())
        except InvalidOperation:  # pragma: no cover - the pattern leaves no such text
            scaled = maximum_e7 + 1
        if abs(scaled) <= maximum_e7:
            return scaled
    raise DecodeError(f"not decimal degrees from -{maximum_e7 // 10**7} to {maximum_e7 // 10**7}")


def read_bbox(value: str) -> tuple[int, int, int, int]:
    """Return `west,south,east,north` in 1e-7 degrees (RFC 7946 section 5)."""
    parts = value.split(",")
    if len(parts) != 4:
        raise bad_parameter("bbox", "not west,south,east,north in decimal degrees")
    try:
        west, east = (read_degrees_e7(parts[i], LONGITUDE_E7_MAX) for i in (0, 2))
        south, north = (read_degrees_e7(parts[i], LATITUDE_E7_MAX) for i in (1, 3))
    except DecodeError as error:
        raise bad_parameter("bbox", str(error)) from error
    if south > north:
        raise bad_parameter("bbox", "south lies above north")
    return west, south, east, north


def content_type(request: Request) -> str:
    """Return the media type of the body in lower case without parameters, "" when absent.

    Raises Problem 415 for a charset that is not UTF-8 and for a compressed body.
    """
    if request.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
        raise unsupported("the body is compressed", ("identity",))
    name, *parameters = request.headers.get("content-type", "").split(";")
    for parameter in parameters:
        key, _, value = parameter.strip().partition("=")
        if key.lower() == "charset" and value.strip('"').lower() not in ("utf-8", "us-ascii"):
            raise unsupported("the charset is not UTF-8", ("utf-8",))
    return name.strip().lower()


def unsupported(detail: str, offered: Sequence[str]) -> Problem:
    """Return the 415 that names what would be read."""
    accept = ", ".join(offered)
    return Problem(
        415,
        "unsupported-media-type",
        detail,
        remedy=f"Send one of: {accept}.",
        headers={"Accept": accept},
    )


def choose_type(request: Request, offered: Sequence[str]) -> str:
    """Return the type of `offered` that Accept likes best, the first on a tie or without it.

    RFC 9110 section 12.5.1. Raises Problem 406 when it likes none.
    """
    header = request.headers.get("accept", "")
    if not header or header == "*/*":
        return offered[0]
    ranges = [_read_range(item) for item in header[:1024].split(",")]
    best, best_quality = "", 0.0
    for candidate in offered:
        quality = _quality(candidate, ranges)
        if quality > best_quality:
            best, best_quality = candidate, quality
    if not best:
        raise Problem(
            406,
            "not-acceptable",
            "Accept names nothing that this can be answered with",
            remedy=f"Accept one of: {', '.join(offered)}.",
        )
    return best


def _read_range(item: str) -> tuple[str, float]:
    name, *parameters = item.split(";")
    quality = 1.0
    for parameter in parameters:
        key, _, value = parameter.strip().partition("=")
        if key.lower() == "q":
            try:
                quality = float(value)
            except ValueError:
                quality = 0.0
    return name.strip().lower(), quality


def _quality(candidate: str, ranges: Sequence[tuple[str, float]]) -> float:
    """Return the quality of the most specific range that names the candidate."""
    main = candidate.partition("/")[0]
    for pattern in (candidate, f"{main}/*", "*/*"):
        for name, quality in ranges:
            if name == pattern:
                return quality
    return 0.0
