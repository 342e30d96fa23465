"""Vectors of bases: records, the chain over them, and heads (protocol/07-base.md)."""

from collections.abc import Iterator, Mapping
from typing import Any

from p2pcity.city.membership import State, encode_city
from p2pcity.crypto.digest import sha256
from p2pcity.crypto.merkle import Frontier, leaf_hash
from p2pcity.wire import base, cbor
from p2pcity.wire.base import EVENT_VALUE, HEIGHT_SHIFT, NO_CHAIN, BaseHead, Mark
from p2pcity.wire.limits import BASE_INTERVAL_BLOCKS
from tests import vectors_genesis
from tests.vector_case import Case, Outcome, collect, compare, judge

AREA = "base"
CHAIN = "07-base.md#chain"
HEAD = "07-base.md#head"


def run(input: Mapping[str, Any]) -> Outcome:
    """Follow the chain over an interval's records, or read a head."""
    data = bytes.fromhex(input["data"])
    if input["what"] == "head":
        return judge(_read_head, data)
    chain, height = bytes.fromhex(input["chain"]), input["height"]
    return judge(lambda records: _follow(chain, height, records), data)


def cases() -> dict[str, dict[str, Any]]:
    """The files of this area."""
    return collect(_cases())


def check(case: Mapping[str, Any]) -> None:
    """Judge one case with the code."""
    compare(run(case["input"]), case)


def records_of(height: int, transactions: int, first_leaf: int) -> bytes:
    """The records of a block of transactions, each with one event; every third has none."""
    found = b""
    for at in range(transactions):
        position = height << HEIGHT_SHIFT | at << 8
        key = sha256(f"{height}.{at}".encode())
        found += base.encode_record(key, position, first_leaf + at)
        if at % 3 != 2:
            found += base.encode_record(sha256(key), position, EVENT_VALUE)
    return found


def interval_of(number: int) -> tuple[bytes, bytes]:
    """The records of interval `number` (0-based), two transactions in every tenth block.

    And the chain at its end, when the chain began with it.
    """
    chain, records = NO_CHAIN, b""
    first = number * BASE_INTERVAL_BLOCKS + 1
    for height in range(first, first + BASE_INTERVAL_BLOCKS):
        own = records_of(height, 2, 0) if height % 10 == 0 else b""
        chain = base.next_chain(chain, own)
        records += own
    return records, chain


def head(intervals: int = 1, **change: Any) -> BaseHead:
    """A head with made-up marks."""
    genesis = vectors_genesis.example()
    marks = b"".join(
        base.encode_mark(Mark(sha256(bytes([at])), 100 * at + 1)) for at in range(intervals)
    )
    fields: dict[str, Any] = {
        "network": genesis.network,
        "height": intervals * BASE_INTERVAL_BLOCKS,
        "hash": bytes(range(32)),
        "time_ms": 1_767_225_600_500,
        "index": intervals * BASE_INTERVAL_BLOCKS + 3,
        "term": 2,
        "frontier": Frontier().extend(leaf_hash(bytes([at])) for at in range(5)),
        "city": encode_city(State.from_genesis(genesis)),
        "events": 4,
        "dropped": 1,
        "marks": marks,
    }
    return BaseHead(**{**fields, **change})


def _read_head(data: bytes) -> Mapping[str, Any]:
    found = base.decode_head(data)
    assert base.encode_head(found) == data
    return {
        "digest": base.digest_head(data).hex(),
        "records": found.records,
        "chain": found.chain.hex(),
        "root": found.frontier.root.hex(),
    }


