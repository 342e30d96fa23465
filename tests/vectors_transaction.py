"""Vectors of transactions, carried with their events (protocol/02-event.md)."""

from collections.abc import Iterator, Mapping
from typing import Any

from p2pcity.crypto import merkle
from p2pcity.crypto.keys import PrivateKey
from p2pcity.wire import cbor, cose, event, transaction
from p2pcity.wire.event import Event
from p2pcity.wire.transaction import CONTENT_TYPE, Carried
from tests.vector_case import Case, Outcome, collect, compare, judge
from tests.vectors_event import FULL, MINIMAL

AREA = "transaction"
SPEC = "02-event.md"
NETWORK = bytes(range(64, 96))
NONCE = bytes(range(16, 32))
EXPIRES_MS = 1_767_229_200_000
AUTHOR = PrivateKey.from_seed(bytes([1]) * 32)
STRANGER = PrivateKey.from_seed(bytes([2]) * 32)


def run(input: Mapping[str, Any]) -> Outcome:
    """Examine carried bytes for a network and compute what is derived from them."""

    def decode(data: bytes) -> Mapping[str, Any]:
        carried = transaction.examine(
            data, bytes.fromhex(input["network"]), is_withheld_allowed=input["stored"]
        )
        signed = carried.transaction.signed
        return {
            "to_be_signed": signed.to_be_signed.hex(),
            "id": carried.transaction.id.hex(),
            "author": carried.transaction.author.hex(),
            "expires": carried.transaction.expires_ms,
            "event_leaf_hashes": [item.hex() for item in carried.leaf_hashes],
            "root": carried.transaction.root.hex(),
            "leaf_hash": carried.leaf.hex(),
            "digest": carried.digest.hex(),
        }

    return judge(decode, bytes.fromhex(input["data"]))


def cases() -> dict[str, dict[str, Any]]:
    """The files of this area."""
    return collect(_cases())


def check(case: Mapping[str, Any]) -> None:
    """Judge one case with the code."""
    compare(run(case["input"]), case)


def make(*events: Event, key: PrivateKey = AUTHOR, nonce: bytes = NONCE) -> Carried:
    """A transaction for the vectors' network."""
    return transaction.make(key, NETWORK, events, EXPIRES_MS, nonce)


def make_raw(
    events: list[bytes], changes: Mapping[str, Any] | None = None, **more: Any
) -> list[Any]:
    """The two parts of a carried transaction whose payload has `changes` (... leaves a key out)."""
    payload = {
        "network": NETWORK,
        "nonce": NONCE,
        "expires": EXPIRES_MS,
        "root": merkle.root([merkle.leaf_hash(item) for item in events]),
        "count": len(events),
        **(changes or {}),
    }
    kept = {key: value for key, value in payload.items() if value is not ...}
    signed = cose.sign(AUTHOR, more.get("content_type", CONTENT_TYPE), cbor.encode(kept))
    return [signed, events]


def _cases() -> Iterator[Case]:
    two = make(MINIMAL, FULL)
    yield _valid("one-event", make(MINIMAL).data, "A single event.")
    yield _valid("two-events", two.data, "Two events under one signature.")
    yield _valid(
        "events-max",
        make(*[Event(bytes(16), "1", "t", "s")] * 256).data,
        "256 events: whether they are the same is for apply to see.",
    )
    yield _valid("size-max", make(*_events_of_size(64 * 1024)).data, "Exactly 64 KiB.")
    withheld = transaction.join_carried(
        two.transaction.data, [merkle.leaf_hash(two.events[0]), two.events[1]]
    )
    yield _valid("withheld-stored", withheld, "A withheld body in stored data.", stored=True)
    yield _invalid(
        "withheld-submitted", withheld, "A withheld body on the way in.", "events-missing"
    )
    yield from _broken_events(two)
    yield from _broken_payloads()
    yield from _broken_signatures(two)
    yield from _broken_bytes(two)


