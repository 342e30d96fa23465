"""Sends signed transactions to all nodes in turn and remembers what each was told.

Sequences are paced and posted with wait=committed, some at a time. What a node does not confirm
(it is down, has no leader, has no room) goes to the next node with the very same bytes.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from p2pcity.api.client import ApiProblem, Client, Unreachable
from p2pcity.cli.demo.bundles import Bundle, Signed, sign
from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.crypto.keys import PrivateKey
from p2pcity.errors import P2PCityError, Unavailable

IN_FLIGHT_MAX: Final = 8
SEQUENCE_MAX: Final = 32
STEP_S: Final = 0.15
WAIT_MS: Final = 5000
PATIENCE_S: Final = 45.0
_PAUSE_S: Final = 0.1
_ANSWER_S: Final = 10.0
_BUSY: Final = (429, 503)


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A transaction that a node called committed; times are of time.monotonic(), in seconds.

    `sent_s` is when it was first sent to anybody; `nodes` are those it was sent to, in order.
    """

    signed: Signed
    height: int
    leaf_index: int
    sent_s: float
    acknowledged_s: float
    nodes: tuple[str, ...]

    @property
    def latency_s(self) -> float:
        """From the first sending to the word that it is committed."""
        return self.acknowledged_s - self.sent_s


class Loader:
    """Sends bundles in threads of its own. `is_finished` and the counts may be read any time."""

    def __init__(
        self,
        network: LocalNetwork,
        bundles: Sequence[Bundle],
        keys: Mapping[str, PrivateKey],
        events_per_s: float,
    ) -> None:
        self._network = network
        self._names = [node.name for node in network.nodes]
        self._bundles = bundles
        self._keys = keys
        self._events_per_s = events_per_s
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(IN_FLIGHT_MAX)
        self._pool = ThreadPoolExecutor(IN_FLIGHT_MAX, "send")
        self._feeder = threading.Thread(target=self._feed, name="feed", daemon=True)
        self._stopping = threading.Event()
        self._own = threading.local()
        self._accepted: set[str] = set()
        self._acknowledged: list[Acknowledged] = []
        self._turn = 0
        self.events_total = sum(len(item.events) for item in bundles)
        self.events_accepted = 0
        self.events_committed = 0
        self.failure: P2PCityError | None = None

    def start(self) -> None:
        """Begin to send."""
        self._feeder.start()

    def stop(self) -> None:
        """End sending; threads that wait for a node leave when it answers or goes."""
        self._stopping.set()
        if self._feeder.is_alive():
            self._feeder.join(_ANSWER_S)
        self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def is_finished(self) -> bool:
        """Whether every event was acknowledged as committed."""
        return self.events_committed == self.events_total

    def acknowledged(self) -> list[Acknowledged]:
        """Return what was acknowledged so far, in that order."""
        with self._lock:
            return list(self._acknowledged)

    def first_acknowledged_after(self, moment_s: float) -> float | None:
        """Return when the first transaction was acknowledged at or after `moment_s`."""
        with self._lock:
            later = (a.acknowledged_s for a in self._acknowledged if a.acknowledged_s >= moment_s)
            return min(later, default=None)

    def _feed(self) -> None:
        """Sign what is due at the wanted rate, and hand it to the senders."""
        start_s = time.monotonic()
        waiting = iter(self._bundles)
        sent_events = 0
        while not self._stopping.is_set():
            due = (time.monotonic() - start_s + STEP_S) * self._events_per_s
            group: list[Signed] = []
            while sent_events < due and len(group) < SEQUENCE_MAX:
                item = next(waiting, None)
                if item is None:
                    break
                group.append(sign(item, self._keys[item.author], self._network.network_id))
                sent_events += len(item.events)
            if group:
                while not self._slots.acquire(timeout=STEP_S):
                    if self._stopping.is_set():
                        return
                self._turn += 1
                self._pool.submit(self._deliver, group, self._turn)
            if sent_events == self.events_total:
                return
            if sent_events >= due:
                self._stopping.wait(STEP_S)

    def _deliver(self, waiting: list[Signed], turn: int) -> None:
        """Send until all of it is committed; a sender's task."""
        sent_s = progress_s = time.monotonic()
        tried: list[str] = []
        try:
            while waiting and not self._stopping.is_set():
                name = self._names[turn % len(self._names)]
                turn += 1
                tried.append(name)
                answers = self._post(name, waiting)
                left = self._note(waiting, answers, sent_s, tuple(tried))
                if len(left) < len(waiting):
                    progress_s = time.monotonic()
                waiting = left
                if waiting:
                    if time.monotonic() - progress_s > PATIENCE_S:
                        raise Unavailable(f"nothing was committed for {PATIENCE_S:.0f} s")
                    # A node that is down costs no time; one that answers "not yet", and a round
                    # in which nobody answers, do.
                    if answers or len(tried) % len(self._names) == 0:
                        self._stopping.wait(_PAUSE_S)
        except P2PCityError as error:
            self.failure = self.failure or error
            self._stopping.set()
        finally:
            self._slots.release()

    def _post(self, name: str, waiting: Sequence[Signed]) -> Sequence[Mapping[str, Any]]:
        """Send once; returns the answers, none when the node could give none."""
        try:
            document = self._client(name).post(
                "/v1/transactions",
                b"".join(item.data for item in waiting),
                "application/cbor-seq",
                {"wait": "committed", "timeout_ms": WAIT_MS},
            )
        except Unreachable:
            return ()
        except ApiProblem as problem:
            if problem.status not in _BUSY and "answers" not in problem.members:
                raise
            document = problem.members
        answers: Sequence[Mapping[str, Any]] = document.get("answers", ())
        return answers

    def _note(
        self,
        waiting: list[Signed],
        answers: Sequence[Mapping[str, Any]],
        sent_s: float,
        nodes: tuple[str, ...],
    ) -> list[Signed]:
        """Remember the answers; return what is to be sent again."""
        if not answers:
            return waiting
        now_s = time.monotonic()
        left = []
        with self._lock:
            for item, answer in zip(waiting, answers, strict=True):
                if answer["verdict"] == "accept" and item.id not in self._accepted:
                    self._accepted.add(item.id)
                    self.events_accepted += len(item.names)
                if answer["status"] == "committed":
                    self._acknowledged.append(
                        Acknowledged(
                            item, answer["height"], answer["leaf_index"], sent_s, now_s, nodes
                        )
                    )
                    self.events_committed += len(item.names)
                elif answer["status"] == "pending" or _is_full(answer):
                    left.append(item)
                else:
                    reason = answer["reason"] or answer["status"]
                    raise Unavailable(
                        f"{nodes[-1]} refuses a transaction of {item.author}: {reason}"
                    )
        return left

    def _client(self, name: str) -> Client:
        clients: dict[str, Client] = self._own.__dict__
        if name not in clients:
            clients[name] = self._network.client(name, _ANSWER_S)
        return clients[name]


def _is_full(answer: Mapping[str, Any]) -> bool:
    reason = str(answer["reason"])
    return reason == "queue-full" or reason.endswith("quota")
