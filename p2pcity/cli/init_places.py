"""Where `p2pcity init` puts a node: all in one directory, or where the systemd units look."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from p2pcity.errors import ConfigError
from p2pcity.node.places import CONFIG_NAME, SYSTEM_CONFIG, SYSTEM_DATA, SYSTEM_RUN

# It becomes a part of a user's name (31 characters), a unit's and a file's.
_SYSTEM_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,22}", re.ASCII)


@dataclass(frozen=True, slots=True)
class InitPlaces:
    """The directory of keys, card and genesis, the configuration's file, and the data directory.

    `settings` are what the configuration must say because of the place. What a node of the system
    must read, which runs as a user of its own, is made readable (`is_system`).
    """

    directory: Path
    config: Path
    data: Path
    settings: dict[str, str]
    is_system: bool = False

    @property
    def made(self) -> tuple[Path, ...]:
        """What must not be there yet."""
        names = ("node.key", "author.key", "node.card")
        return (self.config, *(self.directory / name for name in names), self.data / "log")


def in_directory(directory: Path) -> InitPlaces:
    """Return the places of a node that has all of its files in one directory."""
    return InitPlaces(
        directory,
        directory / CONFIG_NAME,
        directory / "data",
        # The default place depends on where the file lies; a node that moves keeps this one.
        {"http.socket": "node.sock"},
    )


def of_system(name: str, prefix: Path) -> InitPlaces:
    """Return the places of the node that `p2pcity@NAME.service` runs (`main`: p2pcity.service).

    `prefix` is the root of the host's files. The private keys are read by systemd alone, which
    hands them over as credentials of the same file names.
    """
    if not _SYSTEM_NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} can't name a node of the system",
            remedy="Use --name with up to 23 of a-z, 0-9, - and _.",
        )

    def below(path: Path) -> Path:
        return prefix / path.relative_to("/")

    keys = SYSTEM_CONFIG / name
    return InitPlaces(
        below(keys),
        below(SYSTEM_CONFIG / f"{name}.toml"),
        below(SYSTEM_DATA / name),
        {
            "node.data_dir": str(SYSTEM_DATA / name),
            "node.genesis": str(keys / "genesis.cbor"),
            "node.key": str(keys / "node.key"),
            "node.author_key": str(keys / "author.key"),
            "http.socket": str(SYSTEM_RUN / f"{name}.sock"),
        },
        is_system=True,
    )
