"""What Raft says to its peers and keeps on disk, and the messages' bytes (cddl/raft.cddl).

A message is a CBOR map with text keys; `type` says which one. Fields that this release does
not know are ignored, so that nodes of two releases can order together. Terms, indexes and
rounds are unsigned and below 2**64; nothing here judges whether they make sense. Who sent a
message is not part of it: the stream that carried it knows.
"""

from dataclasses import dataclass
from typing import Final, cast

from p2pcity.errors import DecodeError
from p2pcity.wire import cbor
from p2pcity.wire.limits import RAFT_MESSAGE_BYTES_MAX

NodeId = str
"""A node's peer id in text form."""

UINT_MAX: Final = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Entry:
    """What Raft orders: `payload` is an encoded block, or empty for a leader's first entry."""

    term: int
    index: int
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class HardState:
    """What must survive a crash besides the entries; `commit` alone needs no sync."""

    term: int = 0
    vote: NodeId | None = None
    commit: int = 0


@dataclass(frozen=True, slots=True)
class VoteRequest:
    """A candidate asks for a vote; with `is_pre` it only asks whether it would get one.

    `term` is the term the candidate wants to lead. `is_transfer` says that the leader itself
    asked for this election, so that voters who hear that leader answer all the same.
    """

    term: int
    last_index: int
    last_term: int
    is_pre: bool = False
    is_transfer: bool = False


@dataclass(frozen=True, slots=True)
class VoteAnswer:
    """A voter's answer; a granted pre-vote carries the term asked for, a refusal the voter's.

    `commit` is the voter's commit index and `commit_term` that entry's term: a candidate that
    has this entry learns that it is committed.
    """

    term: int
    is_granted: bool
    is_pre: bool = False
    commit: int = 0
    commit_term: int = 0


@dataclass(frozen=True, slots=True)
class Append:
    """The leader's entries after (`previous_index`, `previous_term`), and its commit index."""

    term: int
    previous_index: int
    previous_term: int
    commit: int
    entries: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class AppendAnswer:
    """A follower's answer to an append.

    Accepted: `index` is the last index known to equal the leader's. Rejected: `index` is the
    previous index that did not match, and the follower's log can agree with the leader's at
    `hint_index` at most, where it has `hint_term`.
    """

    term: int
    index: int
    is_rejected: bool = False
    hint_index: int = 0
    hint_term: int = 0


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The leader is alive; `commit` never exceeds what this follower acknowledged.

    `round` numbers rounds within the leader's term; zero confirms no read. `sent` is the leader's
    own mark of the moment, in ms of a clock that never steps; None: it does not ask for clocks.
    """

    term: int
    commit: int
    round: int = 0
    sent: int | None = None


@dataclass(frozen=True, slots=True)
class HeartbeatAnswer:
    """A peer in this `term` heard the heartbeat of this `round`.

    `sent` is the heartbeat's, `time_ms` the peer's wall clock as it answers (Unix ms); None when
    the heartbeat had no `sent`.
    """

    term: int
    round: int = 0
    sent: int | None = None
    time_ms: int | None = None


@dataclass(frozen=True, slots=True)
class CommitNotice:
    """The commit index moved and no append is under way that says so; has no answer."""

    term: int
    commit: int


@dataclass(frozen=True, slots=True)
class Behind:
    """The leader to one far behind: fetch what is committed up to `commit` from other voters."""

    term: int
    commit: int


@dataclass(frozen=True, slots=True)
class TimeoutNow:
    """The leader asks a voter to campaign at once: leadership moves there."""

    term: int


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """A peer asks the leader for a read index; it never uses `number` for another read."""

    term: int
    number: int


@dataclass(frozen=True, slots=True)
class ReadAnswer:
    """The read that was asked under `number` is current once `index` is applied."""

    term: int
    number: int
    index: int


Message = (
    VoteRequest
    | VoteAnswer
    | Append
    | AppendAnswer
    | Heartbeat
    | HeartbeatAnswer
    | CommitNotice
    | Behind
    | TimeoutNow
    | ReadRequest
    | ReadAnswer
)

_TYPES: Final[dict[str, type[Message]]] = {
    "vote": VoteRequest,
    "vote-answer": VoteAnswer,
    "append": Append,
    "append-answer": AppendAnswer,
    "heartbeat": Heartbeat,
    "heartbeat-answer": HeartbeatAnswer,
    "commit": CommitNotice,
    "behind": Behind,
    "timeout-now": TimeoutNow,
    "read": ReadRequest,
    "read-answer": ReadAnswer,
}
_NAMES: Final = {kind: name for name, kind in _TYPES.items()}

_UINTS: Final[dict[str, tuple[str, ...]]] = {
    "vote": ("term", "last_index", "last_term"),
    "vote-answer": ("term", "commit", "commit_term"),
    "append": ("term", "previous_index", "previous_term", "commit"),
    "append-answer": ("term", "index", "hint_index", "hint_term"),
    "heartbeat": ("term", "commit", "round"),
    "heartbeat-answer": ("term", "round"),
    "commit": ("term", "commit"),
    "behind": ("term", "commit"),
    "timeout-now": ("term",),
    "read": ("term", "number"),
    "read-answer": ("term", "number", "index"),
}
# Left out while None: (key on the wire, attribute).
_OPTIONAL: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "heartbeat": (("sent", "sent"),),
    "heartbeat-answer": (("sent", "sent"), ("time", "time_ms")),
}
_BOOLS: Final[dict[str, tuple[str, ...]]] = {
    "vote": ("is_pre", "is_transfer"),
    "vote-answer": ("is_granted", "is_pre"),
    "append-answer": ("is_rejected",),
}


def encode(message: Message) -> bytes:
    """Encode a message as deterministic CBOR; attribute names are the map's keys."""
    name = _NAMES[type(message)]
    fields: dict[str, object] = {"type": name}
    for key in _UINTS[name]:
        fields[key] = getattr(message, key)
    for key in _BOOLS.get(name, ()):
        fields[key] = getattr(message, key)
    for key, attribute in _OPTIONAL.get(name, ()):
        if (number := getattr(message, attribute)) is not None:
            fields[key] = number
    if isinstance(message, Append):
        fields["entries"] = [[entry.term, entry.payload] for entry in message.entries]
    return cbor.encode(cast("cbor.Value", fields))


