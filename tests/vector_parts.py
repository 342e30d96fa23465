"""Long byte strings of vectors, written down so that a person can read them.

A hex text of more than 4 KiB that repeats itself stands in its file as `{"parts": [...]}`: the
parts are hex texts and `{"repeat": hex, "count": n}`, put together in order
(protocol/vectors/README.md). The modules that make and judge cases know plain hex only: the
generator calls `compact` on the way out, whoever reads the files `expand` on the way in.
"""

import re
from typing import Any, Final

HEX_LENGTH_MIN: Final = 8192
"""Shorter hex texts are written as they are."""

_HEX: Final = re.compile("(?:[0-9a-f]{2})+")
# A unit of up to 64 bytes that stands at least 32 times in a row.
_REPEATED: Final = re.compile(rb"(.{1,64}?)\1{31}", re.DOTALL)
_STRIDE: Final = 4096


def compact(value: Any) -> Any:
    """Return `value` with each long hex text that repeats itself in parts."""
    if isinstance(value, dict):
        return {key: compact(item) for key, item in value.items()}
    if isinstance(value, list):
        return [compact(item) for item in value]
    if isinstance(value, str) and len(value) > HEX_LENGTH_MIN and _HEX.fullmatch(value):
        parts = _parts(bytes.fromhex(value))
        return value if parts == [value] else {"parts": parts}
    return value


def expand(value: Any) -> Any:
    """Return `value` with every byte string in plain hex; the inverse of `compact`."""
    if isinstance(value, list):
        return [expand(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"parts"}:
        return "".join(
            part if isinstance(part, str) else part["repeat"] * part["count"]
            for part in value["parts"]
        )
    return {key: expand(item) for key, item in value.items()}


def _parts(data: bytes) -> list[str | dict[str, Any]]:
    parts: list[str | dict[str, Any]] = []
    position = 0
    while found := _REPEATED.search(data, position):
        if found.start() > position:
            parts.append(data[position : found.start()].hex())
        unit = found.group(1)
        position = _end_of_run(data, found.start(), unit)
        parts.append({"repeat": unit.hex(), "count": (position - found.start()) // len(unit)})
    if position < len(data):
        parts.append(data[position:].hex())
    return parts


def _end_of_run(data: bytes, position: int, unit: bytes) -> int:
    many = unit * _STRIDE
    while data.startswith(many, position):
        position += len(many)
    while data.startswith(unit, position):
        position += len(unit)
    return position