def _valid(name: str, data: bytes, comment: str, *, stored: bool = False) -> Case:
    input = {"data": data.hex(), "network": NETWORK.hex(), "stored": stored}
    intermediates = run(input).intermediates
    return Case(
        AREA, name, f"{SPEC}#carried-transaction", comment, input, intermediates=intermediates
    )


def _invalid(
    name: str,
    data: bytes,
    comment: str,
    reason: str = "malformed",
    *flags: str,
    network: bytes = NETWORK,
) -> Case:
    input = {"data": data.hex(), "network": network.hex(), "stored": False}
    spec = f"{SPEC}#limits" if reason == "size" else f"{SPEC}#carried-transaction"
    return Case(AREA, name, spec, comment, input, "reject", reason, flags=flags)


def _events_of_size(size: int) -> list[Event]:
    """Three events whose carried transaction has `size` bytes."""
    full = Event(bytes(16), "1", "t", "s", data=bytes(30_000))
    base = len(make(full, full, Event(bytes(16), "1", "t", "s", data=bytes(3_000))).data)
    return [full, full, Event(bytes(16), "1", "t", "s", data=bytes(3_000 + size - base))]


def _broken_events(two: Carried) -> Iterator[Case]:
    signed, events = two.transaction.data, list(two.events)
    join = transaction.join_carried
    yield _invalid(
        "events-swapped", join(signed, events[::-1]), "The order is signed.", "root", "swapped"
    )
    other = event.encode(Event(bytes(16), "2", "t", "s"))
    yield _invalid(
        "event-not-under-root", join(signed, [events[0], other]), "Another event.", "root"
    )
    yield _invalid(
        "event-missing", join(signed, events[:1]), "One event fewer than signed.", "events-missing"
    )
    yield _invalid("event-added", join(signed, [*events, other]), "One event more than signed.")
    yield _invalid("events-none", join(signed, []), "All events are gone.", "events-missing")
    flipped = events[0][:2] + bytes([events[0][2] ^ 1]) + events[0][3:]
    yield _invalid(
        "salt-flipped", join(signed, [flipped, events[1]]), "A bit.", "root", "bit-flipped"
    )
    yield _invalid("event-short", join(signed, [events[0], bytes(31)]), "Neither event nor hash.")
    broken = cbor.encode([bytes(16), {"id": "1", "type": "t", "source": "s", "colour": "red"}])
    yield _invalid(
        "event-unknown-field",
        cbor.encode(make_raw([broken])),
        "Signed, and still no event.",
        "event-malformed",
    )
    long_head = events[0][:18] + b"\xb8" + bytes([events[0][18] & 0x1F]) + events[0][19:]
    yield _invalid(
        "event-not-shortest",
        cbor.encode(make_raw([long_head])),
        "Signed, but not deterministic.",
        "event-malformed",
        "not-shortest",
    )
    many = [event.encode(Event(bytes(16), "1", "t", "s"))] * 257
    yield _invalid("events-257", cbor.encode(make_raw(many)), "257 events.")
    large = cbor.encode([bytes(16), {"id": "1", "type": "t", "source": "s", "data": bytes(32768)}])
    yield _invalid("event-too-large", cbor.encode(make_raw([large])), "Above 32 KiB.", "size")
    over = [event.encode(item) for item in _events_of_size(64 * 1024)]
    over[2] = event.encode(Event(bytes(16), "12", "t", "s", data=event.decode(over[2]).data))
    yield _invalid("size-max-plus-1", cbor.encode(make_raw(over)), "64 KiB and a byte.", "size")


