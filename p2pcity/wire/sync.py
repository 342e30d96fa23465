"""Questions and answers between peers: anti-entropy, entries, blocks, bases and status.

Each is a CBOR map with a `kind` (cddl/sync.cddl). Unknown fields are ignored and unknown
kinds are errors, so that a later release can add to both. `decode_request` and
`decode_answer` read either union; the stream's protocol id says which one travels.
"""

from dataclasses import dataclass
from typing import Final

from p2pcity.errors import DecodeError
from p2pcity.wire import cbor
from p2pcity.wire.base import RECORD_BYTES
from p2pcity.wire.fields import (
    TIME_MS_MAX,
    UINT64_MAX,
    read_array,
    read_byte_strings,
    read_bytes,
    read_map,
    read_text,
    read_uint,
)
from p2pcity.wire.limits import (
    BASE_RECORDS_MAX,
    BLOCK_BYTES_MAX,
    SYNC_IDS_MAX,
    TRANSACTION_BYTES_MAX,
)
from p2pcity.wire.moment import Moment, read_moments
from p2pcity.wire.moment import listed as listed_moments
from p2pcity.wire.promise import Promise, listed, read_promises
from p2pcity.wire.raft import Entry

SESSION_BYTES: Final = 16
ID_BYTES: Final = 32
FETCHED_BYTES_MAX: Final = BLOCK_BYTES_MAX
"""An answer to Fetch carries at most so many bytes of transactions; the asker asks again."""
ENTRIES_MAX: Final = SYNC_IDS_MAX
"""Entries in one answer, whatever their bytes; their payloads have at most BLOCK_BYTES_MAX."""
BASE_PART_BYTES_MAX: Final = BASE_RECORDS_MAX * RECORD_BYTES
"""Bytes of a base's head, or of its records, in one answer."""
SYNC_BYTES_MAX: Final = BLOCK_BYTES_MAX + 16 * 1024
NO_SESSION: Final = bytes(SESSION_BYTES)


@dataclass(frozen=True, slots=True)
class PendingQuery:
    """Which ids did you admit after number `since`? At most `limit`, in order.

    `session` is the asked node's run that `since` belongs to: zeros at first.
    """

    session: bytes
    since: int
    limit: int = SYNC_IDS_MAX


@dataclass(frozen=True, slots=True)
class PendingAnswer:
    """Ids admitted after the asked number, the number of the last, and this node's run.

    When `session` is another than the asked one the count began anew: the ids are from its
    beginning.
    """

    session: bytes
    last: int
    ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Fetch:
    """Send me these transactions."""

    ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Fetched:
    """Carried transactions that were asked for; those unknown or over the size are left out."""

    carried: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class StatusQuery:
    """How far are you? And, with an id: what do you remember of this transaction?"""

    trace: bytes | None = None


@dataclass(frozen=True, slots=True)
class StatusAnswer:
    """A node's place on the ledger, its clock in Unix ms, and a leader's word on the voters.

    `sync_us` is the 99th percentile of the newest syncs of its log, in µs; 0 when it had none.
    `trace` is what it remembers of the transaction that was asked about, None when none was, or
    by a release that does not know the question.
    """

    height: int
    head: bytes
    applied: int
    commit: int
    term: int
    role: str
    release: str
    time_ms: int
    mempool: int = 0
    promises: tuple[Promise, ...] = ()
    sync_us: int = 0
    trace: tuple[Moment, ...] | None = None


@dataclass(frozen=True, slots=True)
class BlockQuery:
    """Send me the block at this height."""

    height: int


@dataclass(frozen=True, slots=True)
class BlockAnswer:
    """The block at `height` as stored, None when this node does not have it."""

    height: int
    data: bytes | None


@dataclass(frozen=True, slots=True)
class EntriesQuery:
    """Send me the entries of your raft_log from `index` on."""

    index: int


@dataclass(frozen=True, slots=True)
class EntriesAnswer:
    """Entries from `index` on, without gaps, as this node has them on its disk; none if it can't.

    Those up to `commit` are committed, as this node knows in its `term`. What lies above is
    only what it was sent. `first` is the oldest entry that it keeps, 0 when it did not say.
    """

    index: int
    term: int
    commit: int
    entries: tuple[Entry, ...]
    first: int = 0


@dataclass(frozen=True, slots=True)
class BaseQuery:
    """Which base have you on disk; or, with a height: which digest has the base there?"""

    height: int | None = None


@dataclass(frozen=True, slots=True)
class BaseAnswer:
    """The base at `height`, its digest None when this node does not know it.

    `size` (bytes of the head) and `records` are 0 unless the base lies on its disk. `first` is
    the oldest entry that it keeps.
    """

    height: int
    digest: bytes | None
    size: int
    records: int
    first: int


