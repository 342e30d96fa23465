"""The transactions by id: what became of each, and where it stands.

Rows lie in ledger order; the index holds 8 bytes of the id and compares the row's. Duplicates
have no row: their id leads to the one that was applied. Of what was pruned the index stays, and
leads to the base's record.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from p2pcity.ordering.apply import AppliedBlock, Outcome
from p2pcity.views.base import NO_BASE, Base
from p2pcity.views.connection import Connection, Row, RowDamaged, checksum
from p2pcity.views.labels import prefix64
from p2pcity.views.position import Position
from p2pcity.views.sums import Sums
from p2pcity.wire.base import EVENT_BITS, HEIGHT_SHIFT, Record

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


def insert_ids(connection: Connection, records: Sequence[Record], sums: Sums) -> None:
    """Add the ids of a base's records, also to `sums`: all that outlives a pruned transaction."""
    ids = [(prefix64(item.key), item.position) for item in records if not item.is_event]
    connection.executemany("INSERT INTO transaction_ids VALUES (?,?)", ids).fetchall()
    sums.add("transaction_ids", ids)


def prune(connection: Connection, end: int, sums: Sums) -> None:
    """Delete the rows below the position `end`, also from `sums`.

    Only ids of dropped transactions go with them: those of applied ones are taken for ever.
    """
    rows = connection.execute(
        "SELECT id, position FROM transactions WHERE position < ? AND outcome != 0", (end,)
    ).fetchall()
    ids = [(prefix64(id_), position) for id_, position in rows]
    connection.executemany(
        "DELETE FROM transaction_ids WHERE prefix = ? AND position = ?", ids
    ).fetchall()
    sums.remove("transaction_ids", ids)
    sums.remove_range(connection, "transactions", "position", end)
    connection.execute("DELETE FROM transactions WHERE position < ?", (end,)).fetchall()


def read(connection: Connection, id: bytes, base: Base = NO_BASE) -> TransactionRecord | None:
    """Return what became of a transaction, None when no block carries it; RowDamaged.

    An applied one comes before a dropped one of the same id, the first before later ones. What
    became of those that were pruned is in `base`.
    """
    found = _find(connection, id, base)
    applied = (record for record in found if record.outcome == "applied")
    return next(applied, found[0] if found else None)


def has_applied(connection: Connection, id: bytes, base: Base = NO_BASE) -> bool:
    """Say whether a transaction with this id was applied; RowDamaged."""
    return any(record.outcome == "applied" for record in _find(connection, id, base))


def _find(connection: Connection, id: bytes, base: Base) -> list[TransactionRecord]:
    """Return the rows of an id in ledger order; each that its prefix leads to has to be sound."""
    rows = connection.execute(
        "SELECT i.position, t.* FROM transaction_ids i LEFT JOIN transactions t"
        " ON t.position = i.position WHERE i.prefix = ? ORDER BY i.position",
        (prefix64(id),),
    ).fetchall()
    records = [
        _from_row((position, *row[1:]))
        if position >= base.floor
        else _from_base(base, position, id)
        for position, *row in rows
    ]
    return [record for record in records if record is not None and record.id == id]


def _from_base(base: Base, position: int, id: bytes) -> TransactionRecord | None:
    """A pruned transaction; None for one that was dropped, or of another id."""
    record = base.find_transaction(position)
    if record is None or record.key != id:
        # 64 bits of it agree: rather a damaged record than another transaction.
        base.check(position)
        return None
    found = Position.from_number(record.position)
    return TransactionRecord(record.key, found.height, found.transaction, "applied", record.value)


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
