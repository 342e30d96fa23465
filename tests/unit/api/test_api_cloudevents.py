import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pcity.api import cloudevents, json_mapping
from p2pcity.api.service import Cursor, StoredEvent
from p2pcity.errors import DecodeError
from p2pcity.wire import event as event_wire
from p2pcity.wire.event import Event

MINIMAL = {"specversion": "1.0", "id": "1", "source": "/s", "type": "city.test"}


def read(**more: object) -> Event:
    body = json.dumps({**MINIMAL, **more}).encode()
    return cloudevents.read_structured(body).with_salt(bytes(16))


def test_all_attributes_there_and_back() -> None:
    given_ = {
        **MINIMAL,
        "subject": "u",
        "time": "2026-05-01T12:00:00.123Z",
        "dataschema": "https://example.org/s",
        "datacontenttype": "application/json",
        "longitude": "13.405",
        "latitude": "-52.5200001",
        "priority": 3,
        "urgent": True,
        "data": {"a": [1, 2.5, "ü", None, False]},
    }
    event = cloudevents.read_structured(json.dumps(given_).encode()).with_salt(bytes(16))
    assert event.place == (134_050_000, -525_200_001)
    assert event.time_ms == 1_777_636_800_123
    assert json_mapping.cloudevent(event_wire.decode(event_wire.encode(event))) == given_


def test_bytes_travel_as_base64() -> None:
    event = read(data_base64="AAH/", datacontenttype="image/png")
    assert event.data == b"\x00\x01\xff"
    assert json_mapping.cloudevent(event)["data_base64"] == "AAH/"


@pytest.mark.parametrize(
    ("value", "expected"), [(13.405, 134_050_000), (1e-07, 1), (0, 0), ("-180", -1_800_000_000)]
)
def test_longitude_is_a_number_or_text(value: object, expected: int) -> None:
    assert read(longitude=value, latitude="0").place == (expected, 0)


@pytest.mark.parametrize(
    "more",
    [
        {"specversion": "0.3"},
        {"id": ""},
        {"id": 1},
        {"id": "\ud800"},
        {"source": "a\nb"},
        {"type": "x" * 2049},
        {"time": "yesterday"},
        {"time": "2026-02-30T00:00:00Z"},
        {"time": "1969-12-31T23:59:59Z"},
        {"longitude": 1},
        {"longitude": 181, "latitude": 0},
        {"longitude": True, "latitude": 0},
        {"longitude": 10**400, "latitude": 0},
        {"longitude": "1e3", "latitude": 0},
        {"p2pcityauthor": "00"},
        {"Upper": "x"},
        {"place": "x"},
        {"extensions": {}},
        {"fraction": 1.5},
        {"wide": 2**31},
        {"data_base64": "%%%"},
        {"data_base64": "AA==", "data": 1},
        {"data": 2**64},
        {"data": {"deep": [[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]}},
        {"data": {"\ud800": 1}},
    ],
)
def test_what_is_refused(more: dict[str, object]) -> None:
    with pytest.raises(DecodeError):
        read(**more)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"\xff",
        b"{",
        b'{"specversion":"1.0","specversion":"1.0","id":"1","source":"s","type":"t"}',
        b'{"specversion":"1.0","id":"1","source":"s","type":"t","data":NaN}',
        b'{"specversion":"1.0","id":"1","source":"s","type":"t","data":1e999}',
        b'{"specversion":"1.0","id":"1","source":"s","type":"t","data":' + b"[" * 100_000,
        b'{"specversion":"1.0","id":"1","source":"s","type":"t","data":' + b"9" * 5000 + b"}",
    ],
)
def test_no_json_of_an_event(body: bytes) -> None:
    with pytest.raises(DecodeError):
        cloudevents.read_structured(body)


def test_an_event_above_32_kib_is_too_large() -> None:
    with pytest.raises(DecodeError) as caught:
        read(data="x" * 33_000)
    assert caught.value.reason == "size"


