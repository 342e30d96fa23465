"""The one row that says what the views show: network, applied index, tip and counts.

It is written in the same SQLite transaction as the rows it speaks of.
"""

from dataclasses import dataclass
from typing import Final

from p2pcity.crypto.merkle import Frontier
from p2pcity.ordering.apply import Tip
from p2pcity.views.connection import Connection, RowDamaged, checksum
from p2pcity.wire.base import NO_CHAIN, Mark

HASH_BYTES: Final = 32
NO_MARK: Final = Mark(NO_CHAIN, 0)

TABLES: Final = (
    """CREATE TABLE meta (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        network BLOB NOT NULL,
        applied_index INTEGER NOT NULL,
        height INTEGER NOT NULL,
        head BLOB NOT NULL,
        head_index INTEGER NOT NULL,
        head_time_ms INTEGER NOT NULL,
        tree_size INTEGER NOT NULL,
        peaks BLOB NOT NULL,
        events INTEGER NOT NULL,
        dropped INTEGER NOT NULL,
        chain BLOB NOT NULL,
        records INTEGER NOT NULL,
        pruned INTEGER NOT NULL,
        checksum BLOB NOT NULL
    )""",
)


@dataclass(frozen=True, slots=True)
class Meta:
    """What the views show.

    `applied_index` is the newest Raft index that was applied, `head_index` that of the newest
    block (0 before the first). `events` counts the events in the views, `dropped` the
    transactions of blocks that were not applied. `mark` is the chain over the keys that are
    taken, and their number (`wire.base`). Up to the height `pruned` rows are gone.
    """

    network: bytes
    applied_index: int
    head_index: int
    tip: Tip
    events: int
    dropped: int
    mark: Mark = NO_MARK
    pruned: int = 0

    def row(self) -> tuple[int | bytes, ...]:
        """Return the values as they are stored, without the checksum."""
        tip = self.tip
        return (
            1,
            self.network,
            self.applied_index,
            tip.height,
            tip.hash,
            self.head_index,
            tip.time_ms,
            tip.frontier.size,
            b"".join(tip.frontier.peaks),
            self.events,
            self.dropped,
            self.mark.chain,
            self.mark.records,
            self.pruned,
        )


def write(connection: Connection, meta: Meta) -> None:
    """Store the row in place of the one before."""
    row = meta.row()
    connection.execute(
        f"INSERT OR REPLACE INTO meta VALUES ({','.join('?' * (len(row) + 1))})",
        (*row, checksum(*row)),
    ).fetchall()


def read(connection: Connection) -> Meta:
    """Return the row; RowDamaged when it is missing or damaged."""
    rows = connection.execute("SELECT * FROM meta").fetchall()
    if len(rows) != 1:
        raise RowDamaged("the views have no meta row")
    *values, stored = rows[0]
    if checksum(*values) != stored:
        raise RowDamaged("the views' meta row is damaged")
    _, network, applied_index, height, head, head_index, time_ms, size, peaks, *rest = values
    events, dropped, chain, records, pruned = rest
    frontier = Frontier(
        size, tuple(peaks[at : at + HASH_BYTES] for at in range(0, len(peaks), HASH_BYTES))
    )
    tip = Tip(height, head, time_ms, frontier)
    return Meta(
        network, applied_index, head_index, tip, events, dropped, Mark(chain, records), pruned
    )
