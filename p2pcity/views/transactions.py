"""The transactions by id: what became of each, and where it stands.

Rows lie in ledger order; the index holds 8 bytes of the id and compares the row's. Duplicates
have no row: their id leads to the one that was applied.
"""

from dataclasses import dataclass
from typing import Final

from p2pcity.ordering.apply import AppliedBlock, Outcome
from p2pcity.views.connection import Connection, Row, RowDamaged, checksum
from p2pcity.views.labels import prefix64
from p2pcity.views.position import Position
from p2pcity.views.sums import Sums
from p2pcity.wire.base import EVENT_BITS, HEIGHT_SHIFT

TABLES: Final = (
    """CREATE TABLE transactions (
        position INTEGER PRIMARY KEY,
        id BLOB NOT NULL,
        outcome INTEGER NOT NULL,
        leaf_index INTEGER,
        checksum BLOB NOT NULL
    )""",
    """CREATE TABLE transaction_ids (
        prefix INTEGER NOT NULL,
        position INTEGER NOT NULL,
        PRIMARY KEY (prefix, position)
    ) WITHOUT ROWID""",
)

OUTCOMES: Final[tuple[Outcome, ...]] = ("applied", "expired", "unauthorised", "invalid")
_NUMBERS: Final = {outcome: number for number, outcome in enumerate(OUTCOMES)}


@dataclass(frozen=True, slots=True)
class TransactionRecord:
    """What became of a transaction: in which block, at which position, which leaf of the tree.

    `leaf_index` is None unless `outcome` is `applied`.
    """

    id: bytes
    height: int
    position: int
    outcome: Outcome
    leaf_index: int | None


def insert(connection: Connection, applied: AppliedBlock, sums: Sums) -> int:
    """Add the rows of an applied block, also to `sums`; their number."""
    rows: list[tuple[int, bytes, int, int | None, bytes]] = []
    ids: list[tuple[int, int]] = []
    base = applied.height << HEIGHT_SHIFT
    for at, item in enumerate(applied.transactions):
        if item.carried is None or item.outcome == "duplicate":
            continue
        position = base | at << EVENT_BITS
        id_ = item.carried.transaction.id
        number = _NUMBERS[item.outcome]
        leaf = item.leaf_index
        rows.append((position, id_, number, leaf, checksum(position, id_, number, leaf)))
        ids.append((prefix64(id_), position))
    connection.executemany("INSERT INTO transactions VALUES (?,?,?,?,?)", rows).fetchall()
    connection.executemany("INSERT INTO transaction_ids VALUES (?,?)", ids).fetchall()
    sums.add("transactions", [(row[0], row[2], row[3]) for row in rows])
    sums.add("transaction_ids", ids)
    return len(rows)


def read(connection: Connection, id: bytes) -> TransactionRecord | None:
    """Return what became of a transaction, None when no block carries it; RowDamaged.

    An applied one comes before a dropped one of the same id, the first before later ones.
    """
    found = _find(connection, id)
    applied = (record for record in found if record.outcome == "applied")
    return next(applied, found[0] if found else None)


def has_applied(connection: Connection, id: bytes) -> bool:
    """Say whether a transaction with this id was applied; RowDamaged."""
    return any(record.outcome == "applied" for record in _find(connection, id))


def _find(connection: Connection, id: bytes) -> list[TransactionRecord]:
    """Return the rows of an id in ledger order; each that its prefix leads to has to be sound."""
    rows = connection.execute(
        "SELECT i.position, t.* FROM transaction_ids i LEFT JOIN transactions t"
        " ON t.position = i.position WHERE i.prefix = ? ORDER BY i.position",
        (prefix64(id),),
    ).fetchall()
    records = [_from_row((position, *row[1:])) for position, *row in rows]
    return [record for record in records if record.id == id]


def read_at(connection: Connection, height: int, position: int) -> TransactionRecord | None:
    """Return the transaction at `position` of the block at `height`, None for a duplicate."""
    rows = connection.execute(
        "SELECT * FROM transactions WHERE position = ?",
        (Position(height, position, 0).number,),
    ).fetchall()
    return _from_row(rows[0]) if rows else None


def read_block(connection: Connection, height: int) -> dict[int, TransactionRecord]:
    """Return the rows of the block at `height` by position; RowDamaged."""
    rows = connection.execute(
        "SELECT * FROM transactions WHERE position >= ? AND position < ?",
        (height << HEIGHT_SHIFT, (height + 1) << HEIGHT_SHIFT),
    ).fetchall()
    records = [_from_row(row) for row in rows]
    return {record.position: record for record in records}


def _from_row(row: Row) -> TransactionRecord:
    number, id_, outcome, leaf_index, stored = row
    if checksum(number, id_, outcome, leaf_index) != stored:
        raise RowDamaged(f"the row of a transaction at position {number} is damaged")
    position = Position.from_number(number)
    return TransactionRecord(
        id_, position.height, position.transaction, OUTCOMES[outcome], leaf_index
    )
