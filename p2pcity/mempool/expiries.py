"""When transactions expire: ids in buckets of one second, the nearest second on a heap."""

from heapq import heappop, heappush

_BUCKET_MS = 1000


class Expiries:
    """Ids by the time they expire; O(1) to add and remove.

    An emptied bucket stays until its second is over: seconds of one day ahead are a bound,
    while a heap entry for every time a bucket is filled anew would be none.
    """

    def __init__(self) -> None:
        self._buckets: dict[int, dict[bytes, int]] = {}
        self._seconds: list[int] = []

    def add(self, id: bytes, expires_ms: int) -> None:
        """Remember that `id` expires at `expires_ms` (Unix ms)."""
        second = expires_ms // _BUCKET_MS
        bucket = self._buckets.get(second)
        if bucket is None:
            bucket = self._buckets[second] = {}
            heappush(self._seconds, second)
        bucket[id] = expires_ms

    def remove(self, id: bytes, expires_ms: int) -> None:
        """Forget `id`; nothing happens when it is not here."""
        bucket = self._buckets.get(expires_ms // _BUCKET_MS)
        if bucket is not None:
            bucket.pop(id, None)

    def pop(self, now_ms: int) -> list[bytes]:
        """Take out and return the ids with `expires_ms <= now_ms`, the earliest second first."""
        expired: list[bytes] = []
        while self._seconds and (self._seconds[0] + 1) * _BUCKET_MS <= now_ms + 1:
            expired.extend(self._buckets.pop(heappop(self._seconds)))
        if self._seconds and self._seconds[0] == now_ms // _BUCKET_MS:
            bucket = self._buckets[self._seconds[0]]
            passed = [id for id, expires_ms in bucket.items() if expires_ms <= now_ms]
            for id in passed:
                del bucket[id]
            expired.extend(passed)
        return expired
