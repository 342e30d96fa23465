"""Vectors of events: `[salt, body]` (protocol/02-event.md)."""

from collections.abc import Iterator, Mapping
from typing import Any

from p2pcity.crypto import merkle
from p2pcity.wire import cbor, event
from p2pcity.wire.event import Event
from tests.vector_case import Case, Outcome, collect, compare, judge

AREA = "event"
SPEC = "02-event.md"
SALT = bytes(range(16))
AUTHOR = bytes(range(32, 64))

MINIMAL = Event(SALT, "1", "city.permit.granted", "urn:city:permits")
FULL = Event(
    SALT,
    "311-2026-000042",
    "city.service-request.opened",
    "https://city.example/311",
    subject="request/42",
    time_ms=1_767_225_600_123,
    place=(-739_857_000, 407_484_000),
    dataschema="https://city.example/schemas/service-request/1",
    datacontenttype="application/json",
    data={"complaint": "Noise - Residential", "floors": [1, 2], "level_db": 71.5, "open": True},
    extensions={"agency": "NYPD", "priority": 3, "urgent": False, "digest": b"\x01\x02"},
)


def run(input: Mapping[str, Any]) -> Outcome:
    """Decode an event and compute what is derived from it."""

    def decode(data: bytes) -> Mapping[str, Any]:
        decoded = event.decode(data)
        assert event.encode(decoded) == data
        return {
            "leaf_hash": merkle.leaf_hash(data).hex(),
            "name_key": event.name_key(AUTHOR, decoded.source, decoded.id).hex(),
        }

    return judge(decode, bytes.fromhex(input["data"]))


def cases() -> dict[str, dict[str, Any]]:
    """The files of this area."""
    return collect(_cases())


def check(case: Mapping[str, Any]) -> None:
    """Judge one case with the code."""
    compare(run(case["input"]), case)


def _cases() -> Iterator[Case]:
    yield _valid("minimal", MINIMAL, "The three required attributes and nothing else.")
    yield _valid("full", FULL, "Every attribute.")
    yield _valid(
        "unicode",
        Event(SALT, "ä-1", "city.straße", "urn:city:zürich", subject="Bäckerstraße 7 \U0001f6b2"),
        "Text is UTF-8 and is not normalised.",
    )
    yield _valid(
        "edge-of-the-globe",
        Event(SALT, "1", "t", "s", place=(-1_800_000_000, 900_000_000)),
        "The outermost longitude and latitude.",
    )
    yield _valid(
        "time-zero", Event(SALT, "1", "t", "s", time_ms=0), "Zero is a time; absent is left out."
    )
    yield _valid("size-max", _sized(32 * 1024), "Exactly 32 KiB.")
    deep: Any = 1
    for _ in range(14):
        deep = [deep]
    yield _valid("depth-16", Event(SALT, "1", "t", "s", data=deep), "14 in data, 2 around it.")
    longest = Event(SALT, "x" * 2048, "t", "s", extensions={"a" * 64: "", "b": -(2**31)})
    yield _valid("longest-texts", longest, "2,048 bytes of id, 64 of a name, and an empty value.")
    yield from _broken_bodies()
    yield from _broken_bytes()


def _valid(id: str, item: Event, comment: str) -> Case:
    data = event.encode(item)
    input = {"data": data.hex(), "author": AUTHOR.hex()}
    return Case(
        AREA, id, f"{SPEC}#event-body", comment, input, intermediates=run(input).intermediates
    )


def _sized(size: int) -> Event:
    rest = size - len(event.encode(Event(SALT, "1", "t", "s", data=bytes(30_000)))) + 30_000
    return Event(SALT, "1", "t", "s", data=bytes(rest))


def _invalid(id: str, data: bytes, comment: str, *flags: str, reason: str = "malformed") -> Case:
    section = "limits" if reason == "size" else "event-body"
    input = {"data": data.hex(), "author": AUTHOR.hex()}
    return Case(AREA, id, f"{SPEC}#{section}", comment, input, "reject", reason, flags=flags)


