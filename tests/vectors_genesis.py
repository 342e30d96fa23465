"""Vectors of the genesis and of node cards (protocol/01-identity.md)."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from p2pcity.crypto.digest import sha256
from p2pcity.crypto.keys import PrivateKey
from p2pcity.wire import card, cbor, cose, genesis
from p2pcity.wire.genesis import CONTENT_TYPE, Genesis, GenesisAuthor, GenesisNode, Member
from tests.vector_case import Case, Outcome, collect, compare, judge

AREA = "genesis"
SPEC = "01-identity.md"
TIME_MS = 1_767_225_600_000
NODES = [PrivateKey.from_seed(bytes([10 + number]) * 32) for number in range(4)]
AUTHORS = [PrivateKey.from_seed(bytes([20 + number]) * 32) for number in range(2)]
STRANGER = PrivateKey.from_seed(bytes([30]) * 32)


def run(input: Mapping[str, Any]) -> Outcome:
    """Decode a genesis file or a card, as the input says."""
    decoder = _decode_genesis if input["what"] == "genesis" else _decode_card
    return judge(decoder, bytes.fromhex(input["data"]))


def cases() -> dict[str, dict[str, Any]]:
    """The files of this area."""
    return collect(_cases())


def check(case: Mapping[str, Any]) -> None:
    """Judge one case with the code."""
    compare(run(case["input"]), case)


def example() -> Genesis:
    """Two members, three orderers and an observer, two authors; unsigned."""
    nodes = [
        GenesisNode(
            key.public,
            bytes([number]) * 16,
            "observer" if number == 3 else "orderer",
            (f"/ip4/192.0.2.{number + 1}/tcp/4710",),
            "Roads" if number < 2 else "Water",
            f"{number + 1}",
        )
        for number, key in enumerate(NODES)
    ]
    roads = GenesisAuthor(AUTHORS[0].public, "permits desk", ("city.permit.*",), "Roads")
    water = GenesisAuthor(AUTHORS[1].public, "sensors", ("city.sensor.alarm",), "Water")
    members = (
        Member("Roads", tuple(nodes[:2]), (roads,)),
        Member("Water", tuple(nodes[2:]), (water,)),
    )
    return genesis.make("example city", TIME_MS, bytes(range(16)), members)


def _decode_genesis(data: bytes) -> Mapping[str, Any]:
    decoded = genesis.decode(data)
    assert genesis.encode(decoded) == data
    return {
        "network": decoded.network.hex(),
        "voters": decoded.voters_digest.hex(),
        "signers": [key.hex() for key in decoded.signers],
    }


def _decode_card(data: bytes) -> Mapping[str, Any]:
    decoded = card.decode(data)
    return {
        "to_be_signed": cose.decode(data).to_be_signed.hex(),
        "key": decoded.key.hex(),
        "author": decoded.author.hex(),
    }


def _case(
    name: str, data: bytes, comment: str, reason: str = "", *flags: str, what: str = "genesis"
) -> Case:
    input = {"what": what, "data": data.hex()}
    spec = f"{SPEC}#genesis-file" if what == "genesis" else f"{SPEC}#node-card"
    if reason:
        return Case(AREA, name, spec, comment, input, "reject", reason, flags=flags)
    intermediates = run(input).intermediates
    return Case(AREA, name, spec, comment, input, intermediates=intermediates)


def _cases() -> Iterator[Case]:
    plain = example()
    signed = genesis.sign(genesis.sign(plain, NODES[0]), AUTHORS[1])
    yield _case("unsigned", genesis.encode(plain), "No signatures: each member adds its own.")
    yield _case("signed", genesis.encode(signed), "Signed by a node key and an author key.")
    one = Member("Solo", (GenesisNode(NODES[0].public, bytes(16), "orderer", (), "Solo"),), ())
    alone = genesis.make("one", TIME_MS, bytes(16), (one,))
    both = GenesisAuthor(NODES[0].public, "the node itself", ("*", "a.*", "b"), "Solo")
    shared = replace(one, authors=(both, replace(both, key=AUTHORS[0].public, types=())))
    yield _case(
        "node-key-as-author",
        genesis.encode(genesis.make("one", TIME_MS, bytes(16), (shared,))),
        "A node key may be an author key; an author may have no types.",
    )
    yield _case("one-node", genesis.encode(alone), "One node is a network.")
    yield from _broken_bodies(plain)
    yield from _broken_signatures(signed)
    yield from _cards()


def _broken_bodies(plain: Genesis) -> Iterator[Case]:
    def changed(edit: str, value: Any) -> bytes:
        body: Any = cbor.decode(plain.body_bytes)
        place = body
        *path, last = edit.split("/")
        for step in path:
            place = place[int(step) if step.isdigit() else step]
        place[int(last) if last.isdigit() else last] = value
        return cbor.encode([cbor.encode(body), []])

    node, author = "members/0/nodes/0", "members/0/authors/0"
    table: tuple[tuple[str, str, Any, str], ...] = (
        ("protocol-2", "protocol", 2, "A protocol that this release does not know."),
        ("rules-0", "rules", 0, "Rules that this release does not know."),
        ("nonce-15", "nonce", bytes(15), "A nonce has 16 bytes."),
        ("name-empty", "name", "", "A network has a name."),
        ("name-line-break", "name", "a\nb", "Names print on one line."),
        ("name-no-break-space", "name", "a\u00a0b", "Of the spaces only U+0020 prints."),
        ("name-direction", "name", "a\u202eb", "A format character does not print."),
        ("name-space-around", "members/0/name", " Roads", "No space around it."),
        ("name-129", "name", "x" * 129, "128 bytes are allowed."),
        ("no-members", "members", [], "Nobody orders."),
        ("no-orderer", "members", [_observing()], "At least one orderer."),
        ("unknown-field", "fee", 1, "Unknown fields are errors."),
        ("node-key-31", f"{node}/key", bytes(31), "A key has 32 bytes."),
        ("node-key-twice", f"{node}/key", NODES[1].public, "A node stands twice."),
        ("incarnation-15", f"{node}/incarnation", bytes(15), "16 bytes."),
        ("role-unknown", f"{node}/role", "king", "Orderer or observer."),
        ("node-name-twice", f"{node}/name", "2", "A name stands once in a member."),
        ("address-relative", f"{node}/addresses", ["ip4/192.0.2.1"], "Not a multiaddr."),
        ("address-space", f"{node}/addresses", ["/dns4/a b/tcp/1"], "No spaces."),
        ("address-513", f"{node}/addresses", ["/" * 513], "512 bytes are allowed."),
        ("addresses-17", f"{node}/addresses", ["/ip4/192.0.2.1/tcp/1"] * 17, "16 are allowed."),
        ("author-key-twice", f"{author}/key", AUTHORS[1].public, "An author stands twice."),
        ("types-pattern", f"{author}/types", ["city.*.granted"], "The star ends a pattern."),
        ("types-empty-text", f"{author}/types", [""], "A type is not empty."),
        ("types-star-after-text", f"{author}/types", ["city*"], "A dot stands before the star."),
        ("types-no-prefix", f"{author}/types", [".*"], "Something stands before the dot."),
        ("types-control-character", f"{author}/types", ["a\x07"], "No control characters."),
        ("types-129", f"{author}/types", ["x" * 129], "128 bytes are allowed."),
        ("types-257", f"{author}/types", ["a"] * 257, "256 are allowed."),
        ("member-twice", "members/1/name", "Roads", "A member stands twice."),
    )
    for name, edit, value, comment in table:
        yield _case(name, changed(edit, value), comment, "malformed")
    data = genesis.encode(plain)
    yield _case("truncated", data[:-1], "The last byte.", "malformed", "truncated")
    yield _case("trailing-byte", data + b"\x00", "One byte more.", "malformed", "trailing-byte")
    yield _case("too-large", bytes(1024 * 1024 + 1), "Above 1 MiB.", "size")


def _observing() -> dict[str, Any]:
    """A member with one observer and nothing else."""
    node = {
        "name": "1",
        "key": NODES[0].public,
        "incarnation": bytes(16),
        "role": "observer",
        "addresses": [],
    }
    return {"name": "Roads", "nodes": [node], "authors": []}


def _broken_signatures(signed: Genesis) -> Iterator[Case]:
    def file(*signatures: bytes) -> bytes:
        return cbor.encode([signed.body_bytes, list(signatures)])

    first, second = signed.signatures
    flipped = first[:-1] + bytes([first[-1] ^ 1])
    yield _case("signature-flipped", file(flipped), "A bit.", "signature", "bit-flipped")
    yield _case("signatures-unsorted", file(second, first), "By key.", "malformed", "unsorted")
    yield _case("signature-twice", file(first, first), "Once a key.", "malformed")
    strange = cose.sign(STRANGER, CONTENT_TYPE, signed.network)
    yield _case("signer-not-named", file(strange), "A key from outside.", "signature")
    other = cose.sign(NODES[0], CONTENT_TYPE, sha256(b"another network"))
    yield _case("signature-of-another", file(other), "On another network's id.", "signature")


def _cards() -> Iterator[Case]:
    data = card.make(
        NODES[0],
        member="Roads",
        name="roads-1",
        role="orderer",
        incarnation=bytes(range(16)),
        author=AUTHORS[0].public,
        addresses=["/ip4/192.0.2.1/tcp/4710"],
    )
    yield _case("card", data, "What init writes.", what="card")
    flipped = data[:-1] + bytes([data[-1] ^ 1])
    yield _case("card-flipped", flipped, "A bit.", "signature", "bit-flipped", what="card")
    payload: Any = cbor.decode(cose.decode(data).payload)
    for name, change in (("card-role", {"role": "x"}), ("card-unknown-field", {"fee": 1})):
        bad = cose.sign(NODES[0], card.CONTENT_TYPE, cbor.encode({**payload, **change}))
        yield _case(name, bad, "Signed, and still no card.", "malformed", what="card")
    wrong = cose.sign(NODES[0], CONTENT_TYPE, cbor.encode(payload))
    yield _case("card-content-type", wrong, "Another content type.", "malformed", what="card")
    yield _case("card-too-large", bytes(16385), "Above 16 KiB.", "size", what="card")
