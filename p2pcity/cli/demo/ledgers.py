"""Reads the whole ledger of every node through its API and compares it with what was told."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from p2pcity.api.client import Client
from p2pcity.cli.demo.bundles import Name
from p2pcity.cli.demo.loader import Acknowledged
from p2pcity.cli.testnet.local_network import LocalNetwork

_PAGE: Final = 1000
_ANSWER_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Ledger:
    """What one node's ledger holds.

    `digest` is the SHA-256 of all its events as the API writes them, their places in the ledger
    included; `heights` says in which block each transaction (id in hex) stands.
    """

    name: str
    role: str
    height: int
    head: str
    root: str
    tree_size: int
    digest: str
    events: Counter[Name]
    heights: dict[str, int]

    @property
    def identity(self) -> tuple[int, str, str, int, str]:
        """What must be the same on every node."""
        return self.height, self.head, self.root, self.tree_size, self.digest


@dataclass(frozen=True, slots=True)
class Comparison:
    """How many events are wrong on at least one node; all zero when the ledger kept its word."""

    lost: int
    """Acknowledged as committed, and absent."""
    duplicated: int
    """There more than once."""
    misplaced: int
    """In another block than the acknowledgement said."""
    unexpected: int
    """There, and never acknowledged."""
    is_equal: bool
    """Whether all ledgers are the same: height, head, root and every event."""


def read_ledgers(network: LocalNetwork) -> list[Ledger]:
    """Read every event of every node; raises Unreachable or ApiProblem."""
    found = []
    for node in network.nodes:
        with node.client(_ANSWER_S) as client:
            found.append(_read(client, node.name, node.role))
    return found


def compare(acknowledged: Iterable[Acknowledged], ledgers: Sequence[Ledger]) -> Comparison:
    """Hold the acknowledgements against the ledgers."""
    told: dict[Name, tuple[str, int]] = {
        name: (item.signed.id, item.height) for item in acknowledged for name in item.signed.names
    }
    lost: set[Name] = set()
    unexpected: set[Name] = set()
    misplaced: set[Name] = set()
    extra: Counter[Name] = Counter()
    for ledger in ledgers:
        lost |= told.keys() - ledger.events.keys()
        unexpected |= ledger.events.keys() - told.keys()
        for name, count in ledger.events.items():
            extra[name] = max(extra[name], count - 1)
        for name, (id_, height) in told.items():
            if ledger.heights.get(id_, height) != height:
                misplaced.add(name)
    return Comparison(
        lost=len(lost),
        duplicated=extra.total(),
        misplaced=len(misplaced),
        unexpected=len(unexpected),
        is_equal=len({ledger.identity for ledger in ledgers}) == 1,
    )


def follow(network: LocalNetwork, id_: str) -> list[dict[str, Any]]:
    """Return where each node has one transaction, by its own word."""
    rows = []
    for node in network.nodes:
        with node.client(_ANSWER_S) as client:
            found = client.get_json(f"/v1/transactions/{id_}", {"consistency": "local"})
        names = ("status", "height", "leaf_index", "time")
        rows.append({"node": node.name, **{name: found[name] for name in names}})
    return rows


def _read(client: Client, name: str, role: str) -> Ledger:
    digest = hashlib.sha256()
    events: Counter[Name] = Counter()
    heights: dict[str, int] = {}
    cursor: str | None = None
    while True:
        params: dict[str, str | int | None] = {
            "limit": _PAGE,
            "cursor": cursor,
            "consistency": "local",
        }
        page = client.get("/v1/events", params, "application/x-ndjson")
        digest.update(page.body)
        for line in page.body.splitlines():
            event = json.loads(line)
            events[event["p2pcityauthor"], event["source"], event["id"]] += 1
            heights[event["p2pcitytransaction"]] = event["p2pcityheight"]
        cursor = page.headers.get("p2pcity-next")
        if cursor is None:
            break
    ledger = client.get_json("/v1/status")["ledger"]
    return Ledger(
        name=name,
        role=role,
        height=ledger["height"],
        head=ledger["head"],
        root=ledger["root"],
        tree_size=ledger["tree_size"],
        digest=digest.hexdigest(),
        events=events,
        heights=heights,
    )
