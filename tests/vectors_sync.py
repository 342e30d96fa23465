"""Vectors of forwarding, anti-entropy, blocks and status (protocol/04-gossip.md)."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from p2pcity.wire import cbor, forward, sync
from p2pcity.wire.forward import ForwardResult
from p2pcity.wire.moment import MOMENTS_MAX, Moment
from p2pcity.wire.promise import Promise
from p2pcity.wire.raft import Entry
from tests.vector_case import Case, Outcome, collect, compare, judge
from tests.vectors_base import records_of
from tests.vectors_event import FULL, MINIMAL
from tests.vectors_transaction import make

AREA = "sync"
SESSION = bytes(range(16))
IDS = (bytes(range(32)), bytes(range(32, 64)))
TIME_US = 1_767_225_600_000_123
MOMENTS = (
    Moment("received", TIME_US, "12D3KooW"),
    Moment("admitted", TIME_US + 400),
    Moment("refused", TIME_US + 900, "12D3KooX", outcome="queue-full"),
    Moment("proposed", TIME_US + 1_000, term=3, index=51, height=43),
    Moment("applied", TIME_US + 9_000, height=43, outcome="committed"),
)


def run(input: Mapping[str, Any]) -> Outcome:
    """Decode a message of the input's kind; what is decoded is encoded back to the same bytes."""
    return judge(_DECODERS[input["what"]], bytes.fromhex(input["data"]))


def cases() -> dict[str, dict[str, Any]]:
    """The files of this area."""
    return collect(_cases())


def check(case: Mapping[str, Any]) -> None:
    """Judge one case with the code."""
    compare(run(case["input"]), case)


def _decode_request(data: bytes) -> Mapping[str, Any]:
    return _show(data, sync.decode_request(data))


def _decode_answer(data: bytes) -> Mapping[str, Any]:
    return _show(data, sync.decode_answer(data))


def _decode_forward(data: bytes) -> Mapping[str, Any]:
    return {"transactions": [item.hex() for item in forward.decode_forward(data)]}


def _decode_forward_answer(data: bytes) -> Mapping[str, Any]:
    results = forward.decode_answer(data)
    shown = [[item.id.hex() if item.id else None, item.verdict, item.reason] for item in results]
    return {"results": shown}


_DECODERS = {
    "request": _decode_request,
    "answer": _decode_answer,
    "forward": _decode_forward,
    "forward-answer": _decode_forward_answer,
}


def _show(data: bytes, message: sync.Request | sync.Answer) -> Mapping[str, Any]:
    fields: Any = cbor.decode(data)
    return {"kind": fields["kind"], "encoded": sync.encode(message).hex()}


def _case(name: str, what: str, data: bytes, comment: str, reason: str = "", *flags: str) -> Case:
    input = {"what": what, "data": data.hex()}
    section = "forwarding" if what.startswith("forward") else "anti-entropy"
    spec = "07-base.md#fetching" if name.startswith("base") else f"04-gossip.md#{section}"
    if reason:
        return Case(AREA, name, spec, comment, input, "reject", reason, flags=flags)
    return Case(AREA, name, spec, comment, input, intermediates=run(input).intermediates)


