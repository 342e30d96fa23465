"""CloudEvents 1.0 in, over HTTP: structured, batched and binary, to `EventInput`.

Attributes map by name (`json_mapping.py` is the way back). Beside CloudEvents' own:

- `longitude` and `latitude` (decimal degrees, as text or as a JSON number, always both) are the
  event's place, rounded to 1e-7 degrees;
- names that start with `p2pcity` are the node's own and are refused;
- other extension attributes are text, booleans or 32-bit integers;
- `data` is any JSON value; null is no data; `data_base64` is a byte string. Numbers are kept as
  numbers: `1.0` and `1` are the same;
- `time` is cut off at the millisecond.

JSON is read as RFC 7493 (I-JSON) wants it: UTF-8, no double names, no lone surrogates, finite
numbers. What is wrong raises DecodeError, reason `malformed` or `size`, and names the event.
"""

from __future__ import annotations

import binascii
import json
from base64 import b64decode
from collections.abc import Iterable, Mapping
from typing import Final, NoReturn
from urllib.parse import unquote_to_bytes

from p2pcity.api.json_mapping import LATITUDE, LONGITUDE, PREFIX
from p2pcity.api.parameters import LATITUDE_E7_MAX, LONGITUDE_E7_MAX, read_degrees_e7
from p2pcity.api.service import EventInput
from p2pcity.api.times import read_time_ms
from p2pcity.errors import DecodeError
from p2pcity.wire import event as event_wire
from p2pcity.wire.cbor import EncodeError

STRUCTURED: Final = "application/cloudevents+json"
BATCHED: Final = "application/cloudevents-batch+json"
HEADER_PREFIX: Final = b"ce-"
BATCH_EVENTS_MAX: Final = 4096

_SALT: Final = bytes(16)
_ATTRIBUTES: Final = frozenset(
    ("specversion", "id", "source", "type", "subject", "time", "dataschema", "datacontenttype")
)
_OWN: Final = _ATTRIBUTES | {"data", "data_base64", LONGITUDE, LATITUDE}


def read_structured(body: bytes) -> EventInput:
    """Read one event in the JSON format (JSON Event Format 1.0.2 section 3)."""
    return _read_document(_read_json(body))


def read_batch(body: bytes) -> list[EventInput]:
    """Read a JSON array of 1 to 4,096 events (section 4)."""
    documents = _read_json(body)
    if not isinstance(documents, list) or not documents:
        _fail("a batch is a JSON array with at least one event")
    if len(documents) > BATCH_EVENTS_MAX:
        raise DecodeError(
            f"the batch has {len(documents)} events",
            reason="size",
            remedy=f"Send at most {BATCH_EVENTS_MAX} events in one request.",
        )
    events: list[EventInput] = []
    for position, document in enumerate(documents):
        try:
            events.append(_read_document(document))
        except DecodeError as error:
            raise DecodeError(
                f"event {position}: {error}", reason=error.reason, remedy=error.remedy
            ) from error
    return events


def read_binary(
    headers: Iterable[tuple[bytes, bytes]], content_type: str | None, body: bytes
) -> EventInput:
    """Read one event of `ce-` headers and a body (HTTP Protocol Binding 1.0.2 section 3.1).

    `content_type` is the Content-Type as sent; the body is JSON, text or bytes by it.
    """
    document: dict[str, object] = {}
    for raw_name, raw_value in headers:
        if not raw_name.startswith(HEADER_PREFIX):
            continue
        name = raw_name[3:].decode("ascii", "replace")
        if name in document:
            _fail(f"the header ce-{name} is there twice")
        if name in ("data", "data_base64", "datacontenttype"):
            _fail(f"{name} is no header in binary mode")
        document[name] = _read_header(name, raw_value)
    media = (content_type or "").partition(";")[0].strip().lower()
    if content_type:
        document["datacontenttype"] = content_type
    if not body:
        return _read_document(document)
    if media == "application/json" or media.endswith("+json"):
        data = _read_json(body)
    elif media.startswith("text/"):
        try:
            data = body.decode()
        except UnicodeDecodeError:
            data = body
    else:
        data = body
    return _read_document(document, data)


