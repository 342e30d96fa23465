"""`p2pcity init`: everything that one node needs of its own, made once."""

import os
import secrets
import socket
from pathlib import Path
from typing import Any

import click

from p2pcity.cli.config import toml_value
from p2pcity.cli.init_places import InitPlaces, in_directory, of_system
from p2pcity.cli.key_files import read_file, write_key, write_new
from p2pcity.cli.output import json_option, print_json, print_pairs
from p2pcity.crypto.keys import PrivateKey, peer_id
from p2pcity.errors import ConfigError, DecodeError
from p2pcity.node.config import KEYS, NetSection
from p2pcity.node.config_reading import load, parse
from p2pcity.wire import card as card_wire
from p2pcity.wire import genesis as genesis_wire

UNSPECIFIED = ("/ip4/0.0.0.0/", "/ip6/::/")
_CONFIG_HEAD = """\
# Settings of one p2pcity node. `p2pcity config --keys` explains every key,
# `p2pcity config` prints what is in force. Relative paths start at this file.
"""


@click.command()
@click.argument(
    "directory", metavar="[DIR]", required=False, type=click.Path(path_type=Path, file_okay=False)
)
@click.option("--genesis", type=click.Path(path_type=Path), help="The network's genesis file.")
@click.option("--member", help="Name of the member that runs the node [default: DIR's name].")
@click.option(
    "--system",
    "is_system",
    is_flag=True,
    help="Instead of DIR: where the systemd units look (/etc/p2pcity, /var/lib/p2pcity).",
)
@click.option(
    "--prefix",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/"),
    show_default=True,
    help="With --system: the root of the host's files, for an image.",
)
@click.option("--name", default="main", show_default=True, help="Name of the node.")
@click.option(
    "--role",
    type=click.Choice(["orderer", "observer"]),
    default="orderer",
    show_default=True,
    help="Whether it votes.",
)
@click.option("--listen", multiple=True, help="Multiaddr to listen on (more than once if needed).")
@click.option("--announce", multiple=True, help="Multiaddr that others dial, if not the same.")
@click.option("--http", default="", metavar="HOST:PORT", help="Serve HTTP over TCP too.")
@click.option(
    "--rejoin",
    "is_rejoining",
    is_flag=True,
    help="Make a new log and card for the node in DIR whose log was lost.",
)
@json_option
def init(
    directory: Path | None,
    genesis: Path | None,
    is_system: bool,
    prefix: Path,
    member: str | None,
    name: str,
    role: str,
    listen: tuple[str, ...],
    announce: tuple[str, ...],
    http: str,
    is_rejoining: bool,
    is_json: bool,
) -> None:
    """Make the keys, the log and the configuration of one node.

    DIR gets p2pcity.toml, node.key, author.key, node.card and data/. Nothing is overwritten.
    With --system it is /etc/p2pcity/NAME.toml, keys and card in /etc/p2pcity/NAME/, and
    /var/lib/p2pcity/NAME, for the units that p2pcity systemd install writes.
    Hand node.card to whoever makes the genesis (`p2pcity genesis new`), and put the genesis
    they send back beside it as genesis.cbor. A city that runs already takes the node in by its
    card: p2pcity raft add.
    """
    places = _places(directory, name, prefix, is_system=is_system)
    if is_rejoining:
        _rejoin(places, is_json)
        return
    _check_absent(places)
    genesis_bytes = None if genesis is None else read_file(genesis, "--genesis")
    network = None if genesis_bytes is None else genesis_wire.decode(genesis_bytes).network
    settings = {
        "node.name": name,
        "node.member": member or (directory.resolve().name if directory else socket.gethostname()),
        "node.role": role,
        "net.listen": ",".join(listen or NetSection().listen),
        "net.announce": ",".join(announce),
        "http.bind": http,
        **places.settings,
    }
    values = {path: parse(KEYS[path], text, path) for path, text in settings.items() if text}
    addresses = announce or dialled(values["net.listen"])
    card, facts = _make_node(places, values, addresses)
    files = {places.directory / "node.card": card}
    if genesis_bytes is not None and network is not None:
        files[places.directory / "genesis.cbor"] = genesis_bytes
        facts["network"] = network.hex()
    files[places.config] = _config_text(values).encode()
    for path, data in files.items():
        write_new(path, data)
        if places.is_system:
            # Whatever root's umask is: the node reads them as another user.
            path.chmod(0o644)
    if is_json:
        print_json("init", {**facts, "addresses": list(addresses)})
        return
    print_pairs([(name.replace("_", " "), value) for name, value in facts.items()])
    if not addresses:
        print("The card has no address that others can dial: use --announce, or rely on mDNS.")


