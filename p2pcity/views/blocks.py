"""The blocks by height: where each stands in the Raft log, and what it added."""

from dataclasses import dataclass
from typing import Final

from p2pcity.ordering.apply import AppliedBlock
from p2pcity.views.connection import Connection, Row, RowDamaged, checksum
from p2pcity.views.sums import Sums

TABLES: Final = (
    """CREATE TABLE blocks (
        height INTEGER PRIMARY KEY,
        raft_index INTEGER NOT NULL,
        hash BLOB NOT NULL,
        time_ms INTEGER NOT NULL,
        tree_size INTEGER NOT NULL,
        transactions INTEGER NOT NULL,
        events INTEGER NOT NULL,
        checksum BLOB NOT NULL
    )""",
)


@dataclass(frozen=True, slots=True)
class BlockRecord:
    """A block as the views know it; its bytes are in the segment log.

    `tree_size` is the tree's after this block, `transactions` counts all that it carries (the
    dropped ones too), `events` those that are in the views. `time_ms` is Unix time.
    """

    height: int
    raft_index: int
    hash: bytes
    time_ms: int
    tree_size: int
    transactions: int
    events: int


def insert(connection: Connection, applied: AppliedBlock, events: int) -> None:
    """Add the row of an applied block that brought `events` events into the views."""
    header = applied.block.header
    row = (
        header.height,
        applied.index,
        applied.block.hash,
        header.time_ms,
        applied.frontier.size,
        len(applied.transactions),
        events,
    )
    connection.execute(
        "INSERT INTO blocks VALUES (?,?,?,?,?,?,?,?)", (*row, checksum(*row))
    ).fetchall()


def read(connection: Connection, height: int) -> BlockRecord | None:
    """Return the block at `height`, None when there is none; RowDamaged."""
    rows = connection.execute("SELECT * FROM blocks WHERE height = ?", (height,)).fetchall()
    return _from_row(rows[0]) if rows else None


def read_range(connection: Connection, first: int, limit: int) -> list[BlockRecord]:
    """Return up to `limit` blocks from the height `first` upwards; RowDamaged."""
    rows = connection.execute(
        "SELECT * FROM blocks WHERE height >= ? ORDER BY height LIMIT ?", (first, limit)
    ).fetchall()
    return [_from_row(row) for row in rows]


def _from_row(row: Row) -> BlockRecord:
    *values, stored = row
    if checksum(*values) != stored:
        raise RowDamaged(f"the row of block {values[0]} is damaged")
    return BlockRecord(*values)


def prune(connection: Connection, height: int, sums: Sums) -> None:
    """Delete the rows up to `height`, also from `sums`."""
    sums.remove_range(connection, "blocks", "height", height + 1)
    connection.execute("DELETE FROM blocks WHERE height <= ?", (height,)).fetchall()
