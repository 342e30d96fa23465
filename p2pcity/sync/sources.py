"""Whom to ask next: one peer after the other, and who failed rests for a while."""

from collections.abc import Collection
from typing import Final

WRONG_REST_S: Final = 60.0
EMPTY_REST_S: Final = 1.0


class Sources:
    """Asks in turn; who gave nothing or nonsense rests. Times are seconds of one steady clock."""

    def __init__(self) -> None:
        self._rests_until_s: dict[str, float] = {}
        self._last = ""

    def choose(self, sources: Collection[str], now_s: float) -> str | None:
        """Return whom to ask now, in turn; None when nobody is left."""
        ready = sorted(peer for peer in sources if self._rests_until_s.get(peer, 0.0) <= now_s)
        if not ready:
            return None
        self._last = next((peer for peer in ready if peer > self._last), ready[0])
        return self._last

    def failed(self, peer: str, now_s: float, *, is_wrong: bool) -> None:
        """The peer gave nothing, or something wrong."""
        rest_s = WRONG_REST_S if is_wrong else EMPTY_REST_S
        self._rests_until_s = {
            name: until_s for name, until_s in self._rests_until_s.items() if until_s > now_s
        }
        # Who gave nonsense rests for it, though it gave nothing besides.
        self._rests_until_s[peer] = max(self._rests_until_s.get(peer, 0.0), now_s + rest_s)
