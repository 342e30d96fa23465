"""A real systemd as PID 1 in a container, with p2pcity from a wheel in it.

The tree (Debian, and the wheels of what p2pcity needs) is made once and kept in TESTS_SYSTEMD_TREE,
by default /var/tmp/p2pcity-systemd; each session boots a copy of it. The network inside is the
loopback alone.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent.parent
RIGS: Final = Path(os.environ.get("TESTS_RIGS") or ROOT.parent / "shared" / "rigs")
TREE: Final = Path(os.environ.get("TESTS_SYSTEMD_TREE") or "/var/tmp/p2pcity-systemd/tree")
TOOLS: Final = ("systemd-nspawn", "debootstrap", "nsenter", "strace")
PROGRAM: Final = "/opt/p2pcity/bin/p2pcity"
DEADLINE_S: Final = 60.0
_POLL_S: Final = 0.1
_LET_GO_S: Final = 5.0
_PYTHON: Final = (3, 11)  # of Debian 12, which the tree is made of


def why_not() -> str:
    """Why no box can be had here; empty where it can."""
    if os.geteuid():
        return "it needs root"
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return (
            f"{', '.join(missing)} missing: "
            "apt-get install -y --no-install-recommends systemd-container debootstrap strace"
        )
    if not (RIGS / "systemd-box.sh").is_file():
        return f"{RIGS}/systemd-box.sh is missing (TESTS_RIGS)"
    if sys.version_info[:2] != _PYTHON:
        return f"the wheels are made for the tree's Python: call it with {_PYTHON}"
    return ""


def _done(command: Sequence[str | Path], **named: Any) -> None:
    done = subprocess.run(command, capture_output=True, text=True, **named)
    if done.returncode:
        pytest.fail(f"{' '.join(map(str, command))}: {done.stdout[-2000:]}{done.stderr[-2000:]}")


def make_debian(script: str, *arguments: str | Path) -> None:
    """Run one of the rigs that make a Debian; where none can be had, the tests skip and say why."""
    command = ["bash", RIGS / script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = f"{done.stdout[-300:]}{done.stderr[-300:]}".strip()
        pytest.skip(f"{script} makes no Debian here ({done.returncode}): {last}")


def make_wheel(into: Path, *arguments: str | Path) -> None:
    """Run `pip wheel` with these arguments; the wheels go `into` a directory."""
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--disable-pip-version-check"]
    _done([*command, "-w", into, *arguments], cwd=ROOT)


def make_tree() -> Path:
    """Return the tree with an environment at /opt/p2pcity that lacks p2pcity alone."""
    constraints = ROOT / "constraints.txt"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    said = repr(project["dependencies"]).encode() + constraints.read_bytes()
    needs = hashlib.sha256(said).hexdigest()
    mark = TREE.with_name(f"{TREE.name}.needs")
    if mark.is_file() and mark.read_text() == needs:
        return TREE
    TREE.parent.mkdir(parents=True, exist_ok=True)
    if not (TREE / "usr" / "bin" / "python3").exists():
        shutil.rmtree(TREE, ignore_errors=True)
        make_debian("systemd-box.sh", "build", TREE)
    wheels = TREE / "opt" / "wheels"
    shutil.rmtree(TREE / "opt" / "p2pcity", ignore_errors=True)
    shutil.rmtree(wheels, ignore_errors=True)
    make_wheel(wheels, "-c", constraints, ROOT)
    [own] = wheels.glob("p2pcity-*.whl")
    own.unlink()
    names = [f"/opt/wheels/{path.name}" for path in sorted(wheels.glob("*.whl"))]
    _done(["chroot", TREE, "python3", "-m", "venv", "/opt/p2pcity"])
    pip = ["/opt/p2pcity/bin/pip", "install", "-q", "--no-index", "--no-deps"]
    _done(["chroot", TREE, *pip, *names])
    shutil.rmtree(wheels)
    mark.write_text(needs)
    return TREE


class Box:
    """A booted copy of the tree."""

    def __init__(self, place: Path) -> None:
        self.root = place / "box"
        self._place = place
        self._init: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._fill()
        self._boot()
        return self

    def _fill(self) -> None:
        """Put p2pcity into a copy of the tree, from a wheel."""
        _done(["cp", "-a", "--reflink=auto", make_tree(), self.root])
        wheels = self._place / "wheels"
        make_wheel(wheels, "--no-deps", ROOT)
        [own] = wheels.glob("p2pcity-*.whl")
        shutil.copy(own, self.root / "opt" / own.name)
        pip = ["/opt/p2pcity/bin/pip", "install", "-q", "--no-index", "--no-deps"]
        _done(["chroot", self.root, *pip, f"/opt/{own.name}"])

    def _boot(self) -> None:
        with (self._place / "boot.log").open("wb") as log:
            self._init = subprocess.Popen(
                ["bash", RIGS / "systemd-box.sh", "boot", self.root],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until_s = time.monotonic() + DEADLINE_S
        # Asked again and again, as in `wait`: what boots in there tells nobody out here.
        while not self._is_up():
            if self._init.poll() is not None or time.monotonic() > until_s:
                # Nothing of ours runs in it yet: the machine lacks what a container needs.
                self.__exit__()
                last = (self._place / "boot.log").read_text(errors="replace").strip()[-300:]
                pytest.skip(f"no systemd boots in a container here: {last}")
            time.sleep(_POLL_S)

    def __exit__(self, *_: object) -> None:
        assert self._init is not None
        subprocess.run(["bash", RIGS / "systemd-box.sh", "stop", self.root], capture_output=True)
        try:
            self._init.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._init.kill()
            self._init.wait()

    def _is_up(self) -> bool:
        done = self.run("systemctl", "is-system-running", is_checked=False)
        return done.strip() in ("running", "degraded")

    def command(self, *command: str) -> list[str | Path]:
        """The call that runs a command inside."""
        return ["bash", RIGS / "systemd-box.sh", "run", self.root, *command]

    def run(self, *command: str, is_checked: bool = True, timeout_s: float = 2 * DEADLINE_S) -> str:
        """Run a command inside; its output. Fails when the command does, if `is_checked`."""
        done = subprocess.run(
            self.command(*command),
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        if is_checked and done.returncode:
            pytest.fail(f"{' '.join(command)}: {done.stdout[-3000:]}{done.stderr[-3000:]}")
        return done.stdout

    def p2pcity(self, *arguments: str) -> str:
        """Run the command line inside, as root."""
        return self.run(PROGRAM, *arguments)

    def json(self, *arguments: str) -> Any:
        """Run a command of p2pcity with --json; its document."""
        return json.loads(self.p2pcity(*arguments, "--json"))

    def wait(
        self, is_so: Callable[[], bool], what: str, *, deadline_s: float = DEADLINE_S
    ) -> float:
        """Wait until `is_so()`; how long that took in s."""
        begin_s = time.monotonic()
        while not is_so():
            if time.monotonic() - begin_s > deadline_s:
                pytest.fail(f"not within {deadline_s} s: {what}\n{self.journal_text()}")
            time.sleep(_POLL_S)
        return time.monotonic() - begin_s

    # -- units -------------------------------------------------------------------------------

    def show(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.run("systemctl", "show", "--value", "-p", name, unit).strip()

    def drop_in(self, unit: str, name: str, text: str) -> None:
        """Write a drop-in and have it read; an empty text takes it away."""
        path = self.root / "etc" / "systemd" / "system" / f"{unit}.d" / f"{name}.conf"
        path.parent.mkdir(parents=True, exist_ok=True)
        if text:
            path.write_text(text)
        else:
            path.unlink()
        self.run("systemctl", "daemon-reload")

    def journal(self, unit: str, cursor: str = "") -> list[dict[str, Any]]:
        """The journal's entries of a unit, since a cursor."""
        after = [f"--after-cursor={cursor}"] if cursor else []
        self.run("journalctl", "--sync", is_checked=False)
        text = self.run("journalctl", "--all", "-o", "json", "--no-pager", "-u", unit, *after)
        return [json.loads(line) for line in text.splitlines()]

    def lines(self, unit: str, cursor: str = "") -> list[dict[str, Any]]:
        """What the node itself wrote, as JSON, since a cursor."""
        messages = [str(entry.get("MESSAGE")) for entry in self.journal(unit, cursor)]
        return [json.loads(message) for message in messages if message.startswith("{")]

    def cursor(self) -> str:
        """The end of the journal."""
        text = self.run("journalctl", "-n", "1", "-o", "json", "--no-pager")
        return str(json.loads(text)["__CURSOR"])

    def journal_text(self) -> str:
        """The end of the whole journal, to be shown when a test fails."""
        return self.run("journalctl", "--no-pager", "-n", "60", is_checked=False)

    # -- processes ---------------------------------------------------------------------------

    def host_pid(self, unit: str) -> int:
        """The number outside of the box that a unit's main process has."""
        inner = self.show(unit, "MainPID")
        for place in Path("/proc").glob("[0-9]*"):
            try:
                status = (place / "status").read_text()
                command = (place / "cmdline").read_bytes()
            except OSError:
                continue  # it has just ended
            [numbers] = [line for line in status.splitlines() if line.startswith("NSpid:")]
            inside = numbers.split()[2:]
            if inside and inside[-1] == inner and PROGRAM.encode() in command:
                return int(place.name)
        pytest.fail(f"{unit} has no process: {self.journal_text()}")

    @contextmanager
    def delayed(self, unit: str, call: str, delay_s: int, *, is_loop: bool) -> Iterator[None]:
        """Let the next system call `call` begin `delay_s` late.

        Of the thread that turns the event loop alone (`is_loop`), or of each thread.
        """
        pid = self.host_pid(unit)
        task = Path(f"/proc/{pid}/task/{pid}")
        inject = f"inject={call}:delay_enter={delay_s}s:when=1"
        threads = [] if is_loop else ["-f"]
        tracer = subprocess.Popen(
            ["strace", "-q", *threads, "-p", str(pid), "-e", f"trace={call}", "-e", inject],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            self.wait(lambda: _is_traced(task), "strace is attached")
            yield
        finally:
            tracer.terminate()
            try:
                tracer.wait(_LET_GO_S)
            except subprocess.TimeoutExpired:
                tracer.kill()
                tracer.wait()


def _is_traced(task: Path) -> bool:
    [line] = [
        line for line in (task / "status").read_text().splitlines() if line.startswith("TracerPid:")
    ]
    return line.split()[1] != "0"


if __name__ == "__main__":
    # Made beforehand, so that the first test need not.
    print(why_not() or make_tree())
