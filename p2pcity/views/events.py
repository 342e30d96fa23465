"""The events in ledger order, what is asked of them, and the names that are taken.

A row holds what is filtered by, not the event: the body is in the segment log, once. Texts
are 32-bit labels (`labels.py`), a name is the first 8 bytes of its key; whoever reads a row
reads the event too and compares. Measured: 106 to 111 bytes of disk for an event.

Three indexes (type, source, subject) give ledger order for free, because SQLite ends each with
the position. Time and place have zone maps instead: a span of 64 blocks knows the bounds of its
events, so a query passes over spans that cannot match, at no cost for each event.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from p2pcity.ordering.apply import AppliedBlock
from p2pcity.views.connection import Connection, RowDamaged
from p2pcity.views.labels import bytes_label, key_label, prefix64, text_label
from p2pcity.views.position import Position
from p2pcity.views.sums import Sums
from p2pcity.wire.base import EVENT_BITS, HEIGHT_SHIFT, Record
from p2pcity.wire.event import Event

SPAN_BITS: Final = 6
SPAN_SHIFT: Final = HEIGHT_SHIFT + SPAN_BITS

TABLES: Final = (
    """CREATE TABLE events (
        position INTEGER PRIMARY KEY,
        type INTEGER NOT NULL,
        source INTEGER NOT NULL,
        subject INTEGER,
        author INTEGER NOT NULL,
        time_ms INTEGER NOT NULL,
        longitude INTEGER,
        latitude INTEGER
    )""",
    "CREATE INDEX events_type ON events (type)",
    "CREATE INDEX events_source ON events (source)",
    "CREATE INDEX events_subject ON events (subject) WHERE subject IS NOT NULL",
    """CREATE TABLE names (
        prefix INTEGER NOT NULL,
        position INTEGER NOT NULL,
        PRIMARY KEY (prefix, position)
    ) WITHOUT ROWID""",
    """CREATE TABLE types (
        label INTEGER NOT NULL,
        text TEXT NOT NULL,
        PRIMARY KEY (label, text)
    ) WITHOUT ROWID""",
    """CREATE TABLE spans (
        span INTEGER PRIMARY KEY,
        time_min INTEGER NOT NULL,
        time_max INTEGER NOT NULL,
        west INTEGER,
        south INTEGER,
        east INTEGER,
        north INTEGER
    )""",
)

# min() and max() of SQLite with several arguments are NULL as soon as one of them is.
_WIDEN: Final = """INSERT INTO spans VALUES (?,?,?,?,?,?,?)
    ON CONFLICT (span) DO UPDATE SET
        time_min = min(time_min, excluded.time_min),
        time_max = max(time_max, excluded.time_max),
        west = min(coalesce(west, excluded.west), coalesce(excluded.west, west)),
        south = min(coalesce(south, excluded.south), coalesce(excluded.south, south)),
        east = max(coalesce(east, excluded.east), coalesce(excluded.east, east)),
        north = max(coalesce(north, excluded.north), coalesce(excluded.north, north))"""

_TYPES_REMEMBERED_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class EventRow:
    """A row of the view: labels, time (Unix ms) and place (1e-7 degrees) of one event."""

    position: int
    type: int
    source: int
    subject: int | None
    author: int
    time_ms: int
    longitude: int | None
    latitude: int | None


def make_row(position: int, event: Event, author: bytes, block_time_ms: int) -> EventRow:
    """Return the row of an event; one that names no time counts as of its block's time."""
    return EventRow(*_values(position, event, key_label(author), block_time_ms))


_Values = tuple[int, int, int, int | None, int, int, int | None, int | None]


def _values(position: int, event: Event, author: int, block_time_ms: int) -> _Values:
    subject, place = event.subject, event.place
    return (
        position,
        text_label(event.type),
        text_label(event.source),
        # Subjects are many and seldom seen twice: they would only push others out of the cache.
        None if subject is None else bytes_label(subject.encode()),
        author,
        block_time_ms if event.time_ms is None else event.time_ms,
        None if place is None else place[0],
        None if place is None else place[1],
    )


class EventsWriter:
    """Adds the events of applied blocks; remembers which types it stored already."""

    def __init__(self) -> None:
        self._types: set[str] = set()

    def forget(self) -> None:
        """Forget what was stored: the SQLite transaction was rolled back."""
        self._types.clear()

    def insert(self, connection: Connection, applied: AppliedBlock, sums: Sums) -> int:
        """Add the events of an applied block, also to `sums`; their number."""
        rows: list[_Values] = []
        names: list[tuple[int, int]] = []
        types: set[str] = set()
        base = applied.height << HEIGHT_SHIFT
        block_time_ms = applied.block.header.time_ms
        for at, item in enumerate(applied.transactions):
            if item.outcome != "applied" or item.carried is None:
                continue
            author = key_label(item.carried.transaction.author)
            first = base | at << EVENT_BITS
            events = item.carried.decoded_events()
            for number, (event, name) in enumerate(zip(events, item.names, strict=True)):
                if event is None or name is None or number in item.duplicate_events:
                    continue
                types.add(event.type)
                rows.append(_values(first | number, event, author, block_time_ms))
                names.append((prefix64(name), first | number))
        if rows:
            self._insert_types(connection, types)
            insert = "INSERT INTO events VALUES (?,?,?,?,?,?,?,?)"
            connection.executemany(insert, rows).fetchall()
            connection.executemany("INSERT INTO names VALUES (?,?)", names).fetchall()
            sums.add("events", rows)
            sums.add("names", names)
            connection.execute(_WIDEN, _bounds(applied.height >> SPAN_BITS, rows)).fetchall()
        return len(rows)

    def _insert_types(self, connection: Connection, types: set[str]) -> None:
        new = types - self._types
        if new:
            connection.executemany(
                "INSERT OR IGNORE INTO types VALUES (?,?)",
                [(text_label(text), text) for text in sorted(new)],
            ).fetchall()
            if len(self._types) > _TYPES_REMEMBERED_MAX:
                self._types.clear()
            self._types |= new


