"""Makes the directories of a local network with the very code of `init` and `genesis new`.

DIR/genesis.cbor            the network's genesis (a copy lies in each node's directory)
DIR/authors/NAME.key        keys of the authors beside the nodes' own
DIR/authors.toml            their public keys, as `genesis new --authors` reads them
DIR/node1/p2pcity.toml ...  one node: configuration, keys, card, data/, node.sock, node.log
"""

import contextlib
import hashlib
import io
import os
import random
import re
import shutil
import socket
import tomllib
from collections.abc import Collection, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final

import click

from p2pcity.cli.config import toml_value
from p2pcity.cli.genesis import new
from p2pcity.cli.ingest.authors import key_path
from p2pcity.cli.init import init
from p2pcity.cli.key_files import write_key, write_new
from p2pcity.crypto.keys import PrivateKey, peer_id
from p2pcity.errors import ConfigError
from p2pcity.node.config import KEYS
from p2pcity.node.config_reading import SOCKET_PATH_BYTES_MAX
from p2pcity.node.places import CONFIG_NAME
from p2pcity.wire import card

NODES_MAX: Final = 32
PORT: Final = 4710
"""Where a node in a container listens; its HTTP is one above."""
AUTHORS_MEMBER: Final = "city"
AUTHORS_DIRECTORY: Final = "authors"
AUTHORS_FILE: Final = "authors.toml"
GENESIS_FILE: Final = "genesis.cbor"
_SOCKET_NAME: Final = "node.sock"
PORTS_VARIABLE: Final = "P2PCITY_TESTNET_PORTS"
_PORT_LOWEST: Final = 20_000
_PORT_TRIES: Final = 2_000
_PORT_HIGHEST: Final = 65_535
_HEAD: Final = "# Settings of a node of a local network; `p2pcity config --keys` explains each.\n"


def make_network(
    directory: Path,
    *,
    nodes: int,
    orderers: int,
    authors: Sequence[str],
    raft_preset: str,
    name: str,
    announce: str = "",
    has_containers: bool = False,
) -> None:
    """Make `nodes` nodes, the first `orderers` of which vote, under `directory`.

    `announce` is a multiaddr that all tell their peers instead of the one they listen on. Nodes of
    a network that `has_containers` are found by their names. Raises ConfigError when the numbers
    make no network or something lies there already.
    """
    if not 1 <= nodes <= NODES_MAX:
        raise ConfigError(f"{nodes} nodes", remedy=f"Use 1 to {NODES_MAX} nodes.")
    if not 1 <= orderers <= nodes:
        raise ConfigError(
            f"{orderers} orderers of {nodes} nodes", remedy="Use at least 1, at most all nodes."
        )
    if (directory / GENESIS_FILE).exists() or any(directory.glob(f"*/{CONFIG_NAME}")):
        raise ConfigError(
            f"{directory} holds a network already",
            remedy="Name another directory, or remove that one.",
        )
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    arguments = ["--name", name, "-o", str(directory / GENESIS_FILE)]
    own_directories = [directory / f"node{number}" for number in range(1, nodes + 1)]
    if has_containers:
        for own in own_directories:
            _check_depth(own)
        places = [_in_container(own) for own in own_directories]
    else:
        places = [(_on_loopback(port), announce) for port in free_ports(nodes)]
    for number, (own, place) in enumerate(zip(own_directories, places, strict=True), 1):
        role = "orderer" if number <= orderers else "observer"
        _make_node(own, role, place, raft_preset)
        arguments += ["--card", str(own / "node.card")]
    if authors:
        arguments += ["--authors", str(_make_authors(directory, authors))]
    _run(new, arguments)
    for own in own_directories:
        shutil.copyfile(directory / GENESIS_FILE, own / GENESIS_FILE)


def make_joiner(
    directory: Path,
    name: str,
    *,
    role: str,
    raft_preset: str,
    announce: str = "",
    has_containers: bool = False,
) -> Path:
    """Make one more node under a network's directory; its configuration file.

    The genesis does not have it: the running city adds it by its node.card. It is told where all
    nodes are that lie under the directory, since the leader may be none of the genesis's. Raises
    ConfigError.
    """
    own = directory / name
    peers = sorted(chain.from_iterable(map(_addresses, directory.glob("*/node.card"))))
    if has_containers:
        place = _in_container(own)
    else:
        [port] = free_ports(1, but=_ports_of(directory))
        place = _on_loopback(port), announce
    _make_node(own, role, place, raft_preset)
    change_settings(own / CONFIG_NAME, {"net.peers": tuple(peers)})
    shutil.copyfile(directory / GENESIS_FILE, own / GENESIS_FILE)
    return own / CONFIG_NAME


def _ports_of(directory: Path) -> frozenset[int]:
    """The ports of a network's nodes: one that is down just then wants its own again."""
    documents = (
        tomllib.loads(file.read_text(encoding="utf-8"))
        for file in directory.glob(f"*/{CONFIG_NAME}")
    )
    listen = chain.from_iterable(document["net"]["listen"] for document in documents)
    return frozenset(int(address.rpartition("/")[2]) for address in listen)


def _addresses(card_file: Path) -> list[str]:
    made = card.decode(card_file.read_bytes())
    return [f"{address}/p2p/{peer_id(made.key)}" for address in made.addresses]


