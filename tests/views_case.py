"""What the tests of views.db share: a store on a chain made by hand, and damage to it."""

import sqlite3
from collections.abc import Iterable
from pathlib import Path

from p2pcity.ledger.views_reader import LedgerEvent
from p2pcity.ledger.views_store import ViewsStore
from p2pcity.wire import transaction as transaction_wire
from p2pcity.wire.transaction import Carried, join_carried
from tests.chain_case import Chain


def open_store(chain: Chain, path: Path) -> ViewsStore:
    return ViewsStore.open(path, genesis=chain.genesis, raft_log=chain)


def apply_all(store: ViewsStore, chain: Chain) -> None:
    store.apply_blocks(chain.pairs(store.applied_index + 1))


def names(found: Iterable[LedgerEvent]) -> list[str]:
    return [item.event.id for item in found if item.event is not None]


def change(path: Path, sql: str, *parameters: object) -> None:
    """Change a file behind the store's back."""
    connection = sqlite3.connect(path)
    with connection:
        assert connection.execute(sql, parameters).rowcount > 0
    connection.close()


def harmed(carried: Carried) -> Carried:
    signed = carried.transaction.data
    data = join_carried(signed[:-1] + bytes((signed[-1] ^ 1,)), carried.events)
    return transaction_wire.decode_carried(data)


def dump(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    lines = list(connection.iterdump())
    connection.close()
    return lines
