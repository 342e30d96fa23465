"""Reads the whole ledger of every node through its API, block by block and event by event."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from p2pcity.api.client import Client, Params
from p2pcity.cli.chaos.history import LedgerCopy, Placed
from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.cli.testnet.local_node import LocalNode

_PAGE: Final = 1000
_ANSWER_S: Final = 60.0
_SETTLED_S: Final = 30.0
_POLL_S: Final = 0.2


def read_all(network: LocalNetwork) -> list[LedgerCopy]:
    """Read every node's ledger, all nodes at a time; raises Unreachable or ApiProblem."""
    with ThreadPoolExecutor(len(network.nodes)) as pool:
        return list(pool.map(read, network.nodes))


def read(node: LocalNode) -> LedgerCopy:
    """Read one node's ledger, as far down as it keeps blocks; Unreachable or ApiProblem."""
    transactions: list[Placed] = []
    events: list[tuple[str, str, str]] = []
    changes: list[int] = []
    with node.client(_ANSWER_S) as client:
        latest = client.get_json("/v1/blocks/latest")
        hashes = [""] * latest["height"] + [latest["hash"]]
        first = _first_height(client)
        for number in (0, *range(first, len(hashes))):
            block = client.get_json(f"/v1/blocks/{number}")
            hashes[number] = block["hash"]
            if block["change"] is not None:
                changes.append(number)
            transactions += (
                Placed(item["id"], number, item["outcome"], item["leaf_index"])
                for item in block["transactions"]
            )
        cursor: str | None = None
        while True:
            params: Params = {"limit": _PAGE, "cursor": cursor, "consistency": "local"}
            page = client.get("/v1/events", params, "application/x-ndjson")
            for line in page.body.splitlines():
                event = json.loads(line)
                events.append((event["p2pcitycursor"], event["p2pcitytransaction"], event["id"]))
            cursor = page.headers.get("p2pcity-next")
            if cursor is None:
                break
    return LedgerCopy(
        node.name, tuple(hashes), tuple(transactions), tuple(events), tuple(changes), first
    )


def _first_height(client: Client) -> int:
    """The lowest block that a node keeps, for good: it may be about to prune some more."""
    first: int = client.get_json("/v1/status")["ledger"]["first_height"]
    until_s = time.monotonic() + _SETTLED_S
    while time.monotonic() < until_s:
        time.sleep(_POLL_S)
        before, first = first, client.get_json("/v1/status")["ledger"]["first_height"]
        if first == before:
            break
    return first
