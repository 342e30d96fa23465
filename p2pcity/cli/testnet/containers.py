"""A local network whose nodes are containers: the engine is driven by Compose, v2 or v1."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, Self

from p2pcity.cli.testnet import making
from p2pcity.cli.testnet.compose_file import (
    COMPOSE_FILE,
    HTTP_PORT,
    IMAGE_USER_ID,
    PROMETHEUS_FILE,
    compose_text,
    prometheus_text,
)
from p2pcity.cli.testnet.local_network import STOP_S, LocalNetwork
from p2pcity.cli.testnet.local_node import LocalNode
from p2pcity.errors import ConfigError, Unavailable
from p2pcity.node.places import CONFIG_NAME

_COMMAND_S: Final = 300.0
_LOOK_S: Final = 1.0


class Engine:
    """Compose for one compose.yaml."""

    def __init__(self, directory: Path) -> None:
        """Nothing is run yet."""
        self._directory = directory
        self._program: tuple[str, ...] = ()

    def run(self, *arguments: str, deadline_s: float = _COMMAND_S) -> str:
        """Run Compose with these arguments; what it printed.

        Raises ConfigError without Compose, Unavailable with its last line when it fails.
        """
        self._program = self._program or find_compose()
        call = [*self._program, "-f", str(self._directory / COMPOSE_FILE), *arguments]
        return _run(call, deadline_s)

    def follow_logs(self, *services: str) -> None:
        """Print what all containers (or those named) print from now on, until Ctrl-C."""
        self._program = self._program or find_compose()
        file = str(self._directory / COMPOSE_FILE)
        subprocess.run(
            [*self._program, "-f", file, "logs", "--tail=0", "-f", *services], check=False
        )

    def pids(self) -> dict[str, int]:
        """Return the pid, as this host has it, of each service's container that runs.

        Both Composes label their containers; asking Docker itself takes a tenth of the time. Where
        there is no Docker, such as in one of the containers, none is seen.
        """
        if not shutil.which("docker"):
            return {}
        place = f"label=com.docker.compose.project.working_dir={self._directory}"
        found = _run(["docker", "ps", "-q", "--filter", place]).split()
        if not found:
            return {}
        labels = '{{index .Config.Labels "com.docker.compose.service"}} {{.State.Pid}}'
        lines = _run(["docker", "inspect", "-f", labels, *found]).splitlines()
        rows = [line.split() for line in lines]
        return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1] != "0"}


def find_compose() -> tuple[str, ...]:
    """Return how Compose is called here: v2, else docker-compose; ConfigError without either."""
    if shutil.which("docker"):
        plugin = subprocess.run(
            ["docker", "compose", "version"], capture_output=True, check=False, timeout=30
        )
        if plugin.returncode == 0:
            return ("docker", "compose")
    if shutil.which("docker-compose"):
        return ("docker-compose",)
    raise ConfigError(
        "there is no Compose here",
        remedy="Install it: apt-get install docker.io docker-compose.",
    )


def _run(call: Sequence[str], deadline_s: float = _COMMAND_S) -> str:
    try:
        done = subprocess.run(
            call,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=deadline_s,
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{call[0]} has not ended within {deadline_s:.0f} s") from error
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        last = lines[-1] if lines else f"exit code {done.returncode}"
        raise Unavailable(f"{' '.join(call[:4])} ...: {last}", remedy=_remedy(done.stderr))
    return done.stdout


def _remedy(text: str) -> str:
    if "daemon" in text and ("connect" in text or "running" in text):
        return "Start the engine (`systemctl start docker`), as a user who may use it."
    if "pull access denied" in text or "No such image" in text or "not found" in text:
        return "Build the image in the project's directory: `make image`."
    return "Read what `docker ps -a` and `docker logs` say."


class ContainerNode(LocalNode):
    """A node in a container that bears its name."""

    def __init__(self, config_file: Path, engine: Engine) -> None:
        """Read the configuration; ConfigError when it is wrong."""
        super().__init__(config_file)
        self.logs_are = f"`docker logs` of {self.name}"
        self.poll_s = 0.1
        self._engine = engine
        self._seen_s = -_LOOK_S

    @property
    def pid(self) -> int | None:
        """The pid of the container's first process, None when it does not run."""
        return self._engine.pids().get(self.name)

    def check_alive(self) -> None:
        """Raise Unavailable with the last lines of its log when the container has ended.

        The engine is asked once a second at most: that takes two processes.
        """
        if time.monotonic() - self._seen_s >= _LOOK_S:
            super().check_alive()
            self._seen_s = time.monotonic()

    def send(self, number: signal.Signals) -> bool:
        """Send the container's process a signal; False when it does not run."""
        if self.pid is None:
            return False
        self._engine.run("kill", "-s", number.name, self.name)
        return True

    def last_lines(self, count: int) -> list[str]:
        """Return the last lines that the container printed."""
        text = self._engine.run("logs", "--no-color", f"--tail={count}", self.name)
        lines = text.splitlines()
        # Either Compose puts the container's name in front of each.
        return [line.partition("| ")[2] for line in lines if "| " in line][-count:]


