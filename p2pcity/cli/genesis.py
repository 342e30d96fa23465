"""`p2pcity genesis`: who starts a network."""

import secrets
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from p2pcity.cli.key_files import read_file, read_key, write_new
from p2pcity.cli.output import json_option, print_json, print_pairs, print_table
from p2pcity.crypto.keys import peer_id
from p2pcity.errors import ConfigError, DecodeError
from p2pcity.wire import card as card_wire
from p2pcity.wire import genesis as genesis_wire
from p2pcity.wire.genesis import Genesis, GenesisAuthor, GenesisNode, Member

_path = click.Path(path_type=Path, dir_okay=False)


@click.group()
def genesis() -> None:
    """Make, show and sign the start of a network."""


@genesis.command()
@click.option("--name", required=True, help="Name of the network.")
@click.option("--card", "cards", multiple=True, type=_path, help="A node's node.card; repeat.")
@click.option(
    "--author",
    "authors",
    multiple=True,
    metavar="MEMBER/NAME=HEX[:TYPE,TYPE]",
    help="A further author: its public key and event types [default: *]; repeat.",
)
@click.option(
    "--authors",
    "authors_files",
    multiple=True,
    type=_path,
    help="File of authors, as `p2pcity ingest --make-keys` writes it; repeat.",
)
@click.option("-o", "--output", type=_path, default=Path("genesis.cbor"), show_default=True)
@json_option
def new(
    name: str,
    cards: tuple[Path, ...],
    authors: tuple[str, ...],
    authors_files: tuple[Path, ...],
    output: Path,
    is_json: bool,
) -> None:
    """Make a genesis file of the nodes' cards and of authors.

    The author key in a card becomes an author of its member, for all event types.
    """
    if not cards:
        raise ConfigError("a genesis has at least one node", remedy="Add --card FILE for each.")
    further = [_parse_author(text) for text in authors]
    for file in authors_files:
        further.extend(read_authors(file))
    try:
        members = _gather([(card, _read_card(card)) for card in cards], further)
        made = genesis_wire.make(
            name, time.time_ns() // 1_000_000, secrets.token_bytes(16), members
        )
    except DecodeError as error:
        raise ConfigError(f"this makes no genesis: {error}", remedy=error.remedy) from None
    write_new(output, genesis_wire.encode(made))
    _print(made, output, is_json)


@genesis.command()
@click.argument("file", type=_path)
@json_option
def show(file: Path, is_json: bool) -> None:
    """Print what stands in a genesis file, its signatures verified."""
    _print(_read(file), file, is_json)


@genesis.command()
@click.argument("file", type=_path)
@click.option("--key", "key_file", type=_path, required=True, help="Private key that signs.")
@click.option("-o", "--output", type=_path, help="Write here [default: FILE itself].")
@json_option
def sign(file: Path, key_file: Path, output: Path | None, is_json: bool) -> None:
    """Add a node's or an author's signature on the network id."""
    signed = genesis_wire.sign(_read(file), read_key(key_file, "--key"))
    data = genesis_wire.encode(signed)
    if output is not None:
        write_new(output, data)
    else:
        beside = file.with_name(f".{file.name}.new")
        beside.unlink(missing_ok=True)
        write_new(beside, data)
        beside.replace(file)
    _print(signed, output or file, is_json)


def read_authors(file: Path) -> list[GenesisAuthor]:
    """Return the authors of a TOML file: [[author]] with member, name, key (hex) and types."""
    try:
        document = tomllib.loads(read_file(file, "--authors").decode())
        rows: list[dict[str, Any]] = document["author"]
        return [
            GenesisAuthor(
                bytes.fromhex(row["key"]),
                str(row["name"]),
                tuple(map(str, row.get("types", ["*"]))),
                str(row["member"]),
            )
            for row in rows
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{file}: {type(error).__name__} {error}",
            remedy="Write [[author]] with member, name, key (64 hex digits) and types for each.",
        ) from None


