"""The table of bad input over HTTP: what is sent, and the status and reason that come back.

Commands have their table in `bad_input_commands.py`; tests/integration/test_bad_input.py runs both.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from p2pcity.crypto.keys import PrivateKey
from p2pcity.crypto.merkle import leaf_hash
from p2pcity.wire import cbor, cose
from p2pcity.wire.transaction import CONTENT_TYPE, join_carried, split_carried
from tests.bad_input_city import HOUR_MS, READ_TOKEN, City

DAY_MS: Final = 24 * HOUR_MS
TRANSACTIONS: Final = "/v1/transactions"
EVENTS: Final = "/v1/events"
CBOR: Final = {"Content-Type": "application/cbor"}
SEQUENCE: Final = {"Content-Type": "application/cbor-seq"}
CLOUDEVENT: Final = {"Content-Type": "application/cloudevents+json"}
BATCH: Final = {"Content-Type": "application/cloudevents-batch+json"}


@dataclass(frozen=True, slots=True)
class HttpCase:
    """One request, and what it must be answered with; `body` is made for the running network."""

    what: str
    status: int
    reason: str
    body: Callable[[City], bytes] | None = None
    path: str = TRANSACTIONS
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=lambda: CBOR)
    over_tcp: bool = False


def _garbled(carried: bytes) -> bytes:
    cose_bytes, events = split_carried(carried)
    return join_carried(cose_bytes[:-1] + bytes((cose_bytes[-1] ^ 1,)), events)


def _payload(old: bytes, new: bytes) -> Callable[[City], bytes]:
    """Replace bytes of the signed payload, which is then signed rightly."""

    def make(city: City) -> bytes:
        events = city.encoded()
        payload = city.payload(events)
        assert payload.count(old) == 1
        return city.signed(events, payload.replace(old, new))

    return make


def _indefinite_map(city: City) -> bytes:
    events = city.encoded()
    return city.signed(events, b"\xbf" + city.payload(events)[1:] + b"\xff")


def _double_key(city: City) -> bytes:
    events = city.encoded()
    payload = city.payload(events).replace(b"\x65count\x01", b"\x65count\x01" * 2)
    return city.signed(events, b"\xa6" + payload[1:])


def _event(body: object, salt: bytes = bytes(16)) -> Callable[[City], bytes]:
    """Carry an event of any content, rightly signed."""
    return lambda city: city.signed([cbor.encode([salt, body])])


def _raw_event(old: bytes, new: bytes) -> Callable[[City], bytes]:
    def make(city: City) -> bytes:
        [data] = city.encoded()
        assert data.count(old) == 1
        return city.signed([data.replace(old, new)])

    return make


def _event_of(size: int) -> bytes:
    body = {"id": "1", "type": "city.test", "source": "/s", "data": b""}
    body["data"] = bytes(size - len(cbor.encode([bytes(16), body])) - 2)
    data = cbor.encode([bytes(16), body])
    assert len(data) == size
    return data


def _transaction_of(size: int) -> Callable[[City], bytes]:
    def make(city: City) -> bytes:
        events = [_event_of(32_000), _event_of(32_000), _event_of(1_000)]
        missing = size - len(city.signed(events))
        data = city.signed([*events[:2], _event_of(1_000 + missing)])
        assert len(data) == size
        return data

    return make


def _swapped(city: City) -> bytes:
    events = city.encoded(2)
    return city.signed(events[::-1], signed_events=events)


def _withheld(city: City) -> bytes:
    events = city.encoded(2)
    return city.signed([events[0], leaf_hash(events[1])], signed_events=events)


def _other_signer(city: City) -> bytes:
    """Name the author in the header and sign with the clerk's key."""
    cose_bytes, events = split_carried(city.carried())
    signed = cose.decode(cose_bytes)
    signature = city.clerk.sign(signed.to_be_signed)
    return join_carried(cose_bytes[:-64] + signature, events)


def _untagged(city: City) -> bytes:
    cose_bytes, events = split_carried(city.carried())
    return join_carried(cose_bytes[1:], events)


def _other_content(city: City) -> bytes:
    events = city.encoded()
    kind = CONTENT_TYPE.replace("transaction", "card")
    return join_carried(cose.sign(city.author, kind, city.payload(events)), events)


def _cloudevent(**changes: Any) -> Callable[[City], bytes]:
    """Send an event as JSON with some attributes changed; None takes one away."""
    event = {"specversion": "1.0", "id": "1", "source": "/s", "type": "city.test", "data": 1}
    event |= changes
    text = json.dumps({name: value for name, value in event.items() if value is not None})
    return lambda city: text.encode()


