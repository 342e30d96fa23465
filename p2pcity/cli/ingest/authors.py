"""The keys that sign what is loaded: DIR/<author>.key, one for each value of the map's column."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final
from urllib.parse import quote

from p2pcity.cli.ingest.mapping import AuthorRule
from p2pcity.cli.key_files import read_key, write_key
from p2pcity.crypto.keys import PrivateKey
from p2pcity.errors import ConfigError

AUTHORS_FILE: Final = "authors.toml"
_HEAD: Final = "# Authors for `p2pcity genesis new --authors FILE`: public keys, no secrets.\n"


class AuthorKeys:
    """Private keys by author name, read when they are first needed."""

    def __init__(self, directory: Path | None, one_key: Path | None) -> None:
        self._directory = directory
        self._one_key = one_key
        self._keys: dict[str | None, PrivateKey] = {}

    def key(self, name: str | None) -> PrivateKey:
        """Return the author's key; None is the one author key. ConfigError when it is absent."""
        found = self._keys.get(name)
        if found is None:
            found = self._keys[name] = self._read(name)
        return found

    def _read(self, name: str | None) -> PrivateKey:
        if name is None:
            if self._one_key is None:
                raise ConfigError(
                    "no author key: the map has no [author] and no --key was given",
                    remedy="Use --key FILE, or [author] in the map and --keys DIR.",
                )
            return read_key(self._one_key, "--key")
        if self._directory is None:
            raise ConfigError(
                f"the map signs as {name!r}, and no directory of keys was given",
                remedy="Use --keys DIR; with --make-keys it is filled first.",
            )
        path = key_path(self._directory, name)
        if not path.exists():
            raise ConfigError(
                f"{path}: there is no key for the author {name!r}",
                remedy="Run this command with --make-keys once, and register the new authors.",
            )
        return read_key(path, "--keys")


def key_path(directory: Path, name: str) -> Path:
    """Return where an author's key lies; what a file name can't hold is percent-encoded."""
    return directory / f"{quote(name, safe=' ,+()')}.key"


def make_keys(directory: Path, rule: AuthorRule, names: Iterable[str]) -> list[str]:
    """Make the keys that are missing, write authors.toml anew; return the names of the new."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{directory}: {error.strerror}", remedy="Name another --keys.") from None
    made = []
    rows = [_HEAD]
    for name in sorted(names):
        path = key_path(directory, name)
        if not path.exists():
            write_key(path, PrivateKey.generate())
            made.append(name)
        types = ", ".join(_toml(item) for item in rule.types)
        rows.append(
            f"\n[[author]]\nmember = {_toml(rule.member_of(name))}\nname = {_toml(name)}\n"
            f'key = "{read_key(path, "--keys").public.hex()}"\ntypes = [{types}]\n'
        )
    (directory / AUTHORS_FILE).write_text("".join(rows), encoding="utf-8")
    return made


def _toml(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
