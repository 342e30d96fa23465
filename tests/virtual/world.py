"""One seed's chance, memory and calls that are due later; nothing here knows what a node is."""

import hashlib
from collections import Counter
from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any, Final

import trio

START_MS: Final = 1_780_000_000_000
"""The wall clock when a seed begins, Unix ms."""


class World:
    """What all of a seed shares. `run` makes the calls that are due; it belongs to no node."""

    def __init__(self, seed: int, *, is_traced: bool = False) -> None:
        self.seed = seed
        self.is_traced = is_traced
        self.struck: Counter[str] = Counter()
        self.notes = 0
        self.violations: list[BaseException] = []
        self.failed = trio.Event()
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = 0
        self._bell = trio.Event()
        self._trace = hashlib.blake2b(digest_size=16)

    @property
    def now(self) -> float:
        """Virtual seconds since the seed began."""
        return trio.current_time()

    @property
    def wall_ms(self) -> int:
        """What a clock that is right shows, Unix ms."""
        return START_MS + int(trio.current_time() * 1000)

    def random(self, name: str) -> Random:
        """A generator of its own, so that one part's draws don't shift another's."""
        return Random(f"{self.seed}/{name}")

    def after(self, delay_s: float, function: Callable[..., None], *arguments: Any) -> None:
        """Call `function` in `delay_s`, outside of all nodes."""
        self.at(self.now + delay_s, function, *arguments)

    def at(self, time_s: float, function: Callable[..., None], *arguments: Any) -> None:
        """Call `function` at `time_s`, outside of all nodes."""
        self._sequence += 1
        heappush(self._heap, (time_s, self._sequence, function, arguments))
        self._bell.set()

    async def run(self) -> None:
        """Make the calls, each when it is due, those of one instant in their order."""
        heap = self._heap
        while True:
            while heap and heap[0][0] <= self.now:
                _, _, function, arguments = heappop(heap)
                function(*arguments)
            self._bell = trio.Event()
            with trio.move_on_at(heap[0][0] if heap else float("inf")):
                await self._bell.wait()

    def note(self, what: str, *values: object) -> None:
        """Put something that happened into the trace."""
        self.notes += 1
        line = f"{self.now:.9f} {what} {' '.join(map(str, values))}\n"
        self._trace.update(line.encode())
        if self.is_traced:
            print(line, end="")

    def say(self, what: str, *values: object) -> None:
        """Print something for readers of a trace; it is not part of it."""
        if self.is_traced:
            print(f"{self.now:.9f} ({what}) {' '.join(map(str, values))}")

    def violate(self, error: BaseException) -> None:
        """Note that something which must always hold did not: the seed ends."""
        self.violations.append(error)
        self.failed.set()

    def trace_hash(self) -> str:
        """The digest of everything noted so far."""
        return self._trace.hexdigest()
