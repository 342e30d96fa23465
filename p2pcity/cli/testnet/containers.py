"""A local network whose nodes are containers: the engine is driven by Compose, v2 or v1."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from p2pcity.cli.testnet import making
from p2pcity.cli.testnet.compose_file import (
    COMPOSE_FILE,
    HTTP_PORT,
    IMAGE_USER_ID,
    NETWORK,
    PROMETHEUS_FILE,
    RULES_DIRECTORY,
    compose_text,
    prometheus_text,
)
from p2pcity.cli.testnet.local_network import STOP_S, LocalNetwork
from p2pcity.cli.testnet.local_node import CHECK_S, LocalNode, said_of
from p2pcity.errors import ConfigError, Unavailable
from p2pcity.node.places import CONFIG_NAME

_COMMAND_S: Final = 300.0
_LOOK_S: Final = 1.0
_LABEL: Final = "com.docker.compose"
_SIGNALLED: Final = 128


@dataclass(frozen=True, slots=True)
class Container:
    """One container as the engine knows it; `pid` is this host's, 0 when it does not run.

    `exit_code` is of its last end, None while it runs; `addresses` are those of its networks.
    """

    id: str
    pid: int
    exit_code: int | None
    is_paused: bool
    addresses: tuple[str, ...]


class Engine:
    """Compose for one compose.yaml, and Docker for its containers."""

    def __init__(self, directory: Path) -> None:
        """Nothing is run yet."""
        self._directory = directory
        self._program: tuple[str, ...] = ()

    def run(self, *arguments: str, deadline_s: float = _COMMAND_S) -> str:
        """Run Compose with these arguments; what it printed.

        Raises ConfigError without Compose, Unavailable with its last line when it fails.
        """
        return _must(self._compose(arguments), deadline_s)

    def ask(self, service: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run p2pcity in a new container of a service, which goes with its end; how it ended."""
        run = ("run", "--rm", "--no-deps", "-T", service, *arguments)
        return _run(self._compose(run), CHECK_S)

    def act(self, service: str, verb: str, *options: str) -> bool:
        """Do something (`docker start`, `docker pause`) to a container; False without one."""
        found = self.containers().get(service)
        if found is None:
            return False
        _must(["docker", verb, *options, found.id])
        return True

    def follow_logs(self, *services: str) -> None:
        """Print what all containers (or those named) print from now on, until Ctrl-C."""
        subprocess.run(self._compose(("logs", "--tail=0", "-f", *services)), check=False)

    def log(self, service: str, since_s: float) -> str:
        """Return all that a container has printed since then (Unix time), and the engine kept."""
        found = self.containers().get(service)
        if found is None:
            return ""
        call = ["docker", "logs", "--since", f"{since_s:.6f}", found.id]
        return _must(call, is_joined=True)

    def containers(self) -> dict[str, Container]:
        """Return each service's container, whether it runs or not.

        Both Composes label their containers; asking Docker itself takes a tenth of the time. Where
        there is no Docker, such as in one of the containers, none is seen.
        """
        if not shutil.which("docker"):
            return {}
        chosen = [
            f"label={_LABEL}.project.working_dir={self._directory}",
            f"label={_LABEL}.oneoff=False",
        ]
        filters = [part for label in chosen for part in ("--filter", label)]
        found = _must(["docker", "ps", "-aq", "--no-trunc", *filters]).split()
        # One that was removed meanwhile is left out: Docker says so and prints the others.
        return read_containers(_run(["docker", "inspect", *found]).stdout) if found else {}

    def pids(self) -> dict[str, int]:
        """Return the pid, as this host has it, of each service's container that runs."""
        return {name: found.pid for name, found in self.containers().items() if found.pid}

    def _compose(self, arguments: Sequence[str]) -> list[str]:
        self._program = self._program or find_compose()
        return [*self._program, "-f", str(self._directory / COMPOSE_FILE), *arguments]


def read_containers(text: str) -> dict[str, Container]:
    """Return what `docker inspect` says of containers, by their services."""
    rows: list[dict[str, Any]] = json.loads(text)
    found = {}
    for row in rows:
        state, networks = row["State"], row["NetworkSettings"]["Networks"].values()
        code = state["ExitCode"]
        found[row["Config"]["Labels"][f"{_LABEL}.service"]] = Container(
            id=row["Id"],
            pid=state["Pid"],
            # A shell's way to say that a signal ended it, which the containers' init has too.
            exit_code=None if state["Pid"] else _SIGNALLED - code if code > _SIGNALLED else code,
            is_paused=state["Paused"],
            addresses=tuple(net["IPAddress"] for net in networks if net["IPAddress"]),
        )
    return found


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


