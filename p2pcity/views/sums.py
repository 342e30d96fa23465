"""Sums over the rows of the look-up tables: a row that went bad is found before it is missed.

A row that is read proves itself, by a checksum or by the log. One that is looked up and not
found proves nothing: if its key went bad, a transaction could be applied twice on this node
alone. So the number of rows and the sums of their columns are kept, in the same SQLite
transaction, and compared at each start; SQLite adds up a million rows in a fraction of a second.
A sum that no single bit can leave as it was is enough: what is looked for is a fault of the disk.
"""

from collections.abc import Sequence
from typing import Final

from p2pcity.views.connection import Connection, RowDamaged, checksum

_LOW: Final = 0xFFFFFFFF
_COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "blocks": ("height", "raft_index"),
    "transactions": ("position", "outcome", "leaf_index"),
    "transaction_ids": ("prefix", "position"),
    "names": ("prefix", "position"),
    "events": (
        "position",
        "type",
        "source",
        "subject",
        "author",
        "time_ms",
        "longitude",
        "latitude",
    ),
}
# What the indexes hold of a table, each read from the index itself.
_INDEXES: Final[dict[str, str]] = {
    "events_type": "type",
    "events_source": "source",
    "events_subject": "subject",
}

TABLES: Final = (
    """CREATE TABLE sums (
        name TEXT PRIMARY KEY,
        rows INTEGER NOT NULL,
        low INTEGER NOT NULL,
        high INTEGER NOT NULL,
        checksum BLOB NOT NULL
    ) WITHOUT ROWID""",
)

Values = Sequence[int | None]


class Sums:
    """Number of rows, and the sums of the lower and upper halves of their values, by table."""

    def __init__(self) -> None:
        self._sums = dict.fromkeys(_COLUMNS, (0, 0, 0))

    def add(self, table: str, rows: Sequence[Values]) -> None:
        """Take in rows that are inserted into `table`."""
        count, low, high = self._sums[table]
        for row in rows:
            for value in row:
                if value is not None:
                    low += value & _LOW
                    high += value >> 32
        self._sums[table] = (count + len(rows), low, high)

    def remove_range(self, connection: Connection, table: str, key: str, end: int) -> None:
        """Take out the rows of `table` whose `key` is below `end`: they are about to be deleted."""
        gone = _add_up(connection, f"{table} WHERE {key} < {end}", _COLUMNS[table])
        count, low, high = self._sums[table]
        self._sums[table] = (count - gone[0], low - gone[1], high - gone[2])

    def remove(self, table: str, rows: Sequence[Values]) -> None:
        """Take out rows that are deleted from `table`."""
        other = Sums()
        other.add(table, rows)
        count, low, high = self._sums[table]
        gone = other._sums[table]
        self._sums[table] = (count - gone[0], low - gone[1], high - gone[2])

    def copy(self) -> "Sums":
        """Return a copy, to go back to when a transaction is rolled back."""
        other = Sums()
        other._sums = dict(self._sums)
        return other

    def write(self, connection: Connection) -> None:
        """Store the sums in place of those before."""
        rows = [(name, *sums) for name, sums in self._sums.items()]
        connection.executemany(
            "INSERT OR REPLACE INTO sums VALUES (?,?,?,?,?)",
            [(*row, checksum(*row)) for row in rows],
        ).fetchall()

    @classmethod
    def read(cls, connection: Connection) -> "Sums":
        """Return the stored sums; RowDamaged when they are no good."""
        found = cls()
        rows = connection.execute("SELECT * FROM sums ORDER BY name").fetchall()
        if {row[0] for row in rows} != set(_COLUMNS):
            raise RowDamaged("the views lack sums over their rows")
        for name, count, low, high, stored in rows:
            if checksum(name, count, low, high) != stored:
                raise RowDamaged(f"the sums over {name} are damaged")
            found._sums[name] = (count, low, high)
        return found

    def verify(self, connection: Connection) -> None:
        """Compare with what the tables and indexes hold now; RowDamaged."""
        for name, columns in _COLUMNS.items():
            if _add_up(connection, name, columns) != self._sums[name]:
                raise RowDamaged(f"rows of {name} are missing or damaged")
        for index, column in _INDEXES.items():
            where = f" WHERE {column} IS NOT NULL" if index == "events_subject" else ""
            by_index, by_table = (
                _add_up(connection, f"events {hint}{where}", ("position", column))
                for hint in (f"INDEXED BY {index}", "NOT INDEXED")
            )
            if by_index != by_table:
                raise RowDamaged(f"the index {index} is damaged")


def _add_up(connection: Connection, source: str, columns: Sequence[str]) -> tuple[int, int, int]:
    low = " + ".join(f"coalesce(sum({column} & {_LOW}), 0)" for column in columns)
    high = " + ".join(f"coalesce(sum({column} >> 32), 0)" for column in columns)
    [row] = connection.execute(f"SELECT count(*), {low}, {high} FROM {source}").fetchall()
    return row[0], row[1], row[2]
