"""Vectors of admission: one for each rule and for each exception (protocol/03-admission.md)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha512
from typing import Any

from nacl import bindings

from p2pcity.admission.admission import Admission, AdmissionConfig
from p2pcity.crypto import keys
from p2pcity.wire import cbor, transaction
from p2pcity.wire.event import Event
from p2pcity.wire.transaction import Carried
from tests.vector_case import Case, Outcome, collect, compare
from tests.vectors_event import FULL, MINIMAL
from tests.vectors_transaction import AUTHOR, EXPIRES_MS, NETWORK, STRANGER, make, make_raw

AREA = "admission"
SPEC = "03-admission.md#rules"
NOW_MS = EXPIRES_MS - 60_000
PEER = keys.peer_id(STRANGER.public)
AUTHORS = {AUTHOR.public.hex(): ["city.permit.*", "city.service-request.opened"]}


@dataclass
class State:
    """A ledger and a mempool as a vector describes them."""

    authors: Mapping[str, list[str]]
    known: list[str] = field(default_factory=list)
    head_time_ms: int = 0

    def author_types(self, key: bytes) -> tuple[str, ...] | None:
        """The types of a listed author."""
        types = self.authors.get(key.hex())
        return None if types is None else tuple(types)

    def is_known(self, id: bytes) -> bool:
        """Whether the id is listed."""
        return id.hex() in self.known


def run(input: Mapping[str, Any]) -> Outcome:
    """Let a fresh node see `earlier`, then judge `data`."""
    config = AdmissionConfig(**input["quotas"])
    admission = Admission(config, bytes.fromhex(input["network"]))
    state = State(input["authors"], input["known"])
    for item in input["earlier"]:
        admission.admit(bytes.fromhex(item), input["peer"], state, input["now"])
    verdict, carried = admission.admit(
        bytes.fromhex(input["data"]),
        input["peer"],
        state,
        input["now"],
        has_room=lambda _: bool(input["has_room"]),
    )
    assert (carried is not None) == verdict.is_accepted
    intermediates = {} if carried is None else {"id": carried.transaction.id.hex()}
    return Outcome(verdict.kind, verdict.reason, intermediates)


def cases() -> dict[str, dict[str, Any]]:
    """The files of this area."""
    return collect(_cases())


def check(case: Mapping[str, Any]) -> None:
    """Judge one case with the code."""
    compare(run(case["input"]), case)


def _case(name: str, data: bytes, kind: str, reason: str, comment: str, **more: Any) -> Case:
    input = {
        "data": data.hex(),
        "network": NETWORK.hex(),
        "peer": PEER,
        "now": NOW_MS,
        "authors": AUTHORS,
        "known": [],
        "earlier": [],
        "quotas": {},
        "has_room": True,
        **more,
    }
    intermediates: Mapping[str, Any] = run(input).intermediates if kind == "accept" else {}
    return Case(AREA, name, SPEC, comment, input, kind, reason, intermediates)


def _cases() -> Iterator[Case]:
    good = make(MINIMAL, FULL)
    yield _case("accepted", good.data, "accept", "accepted", "Nothing is wrong.")
    yield _case("client", good.data, "accept", "accepted", "From a client.", peer=None)
    alone = make(Event(bytes(16), "1", "city.permit.", "s")).data
    comment = "What begins with the prefix, its dot included, is allowed."
    yield _case("type-prefix-alone", alone, "accept", "accepted", comment)
    yield from _rejected(good)
    yield from _ignored(good)
    yield from _remembered(good)


def _rejected(good: Carried) -> Iterator[Case]:
    signed, events = good.transaction.data, list(good.events)
    join = transaction.join_carried
    garbled = join(signed[:-1] + bytes([signed[-1] ^ 1]), events)
    broken = cbor.encode([bytes(16), {"id": "1", "type": "", "source": "city"}])
    table: tuple[tuple[str, bytes, str], ...] = (
        ("size", bytes(64 * 1024 + 1), "64 KiB and a byte."),
        ("malformed", good.data + b"\x00", "A byte after the end."),
        ("events-missing", join(signed, events[:1]), "A relay left an event out."),
        ("root", join(signed, events[::-1]), "The events changed places."),
        ("signature", garbled, "A bit of the signature."),
        ("event-malformed", cbor.encode(make_raw([broken])), "An event without a type."),
    )
    for reason, data, comment in table:
        yield _case(reason, data, "reject", reason, comment)
    yield _case(
        "network", good.data, "reject", "network", "Another network.", network=bytes(32).hex()
    )
    withheld = join(signed, [good.leaf_hashes[0], events[1]])
    yield _case(
        "events-missing-withheld", withheld, "reject", "events-missing", "A hash for a body."
    )
    strange = make(MINIMAL, key=STRANGER)
    flipped = strange.data.replace(strange.transaction.signed.signature, bytes(64))
    yield _case(
        "signature-before-author",
        flipped,
        "reject",
        "signature",
        "An unknown author's wrong signature: the first rule that is broken gives the reason.",
    )
    yield _case(
        "rejected-again", garbled, "reject", "signature", "Remembered.", earlier=[garbled.hex()]
    )


def _ignored(good: Carried) -> Iterator[Case]:
    data, id = good.data, good.transaction.id.hex()
    day_ms = 24 * 60 * 60 * 1000
    yield _case("expired", data, "ignore", "expired", "expires = now.", now=EXPIRES_MS)
    yield _case(
        "expires-next-millisecond", data, "accept", "accepted", "Not yet.", now=EXPIRES_MS - 1
    )
    yield _case(
        "expires-too-far",
        data,
        "ignore",
        "expires-too-far",
        "24 hours, 5 seconds and a millisecond ahead.",
        now=EXPIRES_MS - day_ms - 5001,
    )
    yield _case(
        "expires-far",
        data,
        "accept",
        "accepted",
        "24 hours and the clocks' tolerance.",
        now=EXPIRES_MS - day_ms - 5000,
    )
    yield _case("author-unknown", data, "ignore", "author-unknown", "Not yet known.", authors={})
    for name, types in (
        ("type-not-allowed", ["city.service-request.*"]),
        ("type-not-allowed-none", []),
        ("type-not-allowed-prefix", ["city.permit", "city.service-request.opened"]),
    ):
        yield _case(
            name,
            data,
            "ignore",
            "type-not-allowed",
            "One of the events has a type that the author may not write.",
            authors={AUTHOR.public.hex(): types},
        )
    yield _case(
        "type-any", data, "accept", "accepted", "All types.", authors={AUTHOR.public.hex(): ["*"]}
    )
    yield _case("known", data, "ignore", "known", "On the ledger.", known=[id])
    yield _case(
        "known-and-expired",
        data,
        "ignore",
        "known",
        "A late retry is told that the ledger has it.",
        known=[id],
        now=EXPIRES_MS,
    )
    earlier = make(MINIMAL, nonce=bytes(16)).data.hex()
    yield _case(
        "peer-quota",
        data,
        "ignore",
        "peer-quota",
        "The peer's burst of one is spent.",
        earlier=[earlier],
        quotas={"peer_burst": 1},
    )
    yield _case(
        "author-quota",
        data,
        "ignore",
        "author-quota",
        "The author's burst of one is spent.",
        earlier=[earlier],
        quotas={"author_burst": 1},
    )
    yield _case("queue-full", data, "ignore", "queue-full", "No room.", has_room=False)


def _remembered(good: Carried) -> Iterator[Case]:
    data = good.data
    signed, events = good.transaction.data, list(good.events)
    yield _case("duplicate", data, "ignore", "duplicate", "The same.", earlier=[data.hex()])
    garbled = transaction.join_carried(signed[:-64] + bytes(64), events)
    yield _case(
        "after-garbled-copy",
        data,
        "accept",
        "accepted",
        "A garbled copy with the same id came first and censors nothing.",
        earlier=[garbled.hex()],
    )
    yield _case(
        "after-stripped-copy",
        data,
        "accept",
        "accepted",
        "A copy without one of its bodies came first.",
        earlier=[transaction.join_carried(signed, events[:1]).hex()],
    )
    second = transaction.join_carried(sign_otherwise(good, AUTHOR), events)
    assert transaction.examine(second, NETWORK).transaction.id == good.transaction.id
    yield _case(
        "same-id-other-signature",
        second,
        "ignore",
        "duplicate",
        "The holder of a key can make many valid signatures; the id is the same.",
        earlier=[data.hex()],
    )
    events_many = [Event(bytes(16), "1", "other.type", "s")]
    yield _case(
        "ignored-then-accepted",
        data,
        "accept",
        "accepted",
        "A transaction that was ignored (its type) hinders no other.",
        earlier=[make(*events_many).data.hex()],
    )


def sign_otherwise(good: Carried, author: keys.PrivateKey) -> bytes:
    """A second valid Ed25519 signature by its author on the same bytes (RFC 8032, other r)."""
    message = good.transaction.signed.to_be_signed
    digest = bytearray(sha512(author.seed).digest()[:32])
    digest[0] &= 248
    digest[31] = digest[31] & 127 | 64
    nonce = bindings.crypto_core_ed25519_scalar_reduce(sha512(b"another nonce").digest())
    point = bindings.crypto_scalarmult_ed25519_base_noclamp(nonce)
    hashed = sha512(point + author.public + message).digest()
    challenge = bindings.crypto_core_ed25519_scalar_reduce(hashed)
    secret = bindings.crypto_core_ed25519_scalar_reduce(bytes(digest) + bytes(32))
    product = bindings.crypto_core_ed25519_scalar_mul(challenge, secret)
    signature = point + bindings.crypto_core_ed25519_scalar_add(nonce, product)
    return good.transaction.data[:-64] + signature
