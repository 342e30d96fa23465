"""Watches the nodes while the demo runs: one thread a node asks for its status again and again."""

import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from p2pcity.api.client import ApiProblem, Unreachable
from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.cli.testnet.local_node import LocalNode

INTERVAL_S: Final = 0.25
ELECTION_INTERVAL_S: Final = 0.02
_RATE_OVER_S: Final = 3.0
_ANSWER_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class NodeView:
    """What a node last said of itself; `status` is None when it does not answer."""

    name: str
    role: str
    status: Mapping[str, Any] | None = None
    events_per_s: float = 0.0

    @property
    def is_leader(self) -> bool:
        """Whether the node itself says that it leads."""
        return self.status is not None and self.status["raft"]["role"] == "leader"

    @property
    def term(self) -> int | None:
        """Its Raft term."""
        return None if self.status is None else int(self.status["raft"]["term"])

    @property
    def height(self) -> int | None:
        """The height of its last applied block."""
        return None if self.status is None else int(self.status["ledger"]["height"])

    @property
    def events(self) -> int | None:
        """How many events stand on its ledger."""
        return None if self.status is None else int(self.status["ledger"]["events"])


@dataclass(frozen=True, slots=True)
class Elected:
    """Who was first seen to lead after the leader's death, and when (time.monotonic())."""

    name: str
    term: int
    seen_s: float


class Watcher:
    """Keeps the newest view of each node; `start` and `stop` once."""

    def __init__(self, network: LocalNetwork) -> None:
        self._network = network
        self._views = {node.name: NodeView(node.name, node.role) for node in network.nodes}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._hurry = threading.Event()
        self._after_term: int | None = None
        self._elected: Elected | None = None
        self._threads = [self._thread(node) for node in network.nodes]

    def start(self, statuses: Mapping[str, Mapping[str, Any]]) -> None:
        """Begin to watch; `statuses` are shown until the nodes were asked."""
        for name, view in self._views.items():
            self._views[name] = replace(view, status=statuses.get(name))
        for thread in self._threads:
            thread.start()

    def watch(self, node: LocalNode) -> None:
        """Watch one more node, which came after the start."""
        self._note(NodeView(node.name, node.role), time.monotonic())
        self._threads.append(self._thread(node))
        self._threads[-1].start()

    def _thread(self, node: LocalNode) -> threading.Thread:
        return threading.Thread(target=self._watch, args=(node,), name="watch", daemon=True)

    def stop(self) -> None:
        """End watching, within the time that a node has to answer."""
        self._stopping.set()
        self._hurry.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(_ANSWER_S + 1)

    def views(self) -> tuple[NodeView, ...]:
        """Return the newest view of each node."""
        with self._lock:
            return tuple(self._views.values())

    def expect_election(self, after_term: int) -> None:
        """Ask every 20 ms from now on until a node leads in a term above `after_term`."""
        with self._lock:
            self._after_term = after_term
            self._elected = None
        self._hurry.set()

    @property
    def elected(self) -> Elected | None:
        """The outcome of the election that was expected, None while there is none."""
        with self._lock:
            return self._elected

    def _watch(self, node: LocalNode) -> None:
        past: deque[tuple[float, int]] = deque()
        with node.client(_ANSWER_S) as client:
            while not self._stopping.is_set():
                try:
                    status = client.get_json("/v1/status")
                except (Unreachable, ApiProblem):
                    status = None
                now_s = time.monotonic()
                rate = 0.0
                if status is None:
                    past.clear()
                else:
                    rate = _rate(past, now_s, int(status["ledger"]["events"]))
                self._note(NodeView(node.name, node.role, status, rate), now_s)
                if self._hurry.is_set():
                    self._stopping.wait(ELECTION_INTERVAL_S)
                else:
                    self._hurry.wait(INTERVAL_S)

    def _note(self, view: NodeView, now_s: float) -> None:
        with self._lock:
            self._views[view.name] = view
            if self._after_term is None or self._elected is not None or not view.is_leader:
                return
            if view.term is not None and view.term > self._after_term:
                self._elected = Elected(view.name, view.term, now_s)
                self._hurry.clear()


def _rate(past: deque[tuple[float, int]], now_s: float, events: int) -> float:
    """Return events per second over the last seconds."""
    past.append((now_s, events))
    while len(past) > 2 and now_s - past[0][0] > _RATE_OVER_S:
        past.popleft()
    since_s, before = past[0]
    return (events - before) / (now_s - since_s) if now_s > since_s else 0.0