def _places(directory: Path | None, name: str, prefix: Path, *, is_system: bool) -> InitPlaces:
    if is_system == (directory is not None):
        raise click.UsageError("give a directory, or --system", click.get_current_context(True))
    return in_directory(directory) if directory is not None else of_system(name, prefix)


def _rejoin(places: InitPlaces, is_json: bool) -> None:
    from p2pcity.cli.rejoin import rejoin

    config = load(places.config).config
    addresses = config.net.announce or dialled(config.net.listen)
    facts = rejoin(places.directory, config, addresses)
    if is_json:
        print_json("init", {**facts, "addresses": list(addresses)})
        return
    print_pairs([(name.replace("_", " "), value) for name, value in facts.items()])


def _check_absent(places: InitPlaces) -> None:
    for path in places.made:
        if path.exists():
            raise ConfigError(
                f"{path} exists already",
                remedy="A node is made once: name another directory, or move that one away.",
            )


def _make_node(
    places: InitPlaces, values: dict[str, Any], addresses: tuple[str, ...]
) -> tuple[bytes, dict[str, str]]:
    """Make the keys and the log; return the card's bytes and what to tell the operator."""
    incarnation = secrets.token_bytes(16)
    node_key, author_key = PrivateKey.generate(), PrivateKey.generate()
    try:
        card = card_wire.make(
            node_key,
            member=values["node.member"],
            name=values["node.name"],
            role=genesis_wire.check_role(values["node.role"]),
            incarnation=incarnation,
            author=author_key.public,
            addresses=addresses,
        )
    except DecodeError as error:
        raise ConfigError(
            str(error),
            remedy="Correct --member, --name, --listen or --announce (/ip4/192.0.2.1/tcp/4710).",
        ) from None

    from p2pcity.ledger import data_directory

    directory = places.directory
    if places.is_system:
        for public in (places.config.parent, directory, places.data.parent):
            _make_directory(public)
            public.chmod(0o755)
    else:
        _make_directory(directory)
    data_directory.initialise(places.data, incarnation)
    write_key(directory / "node.key", node_key)
    write_key(directory / "author.key", author_key)
    return card, {
        "directory": str(directory),
        "peer_id": peer_id(node_key.public),
        "author_key": author_key.public.hex(),
        "incarnation": incarnation.hex(),
        "card": str(directory / "node.card"),
        "addresses": ", ".join(addresses),
    }


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{directory}: {error.strerror}", remedy="Name a place where this user may write."
        ) from None
    if not os.access(directory, os.W_OK | os.X_OK):
        raise ConfigError(
            f"{directory}: this user may not write there", remedy="Name another directory."
        )


def dialled(listen: tuple[str, ...]) -> tuple[str, ...]:
    """Return the addresses of `listen` as others dial them.

    0.0.0.0 becomes the address that this host uses towards other networks; port 0 is not known
    before the node runs.
    """
    found = []
    for address in listen:
        if address.rstrip("/").endswith("/0"):
            continue
        if not address.startswith(UNSPECIFIED):
            found.append(address)
        elif address.startswith("/ip4/") and (own := own_address()):
            found.append(address.replace("0.0.0.0", own, 1))
    return tuple(found)


def own_address() -> str | None:
    """Return the IPv4 address that this host sends from; no packet is sent to find out."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1 (RFC 5737): routed, never answered
        except OSError:
            return None
        return str(probe.getsockname()[0])


def _config_text(values: dict[str, object]) -> str:
    """Return the first configuration: what was asked for, beside the defaults."""
    lines = [_CONFIG_HEAD]
    section = ""
    for path, row in KEYS.items():
        if path not in values:
            continue
        if row.section != section:
            section = row.section
            lines.append(f"\n[{section}]\n")
        lines.append(f"# {row.says}\n{row.name} = {toml_value(values[path])}\n")
    return "".join(lines)
