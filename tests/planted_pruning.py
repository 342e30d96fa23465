"""Bugs to be planted where blocks are pruned; whole nodes find them, or the simulator does."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final
from unittest import mock

from p2pcity.ledger import base_store, segment_log
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


def _vote_goes_with_the_files() -> AbstractContextManager[Any]:
    return mock.patch.object(segment_log.SegmentLog, "_kept", return_value=[])


def _records_not_synced() -> AbstractContextManager[Any]:
    """The head is on the disk before the records that it counts."""
    real = base_store._sync

    def sync(path: Path, descriptor: int) -> None:
        if path.name != "records":
            real(path, descriptor)

    return mock.patch.object(base_store, "_sync", sync)


def _fetched_records_believed() -> AbstractContextManager[Any]:
    """What an earlier run left of a base counts, and is not compared with the marks."""
    return mock.patch.object(base_store, "is_interval_right", return_value=True)


PRUNING: Final[dict[str, Planted]] = {
    "ids-pruned": Planted(
        "the ids of pruned transactions go with them", _ids_go_too, scene=resubmit_what_was_pruned
    ),
    "ids-missing-from-base": Planted(
        "views that begin from the base do not know its ids",
        _ids_not_taken_from_the_base,
        scene=resubmit_what_was_pruned,
    ),
    "vote-pruned": Planted(
        "the vote goes with the files that are removed",
        _vote_goes_with_the_files,
        147,
        kinds=("pruned", "crash", "campaign", "halves", "isolation", "loss"),
    ),
    "base-before-records": Planted(
        "a base is in force before its records are on the disk",
        _records_not_synced,
        3,
        kinds=("pruned", "power loss", "power loss of all"),
    ),
    "fetched-records-believed": Planted(
        "records that an earlier run fetched are not checked again",
        _fetched_records_believed,
        3,
        kinds=("behind the base", "crash while fetching a base", "power loss"),
    ),
}
