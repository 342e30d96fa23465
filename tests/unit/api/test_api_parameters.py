import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from p2pcity.api import json_mapping, parameters
from p2pcity.api.parameters import Query
from p2pcity.api.problems import Problem
from p2pcity.api.service import POSITION_MAX, Cursor
from p2pcity.api.times import read_time_ms, write_time
from p2pcity.errors import DecodeError
from p2pcity.wire.fields import TIME_MS_MAX

FILTERS = frozenset(
    ("type", "source", "subject", "author", "member", "since", "until", "bbox", "limit", "cursor")
)


def request(query: str = "", **headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "query_string": query.encode(), "headers": raw})


def read_all(query: str) -> None:
    parsed = Query(request(query), FILTERS)
    parsed.filter()
    parsed.cursor()
    parsed.number("limit", 100, 1, 1000)


def test_a_filter_is_read() -> None:
    query = Query(
        request(
            f"type=city.*&author={'AB' * 32}&since=2026-01-01T00:00:00Z"
            "&until=2026-01-01T01:00:00%2B01:00&bbox=170,-10.5,-170,10"
        ),
        FILTERS,
    )
    wanted = query.filter()
    assert wanted.type == "city.*"
    assert wanted.author == b"\xab" * 32
    assert wanted.since_ms == wanted.until_ms == 1_767_225_600_000
    assert wanted.bbox_e7 == (1_700_000_000, -105_000_000, -1_700_000_000, 100_000_000)


@pytest.mark.parametrize(
    "query",
    [
        "unknown=1",
        "type=a&type=b",
        "type=",
        "type=a%00b",
        "source=" + "x" * 2049,
        "author=00",
        "since=now",
        "bbox=1,2,3",
        "bbox=1,2,3,x",
        "bbox=0,10,0,5",
        "bbox=181,0,0,0",
        "limit=0",
        "limit=1001",
        "limit=01",
        "limit=\u0661",
        "cursor=1.2",
        "cursor=1.2.9999999999",
    ],
)
def test_what_is_refused(query: str) -> None:
    with pytest.raises(Problem) as caught:
        read_all(query)
    assert (caught.value.status, caught.value.reason) == (400, "bad-parameter")


def test_wait_has_defaults_and_bounds() -> None:
    known = frozenset(("wait", "timeout_ms", "consistency"))
    assert Query(request(), known).wait() == ("accepted", 10_000)
    assert Query(request("wait=committed&timeout_ms=5"), known).wait() == ("committed", 5)
    assert Query(request(), known).is_linearizable()
    assert not Query(request("consistency=local"), known).is_linearizable()
    for wrong in ("wait=certified", "timeout_ms=0", "timeout_ms=60001"):
        with pytest.raises(Problem):
            Query(request(wrong), known).wait()
    with pytest.raises(Problem):
        Query(request("consistency=maybe"), known).is_linearizable()


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "a/json"),
        ("*/*", "a/json"),
        ("a/cbor", "a/cbor"),
        ("a/cbor;q=0.5, a/json;q=0.1", "a/cbor"),
        ("a/*", "a/json"),
        ("text/html, */*;q=0.1", "a/json"),
        ("a/json;q=0, */*", "a/cbor"),
    ],
)
def test_accept_chooses(accept: str, expected: str) -> None:
    assert parameters.choose_type(request(accept=accept), ("a/json", "a/cbor")) == expected


def test_accept_of_nothing_that_is_offered() -> None:
    with pytest.raises(Problem) as caught:
        parameters.choose_type(request(accept="text/html;q=x"), ("a/json",))
    assert caught.value.status == 406


def test_content_type_drops_parameters_and_refuses_other_codings() -> None:
    assert parameters.content_type(request(content_type="A/B; charset=UTF-8")) == "a/b"
    for headers in ({"content_type": "a/b; charset=latin1"}, {"content_encoding": "gzip"}):
        with pytest.raises(Problem) as caught:
            parameters.content_type(request(**headers))
        assert caught.value.status == 415


@given(st.integers(0, TIME_MS_MAX))
def test_times_there_and_back(time_ms: int) -> None:
    assert read_time_ms(write_time(time_ms)) == time_ms


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t01:00:00.5+01:00", 500),
        ("1970-01-01 00:00:00.0019Z", 1),
    ],
)
def test_times_of_other_forms(text: str, expected: int) -> None:
    assert read_time_ms(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1970-01-01",
        "1970-01-01T00:00:00",
        "1970-01-01T00:00:60Z",
        "1969-01-01T00:00:00Z",
        "٢" * 20,
    ],
)
def test_no_times(text: str) -> None:
    with pytest.raises(DecodeError):
        read_time_ms(text)


@given(st.integers(-1_800_000_000, 1_800_000_000))
def test_degrees_there_and_back(value: int) -> None:
    assert parameters.read_degrees_e7(json_mapping.degrees(value), 1_800_000_000) == value


@given(
    st.builds(
        Cursor,
        st.integers(0, 2**63 - 1),
        st.integers(0, POSITION_MAX),
        st.integers(0, POSITION_MAX),
    )
)
def test_cursors_there_and_back(cursor: Cursor) -> None:
    assert Cursor.parse(str(cursor)) == cursor


def test_everything_of_a_height_comes_after_its_cursor() -> None:
    assert Cursor.before(5) < Cursor(5, 0, 0)
    assert Cursor.before(5) >= Cursor(4, POSITION_MAX, POSITION_MAX)
    assert Cursor.before(0) < Cursor(1, 0, 0)