def _broken_bodies() -> Iterator[Case]:
    base: dict[str, Any] = {"id": "1", "type": "t", "source": "s"}
    changes: tuple[tuple[str, dict[Any, Any], str], ...] = (
        ("id-missing", {"id": ...}, "A required attribute is missing."),
        ("type-missing", {"type": ...}, "A required attribute is missing."),
        ("source-missing", {"source": ...}, "A required attribute is missing."),
        ("id-empty", {"id": ""}, "A required attribute is empty."),
        ("type-empty", {"type": ""}, "A required attribute is empty."),
        ("source-empty", {"source": ""}, "A required attribute is empty."),
        ("id-integer", {"id": 1}, "An attribute of another type."),
        ("subject-empty", {"subject": ""}, "An empty text is left out, not written."),
        ("subject-null", {"subject": None}, "An absent attribute is left out, not null."),
        ("subject-too-long", {"subject": "x" * 2049}, "2,049 bytes; 2,048 are allowed."),
        ("control-character", {"subject": "a\x07b"}, "CloudEvents allows none in a String."),
        ("time-text", {"time": "2026-01-01T00:00:00Z"}, "Time is an integer."),
        ("time-negative", {"time": -1}, "Time is not before 1970."),
        ("time-float", {"time": 1.5}, "Time is an integer."),
        ("time-year-10000", {"time": 253_402_300_800_000}, "RFC 3339 cannot write it."),
        ("place-one-number", {"place": [1]}, "A place is longitude and latitude."),
        ("place-float", {"place": [1.5, 2]}, "A place is two integers."),
        ("place-off-the-globe", {"place": [1_800_000_001, 0]}, "180.0000001 degrees east."),
        ("place-swapped", {"place": [0, 1_207_000_000]}, "120.7 degrees north."),
        ("data-null", {"data": None}, "Absent data is left out."),
        ("unknown-field", {"specversion": "1.0"}, "Unknown fields are errors."),
        ("integer-key", {7: 1}, "Unknown fields are errors, whatever their type."),
        ("extensions-empty", {"extensions": {}}, "No extensions: left out."),
        ("extension-array", {"extensions": {"a": [1]}}, "Not a CloudEvents type."),
        ("extension-float", {"extensions": {"a": 1.5}}, "Not a CloudEvents type."),
        ("extension-wide", {"extensions": {"a": 2**31}}, "A CloudEvents Integer has 32 bits."),
        ("extension-upper-case", {"extensions": {"Agency": "x"}}, "Names are a to z, 0 to 9."),
        ("extension-name-65", {"extensions": {"a" * 65: 1}}, "64 characters are allowed."),
        ("extension-name-empty", {"extensions": {"": 1}}, "A name has a character."),
        ("extension-control-character", {"extensions": {"a": "\x1b"}}, "None in a String."),
        ("extension-specversion", {"extensions": {"specversion": "1.0"}}, "Reserved."),
        ("extension-reserved", {"extensions": {"subject": "x"}}, "An attribute's own name."),
        ("extension-key-integer", {"extensions": {1: "x"}}, "Names are text."),
    )
    for id, change, comment in changes:
        body = {key: value for key, value in {**base, **change}.items() if value is not ...}
        yield _invalid(id, cbor.encode([SALT, body]), comment)


def _broken_bytes() -> Iterator[Case]:
    good = event.encode(MINIMAL)
    salt, body = good[:18], good[18:]
    yield _invalid("empty", b"", "No bytes at all.", "truncated")
    yield _invalid("truncated", good[:-1], "The last byte is missing.", "truncated")
    yield _invalid("trailing-byte", good + b"\x00", "A byte after the end.", "trailing-byte")
    yield _invalid("salt-15", b"\x82\x4f" + good[2:17] + body, "The salt has 16 bytes.")
    yield _invalid("no-salt", b"\x81" + body, "An array of one.")
    yield _invalid("not-an-array", body, "The body alone.")
    yield _invalid("tagged", b"\xd8\x2a" + good, "No tags in the profile.", "tag")
    id_pair, type_pair, source_pair = _pairs()
    yield _invalid(
        "unsorted",
        salt + b"\xa3" + type_pair + id_pair + source_pair,
        "Keys out of order.",
        "unsorted",
    )
    yield _invalid(
        "duplicate-key",
        salt + b"\xa4" + id_pair + id_pair + type_pair + source_pair,
        "A key stands twice.",
        "duplicate-key",
    )
    yield _invalid(
        "not-shortest",
        salt + b"\xa3" + b"\x62id\x78\x01" + b"1" + type_pair + source_pair,
        "A length in one byte more than it needs.",
        "not-shortest",
    )
    yield _invalid(
        "indefinite-map",
        salt + b"\xbf" + id_pair + type_pair + source_pair + b"\xff",
        "Lengths are definite.",
        "indefinite-length",
    )
    yield _invalid(
        "not-utf-8",
        salt + b"\xa3" + b"\x62id\x61\xff" + type_pair + source_pair,
        "Text is UTF-8.",
        "bit-flipped",
    )
    large = cbor.encode([SALT, {"id": "1", "type": "t", "source": "s", "data": bytes(32 * 1024)}])
    yield _invalid("too-large", large, "Above 32 KiB.", reason="size")
    nested = (
        salt + b"\xa4" + id_pair + b"\x64data" + b"\x81" * 15 + b"\x01" + type_pair + source_pair
    )
    yield _invalid("too-deep", nested, "17 containers inside one another.")


def _pairs() -> tuple[bytes, bytes, bytes]:
    """The encoded key and value of each attribute of MINIMAL, in the order of the encoding."""
    return (
        cbor.encode("id") + cbor.encode(MINIMAL.id),
        cbor.encode("type") + cbor.encode(MINIMAL.type),
        cbor.encode("source") + cbor.encode(MINIMAL.source),
    )
