"""Virtual time: one heap of events, the seed's generators, the trace and what really struck."""

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any, Final

START_MS: Final = 1_780_000_000_000
"""The wall clock when a seed begins, Unix ms."""

SECOND: Final = 1_000_000
"""Virtual time is counted in whole microseconds."""

NOTES: Final = ("message", "start", "stop", "applied", "acknowledged", "read", "fault", "heal")
_NUMBER_OF: Final = {name: number for number, name in enumerate(NOTES)}


class World:
    """One seed's time, chance and memory; nothing here knows what a node is."""

    def __init__(self, seed: int, *, is_traced: bool = False) -> None:
        self.seed = seed
        self.now = 0
        self.struck: Counter[str] = Counter()
        self.is_traced = is_traced
        self.events = 0
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = 0
        self._trace = array("q")

    def random(self, name: str) -> Random:
        """A generator of its own, so that one part's draws don't shift another's."""
        return Random(f"{self.seed}/{name}")

    def after(self, delay: int, function: Callable[..., None], *arguments: Any) -> None:
        """Call `function` in `delay` microseconds."""
        self._sequence += 1
        heappush(self._heap, (self.now + delay, self._sequence, function, arguments))

    def run_until(self, time: int) -> None:
        """Let virtual time pass up to `time`."""
        heap = self._heap
        while heap and heap[0][0] <= time:
            self.now, _, function, arguments = heappop(heap)
            self.events += 1
            function(*arguments)
        self.now = time

    def note(self, what: str, *values: int, text: str = "") -> None:
        """Put something that happened into the trace; `text` is for readers and not hashed."""
        number = _NUMBER_OF[what]
        self._trace.extend((self.now, number, len(values), *values))
        if self.is_traced:
            print(f"{self.now / SECOND:10.6f} {what} {' '.join(map(str, values))} {text}")

    def trace_hash(self) -> str:
        """The digest of everything noted so far."""
        return hashlib.blake2b(self._trace.tobytes(), digest_size=16).hexdigest()