def _run(
    call: Sequence[str], deadline_s: float = _COMMAND_S, *, is_joined: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; Unavailable when that does not come in time."""
    try:
        return subprocess.run(
            call,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if is_joined else subprocess.PIPE,
            text=True,
            errors="replace",
            check=False,
            timeout=deadline_s,
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{call[0]} has not ended within {deadline_s:.0f} s") from error


def _must(call: Sequence[str], deadline_s: float = _COMMAND_S, *, is_joined: bool = False) -> str:
    """Run a program that must succeed, or Unavailable says its last line; what it printed."""
    done = _run(call, deadline_s, is_joined=is_joined)
    if done.returncode != 0:
        said = done.stdout if is_joined else done.stderr
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        last = lines[-1] if lines else f"exit code {done.returncode}"
        raise Unavailable(f"{' '.join(call[:4])} ...: {last}", remedy=_remedy(said))
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
        self.log_since_s = 0.0
        """What was printed before (Unix time) is no part of `log_text`."""
        self._engine = engine
        self._seen_s = -_LOOK_S

    @property
    def pid(self) -> int | None:
        """The pid of the node's process in the container, None when it does not run."""
        init = self._engine.pids().get(self.name)
        return None if init is None else _child(init)

    @property
    def exit_code(self) -> int | None:
        """The exit code of the container's last end, None when it runs or there is none.

        Minus the number of the signal that ended it, as subprocess has it.
        """
        found = self._engine.containers().get(self.name)
        return None if found is None else found.exit_code

    def start(self) -> None:
        """Start the container, and make it when there is none; it must not run yet."""
        if not self._engine.act(self.name, "start"):
            self._engine.run("up", "-d", "--no-deps", self.name)

    def check_alive(self) -> None:
        """Raise Unavailable with the last lines of its log when the container has ended.

        The engine is asked once a second at most: that takes two processes.
        """
        if time.monotonic() - self._seen_s >= _LOOK_S:
            super().check_alive()
            self._seen_s = time.monotonic()

    def send(self, number: signal.Signals) -> bool:
        """Send the container's process a signal; False when it does not run."""
        return self._act("kill", "-s", number.name)

    def pause(self) -> bool:
        """Freeze the container; whether the engine says that it is."""
        return self._act("pause") and self._is_paused

    def resume(self) -> None:
        """Let a frozen container go on."""
        if self._is_paused:
            self._act("unpause")

    def _act(self, verb: str, *options: str) -> bool:
        """Do something to the container if it runs; whether it did."""
        if self.pid is None:
            return False
        try:
            return self._engine.act(self.name, verb, *options)
        except Unavailable:
            # It may have ended in between.
            if self.name in self._engine.pids():
                raise
            return False

    @property
    def _is_paused(self) -> bool:
        found = self._engine.containers().get(self.name)
        return found is not None and found.is_paused

    def last_lines(self, count: int) -> list[str]:
        """Return the last lines that the container printed."""
        text = self._engine.run("logs", "--no-color", f"--tail={count}", self.name)
        lines = text.splitlines()
        # Either Compose puts the container's name in front of each.
        return [line.partition("| ")[2] for line in lines if "| " in line][-count:]

    def log_text(self) -> str:
        """Return what the container printed since `log_since_s`, as far as the engine keeps it."""
        return self._engine.log(self.name, self.log_since_s)

    def find_damage(self) -> str:
        """Return what `p2pcity check` says in the node's container; empty when all is sound."""
        place = f"{NETWORK}/{self.directory.name}/{CONFIG_NAME}"
        return said_of(self._engine.ask(self.name, "check", "--config", place, "--json"))


def _child(init: int) -> int:
    """The process that a container's init (`init: true`) has started, itself before that."""
    try:
        children = Path(f"/proc/{init}/task/{init}/children").read_text(encoding="ascii").split()
    except OSError:
        return init
    return int(children[0]) if children else init


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
            (directory / RULES_DIRECTORY).mkdir()
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
        """Stop all containers and keep them; return the names of those that had to be killed."""
        before = self.engine.containers()
        for name in [name for name, found in before.items() if found.is_paused]:
            self.engine.act(name, "unpause")
        self.engine.run("stop", "--timeout", str(round(deadline_s)))
        after = self.engine.containers()
        return [
            name
            for name, found in after.items()
            if found.exit_code == -signal.SIGKILL and name in before and before[name].pid
        ]

    def down(self, deadline_s: float = STOP_S) -> list[str]:
        """Stop and remove all containers; what they wrote stays in the directory."""
        late = self.stop(deadline_s)
        self.engine.run("down")
        return late


def open_network(directory: Path) -> LocalNetwork:
    """Open a network of processes or of containers; ConfigError when there is none."""
    if (directory / COMPOSE_FILE).exists():
        return ContainerNetwork(directory)
    return LocalNetwork(directory)