def _cases() -> Iterator[Case]:
    carried = (make(MINIMAL).data, make(MINIMAL, FULL).data)
    requests: tuple[tuple[str, sync.Request], ...] = (
        ("pending", sync.PendingQuery(SESSION, 7, 1000)),
        ("pending-first", sync.PendingQuery(sync.NO_SESSION, 0)),
        ("fetch", sync.Fetch(IDS)),
        ("status", sync.StatusQuery()),
        ("status-trace", sync.StatusQuery(IDS[0])),
        ("block", sync.BlockQuery(42)),
        ("entries", sync.EntriesQuery(7)),
        ("base", sync.BaseQuery()),
        ("base-height", sync.BaseQuery(512)),
        ("base-head", sync.BaseHeadQuery(512, 786_432)),
        ("base-records", sync.BaseRecordsQuery(32_768)),
    )
    for name, request in requests:
        yield _case(name, "request", sync.encode(request), "A question.")
    status = sync.StatusAnswer(42, IDS[0], 50, 51, 3, "follower", "0.1.0", 1_767_225_600_000, 5)
    answers: tuple[tuple[str, sync.Answer], ...] = (
        ("pending-answer", sync.PendingAnswer(SESSION, 9, IDS)),
        ("pending-answer-none", sync.PendingAnswer(SESSION, 9, ())),
        ("fetched", sync.Fetched(carried)),
        ("status-answer", status),
        ("status-answer-sync", replace(status, sync_us=1_800)),
        (
            "status-answer-promises",
            replace(status, role="leader", promises=(Promise("12D3KooW", SESSION, 50, 3),)),
        ),
        ("status-answer-trace", replace(status, trace=MOMENTS)),
        ("status-answer-trace-none", replace(status, trace=())),
        ("block-answer", sync.BlockAnswer(42, b"\x83")),
        ("block-answer-none", sync.BlockAnswer(42, None)),
        ("entries-answer", sync.EntriesAnswer(7, 3, 8, (Entry(2, 7), Entry(3, 8, b"\x83")))),
        ("entries-answer-none", sync.EntriesAnswer(7, 3, 6, ())),
        ("entries-answer-first", sync.EntriesAnswer(7, 3, 900, (), first=514)),
        ("base-answer", sync.BaseAnswer(512, IDS[0], 1_900, 3_000, 514)),
        ("base-answer-digest", sync.BaseAnswer(512, IDS[0], 0, 0, 1)),
        ("base-answer-none", sync.BaseAnswer(0, None, 0, 0, 1)),
        ("base-head-answer", sync.BaseHeadAnswer(512, 0, b"\xac")),
        ("base-head-answer-none", sync.BaseHeadAnswer(512, 0, None)),
        ("base-records-answer", sync.BaseRecordsAnswer(0, records_of(1, 1, 0))),
        ("base-records-answer-none", sync.BaseRecordsAnswer(9, b"")),
    )
    for name, answer in answers:
        yield _case(name, "answer", sync.encode(answer), "An answer.")
    asked = forward.encode_forward(list(carried))
    yield _case("forward", "forward", asked, "Two transactions for the leader.")
    results = [ForwardResult(IDS[0], "accept", "accepted"), ForwardResult(None, "reject", "root")]
    told = forward.encode_answer(results)
    yield _case("forward-answer", "forward-answer", told, "Its verdicts, in the same order.")
    extended = cbor.encode({"kind": "block", "height": 1, "proof": True})
    yield _case("unknown-field", "request", extended, "Ignored: a later release may add some.")
    yield from _broken(asked)


