"""`p2pcity key`: Ed25519 keys of nodes and authors."""

from pathlib import Path

import click

from p2pcity.cli.key_files import read_file, read_key, write_key
from p2pcity.cli.output import json_option, print_json, print_pairs
from p2pcity.crypto.keys import PrivateKey, peer_id
from p2pcity.errors import ConfigError

_file = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
_passphrase = click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File with the passphrase that protects the key.",
)


@click.group()
def key() -> None:
    """Make, show and import Ed25519 keys."""


@key.command()
@_file
@_passphrase
@json_option
def new(file: Path, passphrase_file: Path | None, is_json: bool) -> None:
    """Make a new private key in FILE (PKCS #8, mode 0600)."""
    made = PrivateKey.generate()
    write_key(file, made, _passphrase_in(passphrase_file))
    _print(file, made, is_json)


@key.command()
@_file
@_passphrase
@json_option
def show(file: Path, passphrase_file: Path | None, is_json: bool) -> None:
    """Print the public key and the peer id of the private key in FILE."""
    _print(file, read_key(file, "FILE", passphrase_file), is_json)


@key.command("import")
@_file
@click.argument("source", type=click.Path(path_type=Path, dir_okay=False))
@_passphrase
@json_option
def import_(file: Path, source: Path, passphrase_file: Path | None, is_json: bool) -> None:
    """Write the key in SOURCE to FILE.

    SOURCE holds a PKCS #8 PEM, or an Ed25519 seed as 32 bytes or 64 hexadecimal digits.
    """
    data = read_file(source, "SOURCE")
    if b"-----BEGIN" in data:
        made = PrivateKey.from_pem(data, _passphrase_in(passphrase_file))
    else:
        made = PrivateKey.from_seed(_read_seed(data, source))
    write_key(file, made, _passphrase_in(passphrase_file))
    _print(file, made, is_json)


def _read_seed(data: bytes, source: Path) -> bytes:
    if len(data) == 32:
        return data
    try:
        seed = bytes.fromhex(data.decode("ascii"))
    except ValueError:
        seed = b""
    if len(seed) != 32:
        raise ConfigError(
            f"{source} holds neither a PEM nor an Ed25519 seed",
            remedy="Give a PKCS #8 PEM, 32 bytes, or 64 hexadecimal digits.",
        )
    return seed


def _passphrase_in(file: Path | None) -> bytes | None:
    return read_file(file, "--passphrase-file").strip() or None if file else None


def _print(file: Path, made: PrivateKey, is_json: bool) -> None:
    pairs = [("public_key", made.public.hex()), ("peer_id", peer_id(made.public))]
    if is_json:
        print_json("key", {"file": str(file), **dict(pairs)})
    else:
        print_pairs([("file", file), *((name.replace("_", " "), text) for name, text in pairs)])
