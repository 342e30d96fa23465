"""Answers from disk to peers: one question after the other, at so many bytes a second in all."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

from p2pcity.errors import Unavailable

BYTES_PER_S: Final = 16 * 1024 * 1024
_WAITING_MAX: Final = 32


class Pace:
    """Lets one question in at a time, and the next one when the last answer is paid for."""

    def __init__(self, what: str, bytes_per_s: int) -> None:
        """Take what is asked for, as an error says it, and the bytes a second."""
        self._what = what
        self._bytes_per_s = bytes_per_s
        self._lock = trio.Lock()
        self._free_at_s = 0.0
        self.served_bytes = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for one's turn; Unavailable when too many wait already."""
        if self._lock.statistics().tasks_waiting >= _WAITING_MAX:
            raise Unavailable(f"too many questions for {self._what} wait here")
        async with self._lock:
            await trio.sleep_until(self._free_at_s)
            yield

    def gave(self, size: int) -> None:
        """Note an answer of `size` bytes, within its turn."""
        self._free_at_s = trio.current_time() + size / self._bytes_per_s
        self.served_bytes += size