def test_a_batch_names_the_wrong_event() -> None:
    batch = [MINIMAL, {**MINIMAL, "id": ""}]
    with pytest.raises(DecodeError, match="event 1"):
        cloudevents.read_batch(json.dumps(batch).encode())
    with pytest.raises(DecodeError):
        cloudevents.read_batch(b"[]")
    with pytest.raises(DecodeError) as caught:
        cloudevents.read_batch(json.dumps([MINIMAL] * 4097).encode())
    assert caught.value.reason == "size"


HEADERS = [
    (b"host", b"x"),
    (b"ce-specversion", b"1.0"),
    (b"ce-id", b"1"),
    (b"ce-source", b"/s"),
    (b"ce-type", b"city.test"),
]


def test_binary_mode_reads_headers_and_body() -> None:
    headers = [*HEADERS, (b"ce-subject", b"Euro%20%E2%82%AC"), (b"ce-longitude", b"1.5")]
    headers.append((b"ce-latitude", b'"2.5"'))
    event = cloudevents.read_binary(headers, "application/json; charset=utf-8", b'{"a":1}')
    assert event.subject == "Euro €"
    assert event.place == (15_000_000, 25_000_000)
    assert event.datacontenttype == "application/json; charset=utf-8"
    assert event.data == {"a": 1}
    assert cloudevents.read_binary(HEADERS, "text/plain", "ü".encode()).data == "ü"
    assert cloudevents.read_binary(HEADERS, "text/plain", b"\xff").data == b"\xff"
    assert cloudevents.read_binary(HEADERS, "image/png", b"\x00").data == b"\x00"
    assert cloudevents.read_binary(HEADERS, None, b"").data is None


@pytest.mark.parametrize(
    "header", [(b"ce-id", b"2"), (b"ce-data", b"x"), (b"ce-subject", b"%ff"), (b"ce-\xff", b"x")]
)
def test_binary_mode_refuses_wrong_headers(header: tuple[bytes, bytes]) -> None:
    with pytest.raises(DecodeError):
        cloudevents.read_binary([*HEADERS, header], None, b"")


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    for read_body in (cloudevents.read_structured, cloudevents.read_batch):
        with pytest.raises(DecodeError):
            read_body(body)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from([*MINIMAL, "time", "data", "longitude", "x"]), _JSON))
def test_any_json_is_read_or_refused(more: dict[str, object]) -> None:
    body = json.dumps({**MINIMAL, **more}).encode()
    try:
        event = cloudevents.read_structured(body).with_salt(bytes(16))
    except DecodeError:
        return
    json_mapping.dump(json_mapping.cloudevent(event_wire.decode(event_wire.encode(event))))


def test_a_stored_event_says_where_it_stands() -> None:
    event = read(data=1)
    event = Event(**{name: getattr(event, name) for name in ("salt", "id", "type", "source")})
    forged = Event(bytes(16), "1", "t", "s", extensions={"p2pcityauthor": "forged", "x": b"\x00"})
    stored = StoredEvent(Cursor(7, 1, 2), bytes(32), b"\x01" * 32, "parks", 1000, forged)
    document = json_mapping.stored_event(stored)
    assert document["p2pcityauthor"] == "01" * 32
    assert document["p2pcitycursor"] == "7.1.2"
    assert document["p2pcityblocktime"] == "1970-01-01T00:00:01.000Z"
    assert document["x"] == "AA=="
    tombstone = StoredEvent(Cursor(7, 1, 2), bytes(32), bytes(32), None, 1000, None)
    assert "id" not in json_mapping.stored_event(tombstone)
    assert json_mapping.stored_event(tombstone)["p2pcitytombstone"] is True


def test_data_that_json_lacks_is_written_as_text() -> None:
    event = Event(bytes(16), "1", "t", "s", data={1: b"\xff\xfe", "a": [b""]})
    assert json_mapping.cloudevent(event)["data"] == {"1": "__4", "a": [""]}