def decode(data: bytes) -> Message:
    """Decode one message.

    Raises DecodeError; its reason is `unknown-message` for a type of a later release (drop it,
    blame nobody) and `malformed` or the reader's own reason otherwise.
    """
    value = cbor.decode(data, size_max=RAFT_MESSAGE_BYTES_MAX)
    fields = _map(value)
    name = fields.get("type")
    if not isinstance(name, str):
        raise DecodeError("a raft message has no type")
    kind = _TYPES.get(name)
    if kind is None:
        raise DecodeError(f"unknown raft message {name[:32]!r}", reason="unknown-message")
    values: dict[str, object] = {key: _uint(fields.get(key), key) for key in _UINTS[name]}
    for key in _BOOLS.get(name, ()):
        flag = fields.get(key)
        if not isinstance(flag, bool):
            raise DecodeError(f"{key} of a raft message is not a boolean")
        values[key] = flag
    for key, attribute in _OPTIONAL.get(name, ()):
        if key in fields:
            values[attribute] = _uint(fields[key], key)
    if kind is Append:
        first = cast("int", values["previous_index"]) + 1
        values["entries"] = _entries(fields.get("entries"), first)
    return kind(**values)  # type: ignore[arg-type]  # the tables above match the dataclasses


def _map(value: object) -> dict[object, object]:
    if not isinstance(value, dict):
        raise DecodeError("a map was expected")
    return value


def _uint(value: object, key: str) -> int:
    if type(value) is not int or not 0 <= value <= UINT_MAX:
        raise DecodeError(f"{key} is not an unsigned integer")
    return value


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise DecodeError("a payload is not a byte string")
    return value


def _entries(value: object, first: int) -> tuple[Entry, ...]:
    if not isinstance(value, list):
        raise DecodeError("entries is not an array")
    entries = []
    for index, item in enumerate(value, start=first):
        if not isinstance(item, list) or len(item) != 2:
            raise DecodeError("an entry is not an array of two")
        entries.append(Entry(_uint(item[0], "term"), index, _bytes(item[1])))
    return tuple(entries)