@dataclass(frozen=True, slots=True)
class BaseHeadQuery:
    """Send me the bytes from `offset` on of the head of your base at this height."""

    height: int
    offset: int


@dataclass(frozen=True, slots=True)
class BaseHeadAnswer:
    """Bytes of a head from `offset` on, None when this node has not got that base on disk."""

    height: int
    offset: int
    data: bytes | None


@dataclass(frozen=True, slots=True)
class BaseRecordsQuery:
    """Send me at most `count` records of your base, from record `offset` on."""

    offset: int
    count: int = BASE_RECORDS_MAX


@dataclass(frozen=True, slots=True)
class BaseRecordsAnswer:
    """Whole records from record `offset` on, none when this node has not got them."""

    offset: int
    data: bytes


BaseQuestion = BaseQuery | BaseHeadQuery | BaseRecordsQuery
Request = (
    PendingQuery
    | Fetch
    | StatusQuery
    | BlockQuery
    | EntriesQuery
    | BaseQuery
    | BaseHeadQuery
    | BaseRecordsQuery
)
Answer = (
    PendingAnswer
    | Fetched
    | StatusAnswer
    | BlockAnswer
    | EntriesAnswer
    | BaseAnswer
    | BaseHeadAnswer
    | BaseRecordsAnswer
)


def encode(message: Request | Answer) -> bytes:
    """Return the bytes of a question or an answer."""
    return cbor.encode(_value(message))


def decode_request(data: bytes) -> Request:
    """Return the question in `data`; DecodeError (`size` or `malformed`)."""
    kind, fields = _read(data)
    if kind == "pending":
        return PendingQuery(
            read_bytes(fields.get("session"), "session", SESSION_BYTES),
            read_uint(fields.get("since"), "since"),
            read_uint(fields.get("limit"), "limit", SYNC_IDS_MAX),
        )
    if kind == "fetch":
        return Fetch(_read_ids(fields.get("ids")))
    if kind == "status":
        return StatusQuery(
            read_bytes(fields["trace"], "trace", ID_BYTES) if "trace" in fields else None
        )
    if kind == "block":
        return BlockQuery(read_uint(fields.get("height"), "height"))
    if kind == "entries":
        return EntriesQuery(read_uint(fields.get("index"), "index"))
    if kind == "base":
        return BaseQuery(read_uint(fields["height"], "height") if "height" in fields else None)
    if kind == "base-head":
        return BaseHeadQuery(
            read_uint(fields.get("height"), "height"), read_uint(fields.get("offset"), "offset")
        )
    if kind == "base-records":
        return BaseRecordsQuery(
            read_uint(fields.get("offset"), "offset"),
            read_uint(fields.get("count"), "count", BASE_RECORDS_MAX),
        )
    raise DecodeError("a question of an unknown kind")


def decode_answer(data: bytes) -> Answer:
    """Return the answer in `data`; DecodeError (`size` or `malformed`)."""
    kind, fields = _read(data)
    if kind == "pending-answer":
        return PendingAnswer(
            read_bytes(fields.get("session"), "session", SESSION_BYTES),
            read_uint(fields.get("last"), "last"),
            _read_ids(fields.get("ids")),
        )
    if kind == "fetched":
        return _read_fetched(fields)
    if kind == "status-answer":
        return StatusAnswer(
            height=read_uint(fields.get("height"), "height"),
            head=read_bytes(fields.get("head"), "head", ID_BYTES),
            applied=read_uint(fields.get("applied"), "applied"),
            commit=read_uint(fields.get("commit"), "commit"),
            term=read_uint(fields.get("term"), "term"),
            role=_read_word(fields.get("role"), "role"),
            release=_read_word(fields.get("release"), "release"),
            time_ms=read_uint(fields.get("time"), "time", TIME_MS_MAX),
            mempool=read_uint(fields.get("mempool", 0), "mempool", UINT64_MAX),
            promises=read_promises(fields.get("promises"), "the promises"),
            sync_us=read_uint(fields.get("sync", 0), "sync", UINT64_MAX),
            trace=read_moments(fields["trace"], "the trace") if "trace" in fields else None,
        )
    if kind == "block-answer":
        block = fields.get("block")
        height = read_uint(fields.get("height"), "height")
        return BlockAnswer(height, None if block is None else read_bytes(block, "block"))
    if kind == "entries-answer":
        return _read_entries_answer(fields)
    if kind in ("base-answer", "base-head-answer", "base-records-answer"):
        return _read_base_answer(kind, fields)
    raise DecodeError("an answer of an unknown kind")