def _bytes(data: bytes) -> Callable[[City], bytes]:
    return lambda city: data


def _get(
    what: str, status: int, reason: str, path: str, headers: Mapping[str, str] | None = None
) -> HttpCase:
    return HttpCase(what, status, reason, None, path, "GET", headers or {})


def _post_event(
    what: str, body: Callable[[City], bytes], reason: str = "malformed", status: int = 400
) -> HttpCase:
    return HttpCase(what, status, reason, body, EVENTS, headers=CLOUDEVENT)


_COUNT: Final = b"\x65count\x01"
_HASH: Final = "0" * 64

TRANSACTION_CASES: Final = (
    HttpCase("wrong signature", 422, "signature", lambda c: _garbled(c.carried())),
    HttpCase("signed by another key than the header names", 422, "signature", _other_signer),
    HttpCase("expired", 422, "expired", lambda c: c.carried(expires_in_ms=-1_000)),
    HttpCase(
        "a client whose clock is two days behind",
        422,
        "expired",
        lambda c: c.carried(expires_in_ms=-2 * DAY_MS + HOUR_MS),
    ),
    HttpCase(
        "expires more than 24 hours ahead",
        422,
        "expires-too-far",
        lambda c: c.carried(expires_in_ms=DAY_MS + 10_000),
    ),
    HttpCase(
        "a client whose clock is two days ahead",
        422,
        "expires-too-far",
        lambda c: c.carried(expires_in_ms=2 * DAY_MS + HOUR_MS),
    ),
    HttpCase(
        "unknown author", 422, "author-unknown", lambda c: c.carried(key=PrivateKey.generate())
    ),
    HttpCase(
        "author may not write this type",
        422,
        "type-not-allowed",
        lambda c: c.carried(key=c.clerk),
    ),
    HttpCase(
        "author may write only one of two types",
        422,
        "type-not-allowed",
        lambda c: c.carried([c.event(type="permit.new"), c.event()], key=c.clerk),
    ),
    HttpCase("wrong network", 422, "network", lambda c: c.carried(network=bytes(32))),
    HttpCase("257 events", 400, "malformed", lambda c: c.signed(c.encoded(257))),
    HttpCase("no event at all", 400, "malformed", lambda c: c.signed([])),
    HttpCase("64 KiB + 1", 413, "size", _transaction_of(65_537)),
    HttpCase("an event of 32 KiB + 1", 413, "size", lambda c: c.signed([_event_of(32_769)])),
    HttpCase("duplicate keys", 400, "malformed", _double_key),
    HttpCase("non-canonical integer", 400, "malformed", _payload(_COUNT, b"\x65count\x18\x01")),
    HttpCase("float for an integer", 400, "malformed", _payload(_COUNT, b"\x65count\xf9\x3c\x00")),
    HttpCase("a tag", 400, "malformed", _payload(_COUNT, b"\x65count\xc1\x01")),
    HttpCase("text for an integer", 400, "malformed", _payload(_COUNT, b"\x65count\x611")),
    HttpCase("negative count", 400, "malformed", _payload(_COUNT, b"\x65count\x20")),
    HttpCase("indefinite length", 400, "malformed", _indefinite_map),
    HttpCase("unknown field", 400, "malformed", lambda c: c.signed(c.encoded(), colour="red")),
    HttpCase("trailing byte", 400, "malformed", lambda c: c.carried() + b"\0"),
    HttpCase("truncated", 400, "malformed", lambda c: c.carried()[:-1]),
    HttpCase("COSE without its tag", 400, "malformed", _untagged),
    HttpCase("another content type is signed", 400, "malformed", _other_content),
    HttpCase(
        "an event that is not under the root",
        422,
        "root",
        lambda c: c.signed(c.encoded(), signed_events=c.encoded()),
    ),
    HttpCase("swapped events", 422, "root", _swapped),
    HttpCase("a stripped body", 422, "events-missing", _withheld),
    HttpCase(
        "fewer events than signed",
        422,
        "events-missing",
        lambda c: c.signed(c.encoded(), count=2),
    ),
    HttpCase(
        "more events than signed", 400, "malformed", lambda c: c.signed(c.encoded(2), count=1)
    ),
    HttpCase(
        "an event without type",
        400,
        "event-malformed",
        _event({"id": "1", "source": "/s", "data": bytes(20)}),
    ),
    HttpCase(
        "an event with an empty id",
        400,
        "event-malformed",
        _event({"id": "", "source": "/s", "type": "city.test", "data": bytes(9)}),
    ),
    HttpCase(
        "an event with a short salt",
        400,
        "event-malformed",
        _event({"id": "1", "source": "/s", "type": "city.test", "data": bytes(9)}, bytes(15)),
    ),
    HttpCase(
        "an event outside the profile",
        400,
        "event-malformed",
        _raw_event(b"\x65value\x01", b"\x65value\x18\x01"),
    ),
    HttpCase("empty body", 400, "malformed", _bytes(b"")),
    HttpCase("random bytes", 400, "malformed", _bytes(bytes(range(256)))),
    HttpCase("JSON called CBOR", 400, "malformed", _bytes(b'{"id": 1}')),
    HttpCase(
        "wrong content type",
        415,
        "unsupported-media-type",
        lambda c: c.carried(),
        headers={"Content-Type": "text/plain"},
    ),
    HttpCase("no content type", 415, "unsupported-media-type", lambda c: c.carried(), headers={}),
    HttpCase(
        "compressed body",
        415,
        "unsupported-media-type",
        lambda c: c.carried(),
        headers={**CBOR, "Content-Encoding": "gzip"},
    ),
    HttpCase(
        "oversized body, sequence",
        413,
        "size",
        _bytes(bytes(8 * 1024 * 1024 + 1)),
        headers=SEQUENCE,
    ),
    HttpCase("a sequence of 4,097", 413, "size", _bytes(b"\x82\x40\x80" * 4_097), headers=SEQUENCE),
    HttpCase(
        "a sequence whose last item is cut off",
        400,
        "malformed",
        lambda c: c.carried() + c.carried()[:-1],
        headers=SEQUENCE,
    ),
    HttpCase(
        "a sequence with nothing right in it",
        422,
        "none-taken",
        lambda c: _garbled(c.carried()) + c.carried(network=bytes(32)),
        headers=SEQUENCE,
    ),
    HttpCase(
        "bad wait value",
        400,
        "bad-parameter",
        lambda c: c.carried(),
        f"{TRANSACTIONS}?wait=eternally",
    ),
    HttpCase(
        "bad timeout", 400, "bad-parameter", lambda c: c.carried(), f"{TRANSACTIONS}?timeout_ms=0"
    ),
    HttpCase(
        "timeout above the limit",
        400,
        "bad-parameter",
        lambda c: c.carried(),
        f"{TRANSACTIONS}?timeout_ms=60001",
    ),
    HttpCase(
        "unknown query parameter",
        400,
        "bad-parameter",
        lambda c: c.carried(),
        f"{TRANSACTIONS}?wiat=none",
    ),
    HttpCase("no token over TCP", 401, "no-token", lambda c: c.carried(), over_tcp=True),
    HttpCase(
        "unknown token over TCP",
        401,
        "bad-token",
        lambda c: c.carried(),
        headers={**CBOR, "Authorization": "Bearer guessed"},
        over_tcp=True,
    ),
    HttpCase(
        "a reading token that writes",
        403,
        "read-token",
        lambda c: c.carried(),
        headers={**CBOR, "Authorization": f"Bearer {READ_TOKEN}"},
        over_tcp=True,
    ),
    HttpCase(
        "administration over TCP",
        403,
        "local-only",
        path="/v1/admin/transfer",
        headers={},
        over_tcp=True,
    ),
)

