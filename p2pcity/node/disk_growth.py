"""How fast a node's files grow, by looks at their size some minutes apart."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import trio

LOOK_S: Final = 600.0
_LOOKS_MAX: Final = 145
"""A day's looks, both ends counted: what is older says nothing of today's load."""
_DAY_S: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Growth:
    """How many bytes a day the files grow (less than 0: they shrink), seen over `seen_s` s."""

    bytes_per_day: int
    seen_s: float


class DiskGrowth:
    """Looks at a size every ten minutes, and keeps a day of it."""

    def __init__(self, size_bytes: Callable[[], int]) -> None:
        """Take who tells the size in bytes."""
        self._size_bytes = size_bytes
        self._looks: deque[tuple[float, int]] = deque(maxlen=_LOOKS_MAX)

    def look(self, now_s: float) -> None:
        """Take note of the size at `now_s`, in s of a clock that never steps."""
        self._looks.append((now_s, self._size_bytes()))

    def seen(self) -> Growth | None:
        """The growth over what was seen, a day at most; None until two looks are there."""
        if len(self._looks) < 2:
            return None
        (begin_s, begin), (end_s, end) = self._looks[0], self._looks[-1]
        passed_s = end_s - begin_s
        return Growth(round((end - begin) * _DAY_S / passed_s), passed_s)

    async def run(self) -> None:
        """Look now and every ten minutes, for as long as the node runs."""
        while True:
            self.look(trio.current_time())
            await trio.sleep(LOOK_S)
