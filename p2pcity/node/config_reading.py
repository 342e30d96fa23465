"""Reads a node's settings: defaults, then the TOML file, then the environment, then flags.

Everything that is wrong is a ConfigError that names the file (or variable, or flag), the key
and the remedy; unknown keys are errors, with the nearest known one.
"""

import difflib
import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Final, get_args
from urllib.parse import urlsplit

from p2pcity.errors import ConfigError
from p2pcity.node.config import KEYS, Config, Key, section_types
from p2pcity.node.places import default_socket
from p2pcity.wire.limits import BASE_INTERVAL_BLOCKS

# Read by commands and tests, and no settings of a node.
OTHER_VARIABLES: Final = frozenset(
    f"P2PCITY_{name}"
    for name in ("CONFIG", "NODE", "TOKEN_FILE", "TESTNET_PORTS", "VECTORS", "DATA")
)
# sun_path has 108 bytes with its final zero (unix(7)).
SOCKET_PATH_BYTES_MAX: Final = 107
KEY_FILE_MODE_FORBIDDEN: Final = 0o077


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings in force, where each came from, and the file that relative paths start at."""

    config: Config
    sources: Mapping[str, str]
    """For each `section.name`: `default`, `file`, `env` or `flag`."""
    file: Path | None


def load(
    file: Path | None,
    *,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, str] | None = None,
) -> Loaded:
    """Return the settings in force; ConfigError for whatever is wrong.

    `flags` maps `section.name` to its value as text, as an environment variable has it.
    """
    values: dict[str, Any] = {path: row.default for path, row in KEYS.items()}
    sources = dict.fromkeys(KEYS, "default")
    given: list[tuple[str, dict[str, Any]]] = [
        ("file", _from_file(file) if file is not None else {}),
        ("env", _from_environment(os.environ if environment is None else environment)),
        ("flag", _from_flags(flags or {})),
    ]
    for source, found in given:
        values.update(found)
        sources.update(dict.fromkeys(found, source))
    base = file.resolve().parent if file is not None else Path.cwd()
    for path, value in values.items():
        if isinstance(value, Path):
            values[path] = base / value.expanduser()
    if values["http.socket"] is None:
        values["http.socket"] = default_socket(file, values["node.name"])
    config = _build(values)
    _check_together(config, str(file or "settings"))
    return Loaded(config, sources, file)


def check_settings(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return settings (`section.name`) that a file would have over the defaults.

    Raises ConfigError that begins with `where` for what is unknown, or wrong alone or together.
    """
    found = {}
    for path, value in settings.items():
        if path not in KEYS:
            raise _unknown(f"{where}: setting {path}", path, list(KEYS))
        found[path] = _check(KEYS[path], value, f"{where}: {path}")
    _check_together(_build({**{path: row.default for path, row in KEYS.items()}, **found}), where)
    return found


def _build(values: Mapping[str, Any]) -> Config:
    sections: dict[str, Any] = {}
    for section, make in section_types().items():
        own = {row.name: values[path] for path, row in KEYS.items() if row.section == section}
        sections[section] = make(**own)
    return Config(**sections)


