"""Which node a command talks to: --node, $P2PCITY_NODE, or the local node's Unix socket."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from p2pcity.errors import ConfigError
from p2pcity.node.places import CONFIG_NAME, find_config

if TYPE_CHECKING:
    from p2pcity.api.client import Client
    from p2pcity.node.config import Config

config_option = click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    help="The node's TOML file, or its directory [default: $P2PCITY_CONFIG, ./p2pcity.toml, ...].",
)

node_option = click.option(
    "--node",
    "node_address",
    metavar="URL|PATH",
    help="URL of a node's HTTP, its Unix socket, or its directory [default: $P2PCITY_NODE, or "
    "the local node's socket].",
)

token_option = click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    envvar="P2PCITY_TOKEN_FILE",
    help="File with the bearer token for HTTP over TCP.",
)


def find_config_file(given: Path | None) -> Path:
    """Return the configuration to use; ConfigError when there is none."""
    file = given or find_config()
    if file is None:
        raise ConfigError(
            "no configuration was found",
            remedy="Make a node with `p2pcity init DIR`, and name it: --config DIR/p2pcity.toml.",
        )
    # Not Path.is_dir(), which raises where this user may not look: reading says it better.
    return file / CONFIG_NAME if os.path.isdir(file) else file


def load_config(given: Path | None, flags: dict[str, str] | None = None) -> Config:
    """Return the settings of the node that --config (or the usual places) names."""
    # A node that is named by its address needs no configuration here.
    from p2pcity.node.config_reading import load

    return load(find_config_file(given), flags=flags).config


def find_node(given: str | None) -> str:
    """Return a URL, or the path of a Unix socket; ConfigError when nothing says which."""
    address = given or os.environ.get("P2PCITY_NODE")
    if address and "://" in address:
        return address.rstrip("/")
    if address:
        path = Path(address)
        # Likewise: connecting says it better.
        if os.path.isdir(path) and os.path.isfile(path / CONFIG_NAME):
            return str(_socket(path / CONFIG_NAME))
        return str(path)
    file = find_config()
    if file is None:
        raise ConfigError(
            "which node? None was named and no configuration was found here",
            remedy="Use --node with a URL, a socket or a node's directory, or set P2PCITY_NODE.",
        )
    return str(_socket(file))


def _socket(file: Path) -> Path:
    socket = load_config(file).http.socket
    assert socket is not None, "reading settings fills in the socket's default"
    return socket


def open_client(
    address: str | None, token_file: Path | None = None, timeout_s: float | None = None
) -> Client:
    """Return a client of the node that --node (or the usual places) names; nothing is sent yet.

    An answer may take `timeout_s`, None for longer than any wait that the surface grants.
    """
    from p2pcity.api.client import TIMEOUT_S, Client

    token = None
    if token_file is not None:
        from p2pcity.node.config_reading import read_secret

        token = read_secret(token_file, "--token-file").decode("ascii", "replace").strip()
    return Client(find_node(address), token=token, timeout_s=timeout_s or TIMEOUT_S)
