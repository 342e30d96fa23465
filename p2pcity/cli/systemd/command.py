"""`p2pcity systemd install`: the units, for the environment that this command runs in."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Final

import click

from p2pcity.cli.output import json_option, print_json
from p2pcity.errors import ConfigError

SHIPPED_PROGRAM: Final = "/opt/p2pcity/bin/p2pcity"
"""The program in the units as they are shipped."""

_PLACES: Final = {
    "p2pcity.service": "etc/systemd/system/p2pcity.service",
    "p2pcity@.service": "etc/systemd/system/p2pcity@.service",
    "p2pcity.sysusers": "etc/sysusers.d/p2pcity.conf",
    "p2pcity.tmpfiles": "etc/tmpfiles.d/p2pcity.conf",
}
# What each file needs done before a node can start.
_STEPS: Final = (
    ("systemd-sysusers", "/etc/sysusers.d/p2pcity.conf"),
    ("systemd-tmpfiles", "--create", "/etc/tmpfiles.d/p2pcity.conf"),
    ("systemctl", "daemon-reload"),
)
_STEP_TIMEOUT_S: Final = 60
# ProtectHome= and PrivateTmp= take these away from the node.
HIDDEN: Final = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")


@click.group()
def systemd() -> None:
    """Install the units for systemd."""


@systemd.command()
@click.option("--print", "is_printing", is_flag=True, help="Print the files, write nothing.")
@click.option(
    "--prefix",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/"),
    show_default=True,
    help="The root of the host's files: for an image or a package. Then no step is taken.",
)
@json_option
def install(is_printing: bool, prefix: Path, is_json: bool) -> None:
    """Write the units for the environment that this command runs in.

    p2pcity.service runs the node `main`, p2pcity@NAME.service any other; p2pcity init --system
    makes what they run. Files that are there are replaced: keep changes in drop-ins. Without
    --prefix, on a running systemd, the group p2pcity and /run/p2pcity are made too.
    """
    program = find_program()
    files = {f"/{place}": rendered(name, program) for name, place in _PLACES.items()}
    hidden = hidden_parts(environment_paths(program))
    if is_printing:
        if is_json:
            print_json("systemd-install", {"program": str(program), "files": files})
        else:
            print("\n".join(f"# {path}\n{text}" for path, text in files.items()), end="")
        if hidden:
            print(f"p2pcity: {_hidden_sentence(hidden)}. {_HIDDEN_REMEDY}", file=sys.stderr)
        return
    if hidden:
        raise ConfigError(_hidden_sentence(hidden), remedy=_HIDDEN_REMEDY)
    for path, text in files.items():
        _write(prefix / path.removeprefix("/"), text)
    is_live = prefix.resolve() == Path("/") and os.path.isdir("/run/systemd/system")
    if is_live:
        for step in _STEPS:
            _take(step)
    if is_json:
        print_json("systemd-install", {"program": str(program), "files": files})
        return
    for path in files:
        print(prefix / path.removeprefix("/"))
    if not is_live:
        print("Then: " + " && ".join(shlex.join(step) for step in _STEPS))
    print(
        "Next: p2pcity init --system, genesis.cbor beside its card, systemctl enable --now p2pcity"
    )


_HIDDEN_REMEDY: Final = (
    "Install p2pcity where the node can read it: python3 -m venv /opt/p2pcity && "
    "/opt/p2pcity/bin/pip install p2pcity, and run /opt/p2pcity/bin/p2pcity systemd install."
)


def _hidden_sentence(hidden: list[str]) -> str:
    return f"the units keep their nodes out of {', '.join(hidden)}, which this p2pcity needs"


def find_program() -> Path:
    """Return the `p2pcity` program of this environment; ConfigError when it has none."""
    program = Path(sys.prefix) / "bin" / "p2pcity"
    if not program.is_file():
        program = Path(sys.argv[0]).absolute()
    if program.name != "p2pcity" or not os.access(program, os.X_OK):
        raise ConfigError(
            f"{sys.prefix} has no p2pcity program",
            remedy="Install the package with pip, and call the p2pcity that it makes.",
        )
    return program


def environment_paths(program: Path) -> list[Path]:
    """Return what a node reads that runs `program` in this environment."""
    interpreter = Path(sys.executable)
    found = [program, program.resolve(), Path(sys.prefix), Path(sys.base_prefix)]
    return [*found, interpreter, interpreter.resolve()]


def hidden_parts(paths: list[Path]) -> list[str]:
    """Return which of `paths` a node can't see from inside of its unit."""
    found = (str(path) for path in paths if any(path.is_relative_to(part) for part in HIDDEN))
    return list(dict.fromkeys(found))


def rendered(name: str, program: Path) -> str:
    """Return a shipped file for `program`; ConfigError when its path can't stand in a unit."""
    text = str(program)
    if any(character.isspace() or character in "%\"'\\$" for character in text):
        raise ConfigError(
            f"{text!r} has characters that mean something else in a unit",
            remedy="Install p2pcity in a directory with a plain name, such as /opt/p2pcity.",
        )
    shipped = resources.files("p2pcity.cli.systemd").joinpath(name).read_text(encoding="utf-8")
    return shipped.replace(SHIPPED_PROGRAM, text)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.new")
        fresh.write_text(text, encoding="utf-8")
        fresh.chmod(0o644)
        fresh.replace(path)
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}", remedy="Run this as root, or name a place with --prefix."
        ) from None


def _take(step: tuple[str, ...]) -> None:
    try:
        done = subprocess.run(step, capture_output=True, text=True, timeout=_STEP_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = str(error)
    else:
        if done.returncode == 0:
            return
        reason = done.stderr.strip() or f"exit code {done.returncode}"
    raise ConfigError(
        f"the units are written, but {shlex.join(step)} failed: {reason}",
        remedy="Run it yourself, and the steps after it: "
        + " && ".join(shlex.join(item) for item in _STEPS),
    )
