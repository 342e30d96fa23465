"""Bugs to be planted where blocks are pruned; scenarios of whole nodes find them."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final
from unittest import mock

from p2pcity.views import transactions
from p2pcity.views.connection import Connection
from p2pcity.views.sums import Sums
from tests.planted_case import Planted
from tests.virtual.pruned_scene import resubmit_what_was_pruned


def _forget(connection: Connection, table: str, end: int, sums: Sums) -> None:
    sums.remove_range(connection, table, "position", end)
    connection.execute(f"DELETE FROM {table} WHERE position < ?", (end,)).fetchall()


@contextmanager
def _ids_go_too() -> Iterator[None]:
    prune = transactions.prune

    def prune_all(connection: Connection, end: int, sums: Sums) -> None:
        prune(connection, end, sums)
        _forget(connection, "transaction_ids", end, sums)

    with mock.patch.object(transactions, "prune", prune_all):
        yield


def _ids_not_taken_from_the_base() -> AbstractContextManager[Any]:
    return mock.patch.object(transactions, "insert_ids", return_value=None)


PRUNING: Final[dict[str, Planted]] = {
    "ids-pruned": Planted(
        "the ids of pruned transactions go with them", _ids_go_too, scene=resubmit_what_was_pruned
    ),
    "ids-missing-from-base": Planted(
        "views that begin from the base do not know its ids",
        _ids_not_taken_from_the_base,
        scene=resubmit_what_was_pruned,
    ),
}
