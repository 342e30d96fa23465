"""The course of the demo: load, kill the leader half way, see the election, restart it, compare."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from p2pcity.api.client import ApiProblem, Unreachable
from p2pcity.cli.demo.bundles import Bundle
from p2pcity.cli.demo.loader import Acknowledged, Loader
from p2pcity.cli.demo.screen import Progress, Screen
from p2pcity.cli.demo.watching import Elected, Watcher
from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.crypto.keys import PrivateKey
from p2pcity.errors import Unavailable

LOAD_S_MIN: Final = 6.0
LOAD_S_MAX: Final = 32.0
EVENTS_PER_S_MIN: Final = 200
DOWN_S_MAX: Final = 4.0
LEVEL_S: Final = 30.0
_TURN_S: Final = 0.1
_RECENT: Final = 50


@dataclass(slots=True)
class Fall:
    """The leader's death and what came of it; times are of time.monotonic(), None until then."""

    name: str
    term: int
    killed_s: float
    cpu_s: float
    elected: Elected | None = None
    committed_s: float | None = None
    restarted_s: float | None = None
    level_s: float | None = None
    startup_cpu_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the report is made of; `before` and `after` are the nodes' statuses around the load.

    `cpu_s` is what all nodes together used for the load, without the killed node's start-up.
    """

    acknowledged: Sequence[Acknowledged]
    accepted: int
    sent: int
    load_s: float
    fall: Fall | None
    before: Mapping[str, dict[str, Any]]
    after: Mapping[str, dict[str, Any]]
    cpu_s: float


class Course:
    """Runs once. Raises Unavailable when something takes longer than it may."""

    def __init__(
        self,
        network: LocalNetwork,
        bundles: Sequence[Bundle],
        keys: Mapping[str, PrivateKey],
        screen: Screen,
    ) -> None:
        self._network = network
        self._screen = screen
        events = sum(len(item.events) for item in bundles)
        self._load_s = min(LOAD_S_MAX, max(LOAD_S_MIN, events / EVENTS_PER_S_MIN))
        self._loader = Loader(network, bundles, keys, events / self._load_s)
        self._watcher = Watcher(network)
        self._fall: Fall | None = None
        self._start_s = time.monotonic()

    def run(self) -> Outcome:
        """Load all bundles and return what happened."""
        before = self._all_statuses()
        cpu_before = {node.name: node.cpu_s() or 0.0 for node in self._network.nodes}
        self._watcher.start(before)
        self._start_s = time.monotonic()
        try:
            self._loader.start()
            self._turn_until(lambda: self._loader.is_finished, 3 * self._load_s + 60)
            loaded_s = time.monotonic()
            self._screen.say(
                f"all {self._loader.events_total:,} events are committed; "
                "waiting until every node has every block"
            )
            self._turn_until(self._is_level, LEVEL_S)
            self._turn()
        finally:
            self._loader.stop()
            self._watcher.stop()
        after = self._all_statuses()
        cpu_s = sum(node.cpu_s() or 0.0 for node in self._network.nodes)
        if self._fall is not None:
            # Its first life ended with what it had used by then; starting anew is no load.
            cpu_s += self._fall.cpu_s - self._fall.startup_cpu_s
        return Outcome(
            acknowledged=self._loader.acknowledged(),
            accepted=self._loader.events_accepted,
            sent=self._loader.events_total,
            load_s=loaded_s - self._start_s,
            fall=self._fall,
            before=before,
            after=after,
            cpu_s=cpu_s - sum(cpu_before.values()),
        )

    def _turn_until(self, is_done: Callable[[], bool], deadline_s: float) -> None:
        until_s = time.monotonic() + deadline_s
        while not is_done():
            if self._loader.failure is not None:
                raise self._loader.failure
            for node in self._network.nodes:
                if self._fall is None or node.name != self._fall.name or self._fall.restarted_s:
                    node.check_alive()
            if time.monotonic() > until_s:
                raise Unavailable(
                    f"the demo is not done after {deadline_s:.0f} s",
                    remedy="Keep the nodes' logs with --dir and read them; is this machine busy?",
                )
            self._turn()
            time.sleep(_TURN_S)

    def _turn(self) -> None:
        """Do what is due, and show how far things are."""
        if self._fall is None:
            if self._loader.events_committed * 2 >= self._loader.events_total:
                self._kill_leader()
        else:
            self._follow_up(self._fall)
        recent = self._loader.acknowledged()[-_RECENT:]
        self._screen.show(
            Progress(
                elapsed_s=time.monotonic() - self._start_s,
                committed=self._loader.events_committed,
                total=self._loader.events_total,
                p50_ms=statistics.median(a.latency_s for a in recent) * 1000 if recent else None,
                views=self._watcher.views(),
            )
        )

    def _kill_leader(self) -> None:
        # Asked anew: what the watcher saw may be a quarter of a second old.
        name = self._network.leader()
        status = None if name is None else self._network.statuses()[name]
        if name is None or status is None or status["raft"]["role"] != "leader":
            return
        node, term = self._network.node(name), int(status["raft"]["term"])
        self._watcher.expect_election(term)
        cpu_s = node.cpu_s() or 0.0
        killed_s = time.monotonic()
        self._network.kill(name)
        self._fall = Fall(name, term, killed_s, cpu_s)
        self._screen.say(f"half way: {name}, the leader of term {term}, was killed (SIGKILL)")

    def _follow_up(self, fall: Fall) -> None:
        if fall.elected is None:
            fall.elected = self._watcher.elected
            if fall.elected is not None:
                self._screen.say(
                    f"{fall.elected.name} leads term {fall.elected.term}, "
                    f"{fall.elected.seen_s - fall.killed_s:.2f} s after the kill"
                )
        if fall.elected is not None and fall.committed_s is None:
            fall.committed_s = self._loader.first_acknowledged_after(fall.elected.seen_s)
            if fall.committed_s is not None:
                self._screen.say(
                    "the next transaction was committed "
                    f"{fall.committed_s - fall.killed_s:.2f} s after the kill"
                )
        down_s = time.monotonic() - fall.killed_s
        if fall.restarted_s is None and (
            down_s >= min(DOWN_S_MAX, self._load_s / 4) and fall.elected is not None
        ):
            self._network.restart(fall.name, deadline_s=None)
            fall.restarted_s = time.monotonic()
            self._screen.say(f"{fall.name} was started again")
        elif fall.restarted_s is not None and fall.level_s is None:
            self._see_return(fall)

    def _see_return(self, fall: Fall) -> None:
        views = {view.name: view for view in self._watcher.views()}
        own = views[fall.name]
        if own.status is None or own.status["node"]["pid"] != self._network.node(fall.name).pid:
            return
        if not fall.startup_cpu_s:
            fall.startup_cpu_s = self._network.node(fall.name).cpu_s() or 0.0
        top = max(view.height or 0 for view in views.values())
        if own.status["is_ready"] and (own.height or 0) + 2 >= top:
            assert fall.restarted_s is not None
            fall.level_s = time.monotonic()
            self._screen.say(
                f"{fall.name} is back and level with the others, "
                f"{fall.level_s - fall.restarted_s:.1f} s after its start"
            )

    def _is_level(self) -> bool:
        if self._fall is None or self._fall.level_s is None or self._fall.committed_s is None:
            # Without a fall there is nothing to wait for: the report says what is missing.
            return self._fall is None
        found = list(self._network.statuses().values())
        heads = {s and (s["ledger"]["height"], s["ledger"]["head"]) for s in found}
        return None not in heads and len(heads) == 1

    def _all_statuses(self) -> dict[str, dict[str, Any]]:
        statuses = {}
        for node in self._network.nodes:
            with node.client() as client:
                try:
                    statuses[node.name] = client.get_json("/v1/status")
                except (Unreachable, ApiProblem) as error:
                    raise Unavailable(
                        f"{node.name}: {error}", remedy=f"Read {node.log_file}."
                    ) from error
        return statuses
