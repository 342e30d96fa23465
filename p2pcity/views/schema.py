"""All tables of views.db, in the order in which they are made."""

from typing import Final

from p2pcity.views import bases, blocks, city, events, meta, sums, transactions
from p2pcity.views.connection import Connection, RowDamaged

VERSION: Final = 4
TABLES: Final = (
    *meta.TABLES,
    *city.TABLES,
    *blocks.TABLES,
    *transactions.TABLES,
    *events.TABLES,
    *sums.TABLES,
    *bases.TABLES,
)


def create(connection: Connection) -> None:
    """Make every table and index in an empty database, which counts for nothing yet."""
    for statement in TABLES:
        connection.execute(statement).fetchall()


def complete(connection: Connection) -> None:
    """Say that everything is there that the views begin with."""
    connection.execute(f"PRAGMA user_version={VERSION}").fetchall()


def check(connection: Connection) -> None:
    """Raise RowDamaged unless the database has this schema (an older one is made anew)."""
    version = connection.execute("PRAGMA user_version").fetchall()[0][0]
    if version != VERSION:
        raise RowDamaged(f"it has schema {version}, this release has {VERSION}")
