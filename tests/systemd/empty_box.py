"""A booted box with nothing in it but Debian, the sources, and a user who may use sudo."""

import os
import re
import shutil
import subprocess
import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.systemd.box import ROOT, Box, make_tree, make_wheel

USER: Final = "clerk"
SOURCES: Final = f"/home/{USER}/p2pcity"
_CERTIFICATES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
_MINUTES_S: Final = 900.0


def blocks(title: str) -> list[list[str]]:
    """The blocks of commands under a heading of the README, line by line."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]
    found: list[list[str]] = [[]]
    for line in section.splitlines():
        if line.startswith("    "):
            found[-1].append(textwrap.dedent(line))
        elif line.strip() and found[-1]:
            found.append([])
    return [block for block in found if block]


class EmptyBox(Box):
    """What a new user has.

    Its network is the loopback alone; the lines `installing` run before it boots, with the host's.
    """

    def __init__(self, place: Path, installing: Sequence[str]) -> None:
        super().__init__(place)
        self._installing = installing

    def _fill(self) -> None:
        subprocess.run(["cp", "-a", "--reflink=auto", make_tree(), self.root], check=True)
        shutil.rmtree(self.root / "opt" / "p2pcity")
        if _CERTIFICATES.exists():
            # Whom this host trusts for its packages.
            shutil.copy(_CERTIFICATES, self.root / _CERTIFICATES.relative_to("/"))
        shutil.copy("/etc/resolv.conf", self.root / "etc" / "resolv.conf")
        self._prepare("apt-get update -q && apt-get install -y -q sudo && apt-get clean")
        self._prepare(f"useradd -m -s /bin/bash {USER} && mkdir {SOURCES}")
        sudoers = self.root / "etc" / "sudoers.d" / USER
        sudoers.write_text(f'{USER} ALL=(ALL) NOPASSWD: ALL\nDefaults env_keep += "*"\n')
        tar = subprocess.run(
            ["tar", "-c", "--no-recursion", "-T", "-"],
            input=subprocess.run(
                ["git", "ls-files"], cwd=ROOT, capture_output=True, check=True
            ).stdout,
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout
        place = self.root / SOURCES.lstrip("/")
        subprocess.run(["tar", "-x", "-C", place, "--no-same-owner"], input=tar, check=True)
        self._prepare(f"chown -R {USER}: /home/{USER}")
        for line in self._installing:
            self._prepare(line, user=USER, directory=SOURCES)

    def put_release(self, version: str) -> None:
        """Put a wheel of this tree under another version into the sources."""
        with tempfile.TemporaryDirectory() as directory:
            tree = Path(directory) / "tree"
            shutil.copytree(
                ROOT, tree, ignore=shutil.ignore_patterns(".*", "tests", "build", "*.egg-info")
            )
            project = tree / "pyproject.toml"
            now = re.compile(r'^version = ".*"$', re.MULTILINE)
            text = now.sub(f'version = "{version}"', project.read_text(encoding="utf-8"), count=1)
            project.write_text(text, encoding="utf-8")
            make_wheel(Path(directory), "--no-deps", tree)
            [wheel] = Path(directory).glob("p2pcity-*.whl")
            shutil.copy(wheel, self.root / SOURCES.lstrip("/") / wheel.name)

    def _prepare(self, command: str, *, user: str = "root", directory: str = "/") -> None:
        done = subprocess.run(
            ["chroot", self.root, "su", user, "-c", f"cd {directory} && {command}"],
            capture_output=True,
            text=True,
            timeout=_MINUTES_S,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "HOME": f"/home/{USER}"},
        )
        if done.returncode:
            pytest.fail(f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}")

    def say(self, line: str, *, directory: str, code: int = 0) -> str:
        """Run a line of the README as the user does, by a login shell; what it printed."""
        done = subprocess.run(
            self.command("su", "-", USER, "-c", f"cd {directory} && {line}"),
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode != code:
            pytest.fail(f"{line}: {done.returncode}, {done.stdout[-3000:]}{done.stderr[-3000:]}")
        return done.stdout + done.stderr
