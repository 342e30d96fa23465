"""Daemons that start without a second of imports: forks of one process that has them all.

For tests that start a node hundreds of times. What runs in the fork is `p2pcity run` as ever,
from its command line on. The process behind it is this module's `main`.
"""

import atexit
import ctypes
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, NoReturn, Self

from p2pcity.api.client import ApiProblem, Client, Unreachable
from p2pcity.cli.testnet import local_node
from p2pcity.cli.testnet.local_node import LocalNode, Process

_BYTES_MAX: Final = 1 << 16
_START_S: Final = 60.0
_TRACER_S: Final = 120.0
_POLL_S: Final = 0.005
_SET_PTRACER: Final = 0x59616D61
_ANY_TRACER: Final = ctypes.c_ulong(-1)


class WarmStart:
    """Starts daemons as forks; a context manager that kills what still runs at its end."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        self._socket = ours
        self._socket.settimeout(_START_S)
        self._lock = threading.Lock()
        self._running: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill all that run, and end the process behind it."""
        self.kill()
        self._socket.close()
        self._process.wait(_START_S)

    def _ask(self, **request: Any) -> int:
        with self._lock:
            self._socket.sendall(json.dumps(request).encode())
            return int(self._socket.recv(_BYTES_MAX))

    def start(
        self,
        node: LocalNode,
        plugin: str = "",
        arguments: Sequence[str] = (),
        *,
        held: bool = False,
    ) -> int:
        """Start a node's daemon and return its pid.

        `plugin` is a module whose `install(*arguments)` is called before the command line runs;
        `held` lets the process wait until it is traced.
        """
        pid = self._ask(
            config=str(node.config_file),
            log=str(node.log_file),
            plugin=plugin,
            arguments=list(arguments),
            held=held,
        )
        self._running.add(pid)
        return pid

    def kill(self) -> None:
        """Kill all that run."""
        for pid in list(self._running):
            os.kill(pid, signal.SIGKILL)
            self.wait(pid)

    def wait(self, pid: int) -> int:
        """Wait for the end of a process and return its exit code, minus a signal's number."""
        code = self._ask(wait=pid)
        self._running.remove(pid)
        return code


class WarmProcess:
    """A fork of a process that has all imports, seen as `LocalNode` sees what it starts."""

    def __init__(self, warm: WarmStart, pid: int) -> None:
        self.pid = pid
        self._warm = warm
        self._descriptor = os.pidfd_open(pid)
        self._exit_code: int | None = None
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """Its exit code, minus the number of the signal that ended it; None while it runs."""
        with self._lock:
            if self._exit_code is None and select.select([self._descriptor], [], [], 0)[0]:
                self._exit_code = self._warm.wait(self.pid)
                os.close(self._descriptor)
            return self._exit_code


@cache
def _shared() -> WarmStart:
    warm = WarmStart()
    atexit.register(warm.close)
    return warm


def launch_warm(
    node: LocalNode, output: IO[bytes], *, plugin: str = "", arguments: Sequence[str] = ()
) -> Process:
    """`local_node.launch` without a second of imports; a program of its own starts as ever."""
    if node.program != (sys.executable, "-m", "p2pcity"):
        return local_node.launch(node, output)
    return WarmProcess(_shared(), _shared().start(node, plugin, arguments))


def is_gone(pid: int) -> bool:
    """Whether a process has ended; it may still wait for its parent to look."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"


def wait_serving(node: LocalNode, pid: int, deadline_s: float) -> bool:
    """Wait until /readyz of a node says so; False when its process ends first."""
    until_s = time.monotonic() + deadline_s
    with node.client() as client:
        while not is_gone(pid):
            if _is_ready(client):
                return True
            assert time.monotonic() < until_s, f"{node.name} is not ready in {deadline_s} s"
            time.sleep(_POLL_S)
    return False


def _is_ready(client: Client) -> bool:
    try:
        client.get("/readyz")
    except (Unreachable, ApiProblem):
        return False
    return True


def main(descriptor: int) -> None:
    """Fork a daemon for each request until the other end closes; runs in its own process."""
    for name in ("p2pcity.cli.main", "p2pcity.cli.run", "p2pcity.node.node"):
        import_module(name)
    with socket.socket(fileno=descriptor) as channel:
        while data := channel.recv(_BYTES_MAX):
            request = json.loads(data)
            if "wait" in request:
                _, status = os.waitpid(request["wait"], 0)
                answer = os.waitstatus_to_exitcode(status)
            elif (answer := os.fork()) == 0:
                channel.close()
                _run(request)
            channel.sendall(str(answer).encode())


def _run(request: dict[str, Any]) -> NoReturn:
    """Become the daemon."""
    os.setsid()
    output = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    random.seed()
    for name in [name for name in os.environ if name.startswith("P2PCITY_")]:
        del os.environ[name]
    # Where a process may only trace its children: whoever wants to.
    ctypes.CDLL(None).prctl(_SET_PTRACER, _ANY_TRACER)
    until_s = time.monotonic() + _TRACER_S
    while request["held"] and not is_traced(os.getpid()):
        # Whoever wanted to trace it may be gone: then its log says so, and it ends.
        assert time.monotonic() < until_s, f"no tracer came in {_TRACER_S} s"
        time.sleep(_POLL_S)
    if request["plugin"]:
        import_module(request["plugin"]).install(*request["arguments"])
    main_module = import_module("p2pcity.cli.main")
    main_module.main(["run", "--config", request["config"]])
    raise AssertionError("the command line does not return")


def is_traced(pid: int) -> bool:
    """Whether all threads of a process have a tracer."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        status = (task / "status").read_text(encoding="utf-8")
        if "TracerPid:\t0\n" in status:
            return False
    return True


if __name__ == "__main__":
    main(int(sys.argv[1]))