def insert_names(connection: Connection, records: Sequence[Record], sums: Sums) -> None:
    """Add the names of a base's records, also to `sums`: all that outlives a pruned event."""
    names = [(prefix64(item.key), item.position) for item in records if item.is_event]
    connection.executemany("INSERT INTO names VALUES (?,?)", names).fetchall()
    sums.add("names", names)


def prune(connection: Connection, height: int, sums: Sums) -> None:
    """Delete the events up to `height`, also from `sums`; their names stay taken."""
    first = height + 1
    end = first << HEIGHT_SHIFT
    sums.remove_range(connection, "events", "position", end)
    connection.execute("DELETE FROM events WHERE position < ?", (end,)).fetchall()
    # The span in which the ledger begins now may have lost events at its start.
    span = first >> SPAN_BITS
    connection.execute("DELETE FROM spans WHERE span <= ?", (span,)).fetchall()
    connection.execute(
        f"INSERT INTO spans {_SPANS_OF_EVENTS} WHERE position < ? GROUP BY 1",
        ((span + 1) << SPAN_SHIFT,),
    ).fetchall()


def prune_types(connection: Connection) -> None:
    """Drop the types of which no event is left."""
    connection.execute(
        "DELETE FROM types WHERE NOT EXISTS (SELECT 1 FROM events WHERE type = label)"
    ).fetchall()


def _bounds(span: int, rows: Sequence[_Values]) -> tuple[int | None, ...]:
    times = [row[5] for row in rows]
    longitudes = [row[6] for row in rows if row[6] is not None]
    latitudes = [row[7] for row in rows if row[7] is not None]
    return (
        span,
        min(times),
        max(times),
        min(longitudes, default=None),
        min(latitudes, default=None),
        max(longitudes, default=None),
        max(latitudes, default=None),
    )


_SPANS_OF_EVENTS: Final = f"""SELECT position >> {SPAN_SHIFT} AS number,
            min(time_ms) AS time_1, max(time_ms) AS time_2,
            min(longitude) AS place_1, min(latitude) AS place_2,
            max(longitude) AS place_3, max(latitude) AS place_4
        FROM events NOT INDEXED"""
_SPANS_DIFFER: Final = f"""SELECT count(*) FROM spans FULL JOIN (
        {_SPANS_OF_EVENTS} GROUP BY 1
    ) ON span = number
    WHERE span IS NOT number OR time_min IS NOT time_1 OR time_max IS NOT time_2
        OR west IS NOT place_1 OR south IS NOT place_2
        OR east IS NOT place_3 OR north IS NOT place_4"""


def verify(connection: Connection) -> None:
    """Compare spans and types, which are changed in place, with what they stand for; RowDamaged."""
    if connection.execute(_SPANS_DIFFER).fetchall()[0][0]:
        raise RowDamaged("the spans of the events are damaged")
    rows = connection.execute("SELECT label, text FROM types").fetchall()
    if any(type(text) is not str or text_label(text) != label for label, text in rows):
        raise RowDamaged("the list of types is damaged")
    [(missing,)] = connection.execute(
        "SELECT count(*) FROM (SELECT DISTINCT type FROM events) LEFT JOIN types ON label = type"
        " WHERE label IS NULL"
    ).fetchall()
    if missing:
        raise RowDamaged("types are missing")


def find_name(connection: Connection, name_key: bytes) -> list[int]:
    """Return the positions of the events whose name may be `name_key` (64 bits agree)."""
    rows = connection.execute(
        "SELECT position FROM names WHERE prefix = ? ORDER BY position", (prefix64(name_key),)
    ).fetchall()
    return [row[0] for row in rows]


def count(connection: Connection, height: int, transaction: int) -> int:
    """Return how many events the transaction at this place has in the views."""
    first = Position(height, transaction, 0).number
    rows = connection.execute(
        "SELECT count(*) FROM events WHERE position >= ? AND position < ?",
        (first, first + (1 << EVENT_BITS)),
    ).fetchall()
    found: int = rows[0][0]
    return found


def positions(connection: Connection, height: int) -> dict[int, list[int]]:
    """Return which events of the block at `height` are in the views, by their transaction."""
    rows = connection.execute(
        "SELECT position FROM events WHERE position >= ? AND position < ? ORDER BY position",
        (height << HEIGHT_SHIFT, (height + 1) << HEIGHT_SHIFT),
    ).fetchall()
    found: dict[int, list[int]] = {}
    for (number,) in rows:
        position = Position.from_number(number)
        found.setdefault(position.transaction, []).append(position.event)
    return found


def list_types(connection: Connection) -> list[str]:
    """Return the event types on the ledger, sorted."""
    return [row[0] for row in connection.execute("SELECT text FROM types ORDER BY 1").fetchall()]
