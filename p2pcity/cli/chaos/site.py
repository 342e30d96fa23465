"""What the nemeses act on, and what they tell each other about the nodes."""

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Final

from p2pcity.api.client import ApiProblem, Unreachable
from p2pcity.cli.chaos.plan import Strike
from p2pcity.cli.chaos.wires import Wires
from p2pcity.cli.demo.watching import Watcher
from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.cli.testnet.local_node import LocalNode

_POLL_S: Final = 0.02
ASK_S: Final = 2.0
"""How long a node has to answer a question."""

Acting = Generator[None, None, int]
"""A strike under way, as nemeses.py has it."""


class Site:
    """What the nemeses act on; keeps two of them from meeting on one node's process."""

    def __init__(self, network: LocalNetwork, wires: Wires, watcher: Watcher) -> None:
        self.network = network
        self.wires = wires
        self.watcher = watcher
        self.findings: list[str] = []
        self.demoted: set[str] = set()
        """Nodes that perhaps do not vote, because a nemesis asked for it."""
        self._busy: set[str] = set()
        self._explained: dict[str, set[int]] = {node.name: set() for node in network.nodes}

    def leader(self) -> str | None:
        """The node that was last seen to lead, by the highest term."""
        views = [view for view in self.watcher.views() if view.is_leader]
        return max(views, key=lambda view: view.term or 0).name if views else None

    def victim(self, strike: Strike, nodes: Sequence[str] | None = None) -> str | None:
        """The node that a strike is for: of `nodes`, by default of those that are well."""
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
        """`first` and others that are well, up to `size`."""
        others = [
            node.name
            for node in self.network.nodes
            if node.name not in self._busy and node.name != first
        ]
        start = int(strike.chance * 991) % len(others) if others else 0
        return [first, *(others[start:] + others[:start])[: size - 1]]

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
