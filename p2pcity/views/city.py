"""The one row that keeps the city's nodes and voters, as they are after the newest block.

It is written in the same SQLite transaction as the block that changed them.
"""

from typing import Final

from p2pcity.city.membership import State, decode_members, encode_city
from p2pcity.errors import DecodeError
from p2pcity.views.connection import Connection, RowDamaged, checksum
from p2pcity.wire.genesis import Genesis

TABLES: Final = (
    """CREATE TABLE city (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        members BLOB NOT NULL,
        checksum BLOB NOT NULL
    )""",
)


def write(connection: Connection, state: State) -> None:
    """Store the row in place of the one before."""
    row = (1, encode_city(state))
    connection.execute(
        "INSERT OR REPLACE INTO city VALUES (?,?,?)", (*row, checksum(*row))
    ).fetchall()


def read(connection: Connection, genesis: Genesis) -> State:
    """Return the city, its authors those of the genesis; RowDamaged when the row is no good."""
    rows = connection.execute("SELECT * FROM city").fetchall()
    if len(rows) != 1:
        raise RowDamaged("the views have no row of the city")
    *values, stored = rows[0]
    if checksum(*values) != stored:
        raise RowDamaged("the views' row of the city is damaged")
    try:
        return decode_members(values[1], genesis)
    except DecodeError as error:
        raise RowDamaged(f"the views' row of the city can't be read: {error}") from error
