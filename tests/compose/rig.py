"""A Docker engine and the image, for tests of networks in containers.

An engine that runs is used; without one, root's `dockerd` is started for the session. The image
is built of this tree: its base (TESTS_BASE_IMAGE, else p2pcity-base, which
`../shared/rigs/base-image.sh` makes without a registry) is kept, wheels are made by this Python.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from p2pcity.cli.testnet.containers import find_compose
from tests.integration.process_case import wait_until
from tests.systemd.box import TREE, make_debian

ROOT: Final = Path(__file__).resolve().parent.parent.parent
RIGS: Final = Path(os.environ.get("TESTS_RIGS") or ROOT.parent / "shared" / "rigs")
BASE: Final = os.environ.get("TESTS_BASE_IMAGE") or "p2pcity-base"
IMAGE: Final = "p2pcity-test"
_ENGINE_S: Final = 30.0
_PYTHON: Final = (3, 11)  # of Debian 12, which the base is made of


def run(*command: str | Path, **named: Any) -> str:
    """Run a command that must succeed; what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **named)
    if done.returncode:
        pytest.fail(f"{' '.join(map(str, command))}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def p2pcity_testnet(*arguments: str) -> str:
    """Run `p2pcity testnet ...`, which must succeed; what it printed."""
    return run("p2pcity", "testnet", *arguments)


def has_engine() -> bool:
    """Whether a Docker engine answers."""
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


def why_not() -> str:
    """Why no containers can be had here; empty where they can."""
    tools = [tool for tool in ("docker", "dockerd", "docker-compose") if not shutil.which(tool)]
    if tools:
        return (
            f"{', '.join(tools)} missing: "
            "apt-get install -y --no-install-recommends docker.io docker-compose iptables"
        )
    if os.geteuid():
        return "it needs root: it reads the volumes' files"
    if "TESTS_BASE_IMAGE" not in os.environ:
        if not (RIGS / "base-image.sh").is_file():
            return f"{RIGS}/base-image.sh is missing (TESTS_RIGS), and TESTS_BASE_IMAGE is not set"
        if not shutil.which("debootstrap"):
            return "debootstrap is missing: apt-get install -y --no-install-recommends debootstrap"
        if sys.version_info[:2] != _PYTHON:
            return f"the wheels are made for the base's Python: call it with {_PYTHON}"
    return ""


WHY_NOT: Final = why_not()
needs_containers: Final = [
    pytest.mark.compose,
    pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT),
]


@contextmanager
def engine() -> Iterator[None]:
    """A Docker engine while the block runs."""
    if has_engine():
        yield
        return
    with tempfile.TemporaryDirectory(prefix="p2pcity-docker-") as directory:
        log = Path(directory) / "log"
        root = os.environ.get("TESTS_DOCKER_ROOT") or f"{directory}/root"
        with log.open("wb") as output:
            daemon = subprocess.Popen(
                ["dockerd", "--data-root", root, "--pidfile", f"{directory}/pid"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_until(
                lambda: has_engine() or daemon.poll() is not None,
                "the engine answers",
                deadline_s=_ENGINE_S,
            )
            if daemon.poll() is not None:
                pytest.skip(f"no engine can be started: {log.read_text().splitlines()[-1:]}")
            yield
        finally:
            daemon.terminate()
            daemon.wait(_ENGINE_S)


def make_base() -> None:
    """Make the base image, of the Debian for the tests of systemd where that is made already."""
    if not (TREE / "usr" / "bin" / "python3").exists():
        with tempfile.TemporaryDirectory() as work:
            make_debian("base-image.sh", work)
        return
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    change = f"ENV LANG=C.UTF-8 {path}"
    # Without our own environment in it, which the image is to make for itself.
    pack = ["tar", "-C", str(TREE), "--exclude=./dev/*", "--exclude=./opt/*", "-c", "."]
    with subprocess.Popen(pack, stdout=subprocess.PIPE) as packing:
        run("docker", "import", "-c", change, "-c", 'CMD ["bash"]', "-", BASE, stdin=packing.stdout)
    assert packing.returncode == 0, "the tree could not be packed"


def build_image() -> float:
    """Build the image of this tree; how long that took without the base, in s."""
    if not run("docker", "images", "-q", BASE).strip():
        make_base()
    begin_s = time.monotonic()
    with tempfile.TemporaryDirectory() as context:
        for name in ("LICENSE", "README.md", "constraints.txt", "pyproject.toml"):
            shutil.copy(ROOT / name, context)
        junk = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "p2pcity", Path(context) / "p2pcity", ignore=junk)
        _make_wheels(Path(context))
        arguments = ["--build-arg", f"BASE_IMAGE={BASE}", "-t", IMAGE]
        run("docker", "build", *arguments, "-f", ROOT / "testnet" / "Dockerfile", context)
    return time.monotonic() - begin_s


def _make_wheels(context: Path) -> None:
    """Wheels of this tree, and of what it needs, which are kept for the next time."""
    wheel = [sys.executable, "-m", "pip", "wheel", "-q", "--disable-pip-version-check"]
    pins = (context / "pyproject.toml").read_bytes() + (context / "constraints.txt").read_bytes()
    name = f"p2pcity-wheels-{hashlib.sha256(pins).hexdigest()[:16]}"
    kept = Path(tempfile.gettempdir()) / name
    if not kept.exists():
        made = context / "made"
        run(*wheel, "-c", context / "constraints.txt", "-w", made, context)
        for own in made.glob("p2pcity-*"):
            own.unlink()
        made.rename(kept)
    shutil.copytree(kept, context / "wheelhouse")
    run(*wheel, "--no-deps", "-w", context / "wheelhouse", context)


class Compose:
    """Compose for one file under a project's name of its own."""

    def __init__(self, file: Path, project: str) -> None:
        self._call = [*find_compose(), "-f", str(file), "-p", project]
        self.project = project

    def __call__(self, *arguments: str) -> str:
        """Run it with these arguments; what it printed."""
        return run(*self._call, *arguments, env={**os.environ, "P2PCITY_IMAGE": IMAGE})

    def containers(self, service: str = "") -> list[str]:
        """The ids of the project's containers, or of one service's."""
        return self("ps", "-q", *([service] if service else [])).split()

    def health(self) -> Mapping[str, str]:
        """The health of each container that runs and has any, by its host name."""
        shown = "{{.Config.Hostname}} {{if .State.Health}}{{.State.Health.Status}}{{end}}"
        found = self.containers()
        rows = run("docker", "inspect", "-f", shown, *found).splitlines() if found else []
        return {row.split()[0]: row.split()[1] for row in rows if len(row.split()) == 2}

    def wait_healthy(self, count: int, deadline_s: float) -> float:
        """Wait until so many containers are healthy; how long that took in s."""
        begin_s = time.monotonic()
        wait_until(
            lambda: list(self.health().values()).count("healthy") == count,
            f"{count} healthy containers",
            deadline_s=deadline_s,
            poll_s=0.5,
        )
        return time.monotonic() - begin_s
