"""One node of a local network: its directory and its process.

A process is known by its pid file, and only ever signalled when /proc says that this pid is a
p2pcity that runs this very configuration: pids are used again.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final, Protocol

from p2pcity.api.client import Client
from p2pcity.cli.testnet import signals
from p2pcity.cli.testnet.making import prepare_socket_directory
from p2pcity.errors import Unavailable
from p2pcity.node.config import Config
from p2pcity.node.config_reading import load

_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
_TAIL_BYTES: Final = 64 * 1024
_SAID_MAX: Final = 500
_STOPPED_S: Final = 5.0
CHECK_S: Final = 600.0
"""How long a check of a node's whole ledger may take."""


class Process(Protocol):
    """A process as whoever started it knows it, such as `subprocess.Popen`."""

    @property
    def pid(self) -> int:
        """Its number."""

    def poll(self) -> int | None:
        """Its exit code, minus the number of the signal that ended it; None while it runs."""


class LocalNode:
    """A node that this machine runs from a directory; not safe between threads."""

    def __init__(self, config_file: Path) -> None:
        """Read the configuration; ConfigError when it is wrong."""
        self.config_file = config_file.resolve()
        self.directory = self.config_file.parent
        # Variables of the caller's shell are for the caller's own node.
        self.config: Config = load(self.config_file, environment={}).config
        self.name = self.config.node.name
        self.role = self.config.node.role
        socket = self.config.http.socket
        assert socket is not None, "reading settings fills in the socket's default"
        self.socket: Path = socket
        self.log_file = self.directory / "node.log"
        self.pid_file = self.directory / "node.pid"
        self.logs_are = str(self.log_file)
        self.log_from = 0
        self.poll_s = 0.02
        # What comes before `run --config FILE`; a test of clocks puts its own program in front.
        self.program: tuple[str, ...] = (sys.executable, "-m", "p2pcity")
        # Tests that start hundreds of nodes fork them from a process that has all imports.
        self.launch: Callable[[LocalNode, IO[bytes]], Process] = launch
        self._process: Process | None = None

    def client(self, timeout_s: float = 10.0) -> Client:
        """Return a client of the node's Unix socket; nothing is opened yet."""
        return Client(self.socket, timeout_s=timeout_s)

    @property
    def pid(self) -> int | None:
        """The pid of the running process, None when there is none."""
        if self._process is not None and self._process.poll() is None:
            # A child needs no look at /proc, where it has no command line for a moment after exec.
            return self._process.pid
        try:
            pid = int(self.pid_file.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None
        return pid if self._is_ours(pid) else None

    def start(self) -> None:
        """Start the process in a session of its own; it must not run yet."""
        assert self.pid is None, f"{self.name} runs already"
        prepare_socket_directory(self.socket)
        # Between its start and our knowing of it, a Ctrl-C would leave the process behind.
        with self.log_file.open("ab") as output, signals.deferred():
            self._process = self.launch(self, output)
            self.pid_file.write_text(f"{self._process.pid}\n", encoding="ascii")

    def send(self, number: signal.Signals) -> bool:
        """Send a signal; False when there is no process."""
        pid = self.pid
        if pid is None:
            return False
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return False
        return True

    def pause(self) -> bool:
        """Stop the process where it is, as SIGSTOP does; whether it is seen to be stopped."""
        if not self.send(signal.SIGSTOP):
            return False
        until_s = time.monotonic() + _STOPPED_S
        while self._stat()[:1] != ["T"]:
            if time.monotonic() >= until_s:
                return False
            time.sleep(self.poll_s)
        return True

    def resume(self) -> None:
        """Let a process that was paused go on."""
        self.send(signal.SIGCONT)

    def wait_gone(self, until_s: float) -> bool:
        """Wait until the process has ended, at most until `until_s` of time.monotonic()."""
        while self.pid is not None:
            if time.monotonic() >= until_s:
                return False
            time.sleep(self.poll_s)
        return True

    @property
    def exit_code(self) -> int | None:
        """The exit code of a process that this program started, None when it runs or is unknown.

        Minus the number of the signal that ended it, as subprocess has it.
        """
        return None if self._process is None else self._process.poll()

    def check_alive(self) -> None:
        """Raise Unavailable with the last lines of its log when the process has ended."""
        if self.pid is not None:
            return
        code = self.exit_code
        ended = "has ended" if code is None else f"ended with exit code {code}"
        last = " | ".join(self.last_lines(3)) or "its log is empty"
        raise Unavailable(f"{self.name} {ended}: {last}", remedy=f"Read {self.logs_are}.")

    def last_lines(self, count: int) -> list[str]:
        """Return the last lines of the node's log."""
        try:
            with self.log_file.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _TAIL_BYTES))
                text = file.read().decode(errors="replace")
        except FileNotFoundError:
            return []
        return text.splitlines()[-count:]

    def log_text(self) -> str:
        """Return what the node has logged, from the byte `log_from` on."""
        return self.log_file.read_bytes()[self.log_from :].decode(errors="replace")

    def find_damage(self) -> str:
        """Return what `p2pcity check` says of a stopped node; empty when all is sound."""
        call = [sys.executable, "-m", "p2pcity", "check", "--config", str(self.config_file)]
        return said_of(
            subprocess.run(
                [*call, "--json"], capture_output=True, text=True, timeout=CHECK_S, check=False
            )
        )

    def cpu_s(self) -> float | None:
        """Return the CPU seconds that the process used so far, None without a process."""
        fields = self._stat()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND if fields else None

    def _stat(self) -> list[str]:
        """The fields of proc_pid_stat(5) from the state on; none without a process."""
        pid = self.pid
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        # The second field is the program's name in parentheses and may hold anything.
        return stat.rpartition(")")[2].split()

    def _is_ours(self, pid: int) -> bool:
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        # A zombie has no command line: it counts as gone.
        return os.fsencode(self.config_file) in arguments and any(
            b"p2pcity" in argument for argument in arguments[:3]
        )


def said_of(done: subprocess.CompletedProcess[str]) -> str:
    """Return the end of what a program said that failed; empty when it did not fail."""
    if not done.returncode:
        return ""
    said = done.stdout.strip() or done.stderr.strip()
    return said[-_SAID_MAX:] or f"exit code {done.returncode}"


def launch(node: LocalNode, output: IO[bytes]) -> Process:
    """Start a node's program, with what it prints going to `output`; returns its process."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("P2PCITY_")
    }
    return subprocess.Popen(
        [*node.program, "run", "--config", str(node.config_file)],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    )
