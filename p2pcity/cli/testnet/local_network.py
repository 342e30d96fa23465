"""A network of nodes on this machine, each a process: made, started, killed, asked, stopped.

`demo`, `bench`, `testnet` and the tests all use it. Every wait has a deadline.
"""

import shutil
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

from p2pcity.api.client import ApiProblem, Client, Unreachable
from p2pcity.cli.ingest.authors import key_path
from p2pcity.cli.key_files import read_file, read_key
from p2pcity.cli.testnet import making
from p2pcity.cli.testnet.local_node import LocalNode
from p2pcity.crypto.keys import PrivateKey
from p2pcity.errors import ConfigError, Unavailable
from p2pcity.node.places import CONFIG_NAME
from p2pcity.wire import genesis as genesis_wire

READY_S: Final = 60.0
STOP_S: Final = 20.0
"""A node may take 10 s to hand over; the units for systemd wait as long as this."""
_KILL_S: Final = 20.0
_POLL_S: Final = 0.05
_ASK_S: Final = 3.0


class LocalNetwork:
    """The nodes under one directory. As a context manager it stops them all at its end.

    Not safe between threads; `client` gives each thread a client of its own.
    """

    def __init__(self, directory: Path) -> None:
        """Open a network that was made; ConfigError when there is none."""
        self.directory = directory.resolve()
        files = sorted(
            self.directory.glob(f"*/{CONFIG_NAME}"),
            key=lambda file: (len(file.parent.name), file.parent.name),
        )
        if not files:
            raise ConfigError(
                f"{directory} holds no network",
                remedy="Make one with `p2pcity testnet init -n 4 -o DIR`.",
            )
        self.nodes: tuple[LocalNode, ...] = tuple(map(self.open_node, files))
        genesis = genesis_wire.decode(read_file(self.directory / making.GENESIS_FILE, "DIR"))
        self.network_id: bytes = genesis.network

    def open_node(self, file: Path) -> LocalNode:
        """Return the node of a configuration file."""
        return LocalNode(file)

    @classmethod
    def create(
        cls,
        directory: Path,
        *,
        nodes: int = 4,
        orderers: int = 3,
        authors: Sequence[str] = (),
        raft_preset: str = "local",
        name: str = "testnet",
        announce: str = "",
    ) -> Self:
        """Make the directories of `nodes` nodes and open them; nothing is started.

        The first `orderers` vote, the others observe; `authors` get a key each, listed in the
        genesis for all event types. `announce` is a multiaddr that all nodes tell their peers
        instead of the one they listen on. Raises ConfigError.
        """
        making.make_network(
            directory,
            nodes=nodes,
            orderers=orderers,
            authors=authors,
            raft_preset=raft_preset,
            name=name,
            announce=announce,
        )
        return cls(directory)

    def add(
        self,
        name: str,
        *,
        role: str = "orderer",
        raft_preset: str = "local",
        announce: str = "",
        has_containers: bool = False,
    ) -> LocalNode:
        """Make and open one more node, for the running city to add; it is not started."""
        file = making.make_joiner(
            self.directory,
            name,
            role=role,
            raft_preset=raft_preset,
            announce=announce,
            has_containers=has_containers,
        )
        node = self.open_node(file)
        self.nodes = (*self.nodes, node)
        return node

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    def node(self, name: str) -> LocalNode:
        """Return a node by its name; ConfigError when there is none of it."""
        for node in self.nodes:
            if node.name == name:
                return node
        names = ", ".join(node.name for node in self.nodes)
        raise ConfigError(f"there is no node {name!r} here", remedy=f"Use one of {names}.")

    def client(self, name: str, timeout_s: float = 10.0) -> Client:
        """Return a new client of one node."""
        return self.node(name).client(timeout_s)

    def author_key(self, name: str) -> PrivateKey:
        """Return the key of an author that the network was made with; ConfigError otherwise."""
        return read_key(key_path(self.directory / making.AUTHORS_DIRECTORY, name), "authors")

    def start(self, names: Iterable[str] | None = None) -> list[str]:
        """Start all nodes (or those named) that do not run; return the names of the started."""
        wanted = self.nodes if names is None else tuple(map(self.node, names))
        started = [node for node in wanted if node.pid is None]
        for node in started:
            node.start()
        return [node.name for node in started]

    def wait_ready(
        self, names: Iterable[str] | None = None, *, deadline_s: float = READY_S
    ) -> None:
        """Wait until /readyz of all nodes (or those named) says so.

        Raises Unavailable at the deadline, or at once with the last lines of its log when a
        process ends.
        """
        until_s = time.monotonic() + deadline_s
        for node in self.nodes if names is None else tuple(map(self.node, names)):
            why = "it has not answered yet"
            with node.client(_ASK_S) as client:
                while True:
                    node.check_alive()
                    try:
                        client.get("/readyz")
                        break
                    except (Unreachable, ApiProblem) as error:
                        why = str(error)
                    if time.monotonic() > until_s:
                        raise Unavailable(
                            f"{node.name} is not ready after {deadline_s:.0f} s: {why}",
                            remedy=f"Read {node.logs_are}.",
                        )
                    time.sleep(_POLL_S)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a node's process a signal; wait for its end when it is SIGKILL.

        Raises Unavailable when the node does not run.
        """
        node = self.node(name)
        if not node.send(number):
            raise Unavailable(f"{name} does not run", remedy="Start it first.")
        if number == signal.SIGKILL and not node.wait_gone(time.monotonic() + _KILL_S):
            raise Unavailable(f"{name} did not end within {_KILL_S:.0f} s of SIGKILL")

    def restart(self, name: str, *, deadline_s: float | None = READY_S) -> None:
        """Start a node that was killed, and wait until it is ready unless `deadline_s` is None."""
        self.start([name])
        if deadline_s is not None:
            self.wait_ready([name], deadline_s=deadline_s)

    def running(self) -> list[str]:
        """Return the names of the nodes that run."""
        return [node.name for node in self.nodes if node.pid is not None]

    def stop(self, deadline_s: float = STOP_S) -> list[str]:
        """Stop all nodes: SIGTERM, and SIGKILL after the deadline; return who needed the latter.

        SIGCONT goes along, for a node that was stopped by SIGSTOP hears nothing else.
        """
        for node in self.nodes:
            node.send(signal.SIGTERM)
            node.send(signal.SIGCONT)
        until_s = time.monotonic() + deadline_s
        late = [node for node in self.nodes if not node.wait_gone(until_s)]
        for node in late:
            node.send(signal.SIGKILL)
        for node in late:
            node.wait_gone(time.monotonic() + _KILL_S)
        for node in self.nodes:
            node.pid_file.unlink(missing_ok=True)
        return [node.name for node in late]

    def down(self, deadline_s: float = STOP_S) -> list[str]:
        """Stop all nodes, and let go of what ran them; return who had to be killed."""
        return self.stop(deadline_s)

    def remove(self) -> None:
        """Delete the network's directory, and the one of its sockets; nothing may run."""
        assert all(node.pid is None for node in self.nodes), "stop() comes first"
        for node in self.nodes:
            if node.socket.parent != node.directory:
                shutil.rmtree(node.socket.parent, ignore_errors=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    def statuses(self) -> Mapping[str, dict[str, Any] | None]:
        """Return what each node says of itself (/v1/status), None for one that does not answer."""
        found: dict[str, dict[str, Any] | None] = {}
        for node in self.nodes:
            with node.client(_ASK_S) as client:
                try:
                    found[node.name] = client.get_json("/v1/status")
                except (Unreachable, ApiProblem):
                    found[node.name] = None
        return found

    def leader(self) -> str | None:
        """Return the name of the node that leads, by the highest term; None without."""
        leading = [
            (status["raft"]["term"], name)
            for name, status in self.statuses().items()
            if status is not None and status["raft"]["role"] == "leader"
        ]
        return max(leading)[1] if leading else None