def _from_file(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            document = tomllib.load(stream)
    except FileNotFoundError:
        raise ConfigError(
            f"{file}: there is no such file",
            remedy="Make a node with `p2pcity init DIR`, or name its file with --config.",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{file}: {getattr(error, 'strerror', None) or 'it is not UTF-8'}",
            remedy="Make the file readable for this user, as UTF-8 text.",
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: {error}", remedy="Correct the TOML at that place.") from None
    found: dict[str, Any] = {}
    for section, body in document.items():
        if section not in section_types():
            raise _unknown(f"{file}: section [{section}]", section, list(section_types()))
        if not isinstance(body, dict):
            raise ConfigError(
                f"{file}: {section} is a value, not a section",
                remedy=f"Write [{section}] on a line of its own and its keys below.",
            )
        for name, value in body.items():
            path = f"{section}.{name}"
            if path not in KEYS:
                known = [row.name for row in KEYS.values() if row.section == section]
                raise _unknown(f"{file}: key {path}", name, known)
            found[path] = _check(KEYS[path], value, f"{file}: {path}")
    return found


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    rows = {row.variable: path for path, row in KEYS.items()}
    found = {}
    for variable, text in sorted(environment.items()):
        if not variable.startswith("P2PCITY_") or variable in OTHER_VARIABLES:
            continue
        if variable not in rows:
            raise _unknown(f"environment variable {variable}", variable, list(rows))
        found[rows[variable]] = parse(KEYS[rows[variable]], text, variable)
    return found


def _from_flags(flags: Mapping[str, str]) -> dict[str, Any]:
    found = {}
    for path, text in flags.items():
        if path not in KEYS:
            raise _unknown(f"setting {path}", path, list(KEYS))
        found[path] = parse(KEYS[path], text, f"flag for {path}")
    return found


def parse(row: Key, text: str, where: str) -> Any:
    """Return the value that `text` (of a variable or a flag) gives this key."""
    if row.type is bool:
        words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if text.lower() not in words:
            raise _wrong_type(row, where, repr(text))
        return words[text.lower()]
    if row.type is int:
        try:
            number = int(text.replace("_", ""))
        except ValueError:
            raise _wrong_type(row, where, repr(text)) from None
        return _check(row, number, where)
    if row.type == tuple[str, ...]:
        return _check(row, [part.strip() for part in text.split(",") if part.strip()], where)
    return _check(row, text, where)


def _check(row: Key, value: Any, where: str) -> Any:
    if row.type == tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise _wrong_type(row, where, repr(value))
        return tuple(value)
    if row.type is int or row.type is bool:
        if type(value) is not row.type:
            raise _wrong_type(row, where, repr(value))
        return _check_range(row, value, where) if row.type is int else value
    if not isinstance(value, str):
        raise _wrong_type(row, where, repr(value))
    if row.choices and value not in row.choices:
        near = difflib.get_close_matches(value, row.choices, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(row.choices)}."
        raise ConfigError(f"{where} is {value!r}", remedy=hint[0].upper() + hint[1:])
    if Path in (row.type, *get_args(row.type)):
        if value:
            return Path(value)
        if NoneType not in get_args(row.type):
            raise ConfigError(f"{where} is empty", remedy="Give a path, or leave the key out.")
        return None
    return value


def _check_range(row: Key, value: int, where: str) -> int:
    if (row.minimum is not None and value < row.minimum) or (
        row.maximum is not None and value > row.maximum
    ):
        raise ConfigError(
            f"{where} is {value}", remedy=f"Use a number from {row.minimum} to {row.maximum}."
        )
    return value


def _wrong_type(row: Key, where: str, shown: str) -> ConfigError:
    return ConfigError(f"{where} is {shown}", remedy=f"Use {type_words(row)}.")


def type_words(row: Key) -> str:
    """Say in words what a key takes."""
    if row.choices:
        return f"one of {', '.join(row.choices)}"
    if row.type is bool:
        return "true or false"
    if row.type is int:
        return f"a whole number from {row.minimum} to {row.maximum}"
    if row.type == tuple[str, ...]:
        return "a list of texts"
    return "a path" if Path in (row.type, *get_args(row.type)) else "a text"


def _unknown(what: str, name: str, known: list[str]) -> ConfigError:
    near = difflib.get_close_matches(name, known, 1, cutoff=0.5)
    hint = f"Did you mean {near[0]}?" if near else f"Known are: {', '.join(known[:12])}."
    return ConfigError(f"{what} is unknown", remedy=hint)


def _check_together(config: Config, where: str) -> None:
    heartbeat_ms, election_ms = config.raft.times_ms
    if election_ms < 5 * heartbeat_ms:
        raise ConfigError(
            f"{where}: raft.election_timeout_ms ({election_ms}) is less than 5 heartbeats "
            f"({heartbeat_ms} ms each)",
            remedy="Raise raft.election_timeout_ms, or leave both keys out and set raft.preset.",
        )
    if 0 < config.ledger.keep_blocks < BASE_INTERVAL_BLOCKS:
        raise ConfigError(
            f"{where}: ledger.keep_blocks is {config.ledger.keep_blocks}",
            remedy=f"Keep at least {BASE_INTERVAL_BLOCKS} blocks, or all of them with 0.",
        )
    socket = config.http.socket
    if socket is not None and len(os.fsencode(socket)) > SOCKET_PATH_BYTES_MAX:
        raise ConfigError(
            f"{where}: http.socket has {len(os.fsencode(socket))} bytes: {socket}",
            remedy=f"Set http.socket to a path of at most {SOCKET_PATH_BYTES_MAX} bytes.",
        )
    mode = config.http.socket_mode
    if not mode or any(digit not in "01234567" for digit in mode) or int(mode, 8) > 0o777:
        raise ConfigError(
            f"{where}: http.socket_mode is {mode!r}", remedy="Use an octal mode such as 0660."
        )
    _check_bind(config.http.bind, where)
    _check_endpoint(config.telemetry.otlp_endpoint, where)
    if (config.http.tls_certificate_file is None) != (config.http.tls_key_file is None):
        raise ConfigError(
            f"{where}: only one of http.tls_certificate_file and http.tls_key_file is set",
            remedy="Set both, or neither.",
        )
    if config.mempool.author_bytes_max > config.mempool.bytes_max:
        raise ConfigError(
            f"{where}: mempool.author_bytes_max is above mempool.bytes_max",
            remedy="Lower mempool.author_bytes_max.",
        )
    for key, addresses in (
        ("listen", config.net.listen),
        ("announce", config.net.announce),
        ("peers", config.net.peers),
    ):
        for address in addresses:
            if not address.startswith("/"):
                raise ConfigError(
                    f"{where}: net.{key} has {address!r}, which is no multiaddr",
                    remedy="Write it as /ip4/192.0.2.1/tcp/4710.",
                )


def _check_bind(bind: str, where: str) -> None:
    host, colon, port = bind.rpartition(":")
    if bind and not (host and colon and port.isascii() and port.isdigit() and int(port) < 65536):
        raise ConfigError(
            f"{where}: http.bind is {bind!r}", remedy="Write HOST:PORT, such as 127.0.0.1:4711."
        )


def _check_endpoint(endpoint: str, where: str) -> None:
    if endpoint and not _is_base_url(endpoint):
        raise ConfigError(
            f"{where}: telemetry.otlp_endpoint is {endpoint!r}",
            remedy="Write the collector's base URL, such as http://127.0.0.1:4318.",
        )


def _is_base_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    return (
        parts.scheme in ("http", "https")
        and bool(parts.hostname)
        and port != 0
        and not (parts.username or parts.query or parts.fragment)
    )


def read_secret(path: Path, key: str) -> bytes:
    """Return what the secret file holds; ConfigError when others could read it or it is absent.

    A systemd credential of the same file name ($CREDENTIALS_DIRECTORY) goes before the path.
    """
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    if credentials and (Path(credentials) / path.name).is_file():
        path = Path(credentials) / path.name
    try:
        with path.open("rb") as stream:
            mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
            if mode & KEY_FILE_MODE_FORBIDDEN and not credentials:
                raise ConfigError(
                    f"{path}: others than its owner can use it (mode {mode:04o})",
                    remedy=f"chmod 600 {path}, and make a new key if somebody may have read it.",
                )
            return stream.read()
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror} ({key})",
            remedy=f"Name the right file in {key}, or make one with `p2pcity key new FILE`.",
        ) from None