def _follow(chain: bytes, height: int, records: bytes) -> Mapping[str, Any]:
    reader = base.IntervalChain(chain, height)
    for at in range(0, len(records), 5 * base.RECORD_BYTES):
        reader.add(records[at : at + 5 * base.RECORD_BYTES])
    ends = {
        at: base.read_record(records, at).height for at in range(len(records) // base.RECORD_BYTES)
    }
    chains = []
    for block in range(height + 1, height + BASE_INTERVAL_BLOCKS + 1):
        own = [at for at, found in ends.items() if found == block]
        chain = base.next_chain(
            chain,
            b"".join(records[at * base.RECORD_BYTES : (at + 1) * base.RECORD_BYTES] for at in own),
        )
        chains.append(chain)
    assert reader.finish() == chain
    return {"first": chains[0].hex(), "chain": chain.hex()}


def _case(name: str, input: Mapping[str, Any], comment: str, reason: str = "") -> Case:
    spec = HEAD if input["what"] == "head" else CHAIN
    if reason:
        return Case(AREA, name, spec, comment, input, "reject", reason)
    return Case(AREA, name, spec, comment, input, intermediates=run(input).intermediates)


def _chain(records: bytes, height: int = 0, chain: bytes = NO_CHAIN) -> dict[str, Any]:
    return {"what": "chain", "height": height, "chain": chain.hex(), "data": records.hex()}


def _head(data: bytes) -> dict[str, Any]:
    return {"what": "head", "data": data.hex()}


def _cases() -> Iterator[Case]:
    position = 1 << HEIGHT_SHIFT
    first = (
        base.encode_record(b"\xa1" * 32, position, 0)
        + base.encode_record(b"\xb1" * 32, position, EVENT_VALUE)
        + base.encode_record(b"\xb2" * 32, position + 1, EVENT_VALUE)
    )
    yield _case("chain-one-block", _chain(first), "A transaction with two events in block 1.")
    yield _case("chain-empty", _chain(b""), "256 blocks without a transaction.")
    yield _case("chain-many", _chain(interval_of(0)[0]), "Two transactions in every tenth block.")
    records, chain = interval_of(1)
    yield _case("chain-second", _chain(records, 256, chain), "The second interval.")
    last = records_of(256, 1, 9)
    yield _case("chain-last-block", _chain(last), "The last block of the interval alone.")
    yield from (
        _case("chain-" + name, _chain(data), comment, "malformed")
        for name, data, comment in (
            ("beyond", records_of(257, 1, 0), "A record of the next interval."),
            ("height-0", records_of(0, 1, 0), "The genesis has no records."),
        )
    )
    yield _case("head-first", _head(base.encode_head(head())), "The base at height 256.")
    yield _case("head-third", _head(base.encode_head(head(3))), "Three marks.")
    empty = head(frontier=Frontier(), marks=base.encode_mark(Mark(NO_CHAIN, 0)), events=0)
    yield _case("head-empty", _head(base.encode_head(empty)), "Nothing was applied yet.")
    yield from _broken()


def _broken() -> Iterator[Case]:
    good: Any = cbor.decode(base.encode_head(head()))
    mark = base.encode_mark
    falling = mark(Mark(NO_CHAIN, 9)) + mark(Mark(NO_CHAIN, 8))
    for name, change, comment in (
        ("height-0", {"height": 0, "marks": b""}, "The genesis is no base."),
        ("height-257", {"height": 257}, "No multiple of 256."),
        ("height-512", {"height": 512}, "A mark is missing."),
        ("index-255", {"index": 255}, "Below the height."),
        ("peaks-1", {"peaks": bytes(32)}, "A tree of 5 has two peaks."),
        ("marks-39", {"marks": bytes(39)}, "A mark has 40 bytes."),
        ("records-fall", {"height": 512, "index": 512, "marks": falling}, "Counts fall."),
        ("records-too-many", {"marks": mark(Mark(NO_CHAIN, 2**23 + 1))}, "More than fit."),
        ("network-31", {"network": bytes(31)}, "An id has 32 bytes."),
        ("time-negative", {"time": -1}, "Before 1970."),
        ("unknown-field", {"more": 1}, "Nothing else belongs there."),
    ):
        yield _case("head-" + name, _head(cbor.encode({**good, **change})), comment, "malformed")
    short = {key: good[key] for key in good if key != "city"}
    yield _case("head-city-missing", _head(cbor.encode(short)), "Who orders?", "malformed")
    large = {**good, "city": bytes(1024 * 1024)}
    yield _case("head-too-large", _head(cbor.encode(large)), "Above 1 MiB and a mark.", "size")
