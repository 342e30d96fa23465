"""Vectors of the frames on streams (protocol/04-gossip.md, "Streams")."""

import struct
from collections.abc import Iterator, Mapping
from typing import Any

from p2pcity.net import frames
from p2pcity.net.frames import BODY_BYTES_MAX, FrameReader
from p2pcity.wire.limits import RAFT_MESSAGE_BYTES_MAX
from tests.vector_case import Case, Outcome, collect, compare, judge

AREA = "stream"
SPEC = "04-gossip.md#streams"
_NAMES = {
    frames.WHOLE: "message",
    frames.PING: "ping",
    frames.PONG: "pong",
    frames.LANE: "lane",
}


def run(input: Mapping[str, Any]) -> Outcome:
    """Read the bytes of one direction of a stream, whatever way they are cut."""

    def decode(data: bytes) -> Mapping[str, Any]:
        found = FrameReader(input["message_bytes_max"]).feed(data)
        cut = FrameReader(input["message_bytes_max"])
        half = len(data) // 2
        assert cut.feed(data[:half]) + cut.feed(data[half:]) == found
        return {"found": [{"what": _NAMES[kind], "body": body.hex()} for kind, body in found]}

    return judge(decode, bytes.fromhex(input["data"]))


def cases() -> dict[str, dict[str, Any]]:
    """The files of this area."""
    return collect(_cases())


def check(case: Mapping[str, Any]) -> None:
    """Judge one case with the code."""
    compare(run(case["input"]), case)


def _frame(kind: int, body: bytes) -> bytes:
    return struct.pack(">IB", len(body) + 1, kind) + body


def _case(name: str, data: bytes, comment: str, reason: str = "") -> Case:
    input = {"data": data.hex(), "message_bytes_max": RAFT_MESSAGE_BYTES_MAX}
    if reason:
        return Case(AREA, name, SPEC, comment, input, "reject", reason)
    return Case(AREA, name, SPEC, comment, input, intermediates=run(input).intermediates)


def _cases() -> Iterator[Case]:
    whole, piece, last, ping, pong, lane = range(6)
    full, number = bytes(BODY_BYTES_MAX), bytes(range(8))
    yield _case("whole", _frame(whole, b"hello"), "One message.")
    yield _case("whole-empty", _frame(whole, b""), "A message may be empty.")
    yield _case("whole-largest", _frame(whole, full), "131,071 bytes in one frame.")
    pieces = _frame(piece, full) + _frame(last, b"end")
    yield _case("pieces", pieces, "A larger message in two pieces.")
    between = _frame(piece, full) + _frame(ping, number) + _frame(last, b"\x01")
    yield _case("ping-between-pieces", between, "A ping needs no waiting.")
    several = _frame(lane, b"control") + _frame(pong, number) + _frame(whole, b"\xa0")
    yield _case("lane-first", several, "How a Raft stream begins.")
    yield _case("unfinished", _frame(whole, b"hello")[:-1], "The rest is still on its way.")
    for name, data, comment, reason in (
        ("length-zero", bytes(4), "A frame has a kind.", "size"),
        ("length-too-large", struct.pack(">IB", 131_073, whole), "Told by the length.", "size"),
        ("kind-unknown", _frame(6, b""), "There are six kinds.", "malformed"),
        ("ping-short", _frame(ping, number[:7]), "Eight bytes.", "malformed"),
        ("lane-empty", _frame(lane, b""), "A lane has a name.", "malformed"),
        ("piece-not-full", _frame(piece, b"a"), "Only the last one is short.", "malformed"),
        ("last-empty", _frame(piece, full) + _frame(last, b""), "At least a byte.", "malformed"),
        ("whole-between-pieces", _frame(piece, full) + _frame(whole, b""), "No.", "malformed"),
        ("message-too-large", _frame(piece, full) * 33, "Above 4 MiB in all.", "size"),
    ):
        yield _case(name, data, comment, reason)