EVENT_CASES: Final = (
    _post_event("CloudEvent without id", _cloudevent(id=None)),
    _post_event("CloudEvent without type", _cloudevent(type=None)),
    _post_event("CloudEvent without source", _cloudevent(source=None)),
    _post_event("CloudEvent of another version", _cloudevent(specversion="0.3")),
    _post_event("type that is no text", _cloudevent(type=7)),
    _post_event("bad time", _cloudevent(time="yesterday"), "bad-time"),
    _post_event("a day that does not exist", _cloudevent(time="2026-02-30T00:00:00Z"), "bad-time"),
    _post_event("NaN", _cloudevent(data=float("nan"))),
    _post_event("an integer beyond 64 bits", _cloudevent(data=2**64)),
    _post_event("too deep JSON", _bytes(b'{"specversion":"1.0","data":' + b"[" * 100_000)),
    _post_event(
        "data with 17 arrays inside one another",
        _cloudevent(data=json.loads("[" * 17 + "]" * 17)),
    ),
    _post_event("invalid UTF-8", _bytes(b'{"specversion":"1.0","id":"\xff"}')),
    _post_event("a lone surrogate", _cloudevent(subject="\ud800")),
    _post_event("a name that stands twice", _bytes(b'{"id":"1","id":"2"}')),
    _post_event("no JSON", _bytes(b"id=1")),
    _post_event("an array where one event is meant", _bytes(b"[]")),
    _post_event("longitude without latitude", _cloudevent(longitude="4.9")),
    _post_event("a place off the globe", _cloudevent(longitude="181", latitude="0")),
    _post_event("an attribute that is the node's", _cloudevent(p2pcityheight=1)),
    _post_event("an attribute with a bad name", _cloudevent(Farbe="rot")),
    _post_event("data and data_base64", _cloudevent(data_base64="AAAA")),
    _post_event("a control character in id", _cloudevent(id="a\u0000b")),
    _post_event("an event above 32 KiB", _cloudevent(data="x" * 33_000), "size", 413),
    _post_event("JSON above 256 KiB", _bytes(b" " * 262_145), "size", 413),
    HttpCase("an empty batch", 400, "malformed", _bytes(b"[]"), EVENTS, headers=BATCH),
    HttpCase(
        "a batch with one wrong event",
        400,
        "malformed",
        lambda c: b"[" + _cloudevent()(c) + b"," + _cloudevent(id=None)(c) + b"]",
        EVENTS,
        headers=BATCH,
    ),
    HttpCase(
        "an event called plain JSON",
        415,
        "unsupported-media-type",
        _cloudevent(),
        EVENTS,
        headers={"Content-Type": "application/json"},
    ),
    HttpCase(
        "binary mode without type",
        400,
        "malformed",
        _bytes(b"1"),
        EVENTS,
        headers={"Content-Type": "application/json", "ce-specversion": "1.0", "ce-id": "1"},
    ),
)

