"""Signs events in groups and sends them until the ledger has them, each once.

An event is named by (author, source, id). What stands on the ledger already is asked for before
anything is signed, so a second run, in other groups or with more rows, adds only what is new.
Between that question and the commit another run may be faster: then the ledger marks the later
event a duplicate, and no view shows it.
"""

import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from p2pcity.cli.ingest.report import Totals
from p2pcity.crypto.keys import PrivateKey
from p2pcity.errors import ConfigError, Unavailable
from p2pcity.wire import event as event_wire
from p2pcity.wire import transaction as transaction_wire
from p2pcity.wire.event import Event
from p2pcity.wire.limits import TRANSACTION_BYTES_MAX

CHUNK_EVENTS: Final = 1024
CHUNK_BYTES: Final = 4 * 1024 * 1024
EXPIRES_AFTER_MS: Final = 60 * 60 * 1000
# What a transaction has beside its events: COSE_Sign1, payload and heads.
_OVERHEAD_BYTES: Final = 1024
_EVENT_OVERHEAD_BYTES: Final = 5
# Names remembered to find a row that stands twice in one file: two generations of so many.
_NAMES_KEPT: Final = 500_000
_PAUSE_MAX_S: Final = 10.0

_T = TypeVar("_T")


class Ledger(Protocol):
    """What sending asks of a node."""

    def known(self, names: Sequence[bytes]) -> Sequence[bool]:
        """Say of each name key whether such an event stands on the ledger."""
        ...

    def submit(self, carried: Sequence[bytes]) -> Sequence[Mapping[str, Any]]:
        """Submit, wait for the commit, and return the answer for each transaction.

        Raises Unavailable when the node has no room or no leader now, or can't be reached.
        """
        ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """An event on its way: who signs it, its name key and its size once encoded."""

    key: PrivateKey
    event: Event
    name: bytes
    size: int


def prepare(key: PrivateKey, event: Event) -> Prepared:
    """Give an event its salt; DecodeError or EncodeError when a rule forbids it."""
    salted = replace(event, salt=secrets.token_bytes(event_wire.SALT_BYTES))
    size = len(event_wire.encode(salted))
    return Prepared(key, salted, event_wire.name_key(key.public, event.source, event.id), size)


class Seen:
    """Names that this run met lately: a row twice in one file is sent once."""

    def __init__(self) -> None:
        self._young: set[bytes] = set()
        self._old: set[bytes] = set()

    def add(self, name: bytes) -> bool:
        """Remember a name; return whether it was there already."""
        if name in self._young or name in self._old:
            return True
        self._young.add(name)
        if len(self._young) >= _NAMES_KEPT:
            self._old, self._young = self._young, set()
        return False