def _read_json(body: bytes) -> object:
    try:
        text = body.decode()
        return json.loads(text, object_pairs_hook=_read_members, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise DecodeError("the JSON is not UTF-8") from error
    except RecursionError as error:
        raise DecodeError("the JSON is nested too deeply") from error
    except ValueError as error:
        raise DecodeError(f"this is no JSON: {error}") from error


def _read_members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    document = dict(pairs)
    if len(document) < len(pairs):
        _fail("a name stands twice in a JSON object")
    return document


def _refuse_constant(name: str) -> NoReturn:
    _fail(f"{name} is no JSON number")


def _read_document(document: object, body_data: object = None) -> EventInput:
    if not isinstance(document, dict):
        _fail("an event is a JSON object")
    if document.get("specversion") != "1.0":
        _fail("specversion is not 1.0")
    data = body_data if body_data is not None else _read_data(document)
    time = _text(document, "time")
    event = EventInput(
        id=_text(document, "id") or "",
        type=_text(document, "type") or "",
        source=_text(document, "source") or "",
        subject=_text(document, "subject"),
        time_ms=None if time is None else read_time_ms(time),
        place=_read_place(document),
        dataschema=_text(document, "dataschema"),
        datacontenttype=_text(document, "datacontenttype"),
        data=data,
        extensions=_read_extensions(document),
    )
    try:
        event_wire.encode(event.with_salt(_SALT))
    except EncodeError as error:
        raise DecodeError(str(error)) from error
    except RecursionError as error:
        raise DecodeError("data is nested too deeply") from error
    except UnicodeEncodeError as error:
        raise DecodeError("a text has a lone surrogate") from error
    return event


def _text(document: Mapping[str, object], name: str) -> str | None:
    value = document.get(name)
    # CloudEvents JSON format, section 2.2: null is the same as absent.
    if value is not None and not isinstance(value, str):
        _fail(f"{name} is not text")
    return value


def _read_data(document: Mapping[str, object]) -> object:
    encoded = document.get("data_base64")
    if encoded is None:
        return document.get("data")
    if document.get("data") is not None:
        _fail("data and data_base64 exclude each other")
    if not isinstance(encoded, str):
        _fail("data_base64 is not text")
    try:
        return b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DecodeError("data_base64 is not base64") from error


def _read_place(document: Mapping[str, object]) -> tuple[int, int] | None:
    longitude, latitude = document.get(LONGITUDE), document.get(LATITUDE)
    if longitude is None and latitude is None:
        return None
    return (
        _read_degrees(longitude, LONGITUDE, LONGITUDE_E7_MAX),
        _read_degrees(latitude, LATITUDE, LATITUDE_E7_MAX),
    )


def _read_degrees(value: object, name: str, maximum_e7: int) -> int:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        _fail(f"{name} is not a number; longitude and latitude belong together")
    # A float as its decimals, never by its exponent: 1e-07 degrees is 0.0000001.
    text = f"{value:.7f}" if isinstance(value, float) else str(value)
    try:
        return read_degrees_e7(text, maximum_e7)
    except DecodeError as error:
        raise DecodeError(f"{name}: {error}") from error


def _read_extensions(document: Mapping[str, object]) -> dict[str, str | int | bool | bytes]:
    extensions: dict[str, str | int | bool | bytes] = {}
    for name, value in document.items():
        if name in _OWN or value is None:
            continue
        if name.startswith(PREFIX):
            raise DecodeError(
                f"the attribute {name[:40]} is set by the node",
                remedy="Leave attributes that start with p2pcity out.",
            )
        if not isinstance(value, str | int):
            _fail(f"the attribute {name[:40]} is neither text nor integer nor boolean")
        extensions[name] = value
    return extensions


def _read_header(name: str, value: bytes) -> str:
    """Decode a header's value: percent-encoded UTF-8, maybe in quotes (section 3.1.3.2)."""
    text = value.strip()
    if len(text) >= 2 and text[:1] == text[-1:] == b'"':
        text = text[1:-1].replace(b'\\"', b'"').replace(b"\\\\", b"\\")
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError as error:
        raise DecodeError(f"the header ce-{name[:40]} is not percent-encoded UTF-8") from error


def _fail(detail: str) -> NoReturn:
    raise DecodeError(detail, remedy="Read CloudEvents 1.0.2 and /openapi.json for the form.")
