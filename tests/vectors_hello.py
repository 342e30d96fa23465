"""Vectors of hello: its bytes, and whether two nodes talk (protocol/04-gossip.md)."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from p2pcity.crypto.keys import PrivateKey
from p2pcity.wire import cbor, cose, hello
from p2pcity.wire.hello import CONTENT_TYPE, Hello
from p2pcity.wire.promise import Promise
from tests.vector_case import Case, Outcome, collect, compare, judge

AREA = "hello"
SPEC = "04-gossip.md#hello"
KEY = PrivateKey.from_seed(bytes([40]) * 32)
MINE = Hello(
    network=bytes(range(32)),
    protocol=3,
    protocol_oldest=2,
    release="0.1.0",
    parameters=bytes(range(32, 64)),
    incarnation=bytes(range(16)),
    height=42,
    addresses=("/ip4/192.0.2.1/tcp/4710", "/dns4/node.example/tcp/4710"),
    time_ms=1_767_225_600_000,
)

PROMISES = (Promise("12D3KooW", bytes(range(16)), 50, 3), Promise("12D3KooX", bytes(16), 0, 2))


def run(input: Mapping[str, Any]) -> Outcome:
    """Decode a hello, and judge it from the side of `mine`."""

    mine = replace(
        MINE,
        network=bytes.fromhex(input["mine"]["network"]),
        protocol=input["mine"]["protocol"],
        protocol_oldest=input["mine"]["protocol_oldest"],
        epoch=input["mine"]["epoch"],
        parameters=bytes.fromhex(input["mine"]["parameters"]),
    )

    def decode(data: bytes) -> Mapping[str, Any]:
        key, theirs = hello.decode(data)
        return {
            "to_be_signed": cose.decode(data).to_be_signed.hex(),
            "key": key.hex(),
            "height": theirs.height,
            "last_index": theirs.last_index,
            "term": theirs.term,
            "epoch": theirs.epoch,
            "promises": [
                [item.peer, item.incarnation.hex(), item.index, item.term]
                for item in theirs.promises
            ],
            "refused": hello.judge(mine, theirs),
        }

    return judge(decode, bytes.fromhex(input["data"]))


def cases() -> dict[str, dict[str, Any]]:
    """The files of this area."""
    return collect(_cases())


def check(case: Mapping[str, Any]) -> None:
    """Judge one case with the code."""
    compare(run(case["input"]), case)


def _case(
    name: str, data: bytes, comment: str, reason: str = "", *flags: str, mine: Hello = MINE
) -> Case:
    input = {"data": data.hex(), "mine": _shown(mine)}
    if reason:
        return Case(AREA, name, SPEC, comment, input, "reject", reason, flags=flags)
    return Case(AREA, name, SPEC, comment, input, intermediates=run(input).intermediates)


def _shown(item: Hello) -> dict[str, Any]:
    return {
        "network": item.network.hex(),
        "protocol": item.protocol,
        "protocol_oldest": item.protocol_oldest,
        "parameters": item.parameters.hex(),
        "epoch": item.epoch,
    }


def _cases() -> Iterator[Case]:
    table: tuple[tuple[str, dict[str, Any], str], ...] = (
        ("same", {}, "Nothing differs: they talk."),
        ("wrong-network", {"network": bytes(32), "parameters": bytes(32)}, "Another network."),
        ("older", {"protocol": 2, "protocol_oldest": 1}, "Both speak version 2."),
        ("newer", {"protocol": 4, "protocol_oldest": 3}, "Both speak version 3."),
        ("too-old", {"protocol": 1, "protocol_oldest": 1}, "It speaks version 1 only."),
        ("too-new", {"protocol": 5, "protocol_oldest": 4}, "It speaks versions 4 and 5."),
        ("other-parameters", {"parameters": bytes(32)}, "Its limits differ."),
        ("log", {"last_index": 50, "term": 3}, "Where its raft log stands."),
        ("promises", {"last_index": 50, "term": 3, "promises": PROMISES}, "What voters promised."),
        ("no-addresses", {"addresses": ()}, "It is reached by others only."),
    )
    for name, change, comment in table:
        yield _case(name, hello.make(KEY, replace(MINE, **change)), comment)
    member = replace(MINE, epoch=1)
    for name, epoch, comment in (
        ("epoch-same", 1, "Both are members of epoch 1."),
        ("older-epoch", 0, "A recovery left it out."),
        ("newer-epoch", 2, "A recovery left this node out."),
        ("no-epoch", None, "It is a member of none: it may join."),
    ):
        yield _case(name, hello.make(KEY, replace(MINE, epoch=epoch)), comment, mine=member)
    yield _case("epoch-and-none", hello.make(KEY, member), "This node is a member of none.")
    own = replace(MINE, parameters=hello.parameters_digest())
    yield _case("own-parameters", hello.make(KEY, own), "The digest of parameters.toml.", mine=own)
    good = hello.make(KEY, MINE)
    payload: Any = cbor.decode(cose.decode(good).payload)

    def signed(**change: Any) -> bytes:
        fields = {k: v for k, v in {**payload, **change}.items() if v is not ...}
        return cose.sign(KEY, CONTENT_TYPE, cbor.encode(fields))

    yield _case("unknown-field", signed(region="north"), "Ignored: a later release may add some.")
    broken: tuple[tuple[str, dict[str, Any]], ...] = (
        ("network-31", {"network": bytes(31)}),
        ("network-missing", {"network": ...}),
        ("protocol-text", {"protocol": "3"}),
        ("oldest-above-newest", {"protocol_oldest": 4}),
        ("release-too-long", {"release": "x" * 65}),
        ("release-control", {"release": "0.1\x1b[2J"}),
        ("incarnation-17", {"incarnation": bytes(17)}),
        ("height-negative", {"height": -1}),
        ("addresses-17", {"addresses": ["/ip4/192.0.2.1/tcp/1"] * 17}),
        ("address-relative", {"addresses": ["192.0.2.1"]}),
        ("time-missing", {"time": ...}),
        ("last-index-negative", {"last_index": -1}),
        ("term-text", {"term": "3"}),
        ("epoch-null", {"epoch": None}),
        ("promises-65", {"promises": [["12D3KooW", bytes(16), 1, 1]] * 65}),
        ("promise-of-three", {"promises": [["12D3KooW", bytes(16), 1]]}),
        ("promise-of-nobody", {"promises": [["", bytes(16), 1, 1]]}),
        ("promise-incarnation-15", {"promises": [["12D3KooW", bytes(15), 1, 1]]}),
    )
    for name, change in broken:
        yield _case(name, signed(**change), "Signed, and still no hello.", "malformed")
    flipped = good[:-1] + bytes([good[-1] ^ 1])
    yield _case("signature-flipped", flipped, "A bit.", "signature", "bit-flipped")
    yield _case("truncated", good[:-1], "The last byte.", "malformed", "truncated")
    yield _case("trailing-byte", good + b"\x00", "One more.", "malformed", "trailing-byte")
    yield _case("too-large", bytes(16385), "Above 16 KiB.", "size")
