"""The bases that this node could prune to: a row for each multiple of the interval.

A row has the mark and the digest of its base, and as long as it lies above what was pruned the
rest of the head too. The marks before it, which every later head repeats, are in the rows before.
"""

from dataclasses import dataclass, replace
from typing import Final

from p2pcity.views.connection import Connection, Row, RowDamaged, checksum
from p2pcity.wire import base as base_wire
from p2pcity.wire import cbor
from p2pcity.wire.base import BaseHead, Mark
from p2pcity.wire.limits import BASE_INTERVAL_BLOCKS

TABLES: Final = (
    """CREATE TABLE bases (
        height INTEGER PRIMARY KEY,
        chain BLOB NOT NULL,
        records INTEGER NOT NULL,
        digest BLOB,
        rest BLOB,
        checksum BLOB NOT NULL
    )""",
)


@dataclass(frozen=True, slots=True)
class BaseRecord:
    """A base as the views know it.

    `digest` is None below the base that this node got from others; `rest`, the head's bytes
    without marks, at and below what it pruned to.
    """

    height: int
    mark: Mark
    digest: bytes | None
    rest: bytes | None

    def row(self) -> tuple[int | bytes | None, ...]:
        """Return the values as they are stored, without the checksum."""
        return self.height, self.mark.chain, self.mark.records, self.digest, self.rest


def make(head: BaseHead) -> BaseRecord:
    """Return the record of a base that was just reached."""
    return BaseRecord(
        head.height,
        head.mark(head.intervals),
        base_wire.digest_head(base_wire.encode_head(head)),
        base_wire.encode_head(replace(head, marks=b"")),
    )


def write(connection: Connection, record: BaseRecord) -> None:
    """Store a row in place of the one before."""
    row = record.row()
    connection.execute(
        "INSERT OR REPLACE INTO bases VALUES (?,?,?,?,?,?)", (*row, checksum(*row))
    ).fetchall()


def write_given(connection: Connection, head: BaseHead, digest: bytes) -> None:
    """Store the rows of a base that the views begin from: of those below only the marks."""
    for number in range(1, head.intervals + 1):
        known = digest if number == head.intervals else None
        height = number * BASE_INTERVAL_BLOCKS
        write(connection, BaseRecord(height, head.mark(number), known, None))


def read(connection: Connection, height: int) -> BaseRecord | None:
    """Return the base at `height`, None when there is none; RowDamaged."""
    rows = connection.execute("SELECT * FROM bases WHERE height = ?", (height,)).fetchall()
    return _from_row(rows[0]) if rows else None


def read_marks(connection: Connection, height: int) -> bytes:
    """Return the bytes of all marks up to `height`; RowDamaged when one is missing."""
    rows = connection.execute(
        "SELECT * FROM bases WHERE height <= ? ORDER BY height", (height,)
    ).fetchall()
    found = [_from_row(row) for row in rows]
    expected = range(BASE_INTERVAL_BLOCKS, height + 1, BASE_INTERVAL_BLOCKS)
    if [record.height for record in found] != list(expected):
        raise RowDamaged("the list of bases is damaged")
    return b"".join(base_wire.encode_mark(record.mark) for record in found)


def head_bytes(record: BaseRecord, marks: bytes) -> bytes | None:
    """Return the head of a base with all its `marks`; None when the row has it no more."""
    if record.rest is None:
        return None
    fields = cbor.decode(record.rest, size_max=len(record.rest))
    assert isinstance(fields, dict), "its checksum was right"
    data = cbor.encode({**fields, "marks": marks})
    if base_wire.digest_head(data) != record.digest:
        raise RowDamaged(f"the base at height {record.height} does not match its digest")
    return data


def forget_heads(connection: Connection, height: int) -> None:
    """Drop the heads at and below `height`, which is a base on the disk now."""
    rows = connection.execute(
        "SELECT * FROM bases WHERE height <= ? AND rest IS NOT NULL", (height,)
    ).fetchall()
    for row in rows:
        write(connection, replace(_from_row(row), rest=None))


def _from_row(row: Row) -> BaseRecord:
    *values, stored = row
    if checksum(*values) != stored:
        raise RowDamaged(f"the row of the base at height {values[0]} is damaged")
    height, chain, records, digest, rest = values
    return BaseRecord(height, Mark(chain, records), digest, rest)
