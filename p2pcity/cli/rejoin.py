"""`p2pcity init --rejoin`: a new log and card for a node whose log was lost; its keys stay."""

from __future__ import annotations

import secrets
from pathlib import Path

from p2pcity.cli.key_files import read_key, write_new
from p2pcity.crypto.keys import peer_id
from p2pcity.errors import ConfigError
from p2pcity.node.config import Config
from p2pcity.wire import card as card_wire
from p2pcity.wire import genesis as genesis_wire


def rejoin(directory: Path, config: Config, addresses: tuple[str, ...]) -> dict[str, str]:
    """Make a new log below the data directory, and a new node.card; what to tell the operator.

    The old views and the old base go with the old log; the outbox, with what clients were told is
    accepted, stays. Raises ConfigError while there is a log, or when keys are missing.
    """
    from p2pcity.ledger import base_store, data_directory, views_store
    from p2pcity.ledger.data_directory import DataDirectory

    node_key = read_key(config.node.key, "node.key")
    if config.node.author_key is None:
        raise ConfigError(
            "node.author_key is empty, and a card names an author key",
            remedy="Set node.author_key to the key that the old card had.",
        )
    author = read_key(config.node.author_key, "node.author_key")
    data = DataDirectory(config.node.data_dir)
    if data.has_log:
        raise ConfigError(
            f"{data.log} holds a log",
            remedy="A log that is there is started with p2pcity run. If it is lost for good, move "
            "it away and run this again.",
        )
    views_store.delete(data.views)
    base_store.delete(data.base)
    incarnation = secrets.token_bytes(16)
    data_directory.initialise(data.path, incarnation)
    card = directory / "node.card"
    card.unlink(missing_ok=True)
    made = card_wire.make(
        node_key,
        member=config.node.member,
        name=config.node.name,
        role=genesis_wire.check_role(config.node.role),
        incarnation=incarnation,
        author=author.public,
        addresses=addresses,
    )
    write_new(card, made)
    own = peer_id(node_key.public)
    return {
        "directory": str(directory),
        "peer_id": own,
        "author_key": author.public.hex(),
        "incarnation": incarnation.hex(),
        "card": str(card),
        "next": f"on the leader: p2pcity raft replace --remove {own} --add node.card",
    }
