"""What the HTTP surface did since the start, counted for whoever asks: /metrics."""

from typing import Final

from starlette.types import Scope

OTHER: Final = "other"
_METHODS: Final = frozenset(("GET", "HEAD", "POST"))


class HttpStatistics:
    """Answers by method, route and status, and the streams that are open.

    A route is a path of the table of operations, as it stands there; whatever else clients ask
    for is `other`, so that nobody can make the counts grow without a bound.
    """

    def __init__(self) -> None:
        self.requests: dict[tuple[str, str, int], int] = {}
        self.streams_open = 0

    def count(self, scope: Scope, status: int) -> None:
        """Count an answer that begins; `scope` is the one that the router has seen."""
        route = getattr(scope.get("endpoint"), "path", OTHER)
        method = scope["method"] if scope["method"] in _METHODS else OTHER
        key = (method, route, status)
        self.requests[key] = self.requests.get(key, 0) + 1
