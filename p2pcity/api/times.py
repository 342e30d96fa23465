"""RFC 3339 timestamps, as CloudEvents carries them, to Unix milliseconds and back."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from p2pcity.errors import DecodeError
from p2pcity.wire.fields import TIME_MS_MAX

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_LENGTH_MAX: Final = 64
_match_time = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})(\.[0-9]+)?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})",
    re.ASCII,
).fullmatch


def read_time_ms(text: str) -> int:
    """Return the time of an RFC 3339 timestamp in Unix milliseconds.

    Digits beyond the millisecond are cut off. Raises DecodeError (`bad-time`) for other text, a
    leap second, and times before 1970 or after 9999.
    """
    match = _match_time(text) if len(text) <= _LENGTH_MAX else None
    if match is not None:
        date, clock, fraction, zone = match.groups()
        zone = "+00:00" if zone in "Zz" else zone
        try:
            moment = datetime.fromisoformat(f"{date}T{clock}{zone}")
            time_ms = (moment - _EPOCH) // _MILLISECOND + int(((fraction or ".0") + "00")[1:4])
        except (ValueError, OverflowError):
            time_ms = -1
        if 0 <= time_ms <= TIME_MS_MAX:
            return time_ms
    raise DecodeError(
        "not an RFC 3339 timestamp from 1970 to 9999, as 2026-05-01T12:00:00.000Z",
        reason="bad-time",
    )


def write_time_us(time_us: int) -> str:
    """Return Unix microseconds as RFC 3339 in UTC, with six digits of microseconds."""
    moment = _EPOCH + timedelta(microseconds=time_us)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{time_us % 1_000_000:06d}Z"


def write_time(time_ms: int) -> str:
    """Return Unix milliseconds as RFC 3339 in UTC, with three digits of milliseconds."""
    moment = _EPOCH + timedelta(milliseconds=time_ms)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{time_ms % 1000:03d}Z"
