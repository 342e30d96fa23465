"""Token buckets, one for each peer or author; integers only, and a bounded number of them."""

from typing import Final

_SCALE: Final = 1000


class TokenBucket:
    """So many tokens a second, up to a burst; the clock is handed in (milliseconds)."""

    __slots__ = ("_burst", "_level", "_per_second", "_updated_ms")

    def __init__(self, per_second: int, burst: int, now_ms: int) -> None:
        self._per_second = per_second
        self._burst = burst * _SCALE
        self._level = self._burst
        self._updated_ms = now_ms

    def take(self, now_ms: int, tokens: int = 1) -> bool:
        """Take `tokens` if there are so many; False, and nothing taken, otherwise."""
        self._refill(now_ms)
        if self._level < tokens * _SCALE:
            return False
        self._level -= tokens * _SCALE
        return True

    def charge(self, now_ms: int, tokens: int) -> None:
        """Take `tokens`, or all there are."""
        self._refill(now_ms)
        self._level = max(0, self._level - tokens * _SCALE)

    def _refill(self, now_ms: int) -> None:
        # A clock set back refills nothing, and counts on from where it now stands.
        elapsed_ms = max(0, now_ms - self._updated_ms)
        self._level = min(self._burst, self._level + elapsed_ms * self._per_second)
        self._updated_ms = now_ms


class Quotas:
    """A bucket for each holder (peer id or author key); above `holders_max` the oldest goes."""

    def __init__(self, per_second: int, burst: int, holders_max: int) -> None:
        self._per_second = per_second
        self._burst = burst
        self._holders_max = holders_max
        self._buckets: dict[str | bytes, TokenBucket] = {}

    def take(self, holder: str | bytes, now_ms: int) -> bool:
        """Take one token of `holder`; False when it has none."""
        return self._bucket(holder, now_ms).take(now_ms)

    def charge(self, holder: str | bytes, now_ms: int, tokens: int) -> None:
        """Take `tokens` of `holder`, or all it has."""
        self._bucket(holder, now_ms).charge(now_ms, tokens)

    def _bucket(self, holder: str | bytes, now_ms: int) -> TokenBucket:
        bucket = self._buckets.get(holder)
        if bucket is None:
            if len(self._buckets) >= self._holders_max:
                del self._buckets[next(iter(self._buckets))]
            bucket = self._buckets[holder] = TokenBucket(self._per_second, self._burst, now_ms)
        return bucket
