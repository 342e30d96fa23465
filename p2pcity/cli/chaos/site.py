"""What the nemeses act on, and what they tell each other about the nodes."""

import contextlib
import time
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from p2pcity.api.client import ApiProblem, Unreachable
from p2pcity.cli.chaos.links import Links
from p2pcity.cli.chaos.plan import Strike
from p2pcity.cli.demo.watching import Watcher
from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.cli.testnet.local_node import LocalNode

_POLL_S: Final = 0.02
_FIND_S: Final = 5.0
ASK_S: Final = 2.0
"""How long a node has to answer a question."""

Acting = Generator[None, None, int]
"""A strike under way, as nemeses.py has it."""


class Site:
    """What the nemeses act on; keeps two of them from meeting on one node's process."""

    def __init__(
        self,
        network: LocalNetwork,
        wires: Links,
        watcher: Watcher,
        *,
        spares: Sequence[LocalNode] = (),
        home: Path | None = None,
    ) -> None:
        self.network = network
        self.wires = wires
        self.watcher = watcher
        self.home = home or network.directory
        """Where a nemesis may leave what it writes down."""
        self.spares = deque(spares)
        """Nodes that were made and are no part of the network yet."""
        self.removed: list[LocalNode] = []
        """Nodes that are no part of the network any more."""
        self.shunned: set[str] = set()
        """Nodes that clients leave alone."""
        self.findings: list[str] = []
        self.demoted: set[str] = set()
        """Nodes that perhaps do not vote, because a nemesis asked for it."""
        self._busy: set[str] = set()
        self._explained: defaultdict[str, set[int]] = defaultdict(set)

    def leader(self) -> str | None:
        """The node that was last seen to lead, by the highest term."""
        views = [view for view in self.watcher.views() if view.is_leader]
        return max(views, key=lambda view: view.term or 0).name if views else None

    def victim(self, strike: Strike, nodes: Sequence[str] | None = None) -> str | None:
        """The node that a strike is for: of `nodes`, by default of those that are well."""
        if strike.nodes:
            return strike.nodes[0]
        names = [
            node.name
            for node in self.network.nodes
            if node.name not in self._busy and (nodes is None or node.name in nodes)
        ]
        leader = self.leader()
        if strike.target == "leader" and leader in names:
            return leader
        if strike.target == "follower" and leader in names and len(names) > 1:
            names.remove(leader)
        return names[int(strike.chance * 997) % len(names)] if names else None

    def group(self, strike: Strike, first: str, size: int) -> list[str]:
        """`first` and others that are well, up to `size`; or those that a strike names."""
        if strike.nodes:
            return list(strike.nodes)
        others = [
            node.name
            for node in self.network.nodes
            if node.name not in self._busy and node.name != first
        ]
        start = int(strike.chance * 991) % len(others) if others else 0
        return [first, *(others[start:] + others[:start])[: size - 1]]

    def find(self, strike: Strike) -> tuple[str, ...]:
        """As many nodes as a strike wants, of just the kind that it wants; none if there are fewer.

        Waits a moment for a leader where one has to be known.
        """
        found: list[str] = []

        def are_there() -> bool:
            found[:] = self._of_kind(strike.target)
            return len(found) >= strike.size

        if not wait(are_there, _FIND_S):
            return ()
        start = int(strike.chance * 997) % len(found)
        return tuple((found[start:] + found[:start])[: strike.size])

    def _of_kind(self, target: str) -> list[str]:
        well = [node for node in self.network.nodes if node.name not in self._busy]
        if target == "any":
            return [node.name for node in well]
        if target == "observer":
            return [node.name for node in well if node.role == "observer"]
        leader = self.leader()
        if target == "leader":
            return [node.name for node in well if node.name == leader]
        if target == "follower":
            voters = [node.name for node in well if node.role == "orderer"]
            return [name for name in voters if name != leader] if leader else []
        return [node.name for node in well if node.name == target]

    @contextlib.contextmanager
    def keeping(self, names: Sequence[str]) -> Iterator[None]:
        """No other nemesis touches the processes of these nodes meanwhile."""
        self._busy.update(names)
        try:
            yield
        finally:
            self._busy.difference_update(names)

    def explain(self, name: str, exit_code: int) -> None:
        """A fault lets this node end with that exit code, until it is started again."""
        self._explained[name].add(exit_code)

    def start_ended(self, names: Sequence[str]) -> None:
        """Start those of these nodes that do not run; an end that no fault explains is found."""
        for name in names:
            node = self.network.node(name)
            if node.pid is None:
                # A crash or the machine's own SIGKILL writes nothing into the log.
                if node.exit_code not in self._explained[name]:
                    self.findings.append(
                        f"{name} ended with exit code {node.exit_code}, which no fault explains"
                    )
                self._explained[name].clear()
                node.start()
                self.wires.renew(name)

    def wait_ready(self, names: Sequence[str], seconds: float) -> None:
        """Wait until these nodes are ready; one that a fault ended belatedly is started again.

        A process takes a moment to end: it may still run when its fault is over. Raises
        Unavailable when not all are ready in time.
        """

        def are_ready() -> bool:
            self.start_ended(names)
            return all(get(self.network.node(name), "/readyz") for name in names)

        if not wait(are_ready, seconds):
            self.network.wait_ready(names, deadline_s=0)


def get(node: LocalNode, path: str) -> Any:
    """The JSON at a path of a node; None when it does not answer in time."""
    with node.client(ASK_S) as client:
        try:
            return client.get_json(path)
        except (Unreachable, ApiProblem):
            return None


def wait(is_so: Callable[[], bool], seconds: float) -> bool:
    """Wait until `is_so()`, for so long at most; whether it came to be."""
    until_s = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() >= until_s:
            return False
        time.sleep(_POLL_S)
    return True
