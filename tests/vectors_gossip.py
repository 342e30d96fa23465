"""Vectors of gossip batches (protocol/04-gossip.md)."""

from collections.abc import Iterator, Mapping
from typing import Any

from p2pcity.wire import cbor, gossip
from tests.vector_case import Case, Outcome, collect, compare, judge
from tests.vectors_event import FULL, MINIMAL
from tests.vectors_transaction import make

AREA = "gossip"
SPEC = "04-gossip.md#batches"


def run(input: Mapping[str, Any]) -> Outcome:
    """Decode a batch."""

    def decode(data: bytes) -> Mapping[str, Any]:
        items = gossip.decode_batch(data)
        assert gossip.encode_batch(items) == data
        return {"transactions": [item.hex() for item in items]}

    return judge(decode, bytes.fromhex(input["data"]))


def cases() -> dict[str, dict[str, Any]]:
    """The files of this area."""
    return collect(_cases())


def check(case: Mapping[str, Any]) -> None:
    """Judge one case with the code."""
    compare(run(case["input"]), case)


def _cases() -> Iterator[Case]:
    items = [make(MINIMAL).data, make(MINIMAL, FULL).data]
    data = gossip.encode_batch(items)
    for name, batch, comment in (
        ("one", items[:1], "One transaction."),
        ("two", items, "Two transactions."),
        ("opaque", [b"\x00"], "An item is judged by admission, not by the batch."),
        ("items-1024", [b"\x00"] * 1024, "As many as there may be."),
        ("size-max", [bytes(65536), bytes(66560 - 65536 - 9)], "Exactly 65 KiB."),
    ):
        input = {"data": gossip.encode_batch(batch).hex()}
        yield Case(AREA, name, SPEC, comment, input, intermediates=run(input).intermediates)
    table: tuple[tuple[str, bytes, str, str, tuple[str, ...]], ...] = (
        ("none", cbor.encode([]), "At least one.", "malformed", ()),
        ("empty", b"", "No bytes at all.", "malformed", ("truncated",)),
        ("truncated", data[:-1], "The last byte.", "malformed", ("truncated",)),
        ("trailing-byte", data + b"\x00", "One more.", "malformed", ("trailing-byte",)),
        ("text-item", cbor.encode(["a"]), "Items are byte strings.", "malformed", ()),
        ("map", cbor.encode({"a": b""}), "A batch is an array.", "malformed", ()),
        ("not-shortest", b"\x98\x02" + data[1:], "Shortest.", "malformed", ("not-shortest",)),
        ("indefinite", b"\x9f" + data[1:] + b"\xff", "Definite.", "malformed", ()),
        ("items-1025", cbor.encode([b""] * 1025), "At most 1,024 items.", "malformed", ()),
        ("item-too-large", cbor.encode([bytes(65537)]), "An item above 64 KiB.", "size", ()),
        ("too-large", bytes(66561), "Above 65 KiB.", "size", ()),
    )
    for name, data_, comment, reason, flags in table:
        yield Case(AREA, name, SPEC, comment, {"data": data_.hex()}, "reject", reason, flags=flags)