def _parse_author(text: str) -> GenesisAuthor:
    who, _, rest = text.partition("=")
    member, slash, name = who.partition("/")
    key_hex, _, types = rest.partition(":")
    try:
        key = bytes.fromhex(key_hex)
    except ValueError:
        key = b""
    if not (member and slash and name and len(key) == 32):
        raise ConfigError(
            f"--author {text} is not understood",
            remedy="Write MEMBER/NAME=PUBLIC-KEY, the key as 64 hex digits (`p2pcity key show`).",
        )
    return GenesisAuthor(key, name, tuple(types.split(",")) if types else ("*",), member)


def _read_card(file: Path) -> card_wire.Card:
    try:
        return card_wire.decode(read_file(file, "--card"))
    except DecodeError as error:
        raise DecodeError(
            f"{file}: {error}",
            reason=error.reason,
            remedy=error.remedy or "Have the file sent again, unchanged (it is binary).",
        ) from None


def _gather(
    cards: Sequence[tuple[Path, card_wire.Card]], further: Sequence[GenesisAuthor]
) -> list[Member]:
    names = dict.fromkeys([*(card.member for _, card in cards), *(a.member for a in further)])
    seen: dict[bytes, Path] = {}
    for file, card in cards:
        if card.key in seen:
            raise ConfigError(
                f"{file} is the same node as {seen[card.key]}", remedy="Name each card once."
            )
        seen[card.key] = file
    members = []
    for name in names:
        own = [card for _, card in cards if card.member == name]
        authors = {
            a.key: GenesisAuthor(a.key, a.name, a.types, name) for a in further if a.member == name
        }
        for card in own:
            authors.setdefault(card.author, GenesisAuthor(card.author, card.name, ("*",), name))
        if len({card.name for card in own}) != len(own):
            raise ConfigError(
                f"two nodes of {name} have the same name",
                remedy="Make one of them anew with `p2pcity init DIR --name NAME`.",
            )
        nodes = tuple(
            GenesisNode(card.key, card.incarnation, card.role, card.addresses, name, card.name)
            for card in own
        )
        members.append(Member(name, nodes, tuple(authors.values())))
    return members


def _read(file: Path) -> Genesis:
    try:
        return genesis_wire.decode(read_file(file, "FILE"))
    except DecodeError as error:
        raise DecodeError(
            f"{file}: {error}",
            reason=error.reason,
            remedy=error.remedy or "Have the file sent again, unchanged (it is binary).",
        ) from None


def _print(made: Genesis, file: Path, is_json: bool) -> None:
    if is_json:
        print_json("genesis", {"file": str(file), **_document(made)})
        return
    print_pairs(
        [
            ("file", file),
            ("network", made.network.hex()),
            ("name", made.name),
            ("signed by", ", ".join(peer_id(kid) for kid in made.signers)),
        ]
    )
    print()
    print_table(
        ["MEMBER", "NODE", "ROLE", "PEER", "ADDRESSES"],
        [(n.member, n.name, n.role, peer_id(n.key), " ".join(n.addresses)) for n in made.nodes],
    )
    print()
    print_table(
        ["MEMBER", "AUTHOR", "KEY", "TYPES"],
        [(a.member, a.name, a.key.hex()[:16] + "…", ",".join(a.types)) for a in made.authors],
    )


def _document(made: Genesis) -> dict[str, Any]:
    return {
        "network": made.network.hex(),
        "name": made.name,
        "time_ms": made.time_ms,
        "signed_by": [peer_id(kid) for kid in made.signers],
        "nodes": [
            {
                "peer": peer_id(node.key),
                "member": node.member,
                "name": node.name,
                "role": node.role,
                "incarnation": node.incarnation.hex(),
                "addresses": list(node.addresses),
            }
            for node in made.nodes
        ],
        "authors": [
            {"key": a.key.hex(), "member": a.member, "name": a.name, "types": list(a.types)}
            for a in made.authors
        ],
    }
