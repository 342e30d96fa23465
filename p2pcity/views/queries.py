"""Queries on the events view: filters, pages and the SQL that finds candidate rows.

The rows found are candidates (labels may collide): the reader compares the events themselves
with `EventQuery.matches`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from p2pcity.errors import DecodeError
from p2pcity.views.connection import Connection
from p2pcity.views.events import SPAN_SHIFT, EventRow
from p2pcity.views.labels import key_label, text_label
from p2pcity.views.position import BEGINNING, Position
from p2pcity.wire.event import Event

LIMIT_MAX: Final = 1_000
TYPES_MERGED_MAX: Final = 64
DEGREE: Final = 10_000_000
"""Coordinates are stored in 1e-7 degrees."""

_COLUMNS: Final = (
    "e.position, e.type, e.source, e.subject, e.author, e.time_ms, e.longitude, e.latitude"
)
_PREFIX_END: Final = ".*"

Condition = tuple[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class EventQuery:
    """What to look for; None means any.

    `type` is exact or a prefix `permit.*`. `authors` are public keys, of which any will do.
    `since_ms` is included, `until_ms` is not (Unix ms, of the event, or of its block where the
    event names no time). `bbox` is (west, south, east, north) in degrees, edges included; west
    above east crosses the antimeridian. `cursor` is the last position already seen. `limit` is
    1 to 1,000.
    """

    type: str | None = None
    source: str | None = None
    subject: str | None = None
    authors: tuple[bytes, ...] | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    bbox: tuple[float, float, float, float] | None = None
    limit: int = 100
    cursor: Position = BEGINNING

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= LIMIT_MAX:
            raise DecodeError(f"the limit is {self.limit}; 1 to {LIMIT_MAX} is allowed")
        for name, value in (("since", self.since_ms), ("until", self.until_ms)):
            if value is not None and abs(value) >= 1 << 62:
                raise DecodeError(f"{name} is not a time in milliseconds")
        if self.bbox is not None:
            west, south, east, north = self.bbox
            # Written so that NaN fails too.
            if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south <= north <= 90):
                raise DecodeError(
                    "the bbox is not on the globe",
                    remedy="Give W,S,E,N in degrees, with S not above N.",
                )

    @property
    def type_prefix(self) -> str | None:
        """The prefix, its dot included, when `type` names one."""
        return self.type[:-1] if self.type is not None and self.type.endswith(_PREFIX_END) else None

    def matches(self, event: Event, author: bytes) -> bool:
        """Say whether the texts and the author are those asked for (rows only hold labels)."""
        prefix = self.type_prefix
        if prefix is not None:
            if not event.type.startswith(prefix) or len(event.type) == len(prefix):
                return False
        elif self.type is not None and event.type != self.type:
            return False
        return (
            self.source in (None, event.source)
            and self.subject in (None, event.subject)
            and (self.authors is None or author in self.authors)
        )


def find_rows(connection: Connection, query: EventQuery, after: int, limit: int) -> list[EventRow]:
    """Return up to `limit` candidate rows of `query` behind the position `after`, in order."""
    if query.type is None:
        return _find(connection, query, None, after, limit)
    prefix = query.type_prefix
    if prefix is None:
        return _find(connection, query, (text_label(query.type),), after, limit)
    labels = _find_labels(connection, prefix)
    if len(labels) > TYPES_MERGED_MAX or query.source is not None or query.subject is not None:
        return _find(connection, query, labels, after, limit)
    # Each type alone comes in ledger order from its index; all together would be sorted anew.
    found: list[EventRow] = []
    for label in labels:
        found += _find(connection, query, (label,), after, limit)
    return sorted(found, key=lambda row: row.position)[:limit]


def _find_labels(connection: Connection, prefix: str) -> tuple[int, ...]:
    rows = connection.execute(
        "SELECT DISTINCT label FROM types WHERE substr(text, 1, ?) = ? ORDER BY label",
        (len(prefix), prefix),
    ).fetchall()
    return tuple(row[0] for row in rows)


def _find(
    connection: Connection,
    query: EventQuery,
    types: Sequence[int] | None,
    after: int,
    limit: int,
) -> list[EventRow]:
    if types is not None and not types:
        return []
    index, conditions = _label_conditions(query, types)
    conditions += list(_range_conditions(query))
    if index is None and (query.since_ms, query.until_ms, query.bbox) != (None, None, None):
        return _find_in_spans(connection, query, conditions, after, limit)
    table = "events e" if index is None else f"events e INDEXED BY {index}"
    where = " AND ".join(["e.position > ?", *(sql for sql, _ in conditions)])
    parameters = [after, *(value for _, values in conditions for value in values), limit]
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM {table} WHERE {where} ORDER BY e.position LIMIT ?", parameters
    ).fetchall()
    return [EventRow(*row) for row in rows]


def _find_in_spans(
    connection: Connection,
    query: EventQuery,
    conditions: Sequence[Condition],
    after: int,
    limit: int,
) -> list[EventRow]:
    spans = list(_span_conditions(query))
    where = " AND ".join(sql for sql, _ in (*spans, *conditions))
    parameters = [after >> SPAN_SHIFT]
    parameters += [value for _, values in (*spans, *conditions) for value in values]
    # CROSS JOIN keeps the order of the loops, and with it the ledger's order without a sort.
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM spans s CROSS JOIN events e NOT INDEXED"
        f" ON e.position >= (s.span << {SPAN_SHIFT})"
        f" AND e.position < ((s.span + 1) << {SPAN_SHIFT})"
        f" WHERE s.span >= ? AND {where} AND e.position > ?"
        " ORDER BY s.span, e.position LIMIT ?",
        (*parameters, after, limit),
    ).fetchall()
    return [EventRow(*row) for row in rows]


def _label_conditions(
    query: EventQuery, types: Sequence[int] | None
) -> tuple[str | None, list[Condition]]:
    """Return the index to walk (the one that tells most apart) and the conditions on labels."""
    index = None
    conditions: list[Condition] = []
    if types is not None:
        if len(types) == 1:
            index = "events_type"
        marks = ",".join("?" * len(types))
        conditions.append((f"e.type IN ({marks})" if len(types) > 1 else "e.type = ?", (*types,)))
    if query.source is not None:
        index = "events_source"
        conditions.append(("e.source = ?", (text_label(query.source),)))
    if query.subject is not None:
        index = "events_subject"
        conditions.append(("e.subject = ?", (text_label(query.subject),)))
    if query.authors is not None:
        marks = ",".join("?" * len(query.authors))
        labels = tuple(key_label(author) for author in query.authors)
        conditions.append((f"e.author IN ({marks})", labels))
    return index, conditions


def _range_conditions(query: EventQuery) -> Iterator[Condition]:
    if query.since_ms is not None:
        yield "e.time_ms >= ?", (query.since_ms,)
    if query.until_ms is not None:
        yield "e.time_ms < ?", (query.until_ms,)
    if query.bbox is not None:
        west, south, east, north = (round(value * DEGREE) for value in query.bbox)
        yield "e.latitude BETWEEN ? AND ?", (south, north)
        if west <= east:
            yield "e.longitude BETWEEN ? AND ?", (west, east)
        else:
            yield "(e.longitude >= ? OR e.longitude <= ?)", (west, east)


def _span_conditions(query: EventQuery) -> Iterator[Condition]:
    if query.since_ms is not None:
        yield "s.time_max >= ?", (query.since_ms,)
    if query.until_ms is not None:
        yield "s.time_min < ?", (query.until_ms,)
    if query.bbox is not None:
        west, south, east, north = (round(value * DEGREE) for value in query.bbox)
        yield "s.north >= ? AND s.south <= ?", (south, north)
        if west <= east:
            yield "s.east >= ? AND s.west <= ?", (west, east)
        else:
            yield "(s.east >= ? OR s.west <= ?)", (west, east)
