"""Vectors of blocks: header, hash, body root, and the two halves on disk (protocol/06-block.md)."""

from collections.abc import Iterator, Mapping
from typing import Any

from p2pcity.crypto import merkle
from p2pcity.wire import block, cbor, transaction
from p2pcity.wire.block import Block
from tests.vector_case import Case, Outcome, collect, compare, judge
from tests.vectors_event import FULL, MINIMAL
from tests.vectors_transaction import NETWORK, make

AREA = "block"
SPEC = "06-block.md"
TIME_MS = 1_767_225_600_500
VOTERS = bytes(range(96, 128))


def run(input: Mapping[str, Any]) -> Outcome:
    """Decode a block, split it and join it again."""

    def decode(data: bytes) -> Mapping[str, Any]:
        decoded = block.decode(data)
        skeleton, bodies = block.split(data)
        assert decoded.data == data
        assert block.join(skeleton, bodies) == data
        return {
            "header": decoded.header_bytes.hex(),
            "hash": decoded.hash.hex(),
            "body": decoded.header.body.hex(),
            "signed_parts": [transaction.signed_part(x).hex() for x in decoded.transactions],
        }

    return judge(decode, bytes.fromhex(input["data"]))


def cases() -> dict[str, dict[str, Any]]:
    """The files of this area."""
    return collect(_cases())


def check(case: Mapping[str, Any]) -> None:
    """Judge one case with the code."""
    compare(run(case["input"]), case)


def example(height: int = 1, parent: bytes = NETWORK, change: bytes | None = None) -> Block:
    """A block of two transactions."""
    carried = [make(MINIMAL, FULL), make(MINIMAL, nonce=bytes(16))]
    return block.make(height, parent, TIME_MS, carried, 0, VOTERS, 1, change)


def _case(name: str, data: bytes, comment: str, reason: str = "", *flags: str) -> Case:
    input = {"data": data.hex()}
    spec = f"{SPEC}#block"
    if reason:
        return Case(AREA, name, spec, comment, input, "reject", reason, flags=flags)
    return Case(AREA, name, spec, comment, input, intermediates=run(input).intermediates)


def _cases() -> Iterator[Case]:
    first = example()
    yield _case("first", first.data, "Height 1: the parent is the network id.")
    yield _case("second", example(2, first.hash).data, "The parent is the hash of block 1.")
    yield _case("change", example(change=b"\x01").data, "A change is the last leaf.")
    empty = block.make(1, NETWORK, TIME_MS, [], 0, VOTERS, 1)
    yield _case("empty", empty.data, "No transactions: the root of the empty tree.")
    signed, events = transaction.split_carried(first.transactions[0])
    erased = transaction.join_carried(signed, [merkle.leaf_hash(events[0]), events[1]])
    parts = [first.header_bytes, [erased, first.transactions[1]], None]
    yield _case("erased-body", cbor.encode(parts), "A body is gone: the same hash as first.")
    lying = transaction.join_carried(signed, [])
    parts = [first.header_bytes, [lying, first.transactions[1]], None]
    yield _case("invalid-transaction", cbor.encode(parts), "Apply drops it; the block stands.")
    yield from _broken(first)


def _broken(first: Block) -> Iterator[Case]:
    header, items = first.header_bytes, list(first.transactions)

    def parts(header: bytes = header, items: list[Any] = items, change: Any = None) -> bytes:
        return cbor.encode([header, items, change])

    yield _case("swapped", parts(items=items[::-1]), "The order counts.", "root", "swapped")
    yield _case("missing", parts(items=items[:1]), "One fewer than counted.", "malformed")
    yield _case("twice", parts(items=[items[0], items[0]]), "Another one.", "root")
    yield _case("change-added", parts(change=b"\x01"), "A change not counted.", "malformed")
    yield _case("change-integer", parts(change=1), "A change is bytes.", "malformed")
    yield _case("item-text", parts(items=["a", "b"]), "Items are bytes.", "malformed")
    yield _case("item-opaque", parts(items=[b"\x00", b"\x01"]), "No signed part.", "malformed")
    long_head = b"\x82\x58\x05" + bytes(5) + b"\x80"
    yield _case("item-not-shortest", parts(items=[long_head, items[1]]), "The head.", "malformed")
    fields: Any = cbor.decode(header)
    for name, change in (
        ("height-zero", {"height": 0}),
        ("height-text", {"height": "1"}),
        ("parent-31", {"parent": bytes(31)}),
        ("time-negative", {"time": -1}),
        ("voters-33", {"voters": bytes(33)}),
        ("unknown-field", {"fee": 1}),
        ("rules-missing", {"rules": ...}),
    ):
        kept = {key: value for key, value in {**fields, **change}.items() if value is not ...}
        yield _case(name, parts(cbor.encode(kept)), "No such header.", "malformed")
    other = cbor.encode({**fields, "body": bytes(32)})
    yield _case("body-zero", parts(other), "The root is another.", "root")
    data = first.data
    yield _case("truncated", data[:-1], "The last byte.", "malformed", "truncated")
    yield _case("trailing-byte", data + b"\x00", "One more.", "malformed", "trailing-byte")
    yield _case("too-large", bytes(1024 * 1024 + 1), "Above 1 MiB.", "size")