def _broken_payloads() -> Iterator[Case]:
    one = [event.encode(MINIMAL)]
    changes: tuple[tuple[str, dict[str, Any], str], ...] = (
        ("network-missing", {"network": ...}, "A field is missing."),
        ("network-31", {"network": bytes(31)}, "A network id has 32 bytes."),
        ("nonce-missing", {"nonce": ...}, "A field is missing."),
        ("nonce-15", {"nonce": bytes(15)}, "A nonce has 16 bytes."),
        ("expires-missing", {"expires": ...}, "A field is missing."),
        ("expires-negative", {"expires": -1}, "Not before 1970."),
        ("expires-text", {"expires": "tomorrow"}, "Another type."),
        ("expires-year-10000", {"expires": 253_402_300_800_000}, "RFC 3339 cannot write it."),
        ("root-missing", {"root": ...}, "A field is missing."),
        ("root-33", {"root": bytes(33)}, "A hash has 32 bytes."),
        ("count-missing", {"count": ...}, "A field is missing."),
        ("count-zero", {"count": 0}, "At least one event."),
        ("count-257", {"count": 257}, "At most 256 events."),
        ("unknown-field", {"fee": 1}, "Unknown fields are errors."),
    )
    for name, change, comment in changes:
        yield _invalid(name, cbor.encode(make_raw(one, change)), comment)
    yield _invalid(
        "wrong-network", make(MINIMAL).data, "Another network's.", "network", network=bytes(32)
    )
    yield _invalid(
        "content-type",
        cbor.encode(make_raw(one, content_type="application/p2pcity-card+cbor")),
        "Signed as something else.",
    )


def _broken_signatures(two: Carried) -> Iterator[Case]:
    signed, events = two.transaction.data, list(two.events)
    flipped = signed[:-1] + bytes([signed[-1] ^ 1])
    yield _invalid(
        "signature-flipped",
        transaction.join_carried(flipped, events),
        "A bit of the signature.",
        "signature",
        "bit-flipped",
    )
    yield _invalid(
        "kid-swapped",
        transaction.join_carried(signed.replace(AUTHOR.public, STRANGER.public), events),
        "Another author's key over the same signature.",
        "signature",
        "swapped",
    )
    yield _invalid(
        "nonce-flipped",
        transaction.join_carried(signed.replace(NONCE, NONCE[:-1] + b"\x00"), events),
        "A bit of the payload.",
        "signature",
        "bit-flipped",
    )
    order = 2**252 + 27742317777372353535851937790883648493
    scalar = int.from_bytes(signed[-32:], "little") + order
    yield _invalid(
        "signature-malleable",
        transaction.join_carried(signed[:-32] + scalar.to_bytes(32, "little"), events),
        "S plus the order of the group: refused, although the equation holds.",
        "signature",
    )


def _broken_bytes(two: Carried) -> Iterator[Case]:
    data, signed, events = two.data, two.transaction.data, list(two.events)
    yield _invalid("empty", b"", "No bytes at all.", "malformed", "truncated")
    yield _invalid("truncated", data[:-1], "The last byte.", "malformed", "truncated")
    yield _invalid("trailing-byte", data + b"\x00", "One byte more.", "malformed", "trailing-byte")
    yield _invalid("alone", signed, "The COSE_Sign1 without its events.")
    yield _invalid("untagged", transaction.join_carried(signed[1:], events), "Tag 18 is missing.")
    yield _invalid("three-items", b"\x83" + data[1:] + b"\xf6", "An array of three.")
    start = data.index(events[0]) - 2
    yield _invalid(
        "indefinite-events",
        data[: start - 1] + b"\x9f" + data[start:] + b"\xff",
        "Lengths are definite.",
        "malformed",
        "indefinite-length",
    )
    yield _invalid(
        "not-shortest",
        data[: start - 1] + b"\x98\x02" + data[start:],
        "A length in one byte more than it needs.",
        "malformed",
        "not-shortest",
    )
    unprotected = signed.replace(b"\xa0\x58", b"\xa1\x04\x41\x00\x58", 1)
    yield _invalid(
        "unprotected-header",
        transaction.join_carried(unprotected, events),
        "The unprotected header is empty.",
    )
