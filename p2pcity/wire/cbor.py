"""Deterministic CBOR: the one way p2pcity writes data, and a strict reader for it.

The profile (protocol/00-conventions.md) is RFC 8949 section 4.2.1 and narrower: definite
lengths, shortest forms, map keys text or integer and sorted by their encoded bytes without
a duplicate, at most 16 containers inside one another, no tags, no simple values but false,
true and null, floats only finite, in the shortest form that keeps the value and never where
an integer says it. So every value of the profile has exactly one encoding.

`decode` walks the bytes before anything is built from them: lengths are held against the
bytes that are there, so nothing is allocated for a length that lies. Only then cbor2 builds
the values; it also finds text that is not UTF-8.
"""

import struct
from math import isfinite
from typing import Final, TypeAlias

import cbor2

from p2pcity.errors import DecodeError, LocalError
from p2pcity.wire.limits import CBOR_DEPTH_MAX

__all__ = ["DecodeError", "EncodeError", "Value", "decode", "encode", "head"]

Value: TypeAlias = "bool | int | float | str | bytes | list[Value] | dict[str | int, Value] | None"
"""What `decode` returns: the types of the profile, nothing else."""

# Major types, RFC 8949 section 3.1.
_BYTES: Final = 2
_TEXT: Final = 3
_ARRAY: Final = 4
_MAP: Final = 5
_INTEGER_END: Final = 1 << 64  # integers run from -2**64 to 2**64 - 1


class EncodeError(LocalError):
    """The caller's value is outside the profile and has no encoding."""


def _item_sizes() -> bytes:
    """For each initial byte, how many bytes the whole item has; 0 where one must look closer."""
    sizes = bytearray(256)
    for info in range(24):
        sizes[info] = sizes[0x20 | info] = 1  # integers up to 23, either sign
        sizes[0x40 | info] = sizes[0x60 | info] = 1 + info  # strings up to 23 bytes
    sizes[0xF4] = sizes[0xF5] = sizes[0xF6] = 1  # false, true, null
    return bytes(sizes)


_ITEM_SIZES: Final = _item_sizes()
# The same for map keys: integers and text only.
_KEY_SIZES: Final = bytes(
    0 if 0x40 <= first < 0x60 or first >= 0x80 else size for first, size in enumerate(_ITEM_SIZES)
)
# Additional information -> bytes of the argument, and the least argument that needs so many.
_ARGUMENTS: Final = {24: (1, 24), 25: (2, 1 << 8), 26: (4, 1 << 16), 27: (8, 1 << 32)}


def decode(data: bytes, *, size_max: int | None = None, depth_max: int = CBOR_DEPTH_MAX) -> Value:
    """Return the one value that `data` encodes.

    `size_max` is in bytes, `depth_max` is how many arrays and maps may stand inside one
    another. Raises DecodeError for everything outside the profile, and nothing else ever.
    """
    if not isinstance(data, bytes):
        raise DecodeError("not a byte string")
    if size_max is not None and len(data) > size_max:
        raise DecodeError(f"{len(data)} bytes, more than the {size_max} allowed", reason="size")
    _walk(data, depth_max)
    try:
        value: Value = cbor2.loads(data)
    except (cbor2.CBORDecodeError, ValueError) as error:
        raise DecodeError("text is not UTF-8") from error
    return value


def _walk(data: bytes, depth_max: int) -> None:
    """Check every rule of the profile but UTF-8; raise DecodeError at the first breach.

    One loop without recursion, because every received byte passes here. `left` counts what
    the innermost container still lacks (pairs in a map), `key` is its last key's bytes (None
    in an array), `stack` holds the same two of the containers around it.
    """
    size = len(data)
    position = 0
    left = 1
    key: bytes | None = None
    stack: list[tuple[int, bytes | None]] = []
    try:
        while True:
            if left:
                left -= 1
            elif stack:
                left, key = stack.pop()
                continue
            else:
                break
            if key is not None:
                start = position
                position += _KEY_SIZES[data[start]] or _long_key_size(data, start)
                previous = key
                key = data[start:position]
                if key <= previous:
                    raise DecodeError(f"map key at byte {start} is a duplicate or not in order")
            first = data[position]
            step = _ITEM_SIZES[first]
            if step:
                position += step
            elif first < 0x80:
                argument, position = _argument(data, position)
                if first >= 0x40:
                    position += argument
            elif first < 0xC0:
                argument, position = _argument(data, position)
                if (argument << 1 if first >= 0xA0 else argument) > size - position:
                    raise DecodeError("more items declared than there are bytes")
                if len(stack) >= depth_max:
                    raise DecodeError(f"more than {depth_max} containers inside one another")
                stack.append((left, key))
                left = argument
                key = b"" if first >= 0xA0 else None
            else:
                position = _check_float(data, position)
    except IndexError:
        raise DecodeError("truncated") from None
    if position != size:
        raise DecodeError("truncated" if position > size else "bytes after the end")


def _argument(data: bytes, position: int) -> tuple[int, int]:
    """Read the head at `position`: its argument, and where the content begins."""
    info = data[position] & 0x1F
    if info < 24:
        return info, position + 1
    if info == 24:
        argument = data[position + 1]
        if argument < 24:
            raise DecodeError(f"head at byte {position} is not in its shortest form")
        return argument, position + 2
    width, least = _ARGUMENTS.get(info, (0, 0))
    if not width:
        raise DecodeError("indefinite length" if info == 31 else "reserved additional information")
    end = position + 1 + width
    if end > len(data):
        raise DecodeError("truncated")
    argument = int.from_bytes(data[position + 1 : end])
    if argument < least:
        raise DecodeError(f"head at byte {position} is not in its shortest form")
    return argument, end