def _broken(asked: bytes) -> Iterator[Case]:
    pending = {"kind": "pending", "session": SESSION, "since": 0, "limit": 1}
    questions: tuple[tuple[str, Any], ...] = (
        ("kind-unknown", {"kind": "gift"}),
        ("kind-missing", {"since": 0}),
        ("kind-array", {"kind": ["pending"]}),
        ("not-a-map", [1]),
        ("session-15", {**pending, "session": bytes(15)}),
        ("limit-1001", {**pending, "limit": 1001}),
        ("since-negative", {**pending, "since": -1}),
        ("id-31", {"kind": "fetch", "ids": [bytes(31)]}),
        ("ids-1001", {"kind": "fetch", "ids": [bytes(32)] * 1001}),
        ("height-missing", {"kind": "block"}),
        ("status-trace-31", {"kind": "status", "trace": bytes(31)}),
        ("base-height-null", {"kind": "base", "height": None}),
        ("base-head-offset-missing", {"kind": "base-head", "height": 256}),
        ("base-records-16385", {"kind": "base-records", "offset": 0, "count": 16_385}),
    )
    for name, value in questions:
        yield _case(name, "request", cbor.encode(value), "No such question.", "malformed")
    one = cbor.encode({"kind": "fetched", "carried": [bytes(65537)]})
    yield _case("fetched-too-large", "answer", one, "A transaction above 64 KiB.", "size")
    yield _case("answer-kind", "answer", cbor.encode({"kind": "block"}), "A question.", "malformed")
    large = bytes(1024 * 1024 + 16 * 1024 + 1)
    yield _case("too-large", "answer", large, "Above 1 MiB and 16 KiB.", "size")
    forwarded = cbor.encode([b""] * 4097)
    yield _case("forward-4097", "forward", forwarded, "At most 4,096.", "malformed")
    yield _case("forward-too-large", "forward", bytes(1024 * 1024 + 1), "Above 1 MiB.", "size")
    told = {"kind": "entries-answer", "index": 1, "term": 1, "commit": 1, "entries": [[1, b""]]}
    for name, value in (
        ("entries-1001", {**told, "entries": [[1, b""]] * 1001}),
        ("entries-triple", {**told, "entries": [[1, 1, b""]]}),
        ("entries-term-text", {**told, "entries": [["1", b""]]}),
        ("entries-commit-missing", {key: told[key] for key in told if key != "commit"}),
    ):
        yield _case(name, "answer", cbor.encode(value), "No such answer.", "malformed")
    for name, value in (
        ("base-records-47", {"kind": "base-records-answer", "offset": 0, "data": bytes(47)}),
        ("base-head-text", {"kind": "base-head-answer", "height": 1, "offset": 0, "data": "a"}),
        (
            "base-digest-31",
            {"kind": "base-answer", "height": 256, "digest": bytes(31)}
            | {"size": 1, "records": 1, "first": 1},
        ),
    ):
        yield _case(name, "answer", cbor.encode(value), "No such answer.", "malformed")
    yield from _broken_traces()
    yield _case(
        "answer-ids-1001",
        "answer",
        cbor.encode(
            {"kind": "pending-answer", "session": SESSION, "last": 1, "ids": [bytes(32)] * 1001}
        ),
        "Never whole sets: 1,000 ids at most.",
        "malformed",
    )
    yield _case("forward-none", "forward", b"\x80", "At least one.", "malformed")
    yield _case("forward-truncated", "forward", asked[:-1], "Cut.", "malformed", "truncated")
    for name, value in (
        ("forward-verdict", [[None, "maybe", ""]]),
        ("forward-id", [[bytes(31), "accept", ""]]),
        ("forward-pair", [[None, "accept"]]),
    ):
        yield _case(name, "forward-answer", cbor.encode(value), "No verdict.", "malformed")


def _broken_traces() -> Iterator[Case]:
    told = {"kind": "status-answer", "height": 42, "head": IDS[0], "applied": 50, "commit": 51}
    told |= {"term": 3, "role": "follower", "release": "0.1.0", "time": 1_767_225_600_000}
    moment = {"stage": "admitted", "time_us": TIME_US}
    for name, trace in (
        ("33", [moment] * (MOMENTS_MAX + 1)),
        ("null", None),
        ("text", ["admitted"]),
        ("stage-missing", [{"time_us": TIME_US}]),
        ("stage-empty", [{**moment, "stage": ""}]),
        ("stage-control", [{**moment, "stage": "a\nb"}]),
        ("time-missing", [{"stage": "admitted"}]),
        ("time-late", [{**moment, "time_us": 253_402_300_800_000_000}]),
        ("term-text", [{**moment, "term": "3"}]),
        ("peer-null", [{**moment, "peer": None}]),
        ("outcome-65", [{**moment, "outcome": "x" * 65}]),
    ):
        data = cbor.encode({**told, "trace": trace})
        yield _case(f"trace-{name}", "answer", data, "No such trace.", "malformed")
    extended = cbor.encode({**told, "trace": [{**moment, "stage": "dreamt", "depth": 3}]})
    yield _case("trace-unknown", "answer", extended, "A later release may say more.")
