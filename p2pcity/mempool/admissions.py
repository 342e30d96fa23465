"""Numbered admissions: the newest so many ids, in a ring."""

from collections.abc import Callable
from typing import Final

SCAN_PER_ID: Final = 16
"""So many numbers are looked at for each id that is asked for, at most, in one answer."""


class Admissions:
    """Numbers ids from 1 and remembers the newest `size` of them."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._ring: list[bytes] = []
        self.last = 0

    def add(self, id: bytes) -> None:
        """Give `id` the next number."""
        if len(self._ring) < self._size:
            self._ring.append(id)
        else:
            self._ring[self.last % self._size] = id
        self.last += 1

    def since(
        self, number: int, limit: int, is_wanted: Callable[[bytes], bool]
    ) -> tuple[int, list[bytes]]:
        """Return (last number looked at, up to `limit` wanted ids after `number`), in order."""
        at = max(number, self.last - len(self._ring))
        if at >= self.last:
            return self.last, []
        end = min(self.last, at + limit * SCAN_PER_ID)
        ids: list[bytes] = []
        while at < end and len(ids) < limit:
            id = self._ring[at % self._size]
            at += 1
            if is_wanted(id):
                ids.append(id)
        return at, ids