def free_ports(count: int, *, but: Collection[int] = ()) -> list[int]:
    """Return TCP ports of 127.0.0.1 that are free now, out of `port_range`, none of them in `but`.

    Raises ConfigError when there are too few.
    """
    among = port_range()
    ports: list[int] = []
    for port in random.sample(among, min(_PORT_TRIES, len(among))):
        if len(ports) == count:
            break
        if port in but:
            continue
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            ports.append(port)
    if len(ports) < count:
        raise ConfigError(
            f"too few of the TCP ports {among[0]}-{among[-1]} of 127.0.0.1 are free",
            remedy=f"End what listens there, or give other ports in {PORTS_VARIABLE}.",
        )
    return ports


def port_range() -> range:
    """Return the ports that local networks draw theirs from.

    By default below the range that the kernel takes for outgoing connections
    (ip_local_port_range), or a stopped node could find its port in use by a neighbour's dial.
    PORTS_VARIABLE (`LOW-HIGH`) gives those who make networks side by side a share each, or one
    would draw the port of another's node that is down just then. Raises ConfigError.
    """
    given = os.environ.get(PORTS_VARIABLE)
    if given is not None:
        found = re.fullmatch(r"([0-9]{1,5})-([0-9]{1,5})", given)
        low, high = map(int, found.groups()) if found else (0, 0)
        if not 0 < low <= high <= _PORT_HIGHEST:
            raise ConfigError(
                f"{PORTS_VARIABLE} is {given!r}", remedy="Give it two ports, such as 20000-25999."
            )
        return range(low, high + 1)
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
        below = int(file.read().split()[0])
    return range(_PORT_LOWEST, below if below - _PORT_LOWEST >= 1000 else 32_768)


def socket_path(own: Path) -> Path:
    """Return where a node's Unix socket goes: in its directory, or in /tmp when that is too deep.

    unix(7): sun_path has 108 bytes with its final zero.
    """
    path = own.resolve() / _SOCKET_NAME
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX:
        return path
    mark = hashlib.sha256(os.fsencode(own.resolve().parent)).hexdigest()[:16]
    return Path("/tmp") / f"p2pcity-{mark}" / f"{own.name}.sock"


def prepare_socket_directory(path: Path) -> None:
    """Make the directory of a socket that lies in /tmp; ConfigError when it is somebody else's."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.parent.stat()
    if found.st_uid != os.geteuid():
        raise ConfigError(
            f"{path.parent} belongs to user id {found.st_uid}",
            remedy="Make the network in a directory with a shorter path.",
        )


def _on_loopback(port: int) -> str:
    return f"/ip4/127.0.0.1/tcp/{port}"


def _check_depth(own: Path) -> None:
    if socket_path(own).parent != own.resolve():
        raise ConfigError(
            f"{own} is too deep for a Unix socket in it, and containers have no other place",
            remedy="Make the network in a directory with a shorter path.",
        )


def _in_container(own: Path) -> tuple[str, str]:
    """Where a node in a container of its own name listens, and what it tells its peers."""
    return f"/ip4/0.0.0.0/tcp/{PORT}", f"/dns4/{own.name}/tcp/{PORT}"


def _make_node(own: Path, role: str, place: tuple[str, str], raft_preset: str) -> None:
    listen, announce = place
    arguments = [str(own), "--member", own.name, "--name", own.name, "--role", role]
    arguments += ["--listen", listen, *(("--announce", announce) if announce else ())]
    _run(init, arguments)
    changes: dict[str, Any] = {"net.mdns": False, "raft.preset": raft_preset}
    socket_file = socket_path(own)
    if socket_file.parent != own.resolve():
        changes["http.socket"] = str(socket_file)
    change_settings(own / CONFIG_NAME, changes)


def change_settings(file: Path, changes: dict[str, Any]) -> None:
    """Write a configuration anew with some settings (`section.name`) changed or added."""
    document = tomllib.loads(file.read_text(encoding="utf-8"))
    values = {
        f"{section}.{name}": tuple(value) if isinstance(value, list) else value
        for section, body in document.items()
        for name, value in body.items()
    } | changes
    lines, section = [_HEAD], ""
    for path, row in KEYS.items():
        if path not in values:
            continue
        if row.section != section:
            section = row.section
            lines.append(f"\n[{section}]\n")
        lines.append(f"# {row.says}\n{row.name} = {toml_value(values[path])}\n")
    file.write_text("".join(lines), encoding="utf-8")


def _make_authors(directory: Path, names: Sequence[str]) -> Path:
    keys = directory / AUTHORS_DIRECTORY
    keys.mkdir(mode=0o700, exist_ok=True)
    rows = []
    for name in dict.fromkeys(names):
        key = PrivateKey.generate()
        write_key(key_path(keys, name), key)
        rows.append(
            f"[[author]]\nmember = {toml_value(AUTHORS_MEMBER)}\nname = {toml_value(name)}\n"
            f'key = "{key.public.hex()}"\ntypes = ["*"]\n'
        )
    file = directory / AUTHORS_FILE
    write_new(file, "\n".join(rows).encode())
    return file


def _run(command: click.Command, arguments: list[str]) -> None:
    """Run a command of ours as the command line does, without its output."""
    with contextlib.redirect_stdout(io.StringIO()):
        command.main(arguments, prog_name="p2pcity", standalone_mode=False)
