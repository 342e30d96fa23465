"""Who this node is: its keys, the genesis of its network, and its place in it."""

from dataclasses import dataclass
from pathlib import Path

from p2pcity.crypto import keys
from p2pcity.crypto.keys import PrivateKey
from p2pcity.errors import ConfigError, DecodeError
from p2pcity.node.config import Config
from p2pcity.node.config_reading import read_secret
from p2pcity.wire import genesis as genesis_wire
from p2pcity.wire.genesis import Genesis, GenesisNode


@dataclass(frozen=True, slots=True)
class Identity:
    """The node's keys and what the genesis says of it.

    `author` is None when it signs for nobody, `node` when the genesis does not have it: then the
    city has to add it.
    """

    key: PrivateKey
    author: PrivateKey | None
    peer_id: str
    genesis: Genesis
    node: GenesisNode | None


def load_identity(config: Config) -> Identity:
    """Read keys and genesis; raises ConfigError when one of them can't be read."""
    key = _read_key(config.node.key, "node.key")
    author = None
    if config.node.author_key is not None:
        author = _read_key(config.node.author_key, "node.author_key")
    genesis = _read_genesis(config)
    node = next((node for node in genesis.nodes if node.key == key.public), None)
    return Identity(key, author, keys.peer_id(key.public), genesis, node)


def _read_key(path: Path, setting: str) -> PrivateKey:
    data = read_secret(path, setting)
    try:
        return PrivateKey.from_pem(data)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error} ({setting})", remedy=error.remedy) from None


def _read_genesis(config: Config) -> Genesis:
    path = config.node.genesis
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: there is no genesis file",
            remedy="Make one from all cards with `p2pcity genesis new`, and copy it here.",
        ) from error
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}", remedy="Let the node's user read the genesis file."
        ) from error
    try:
        return genesis_wire.decode(data)
    except DecodeError as error:
        raise ConfigError(
            f"{path}: {error}",
            remedy=error.remedy or "Copy the genesis file again, in binary.",
        ) from error
