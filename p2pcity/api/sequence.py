"""Cuts a CBOR sequence (RFC 8742) of carried transactions into its items.

Only what is needed to find the ends is read: `[bstr, [bstr, ...]]`, definite lengths. Each item
is judged by admission later, as if it had come alone; so a wrong item costs only itself, unless
its end cannot be found.
"""

from __future__ import annotations

from typing import Final

from p2pcity.errors import DecodeError

ITEMS_MAX: Final = 4096

_BYTES: Final = 2
_ARRAY: Final = 4


def split(data: bytes) -> list[bytes]:
    """Return the items of a sequence of 1 to 4,096 carried transactions.

    Raises DecodeError: `malformed` when an item's end cannot be found (nothing of the sequence
    is taken then), `size` for too many items.
    """
    items: list[bytes] = []
    position = 0
    while position < len(data):
        if len(items) == ITEMS_MAX:
            raise DecodeError(
                f"the sequence has more than {ITEMS_MAX} transactions",
                reason="size",
                remedy="Send it in several requests.",
            )
        start = position
        try:
            position = _item_end(data, position)
        except DecodeError as error:
            raise DecodeError(f"item {len(items)} at byte {start}: {error}") from None
        items.append(data[start:position])
    if not items:
        raise DecodeError("the sequence is empty")
    return items


def _item_end(data: bytes, position: int) -> int:
    count, position = _head(data, position, _ARRAY)
    if count != 2:
        raise DecodeError("not an array of two")
    length, position = _head(data, position, _BYTES)
    count, position = _head(data, position + length, _ARRAY)
    # Each event takes at least one byte, so `count` cannot make this loop long.
    for _ in range(count):
        length, position = _head(data, position, _BYTES)
        position += length
    if position > len(data):
        raise DecodeError("cut off")
    return position


def _head(data: bytes, position: int, major: int) -> tuple[int, int]:
    """Return the argument of the head at `position` and where its content begins."""
    if position >= len(data):
        raise DecodeError("cut off")
    initial = data[position]
    if initial >> 5 != major:
        raise DecodeError("neither array nor byte string where one is expected")
    info = initial & 0x1F
    position += 1
    if info < 24:
        return info, position
    width = 1 << (info - 24)
    if info > 27 or position + width > len(data):
        raise DecodeError("cut off, or of indefinite length")
    return int.from_bytes(data[position : position + width], "big"), position + width
