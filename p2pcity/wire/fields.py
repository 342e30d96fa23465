"""Typed readers for what `cbor.decode` returned: each names the field it did not like.

They take a decoded value, return it with its type narrowed, and raise `DecodeError`
(reason `malformed`) otherwise. `type(x) is int` on purpose: a Python bool is an int, a CBOR
boolean is not an integer.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from p2pcity.errors import DecodeError

UINT64_MAX: Final = 2**64 - 1
TIME_MS_MAX: Final = 253_402_300_799_999
"""23:59:59.999 on 31 December 9999 UTC: the last millisecond that RFC 3339 can write."""


def read_bytes(value: object, name: str, length: int | None = None) -> bytes:
    """Return `value` as a byte string, of exactly `length` bytes when given."""
    if type(value) is not bytes:
        raise DecodeError(f"{name} is not a byte string")
    if length is not None and len(value) != length:
        raise DecodeError(f"{name} has {len(value)} bytes instead of {length}")
    return value


def read_text(value: object, name: str, bytes_max: int = 1024, bytes_min: int = 0) -> str:
    """Return `value` as text of `bytes_min` to `bytes_max` bytes of UTF-8."""
    if type(value) is not str:
        raise DecodeError(f"{name} is not text")
    length = len(value) if value.isascii() else len(value.encode())
    if not bytes_min <= length <= bytes_max:
        raise DecodeError(f"{name} has {length} bytes; {bytes_min} to {bytes_max} are allowed")
    return value


def read_uint(value: object, name: str, maximum: int = UINT64_MAX) -> int:
    """Return `value` as an integer from 0 to `maximum`."""
    if type(value) is not int:
        raise DecodeError(f"{name} is not an integer")
    if not 0 <= value <= maximum:
        raise DecodeError(f"{name} is {value}; 0 to {maximum} is allowed")
    return value


def read_bool(value: object, name: str) -> bool:
    """Return `value` as a boolean."""
    if type(value) is not bool:
        raise DecodeError(f"{name} is not a boolean")
    return value


def read_array(
    value: object, name: str, length: int | None = None, length_max: int | None = None
) -> Sequence[object]:
    """Return `value` as an array, of exactly `length` or at most `length_max` items."""
    if type(value) is not list and type(value) is not tuple:
        raise DecodeError(f"{name} is not an array")
    if length is not None and len(value) != length:
        raise DecodeError(f"{name} has {len(value)} items instead of {length}")
    if length_max is not None and len(value) > length_max:
        raise DecodeError(f"{name} has {len(value)} items; {length_max} are allowed")
    return value


def read_map(value: object, name: str) -> Mapping[object, object]:
    """Return `value` as a map whose unknown keys the caller ignores (raft, sync, status, hello)."""
    if not isinstance(value, dict):
        raise DecodeError(f"{name} is not a map")
    return value


def read_exact_map(
    value: object, name: str, required: frozenset[str], optional: frozenset[str] = frozenset()
) -> Mapping[object, object]:
    """Return `value` as a map with all `required` keys and no key that is in neither set.

    For transactions, events, blocks and genesis, where an unknown field is an error: nodes
    that read it differently would split.
    """
    fields = read_map(value, name)
    for key in fields:
        if key not in required and key not in optional:
            raise DecodeError(f"{name} has the unknown field {str(key)[:40]!r}")
    for key in required:
        if key not in fields:
            raise DecodeError(f"{name} lacks the field {key!r}")
    return fields


def read_byte_strings(value: object, name: str, length_max: int | None = None) -> list[bytes]:
    """Return `value` as a list of byte strings."""
    items = read_array(value, name, length_max=length_max)
    return [read_bytes(item, name) for item in items]