def _value(message: Request | Answer) -> dict[str, object]:
    match message:
        case PendingQuery(session, since, limit):
            return {"kind": "pending", "session": session, "since": since, "limit": limit}
        case PendingAnswer(session, last, ids):
            return {"kind": "pending-answer", "session": session, "last": last, "ids": [*ids]}
        case Fetch(ids):
            return {"kind": "fetch", "ids": [*ids]}
        case Fetched(carried):
            return {"kind": "fetched", "carried": [*carried]}
        case StatusQuery(trace):
            return {"kind": "status", **({} if trace is None else {"trace": trace})}
        case BlockQuery(height):
            return {"kind": "block", "height": height}
        case BlockAnswer(height, data):
            return {"kind": "block-answer", "height": height, "block": data}
        case EntriesQuery(index):
            return {"kind": "entries", "index": index}
        case EntriesAnswer(index, term, commit, entries, first):
            return {
                "kind": "entries-answer",
                "index": index,
                "term": term,
                "commit": commit,
                "entries": [[entry.term, entry.payload] for entry in entries],
                **({"first": first} if first else {}),
            }
        case BaseQuery(height):
            return {"kind": "base", **({} if height is None else {"height": height})}
        case BaseHeadQuery(height, offset):
            return {"kind": "base-head", "height": height, "offset": offset}
        case BaseHeadAnswer(height, offset, data):
            return {"kind": "base-head-answer", "height": height, "offset": offset, "data": data}
        case BaseRecordsQuery(offset, count):
            return {"kind": "base-records", "offset": offset, "count": count}
        case BaseRecordsAnswer(offset, data):
            return {"kind": "base-records-answer", "offset": offset, "data": data}
        case BaseAnswer():
            return {
                "kind": "base-answer",
                "height": message.height,
                "digest": message.digest,
                "size": message.size,
                "records": message.records,
                "first": message.first,
            }
        case StatusAnswer():
            return {
                "kind": "status-answer",
                "height": message.height,
                "head": message.head,
                "applied": message.applied,
                "commit": message.commit,
                "term": message.term,
                "role": message.role,
                "release": message.release,
                "time": message.time_ms,
                "mempool": message.mempool,
                **({"promises": listed(message.promises)} if message.promises else {}),
                **({"sync": message.sync_us} if message.sync_us else {}),
                **({} if message.trace is None else {"trace": listed_moments(message.trace)}),
            }


def _read(data: bytes) -> tuple[object, dict[object, object]]:
    if len(data) > SYNC_BYTES_MAX:
        raise DecodeError(f"the message has {len(data)} bytes", reason="size")
    fields = read_map(cbor.decode(data), "the message")
    return fields.get("kind"), dict(fields)


def _read_ids(value: object) -> tuple[bytes, ...]:
    ids = read_byte_strings(value, "the ids", SYNC_IDS_MAX)
    return tuple(read_bytes(item, "an id", ID_BYTES) for item in ids)


def _read_fetched(fields: dict[object, object]) -> Fetched:
    carried = read_byte_strings(fields.get("carried"), "the transactions", SYNC_IDS_MAX)
    if any(len(item) > TRANSACTION_BYTES_MAX for item in carried):
        raise DecodeError("a transaction of the answer is too large", reason="size")
    return Fetched(tuple(carried))


def _read_entries_answer(fields: dict[object, object]) -> EntriesAnswer:
    first = read_uint(fields.get("index"), "index")
    entries: list[Entry] = []
    items = read_array(fields.get("entries"), "the entries", length_max=ENTRIES_MAX)
    for at, item in enumerate(items):
        term, payload = read_array(item, "an entry", 2)
        entries.append(
            Entry(read_uint(term, "an entry's term"), first + at, read_bytes(payload, "a payload"))
        )
    return EntriesAnswer(
        first,
        read_uint(fields.get("term"), "term"),
        read_uint(fields.get("commit"), "commit"),
        tuple(entries),
        read_uint(fields.get("first", 0), "first"),
    )


def _read_base_answer(kind: object, fields: dict[object, object]) -> Answer:
    if kind == "base-answer":
        digest = fields.get("digest")
        return BaseAnswer(
            read_uint(fields.get("height"), "height"),
            None if digest is None else read_bytes(digest, "digest", ID_BYTES),
            read_uint(fields.get("size"), "size"),
            read_uint(fields.get("records"), "records"),
            read_uint(fields.get("first"), "first"),
        )
    offset = read_uint(fields.get("offset"), "offset")
    data = fields.get("data")
    if kind == "base-head-answer":
        found = None if data is None else read_bytes(data, "data")
        return BaseHeadAnswer(read_uint(fields.get("height"), "height"), offset, found)
    records = read_bytes(data, "data")
    if len(records) % RECORD_BYTES:
        raise DecodeError(f"{len(records)} bytes are no whole records")
    return BaseRecordsAnswer(offset, records)


def _read_word(value: object, name: str) -> str:
    text = read_text(value, name, 64)
    if not text.isprintable():
        raise DecodeError(f"{name} has characters that do not print")
    return text
