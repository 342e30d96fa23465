"""Back-off, token buckets and decaying scores: pure, with the time handed in."""

import random
from dataclasses import dataclass


class Backoff:
    """Delays that double from `minimum_s` to `maximum_s`, each with jitter.

    The jitter takes a delay down to between half of it and all of it, so that two nodes that
    dial each other do not stay in step.
    """

    def __init__(self, minimum_s: float, maximum_s: float, rng: random.Random) -> None:
        self._minimum_s = minimum_s
        self._maximum_s = maximum_s
        self._rng = rng
        self._next_s = minimum_s

    def next_s(self) -> float:
        """Return the next delay in seconds; the one after it is about twice as long."""
        delay_s = self._next_s
        self._next_s = min(self._next_s * 2, self._maximum_s)
        return delay_s * self._rng.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Begin again with the shortest delay."""
        self._next_s = self._minimum_s


class TokenBucket:
    """Lets `rate` units a second through, and `burst` at once."""

    __slots__ = ("_burst", "_rate", "_tokens", "_updated_s")

    def __init__(self, rate: float, burst: float, now_s: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._updated_s = now_s

    def take(self, now_s: float, amount: float = 1.0) -> bool:
        """Take `amount` tokens when there are as many; False when there are not."""
        # max: a clock that is handed in out of order must not take tokens away.
        passed_s = max(0.0, now_s - self._updated_s)
        self._updated_s = max(now_s, self._updated_s)
        self._tokens = min(self._burst, self._tokens + passed_s * self._rate)
        if self._tokens < amount:
            return False
        self._tokens -= amount
        return True


class OncePer:
    """Says yes once per `interval_s` for each key; remembers at most `keys_max` keys.

    For log lines that a stranger can provoke: `is_due` returns how many were swallowed since
    the last one, or None when this one is to be swallowed too.
    """

    def __init__(self, interval_s: float, keys_max: int = 256) -> None:
        self._interval_s = interval_s
        self._keys_max = keys_max
        self._seen: dict[str, tuple[float, int]] = {}

    def is_due(self, key: str, now_s: float) -> int | None:
        """Return the number of swallowed lines when one is due, else None."""
        last = self._seen.get(key)
        if last is not None and now_s - last[0] < self._interval_s:
            self._seen[key] = (last[0], last[1] + 1)
            return None
        # Re-inserted at the end: the dictionary is in order of age, the oldest goes first.
        self._seen.pop(key, None)
        if len(self._seen) >= self._keys_max:
            del self._seen[next(iter(self._seen))]
        self._seen[key] = (now_s, 0)
        return 0 if last is None else last[1]

    def __len__(self) -> int:
        return len(self._seen)


@dataclass(slots=True)
class Demerits:
    """Points against one peer, halved every `half_life_s`."""

    half_life_s: float
    points: float = 0.0
    updated_s: float = 0.0

    def add(self, points: float, now_s: float) -> float:
        """Add `points` and return what stands now."""
        self.points = self.value(now_s) + points
        self.updated_s = max(now_s, self.updated_s)
        return self.points

    def value(self, now_s: float) -> float:
        """Return the points at `now_s`, decayed."""
        passed_s = max(0.0, now_s - self.updated_s)
        decayed: float = self.points * 0.5 ** (passed_s / self.half_life_s)
        return decayed
