"""`p2pcity debug bundle`: one file with what whoever helps would ask for."""

from __future__ import annotations

import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from p2pcity.cli.config import settings_document
from p2pcity.cli.node_address import config_option, find_config_file, open_client, token_option
from p2pcity.cli.output import json_option, print_json
from p2pcity.errors import ConfigError, P2PCityError, Unavailable

if TYPE_CHECKING:
    from p2pcity.api.client import Client
    from p2pcity.node.config import Config

PART_BYTES_MAX: Final = 8 * 1024 * 1024
_LINES: Final = 5_000
_JOURNAL_S: Final = 30.0
_PROCESS_FILES: Final = ("status", "limits", "io", "stat")
_ANSWERS: Final = {
    "status.json": "/v1/status",
    "peers.json": "/v1/peers",
    "raft.json": "/v1/raft",
    "mempool.json": "/v1/mempool",
    "metrics.txt": "/metrics",
    "readyz.json": "/readyz",
}


@click.group()
def debug() -> None:
    """Gather what is needed to find out what went wrong."""


@debug.command()
@config_option
@token_option
@click.option(
    "-o",
    "--output",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file to write [default: p2pcity-NAME-TIME.tar.gz here].",
)
@click.option(
    "--log",
    "log_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The daemon's log [default: the journal's unit, or node.log beside the configuration].",
)
@json_option
def bundle(
    config_file: Path | None,
    token_file: Path | None,
    file: Path | None,
    log_file: Path | None,
    is_json: bool,
) -> None:
    """Put a node's state, findings, settings and last log lines into one file.

    It works when the daemon is down. No keys, tokens, events or transactions go into it; names,
    addresses and settings do. about.json in it says what could not be had, and why.
    """
    from p2pcity.node.config_reading import load

    loaded = load(find_config_file(config_file))
    config = loaded.config
    made = Bundle()
    made.add("config.json", lambda: _json(settings_document(loaded)))
    with open_client(str(config.http.socket), token_file, timeout_s=10.0) as client:
        for name, path in _ANSWERS.items():
            made.add(name, partial(_answer, client, path))
    made.add("doctor.json", lambda: _json(_findings(config_file, token_file)))
    made.add("files.json", lambda: _json(_files(config)))
    made.add("process.txt", lambda: _process(made.parts.get("status.json")))
    made.add("log.txt", lambda: _log(config, config_file, log_file))
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    file = file or Path(f"p2pcity-{config.node.name}-{stamp}.tar.gz")
    made.write(file)
    if is_json:
        print_json(
            "debug-bundle",
            {"file": str(file), "parts": sorted(made.parts), "missing": made.missing},
        )
        return
    print(f"{file}: {', '.join(sorted(made.parts))}")
    for name, why in made.missing.items():
        print(f"without {name}: {why}")


class Bundle:
    """Parts of at most 8 MiB each, and why others are missing."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.parts: dict[str, bytes] = {}
        self.missing: dict[str, str] = {}

    def add(self, name: str, make: Callable[[], bytes]) -> None:
        """Add what `make` returns (the last 8 MiB of it), or note why it could not."""
        try:
            data = make()
        except (P2PCityError, OSError) as error:
            self.missing[name] = str(error)
            return
        self.parts[name] = data[-PART_BYTES_MAX:]

    def write(self, file: Path) -> None:
        """Write all parts and about.json into a gzipped tar, mode 0600; ConfigError."""
        from p2pcity import __version__

        about = {
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "release": __version__,
            "python": sys.version,
            "system": platform.platform(),
            "missing": self.missing,
        }
        parts = {"about.json": _json(about), **self.parts}
        is_made = False
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            is_made = True
            with (
                os.fdopen(descriptor, "wb") as stream,
                tarfile.open(fileobj=stream, mode="w:gz") as archive,
            ):
                for name, data in parts.items():
                    info = tarfile.TarInfo(f"p2pcity-bundle/{name}")
                    info.size, info.mode, info.mtime = len(data), 0o600, int(time.time())
                    archive.addfile(info, io.BytesIO(data))
        except OSError as error:
            if is_made:
                # Half a bundle helps nobody; what was there before is not touched.
                file.unlink(missing_ok=True)
            raise ConfigError(
                f"{file} can't be written: {error.strerror}",
                remedy="Name another file with -o; what is there is not overwritten.",
            ) from error


def _answer(client: Client, path: str) -> bytes:
    return client.get(path).body


def _json(document: Any) -> bytes:
    return json.dumps(document, indent=1, ensure_ascii=False, default=str).encode()


def _findings(config_file: Path | None, token_file: Path | None) -> dict[str, Any]:
    from p2pcity.cli.doctor.command import examine, findings_document

    return findings_document(*examine(config_file, None, token_file))


def _files(config: Config) -> dict[str, Any]:
    """Names and sizes in the data directory, and the room on its disk."""
    data = config.node.data_dir
    room = os.statvfs(data)
    rows = []
    for path in sorted(data.rglob("*")):
        found = path.lstat()
        rows.append(
            {
                "path": str(path.relative_to(data)),
                "bytes": found.st_size,
                "mode": oct(found.st_mode),
                "user": found.st_uid,
                "changed": datetime.fromtimestamp(found.st_mtime, UTC).isoformat(),
            }
        )
    return {
        "data_dir": str(data),
        "free_bytes": room.f_bavail * room.f_frsize,
        "free_inodes": room.f_favail,
        "files": rows,
    }


def _process(status: bytes | None) -> bytes:
    """What proc(5) says of the process that gave this status; Unavailable when none did."""
    if status is None:
        raise Unavailable("the daemon does not answer")
    process = Path("/proc") / str(json.loads(status)["node"]["pid"])
    parts = [f"== {name}\n".encode() + (process / name).read_bytes() for name in _PROCESS_FILES]
    return b"\n".join(parts)


def _log(config: Config, config_file: Path | None, log_file: Path | None) -> bytes:
    """The last lines of the daemon's log; Unavailable when it is not known where they are."""
    beside = find_config_file(config_file).parent / "node.log"
    if log_file is not None or beside.exists():
        with (log_file or beside).open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - PART_BYTES_MAX))
            return b"\n".join(stream.read().splitlines()[-_LINES:])
    name = config.node.name
    unit = "p2pcity.service" if name == "main" else f"p2pcity@{name}.service"
    if not shutil.which("journalctl"):
        raise Unavailable("no log was named (--log), and there is no journal here")
    try:
        done = subprocess.run(
            ["journalctl", "--unit", unit, "--lines", str(_LINES), "--output", "short-iso-precise"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_JOURNAL_S,
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"journalctl has not answered within {_JOURNAL_S:.0f} s") from error
    if done.returncode or not done.stdout.strip():
        raise Unavailable(f"the journal has nothing of {unit}, or this user may not read it")
    return done.stdout
