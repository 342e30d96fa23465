"""The vectors of protocol/05-ordering.md: every message, and each of them broken."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from p2pcity.wire import cbor, raft
from p2pcity.wire.limits import RAFT_MESSAGE_BYTES_MAX
from p2pcity.wire.raft import (
    Append,
    AppendAnswer,
    Behind,
    CommitNotice,
    Entry,
    Heartbeat,
    HeartbeatAnswer,
    Message,
    ReadAnswer,
    ReadRequest,
    TimeoutNow,
    VoteAnswer,
    VoteRequest,
)
from tests.vector_case import Case, collect, compare, judge

AREA: Final = "raft"
SPEC: Final = "05-ordering.md#messages"

MESSAGES: Final[dict[str, Message]] = {
    "vote": VoteRequest(8, 11, 7),
    "vote-pre": VoteRequest(8, 11, 7, is_pre=True),
    "vote-transfer": VoteRequest(8, 11, 7, is_transfer=True),
    "vote-answer-granted": VoteAnswer(8, True),
    "vote-answer-refused-pre": VoteAnswer(9, False, is_pre=True, commit=11, commit_term=7),
    "append": Append(8, 11, 7, 10, (Entry(7, 12, b"a block"), Entry(8, 13, b""))),
    "append-empty": Append(8, 11, 7, 10),
    "append-first": Append(1, 0, 0, 0, (Entry(1, 1, b""),)),
    "append-answer": AppendAnswer(8, 13),
    "append-answer-rejected": AppendAnswer(8, 11, True, 6, 4),
    "heartbeat": Heartbeat(8, 10, 3),
    "heartbeat-sent": Heartbeat(8, 10, 3, sent=86_400_125),
    "heartbeat-answer": HeartbeatAnswer(8, 3),
    "heartbeat-answer-time": HeartbeatAnswer(8, 3, sent=86_400_125, time_ms=1_767_225_600_500),
    "commit": CommitNotice(8, 13),
    "behind": Behind(8, 9_000),
    "timeout-now": TimeoutNow(8),
    "read": ReadRequest(8, 4611686018427387904),
    "read-answer": ReadAnswer(8, 4611686018427387904, 13),
    "term-greatest": Heartbeat(2**64 - 1, 2**64 - 1, 2**64 - 1),
}


def _fields(message: Message) -> dict[str | int, cbor.Value]:
    fields = cbor.decode(raft.encode(message))
    assert isinstance(fields, dict)
    return fields


OPTIONAL: Final = ("sent", "time")


def _later() -> dict[str | int, cbor.Value]:
    fields = _fields(MESSAGES["heartbeat"])
    fields["later"] = [1, b"\x00"]
    return fields


def _readable(value: cbor.Value) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list):
        return [_readable(item) for item in value]
    return value


def _broken() -> dict[str, tuple[bytes, str]]:
    """Names, bytes and the rule that each of them breaks."""
    found = {}
    for name, message in MESSAGES.items():
        data, fields = raft.encode(message), _fields(message)
        found[f"{name}-truncated"] = (data[:-1], "nothing is missing at the end")
        found[f"{name}-trailing-byte"] = (data + b"\x00", "nothing follows the map")
        found[f"{name}-negative-term"] = (
            cbor.encode({**fields, "term": -1}),
            "a term is unsigned",
        )
        for moment in OPTIONAL:
            if moment in fields:
                negative = cbor.encode({**fields, moment: -1})
                found[f"{name}-negative-{moment}"] = (negative, "a moment is unsigned")
        for key in fields:
            if key in OPTIONAL:
                continue
            less = {other: value for other, value in fields.items() if other != key}
            found[f"{name}-without-{key}"] = (cbor.encode(less), "every field is there")
    wrongs: dict[str, cbor.Value] = {"text": [8, "x"], "long": [8, b"", 1], "bare": 8}
    for name, wrong in wrongs.items():
        appended = _fields(MESSAGES["append"])
        appended["entries"] = [wrong]
        rule = "an entry is its term and its payload"
        found[f"append-entry-{name}"] = (cbor.encode(appended), rule)
    return found


def _cases() -> Iterator[Case]:
    for name, message in MESSAGES.items():
        data = raft.encode(message)
        comment = f"a message of type {_fields(message)['type']!s}"
        yield Case(
            AREA, name, SPEC, comment, {"data": data.hex()}, intermediates=_decode(data)
        )  # fmt: skip
    newer = cbor.encode(_later())
    yield Case(
        AREA, "unknown-field", SPEC, "fields of a later version are ignored",
        {"data": newer.hex()}, intermediates=_decode(newer),
    )  # fmt: skip
    large = bytes(RAFT_MESSAGE_BYTES_MAX + 1)
    yield Case(AREA, "too-large", SPEC, "above 4 MiB", {"data": large.hex()}, "reject", "size")
    tomorrow = cbor.encode({"type": "tomorrow", "term": 1})
    yield Case(
        AREA, "unknown-message", SPEC, "a message of a later version is dropped without blame",
        {"data": tomorrow.hex()}, "reject", "unknown-message",
    )  # fmt: skip
    for name, (data, rule) in _broken().items():
        yield Case(AREA, name, SPEC, rule, {"data": data.hex()}, "reject", "malformed")


def _decode(data: bytes) -> Mapping[str, Any]:
    """What a message says, as a reader without our code would write it down."""
    again = cbor.decode(raft.encode(raft.decode(data)))
    assert isinstance(again, dict)
    return {"fields": {str(key): _readable(value) for key, value in again.items()}}


def cases() -> dict[str, dict[str, Any]]:
    """The files of this area."""
    return collect(_cases())


def check(case: Mapping[str, Any]) -> None:
    """Judge one case with the code."""
    compare(judge(_decode, bytes.fromhex(case["input"]["data"])), case)
