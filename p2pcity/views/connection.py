"""What the views need of a database connection (sqlite3's fits, and only `ledger` opens one)."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

Row = tuple[Any, ...]
Parameters = Sequence[int | str | bytes | None]

CHECKSUM_BYTES = 8


class Cursor(Protocol):
    """What a statement gave back."""

    def fetchall(self) -> list[Any]:
        """Return all rows that are left; every cursor is exhausted."""


class Connection(Protocol):
    """Runs statements."""

    def execute(self, sql: str, parameters: Parameters = (), /) -> Cursor:
        """Run one statement."""

    def executemany(self, sql: str, rows: Iterable[Parameters], /) -> Cursor:
        """Run one statement for each row."""


def checksum(*values: object) -> bytes:
    """Return 8 bytes of BLAKE2b over a row's values (whatever a damaged file gives for them).

    It finds a flipped bit, not a forger: the log, not the view, is what is proved.
    """
    return hashlib.blake2b(repr(values).encode(), digest_size=CHECKSUM_BYTES).digest()


class RowDamaged(ValueError):
    """A row does not match its checksum, or what the log says; the views must be rebuilt."""