READING_CASES: Final = (
    _get("bad cursor", 400, "bad-parameter", f"{EVENTS}?cursor=here"),
    _get("bad bbox", 400, "bad-parameter", f"{EVENTS}?bbox=1,2,3"),
    _get("a bbox upside down", 400, "bad-parameter", f"{EVENTS}?bbox=0,50,1,40"),
    _get("bad limit", 400, "bad-parameter", f"{EVENTS}?limit=1001"),
    _get("bad since", 400, "bad-parameter", f"{EVENTS}?since=2026-13-01T00:00:00Z"),
    _get("bad consistency", 400, "bad-parameter", f"{EVENTS}?consistency=maybe"),
    _get("a parameter given twice", 400, "bad-parameter", f"{EVENTS}?limit=1&limit=2"),
    _get("an author that is not hex", 400, "bad-parameter", f"{EVENTS}?author=me"),
    _get("id not hex", 400, "bad-parameter", f"{TRANSACTIONS}/{'z' * 64}"),
    _get("id too short", 400, "bad-parameter", f"{TRANSACTIONS}/abcd"),
    _get(
        "bytes of an unknown transaction",
        404,
        "unknown-transaction",
        f"{TRANSACTIONS}/{_HASH}",
        {"Accept": "application/cbor"},
    ),
    _get("a height that is none", 400, "bad-parameter", "/v1/blocks/-1"),
    _get("a height that is not here", 404, "unknown-block", "/v1/blocks/999999999"),
    _get("bad start of a stream", 400, "bad-parameter", "/v1/stream?from=first"),
    _get("nothing of what Accept names", 406, "not-acceptable", EVENTS, {"Accept": "text/html"}),
    _get("unknown route", 404, "not-found", "/v1/transactoins"),
    _get("unknown version", 404, "not-found", "/v2/status"),
    HttpCase("wrong method", 405, "method-not-allowed", None, "/v1/status", "DELETE", {}),
    HttpCase("known events, no array", 400, "malformed", _bytes(b"\xa0"), f"{EVENTS}/known"),
    HttpCase("known events, short keys", 400, "malformed", _bytes(b"\x81\x40"), f"{EVENTS}/known"),
    HttpCase(
        "leadership to nobody",
        400,
        "bad-parameter",
        path="/v1/admin/transfer?to=somebody",
        headers={},
    ),
)

HTTP_CASES: Final = (*TRANSACTION_CASES, *EVENT_CASES, *READING_CASES)
