"""The bytes of an event, `[salt, body]` (protocol/02-event.md, cddl/event.cddl).

The body carries the attributes of CloudEvents 1.0.2 as a deterministic CBOR map. The salt
hides low-entropy content, so that a body can be withheld or erased while its leaf hash stays.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from p2pcity.crypto.digest import digest
from p2pcity.errors import DecodeError
from p2pcity.wire import cbor
from p2pcity.wire.cbor import Value
from p2pcity.wire.fields import TIME_MS_MAX, read_array, read_bytes, read_uint
from p2pcity.wire.limits import EVENT_BYTES_MAX

NAME_DOMAIN: Final = "p2pcity/event-name/1"
SALT_BYTES: Final = 16
TEXT_BYTES_MAX: Final = 2048
EXTENSION_NAME_LENGTH_MAX: Final = 64
LONGITUDE_E7_MAX: Final = 1_800_000_000
LATITUDE_E7_MAX: Final = 900_000_000
INTEGER_MIN: Final = -(2**31)
INTEGER_MAX: Final = 2**31 - 1

REQUIRED: Final = ("id", "type", "source")
TEXTS: Final = ("id", "type", "source", "subject", "dataschema", "datacontenttype")
BODY_KEYS: Final = frozenset((*TEXTS, "time", "place", "data", "extensions"))
RESERVED: Final = BODY_KEYS | {"specversion"}

# CloudEvents 1.0.2 section 3.1.1: control characters are no part of a String.
_find_control = re.compile("[\x00-\x1f\x7f-\x9f]").search
_match_extension_name = re.compile(f"[a-z0-9]{{1,{EXTENSION_NAME_LENGTH_MAX}}}").fullmatch


@dataclass(frozen=True, slots=True)
class Event:
    """One record of something in the city, with the attributes of CloudEvents.

    `time_ms` is Unix time in milliseconds; `place` is (longitude, latitude) in 1e-7 degrees.
    None means that the attribute is absent (`data` too: a top-level null is not carried).
    """

    salt: bytes
    id: str
    type: str
    source: str
    subject: str | None = None
    time_ms: int | None = None
    place: tuple[int, int] | None = None
    dataschema: str | None = None
    datacontenttype: str | None = None
    data: Value = None
    extensions: Mapping[str, str | int | bool | bytes] = field(default_factory=dict)


def encode(event: Event) -> bytes:
    """Return the event's bytes; DecodeError when an attribute breaks a rule of the protocol."""
    body: dict[str, object] = {"id": event.id, "type": event.type, "source": event.source}
    optional: tuple[tuple[str, object], ...] = (
        ("subject", event.subject),
        ("time", event.time_ms),
        ("place", None if event.place is None else list(event.place)),
        ("dataschema", event.dataschema),
        ("datacontenttype", event.datacontenttype),
        ("data", event.data),
        ("extensions", dict(event.extensions) or None),
    )
    body.update((name, value) for name, value in optional if value is not None)
    _read([event.salt, body])
    try:
        data = cbor.encode([event.salt, body])
    except cbor.EncodeError as error:
        raise DecodeError(f"the event has no encoding: {error}") from error
    if len(data) > EVENT_BYTES_MAX:
        raise DecodeError(f"the event has {len(data)} bytes", reason="size")
    return data


def decode(data: bytes) -> Event:
    """Return the event in `data`.

    Raises DecodeError: reason `size` above 32 KiB, else `malformed` (an attribute of another
    type, a required one missing or empty, an unknown field, bytes outside the CBOR profile).
    """
    if len(data) > EVENT_BYTES_MAX:
        raise DecodeError(f"the event has {len(data)} bytes", reason="size")
    return _read(cbor.decode(data))


def name_key(author: bytes, source: str, id: str) -> bytes:
    """Return the 32 bytes that (author, source, id), the name of an event, is indexed under.

    The preimage is the deterministic CBOR of `[author, source, id]`, put together by hand here
    because this runs once per applied event.
    """
    source_bytes = source.encode()
    id_bytes = id.encode()
    return digest(
        NAME_DOMAIN,
        b"\x83\x58\x20"
        + author
        + _text_head(len(source_bytes))
        + source_bytes
        + _text_head(len(id_bytes))
        + id_bytes,
    )


def _text_head(length: int) -> bytes:
    if length < 24:
        return bytes((0x60 | length,))
    if length < 256:
        return bytes((0x78, length))
    assert length < 65536
    return b"\x79" + length.to_bytes(2, "big")


def _read(value: object) -> Event:
    salt, body = read_array(value, "the event", 2)
    read_bytes(salt, "the salt", SALT_BYTES)
    if not isinstance(body, dict):
        raise DecodeError("the event's body is not a map")
    if not body.keys() <= BODY_KEYS:
        unknown = next(key for key in body if key not in BODY_KEYS)
        raise DecodeError(f"the event has the unknown field {str(unknown)[:40]!r}")
    for name in TEXTS:
        if name in body:
            _check_text(body[name], name)
        elif name in REQUIRED:
            raise DecodeError(f"the event lacks {name}")
    if "time" in body:
        read_uint(body["time"], "time", TIME_MS_MAX)
    if "data" in body and body["data"] is None:
        raise DecodeError("data is null; leave it out instead")
    return Event(
        salt,  # type: ignore[arg-type]  # read_bytes checked it above
        body["id"],
        body["type"],
        body["source"],
        body.get("subject"),
        body.get("time"),
        _read_place(body["place"]) if "place" in body else None,
        body.get("dataschema"),
        body.get("datacontenttype"),
        body.get("data"),
        _read_extensions(body["extensions"]) if "extensions" in body else {},
    )


def _check_text(value: object, name: str) -> None:
    if type(value) is not str or not value:
        raise DecodeError(f"{name} is not a text with at least one character")
    length = len(value) if value.isascii() else len(value.encode())
    if length > TEXT_BYTES_MAX:
        raise DecodeError(f"{name} has {length} bytes; {TEXT_BYTES_MAX} are allowed")
    if _find_control(value):
        raise DecodeError(f"{name} has a control character")


def _read_place(value: object) -> tuple[int, int]:
    longitude, latitude = read_array(value, "place", 2)
    if type(longitude) is not int or type(latitude) is not int:
        raise DecodeError("place is not two integers")
    if abs(longitude) > LONGITUDE_E7_MAX or abs(latitude) > LATITUDE_E7_MAX:
        raise DecodeError("place is not on the globe (longitude, latitude, in 1e-7 degrees)")
    return longitude, latitude


def _read_extensions(value: object) -> dict[str, str | int | bool | bytes]:
    if not isinstance(value, dict) or not value:
        raise DecodeError("extensions is not a map with at least one field")
    for name, item in value.items():
        if type(name) is not str or not _match_extension_name(name) or name in RESERVED:
            raise DecodeError("an extension's name is reserved or not of a to z and 0 to 9")
        if type(item) is int:
            if not INTEGER_MIN <= item <= INTEGER_MAX:
                raise DecodeError(f"extension {name} is no 32-bit integer")
        elif type(item) is str:
            if _find_control(item):
                raise DecodeError(f"extension {name} has a control character")
        elif type(item) is not bool and type(item) is not bytes:
            raise DecodeError(f"extension {name} is not text, integer, boolean or bytes")
    return value