class Sender:
    """Sends chunks of events, a bounded number of requests at a time."""

    def __init__(
        self,
        ledger: Ledger,
        network: bytes,
        totals: Totals,
        *,
        group: int,
        in_flight: int,
        patience_s: float,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._ledger = ledger
        self._network = network
        self._totals = totals
        self._group = group
        self._in_flight = in_flight
        self._patience_s = patience_s
        self._sleep = sleep

    def send_all(self, items: Iterable[Prepared], on_progress: Callable[[], None]) -> None:
        """Send everything; what was begun is finished also when `items` raises."""
        waiting: deque[Future[Totals]] = deque()
        with ThreadPoolExecutor(self._in_flight, "send") as pool:
            try:
                for chunk in _chunks(items):
                    while len(waiting) >= self._in_flight:
                        self._take(waiting.popleft(), on_progress)
                    waiting.append(pool.submit(self._send, chunk))
            finally:
                while waiting:
                    self._take(waiting.popleft(), on_progress)

    def _take(self, future: Future[Totals], on_progress: Callable[[], None]) -> None:
        counted = future.result()
        self._totals.sent += counted.sent
        self._totals.known += counted.known
        self._totals.transactions += counted.transactions
        self._totals.retries += counted.retries
        on_progress()

    def _send(self, chunk: list[Prepared]) -> Totals:
        counted = Totals()
        names = [item.name for item in chunk]
        known = self._patiently(counted, partial(self._ledger.known, names))
        new = [item for item, is_known in zip(chunk, known, strict=True) if not is_known]
        counted.known += len(chunk) - len(new)
        waiting = [(group, self._sign(group)) for group in self._groups(new)]
        counted.transactions += len(waiting)
        pause_s, since = 0.2, time.monotonic()
        while waiting:
            carried = [data for _, data in waiting]
            answers = self._patiently(counted, partial(self._ledger.submit, carried))
            left = []
            for (group, data), answer in zip(waiting, answers, strict=True):
                again = self._judge(group, data, answer, counted)
                if again is not None:
                    left.append((group, again))
            if len(left) < len(waiting):
                pause_s, since = 0.2, time.monotonic()
            waiting = left
            if waiting:
                if time.monotonic() - since > self._patience_s:
                    raise Unavailable(
                        f"nothing was committed for {self._patience_s:.0f} s",
                        remedy="Look at `p2pcity status`, then run the same command again.",
                    )
                counted.retries += 1
                self._sleep(pause_s)
                pause_s = min(2 * pause_s, _PAUSE_MAX_S)
        return counted

    def _judge(
        self, group: list[Prepared], data: bytes, answer: Mapping[str, Any], counted: Totals
    ) -> bytes | None:
        """Count what is done; return what to send again, None for nothing."""
        status, reason = str(answer.get("status")), str(answer.get("reason", ""))
        if status == "committed":
            counted.sent += len(group)
            return None
        if status == "duplicate":
            counted.known += len(group)
            return None
        if status == "pending":
            return data
        if status == "expired":
            return self._sign(group)
        if reason == "queue-full" or reason.endswith("quota"):
            return data
        first = group[0]
        raise ConfigError(
            f"the node refuses transactions of the author {first.key.public.hex()[:16]}… "
            f"({reason or status}: {answer.get('detail') or first.event.type})",
            remedy=_REMEDIES.get(reason, "protocol/registry.md says what the reason means."),
        )

    def _groups(self, items: list[Prepared]) -> Iterator[list[Prepared]]:
        """Yield one author's events at a time, in their order, as many as a transaction holds."""
        by_author: dict[bytes, list[Prepared]] = {}
        for item in items:
            by_author.setdefault(item.key.public, []).append(item)
        for own in by_author.values():
            group: list[Prepared] = []
            size = _OVERHEAD_BYTES
            for item in own:
                cost = item.size + _EVENT_OVERHEAD_BYTES
                if group and (len(group) == self._group or size + cost > TRANSACTION_BYTES_MAX):
                    yield group
                    group, size = [], _OVERHEAD_BYTES
                group.append(item)
                size += cost
            yield group

    def _sign(self, group: list[Prepared]) -> bytes:
        expires_ms = time.time_ns() // 1_000_000 + EXPIRES_AFTER_MS
        events = [item.event for item in group]
        nonce = secrets.token_bytes(transaction_wire.NONCE_BYTES)
        return transaction_wire.make(group[0].key, self._network, events, expires_ms, nonce).data

    def _patiently(self, counted: Totals, ask: Callable[[], _T]) -> _T:
        """Ask again while the node is busy or away, up to the patience."""
        since = time.monotonic()
        while True:
            try:
                return ask()
            except Unavailable as error:
                if time.monotonic() - since > self._patience_s:
                    raise
                counted.retries += 1
                self._sleep(min(error.retry_after_ms / 1000, _PAUSE_MAX_S))


_REMEDIES: Final = {
    "author-unknown": "Register the author's public key in the genesis (`genesis new --authors`).",
    "type-not-allowed": "Let the genesis allow this event type for the author, or change the map.",
    "expired": "This machine's clock is behind the ledger's: set it right.",
    "expires-too-far": "This machine's clock is ahead of the ledger's: set it right.",
    "network": "The node belongs to another network than it said: check --node.",
}


def _chunks(items: Iterable[Prepared]) -> Iterator[list[Prepared]]:
    chunk: list[Prepared] = []
    size = 0
    for item in items:
        chunk.append(item)
        size += item.size
        if len(chunk) == CHUNK_EVENTS or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
