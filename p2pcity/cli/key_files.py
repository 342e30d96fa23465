"""Key files on disk: written once with mode 0600, read only when nobody else can."""

import os
from pathlib import Path

from p2pcity.crypto.keys import PrivateKey
from p2pcity.errors import ConfigError
from p2pcity.node.config_reading import read_secret


def write_key(path: Path, key: PrivateKey, passphrase: bytes | None = None) -> None:
    """Write a new private key file, durably; ConfigError when the file exists."""
    write_new(path, key.to_pem(passphrase), 0o600)


def write_new(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file that must not exist yet, durably; ConfigError when it does."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise ConfigError(
            f"{path} exists already",
            remedy="Nothing was overwritten; name another place, or move it away yourself.",
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}", remedy="Name a place where this user may write."
        ) from None
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(descriptor)


def read_key(path: Path, setting: str, passphrase_file: Path | None = None) -> PrivateKey:
    """Return the key in a PEM file; ConfigError names the file and `setting`."""
    passphrase = None
    if passphrase_file is not None:
        passphrase = read_secret(passphrase_file, "--passphrase-file").strip() or None
    try:
        return PrivateKey.from_pem(read_secret(path, setting), passphrase)
    except ConfigError as error:
        if str(path) in str(error):
            raise
        raise ConfigError(f"{path}: {error}", remedy=error.remedy) from None


def read_file(path: Path, what: str) -> bytes:
    """Return a file's bytes; ConfigError when it can't be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}", remedy=f"Name the file with {what}."
        ) from None