def _long_key_size(data: bytes, position: int) -> int:
    """Size of a map key that the table does not know: a wider integer or text."""
    first = data[position]
    if first >= 0x80 or 0x40 <= first < 0x60:
        raise DecodeError(f"map key at byte {position} is neither text nor an integer")
    argument, end = _argument(data, position)
    return end - position + (argument if first >= 0x60 else 0)


# Initial byte of a float -> its content, narrowest first.
_FLOATS: Final = {
    0xF9: struct.Struct(">e"),
    0xFA: struct.Struct(">f"),
    0xFB: struct.Struct(">d"),
}


def _check_float(data: bytes, position: int) -> int:
    """Check the float at `position` and return where it ends; every other item raises."""
    first = data[position]
    form = _FLOATS.get(first)
    if form is None:
        raise DecodeError("a tag" if first < 0xE0 else "a simple value outside the profile")
    end = position + 1 + form.size
    if end > len(data):
        raise DecodeError("truncated")
    value: float = form.unpack_from(data, position + 1)[0]
    if not isfinite(value):
        raise DecodeError("a float that is not finite")
    if _is_integer(value):
        raise DecodeError("a float where an integer says it")
    if first > 0xF9 and _fits(value, _FLOATS[first - 1]):
        raise DecodeError("a float that is not in its shortest form")
    return end


def _is_integer(value: float) -> bool:
    return value.is_integer() and -_INTEGER_END <= value < _INTEGER_END


def _fits(value: float, form: struct.Struct) -> bool:
    """Say whether the float has this form without losing anything."""
    try:
        return bool(form.unpack(form.pack(value))[0] == value)
    except OverflowError:  # too large for this width
        return False


def encode(value: object) -> bytes:
    """Return the one encoding of `value`.

    Takes None, bool, int, float, str, bytes, and lists, tuples and dicts of them (dict keys
    str or int). An integral float is written as the integer it is, -0.0 as 0. Raises
    EncodeError for a value outside the profile: other types, integers beyond 64 bits, floats
    that are not finite, text with lone surrogates, more than 16 containers inside one another.
    """
    parts: list[bytes] = []
    _write(parts, value, CBOR_DEPTH_MAX)
    return b"".join(parts)


def head(major: int, argument: int) -> bytes:
    """Return an item's head in its shortest form (RFC 8949 section 3).

    `major` is the major type, 0 to 7; `argument` is below 2**64, else EncodeError.
    """
    if argument < 24:
        return _SMALL_HEADS[major][argument]
    for info, (width, _) in _ARGUMENTS.items():
        if argument < 1 << (8 * width):
            return bytes((major << 5 | info,)) + argument.to_bytes(width)
    raise EncodeError("an integer beyond 64 bits")


_SMALL_HEADS: Final = tuple(
    tuple(bytes((major << 5 | argument,)) for argument in range(24)) for major in range(8)
)


def _write(parts: list[bytes], value: object, depth: int) -> None:
    """Append the encoding of `value`; `depth` is how many containers may still open."""
    if isinstance(value, str):
        parts.append(_encode_text(value))
    elif value is None:
        parts.append(b"\xf6")
    elif isinstance(value, bool):  # before int, which bool is too
        parts.append(b"\xf5" if value else b"\xf4")
    elif isinstance(value, int):
        parts.append(_encode_integer(value))
    elif isinstance(value, bytes):
        parts.append(head(_BYTES, len(value)))
        parts.append(value)
    elif isinstance(value, float):
        parts.append(_encode_float(value))
    elif isinstance(value, (list, tuple, dict)):
        if depth <= 0:
            raise EncodeError(f"more than {CBOR_DEPTH_MAX} containers inside one another")
        if isinstance(value, dict):
            parts.append(head(_MAP, len(value)))
            for key, item in sorted((_encode_key(key), item) for key, item in value.items()):
                parts.append(key)
                _write(parts, item, depth - 1)
        else:
            parts.append(head(_ARRAY, len(value)))
            for item in value:
                _write(parts, item, depth - 1)
    else:
        raise EncodeError(f"a value of type {type(value).__name__}")


def _encode_integer(value: int) -> bytes:
    return head(0, value) if value >= 0 else head(1, ~value)


def _encode_text(value: str) -> bytes:
    try:
        content = value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise EncodeError("text with a lone surrogate") from error
    return head(_TEXT, len(content)) + content


def _encode_key(key: object) -> bytes:
    if isinstance(key, str):
        return _encode_text(key)
    if isinstance(key, int) and not isinstance(key, bool):
        return _encode_integer(key)
    raise EncodeError(f"a map key of type {type(key).__name__}")


def _encode_float(value: float) -> bytes:
    """Write a float: as an integer where one says it, else as short as it can be."""
    if not isfinite(value):
        raise EncodeError("a float that is not finite")
    if _is_integer(value):
        return _encode_integer(int(value))
    # A double fits every float, so there always is one.
    first = next(first for first, form in _FLOATS.items() if _fits(value, form))
    return bytes((first,)) + _FLOATS[first].pack(value)
