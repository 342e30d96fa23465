"""Spans of what clients asked for, made of the moments that the node remembers anyway.

    submit    admitted -> proposed (where this node leads) -> committed -> applied -> answered
    query     confirmed -> answered

Each span below a request begins where the one before it ended. What is applied after its client
was answered is followed, and comes below the same request.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import trio

from p2pcity import __version__
from p2pcity.api.service import Answer, traceparent
from p2pcity.node.config import Config
from p2pcity.node.identity import Identity
from p2pcity.node.moments import Moments
from p2pcity.node.otlp import Otlp, Span
from p2pcity.wire.moment import Stage

TRANSACTIONS_MAX: Final = 64
"""Of one request's transactions so many are looked at: each stage ends with the last of them."""
FOLLOWED_MAX: Final = 4096
"""Transactions that are followed until they are applied; the longest-followed give way."""
_BEFORE: Final[tuple[Stage, ...]] = ("admitted",)
_AFTER: Final[tuple[Stage, ...]] = ("proposed", "committed", "applied")


def open_otlp(config: Config, identity: Identity) -> Otlp | None:
    """Return where `telemetry.otlp_endpoint` says that spans go, None when it is empty.

    Raises ConfigError when the extra is not installed.
    """
    if not config.telemetry.otlp_endpoint:
        return None
    attributes = {
        "service.name": "p2pcity",
        "service.version": __version__,
        "service.instance.id": identity.peer_id,
        "p2pcity.network": identity.genesis.network.hex(),
        "p2pcity.member": config.node.member,
        "p2pcity.node": config.node.name,
    }
    return Otlp(config.telemetry.otlp_endpoint, attributes)


class Request:
    """One request under way: what it notes of itself.

    `answers` are those of a submit; `query` says what a query asks for.
    """

    __slots__ = ("answers", "begin_us", "confirmed_us", "error", "name", "query")

    def __init__(self, name: str, begin_us: int, query: str) -> None:
        self.name = name
        self.begin_us = begin_us
        self.query = query
        self.error = ""
        self.answers: Sequence[Answer] = ()
        self.confirmed_us: int | None = None


class _Followed:
    """The transactions of a request that was answered before they were applied."""

    def __init__(self, parent: object, begin_us: int, ids: Sequence[bytes]) -> None:
        self.parent = parent
        self.begin_us = begin_us
        self.ids = tuple(ids)
        self.missing = set(ids)


class Telemetry:
    """Makes spans and hands them to `otlp`; without one it does nothing."""

    def __init__(self, moments: Moments, otlp: Otlp | None) -> None:
        self._moments = moments
        self._otlp = otlp
        self._followed: dict[bytes, _Followed] = {}

    @property
    def exported(self) -> int:
        """How many spans the collector took."""
        return 0 if self._otlp is None else self._otlp.exported

    @property
    def dropped(self) -> int:
        """How many spans were lost: no room, or a collector that is away."""
        return 0 if self._otlp is None else self._otlp.dropped

    async def run(self) -> None:
        """Wait for the node's end, and then a moment for what is queued."""
        try:
            await trio.sleep_forever()
        finally:
            if self._otlp is not None:
                with trio.CancelScope(shield=True):
                    await self._otlp.close()

    @contextmanager
    def request(self, name: str, query: str = "") -> Iterator[Request]:
        """Watch one request; its span ends with the block."""
        request = Request(name, self._moments.now_us(), query)
        try:
            yield request
        except BaseException as error:  # whatever it was, also a client that went away
            request.error = type(error).__name__
            raise
        finally:
            if self._otlp is not None:
                self._say(self._otlp, request)

    def confirmed(self, request: Request) -> None:
        """Note that a quorum confirmed up to where a query must read."""
        request.confirmed_us = self._moments.now_us()

    def applied(self, ids: Sequence[bytes]) -> None:
        """Say what became of followed transactions, once all of a request are applied."""
        if self._otlp is None or not self._followed:
            return
        for id_ in ids:
            followed = self._followed.pop(id_, None)
            if followed is None:
                continue
            followed.missing.discard(id_)
            if not followed.missing:
                times = self._times(followed.ids, _AFTER, followed.begin_us)
                self._otlp.children(_chain(followed.begin_us, times), followed.parent)

    def _say(self, otlp: Otlp, request: Request) -> None:
        end_us = max(self._moments.now_us(), request.begin_us)
        all_ids = {answer.id: None for answer in request.answers if answer.id is not None}
        ids = list(all_ids)[:TRANSACTIONS_MAX]
        attributes = _attributes(request, all_ids)
        root = Span(request.name, request.begin_us, end_us, attributes, request.error)
        parent = otlp.root(root, traceparent.get())
        if parent is None:
            return
        times = self._times(ids, (*_BEFORE, *_AFTER), request.begin_us)
        if request.confirmed_us is not None:
            times.append(("confirmed", request.confirmed_us))
        pending = self._pending(ids, request.begin_us)
        if pending:
            times = [item for item in times if item[0] in _BEFORE]
        if not request.error:
            times.append(("answered", end_us))
        otlp.children(_chain(request.begin_us, times), parent)
        if pending:
            begin_us = next((at for name, at in times if name in _BEFORE), request.begin_us)
            self._follow(_Followed(parent, begin_us, ids), pending)

    def _pending(self, ids: Sequence[bytes], since_us: int) -> list[bytes]:
        """Those that came with a request and are not applied yet."""
        found = []
        for id_ in ids:
            stages = {m.stage for m in self._moments.of(id_) if m.time_us >= since_us}
            if "admitted" in stages and "applied" not in stages:
                found.append(id_)
        return found

    def _follow(self, followed: _Followed, pending: Sequence[bytes]) -> None:
        followed.missing = set(pending)
        for id_ in pending:
            self._followed[id_] = followed
        while len(self._followed) > FOLLOWED_MAX:
            del self._followed[next(iter(self._followed))]

    def _times(
        self, ids: Sequence[bytes], stages: Sequence[Stage], since_us: int
    ) -> list[tuple[str, int]]:
        """When the last of `ids` came to each stage, in the order of `stages`."""
        last: dict[str, int] = {}
        for id_ in ids:
            for moment in self._moments.of(id_):
                if moment.time_us >= since_us and moment.time_us > last.get(moment.stage, 0):
                    last[moment.stage] = moment.time_us
        return [(stage, last[stage]) for stage in stages if stage in last]


def _attributes(request: Request, ids: Collection[bytes]) -> dict[str, str | int]:
    if request.query:
        return {"p2pcity.query": request.query}
    found: dict[str, str | int] = {"p2pcity.transactions": len(ids)}
    if len(ids) == 1:
        found["p2pcity.transaction"] = next(iter(ids)).hex()
    counts = Counter(answer.status for answer in request.answers)
    found.update((f"p2pcity.answers.{status}", count) for status, count in counts.items())
    return found


def _chain(begin_us: int, times: Sequence[tuple[str, int]]) -> list[Span]:
    """Return a span for each stage, from the end of the one before it."""
    spans = []
    for name, at_us in times:
        # Stages overlap where many transactions share a request, and clocks may be set back.
        end_us = max(at_us, begin_us)
        spans.append(Span(name, begin_us, end_us, {}))
        begin_us = end_us
    return spans
