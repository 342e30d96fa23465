"""What a query may ask for, and that SQLite answers it in ledger order without sorting."""

import sqlite3

import pytest

from p2pcity.errors import DecodeError
from p2pcity.views import queries, schema
from p2pcity.views.connection import Parameters
from p2pcity.views.queries import EventQuery
from p2pcity.wire.event import Event

EVENT = Event(b"s" * 16, "1", "permit.granted", "urn:a", "parcel")


@pytest.mark.parametrize(
    "arguments",
    [
        {"limit": 0},
        {"limit": 1001},
        {"bbox": (0.0, 2.0, 1.0, 1.0)},
        {"bbox": (-181.0, 0.0, 1.0, 1.0)},
        {"bbox": (0.0, 0.0, float("nan"), 1.0)},
        {"bbox": (0.0, float("-inf"), 1.0, 1.0)},
        {"since_ms": 2**63},
        {"until_ms": -(2**63)},
    ],
)
def test_queries_that_cannot_be_asked(arguments: dict) -> None:
    with pytest.raises(DecodeError):
        EventQuery(**arguments)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (EventQuery(), True),
        (EventQuery(type="permit.granted"), True),
        (EventQuery(type="permit.*"), True),
        (EventQuery(type="permit.granted.*"), False),
        (EventQuery(type="permit"), False),
        (EventQuery(source="urn:a", subject="parcel", authors=(b"k",)), True),
        (EventQuery(source="urn:b"), False),
        (EventQuery(subject="other"), False),
        (EventQuery(authors=(b"x",)), False),
    ],
)
def test_matches_compares_the_texts(query: EventQuery, expected: bool) -> None:
    assert query.matches(EVENT, b"k") is expected


class Recorder:
    """A connection that keeps the statements."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.statements: list[tuple[str, Parameters]] = []

    def execute(self, sql: str, parameters: Parameters = (), /) -> sqlite3.Cursor:
        self.statements.append((sql, parameters))
        return self.connection.execute(sql, parameters)

    def executemany(self, sql: str, rows: object, /) -> sqlite3.Cursor:
        raise AssertionError("a query writes nothing")


@pytest.mark.parametrize(
    ("query", "used"),
    [
        (EventQuery(), "PRIMARY KEY"),
        (EventQuery(type="a"), "events_type"),
        (EventQuery(type="a", source="b"), "events_source"),
        (EventQuery(type="a", source="b", subject="c"), "events_subject"),
        (EventQuery(type="a", since_ms=1), "events_type"),
        (EventQuery(since_ms=1, until_ms=2), "SEARCH s USING INTEGER PRIMARY KEY"),
        (EventQuery(bbox=(1, 1, 2, 2), authors=(b"k",)), "SEARCH e USING INTEGER PRIMARY KEY"),
        (EventQuery(bbox=(179, 1, -179, 2)), "SEARCH s USING INTEGER PRIMARY KEY"),
        (EventQuery(authors=(b"k",)), "PRIMARY KEY"),
    ],
)
def test_plans(query: EventQuery, used: str) -> None:
    connection = sqlite3.connect(":memory:")
    schema.create(connection)
    recorder = Recorder(connection)
    queries.find_rows(recorder, query, 5, 10)
    ((sql, parameters),) = recorder.statements
    plan = " / ".join(
        row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall()
    )
    assert used in plan
    assert "TEMP B-TREE" not in plan
    connection.close()
