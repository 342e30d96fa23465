"""Where a node's files lie by default: system directories for root, XDG ones otherwise."""

import os
from pathlib import Path
from typing import Final

SYSTEM_CONFIG: Final = Path("/etc/p2pcity")
SYSTEM_RUN: Final = Path("/run/p2pcity")
SYSTEM_DATA: Final = Path("/var/lib/p2pcity")
CONFIG_NAME: Final = "p2pcity.toml"


def _xdg(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / default) / "p2pcity"


def find_config(name: str = "main") -> Path | None:
    """Return the first that exists: $P2PCITY_CONFIG, ./p2pcity.toml, the XDG one, /etc's."""
    given = os.environ.get("P2PCITY_CONFIG")
    if given:
        return Path(given)
    places = (
        Path(CONFIG_NAME),
        _xdg("XDG_CONFIG_HOME", ".config") / f"{name}.toml",
        SYSTEM_CONFIG / f"{name}.toml",
    )
    return next((place for place in places if place.is_file()), None)


def default_socket(config_file: Path | None, name: str) -> Path:
    """Return the Unix socket of a node whose configuration names none.

    A node of /etc/p2pcity has it in /run/p2pcity, one of the XDG configuration directory in
    XDG_RUNTIME_DIR, and any other beside its configuration.
    """
    place = config_file.resolve().parent if config_file is not None else None
    if place == SYSTEM_CONFIG:
        return SYSTEM_RUN / f"{name}.sock"
    if place is None or place == _xdg("XDG_CONFIG_HOME", ".config"):
        runtime = os.environ.get("XDG_RUNTIME_DIR")
        return (
            Path(runtime) / "p2pcity" / f"{name}.sock" if runtime else SYSTEM_RUN / f"{name}.sock"
        )
    return place / f"{name}.sock"