class ContainerNetwork(LocalNetwork):
    """A network of containers under one directory, with its compose.yaml."""

    def __init__(self, directory: Path) -> None:
        """Open a network that was made; ConfigError when there is none."""
        self.engine = Engine(directory.resolve())
        super().__init__(directory)

    def open_node(self, file: Path) -> LocalNode:
        """Return the node of a configuration file."""
        return ContainerNode(file, self.engine)

    @classmethod
    def make(
        cls,
        directory: Path,
        *,
        nodes: int,
        orderers: int,
        authors: Sequence[str],
        raft_preset: str,
        name: str,
        has_prometheus: bool,
    ) -> Self:
        """Make the directories of `nodes` nodes and the files for Compose; nothing is started.

        They run as whoever makes them, or, when root does, as the image's user, whose the files
        are then. Raises ConfigError.
        """
        making.make_network(
            directory,
            nodes=nodes,
            orderers=orderers,
            authors=authors,
            raft_preset=raft_preset,
            name=name,
            has_containers=True,
        )
        names = [f"node{number}" for number in range(1, nodes + 1)]
        user = (os.geteuid(), os.getegid()) if os.geteuid() else None
        text = compose_text(names, user=user, has_prometheus=has_prometheus)
        (directory / COMPOSE_FILE).write_text(text, encoding="utf-8")
        if has_prometheus:
            (directory / PROMETHEUS_FILE).write_text(prometheus_text(names), encoding="utf-8")
        for own in (directory / name for name in names):
            if has_prometheus:
                settings = {"http.bind": f"0.0.0.0:{HTTP_PORT}"}
                making.change_settings(own / CONFIG_NAME, settings)
            if user is None:
                for path in (own, *own.rglob("*")):
                    os.chown(path, IMAGE_USER_ID, IMAGE_USER_ID)
        return cls(directory)

    def start(self, names: Iterable[str] | None = None) -> list[str]:
        """Start all nodes (or those named) that do not run; return the names of the started."""
        wanted = self.nodes if names is None else tuple(map(self.node, names))
        running = self.engine.pids()
        started = [node.name for node in wanted if node.name not in running]
        if started or names is None:
            # All that the file has, Prometheus too.
            self.engine.run("up", "-d", *(() if names is None else started))
        return started

    def running(self) -> list[str]:
        """Return the names of the nodes that run."""
        pids = self.engine.pids()
        return [node.name for node in self.nodes if node.name in pids]

    def stop(self, deadline_s: float = STOP_S) -> list[str]:
        """Stop and remove all containers; what they wrote stays in the directory."""
        self.engine.run("down", "--timeout", str(round(deadline_s)))
        return []


def open_network(directory: Path) -> LocalNetwork:
    """Open a network of processes or of containers; ConfigError when there is none."""
    if (directory / COMPOSE_FILE).exists():
        return ContainerNetwork(directory)
    return LocalNetwork(directory)
