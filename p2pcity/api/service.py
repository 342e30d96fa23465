"""What the HTTP surface asks of the node: one Protocol, and frozen answers.

The node implements `Service`; nothing in this room knows how. All methods run on the trio loop
and never block it. Times are Unix milliseconds, ids and hashes 32 raw bytes, peers their peer id
as text. Each method may raise the errors that its docstring names (p2pcity/errors.py);
`api/problems.py` turns them into problem documents. Every other exception is a bug (500).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from p2pcity.errors import DecodeError
from p2pcity.wire.event import Event

Wait = Literal["none", "accepted", "committed"]
"""`none`: answered once admitted, not yet on disk. `accepted`: this node's outbox has it on disk.
`committed`: ordered, on a majority's disks and applied here."""

VerdictKind = Literal["accept", "ignore", "reject"]

StatusName = Literal["unknown", "pending", "committed", "expired", "duplicate", "rejected"]
"""Where a transaction stands. `pending`: on its way. `duplicate`: every event of it stood on the
ledger before it came. `rejected`: never on its way, or dropped by apply, with a reason."""

POSITION_MAX: Final = 2**31 - 1
_HEIGHT_MAX: Final = 2**63 - 1
_match_cursor = re.compile(r"([0-9]{1,19})\.([0-9]{1,10})\.([0-9]{1,10})", re.ASCII).fullmatch


traceparent: Final[ContextVar[str | None]] = ContextVar("traceparent", default=None)
"""The header of W3C Trace Context of the request that is being answered, as it came."""


@dataclass(frozen=True, slots=True)
class Head:
    """The last applied block; the genesis (height 0, the network id) before the first one."""

    height: int
    hash: bytes


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """A place in the ledger: height, transaction's position in its block, event's in that.

    Positions count from 0, over all transactions of the block, dropped ones included. What comes
    "after" a cursor is strictly greater, compared field by field.
    """

    height: int
    transaction: int
    event: int

    @classmethod
    def before(cls, height: int) -> Cursor:
        """The cursor that everything of `height` and later comes after."""
        return cls(height - 1, POSITION_MAX, POSITION_MAX) if height > 0 else cls(0, 0, 0)

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read `height.transaction.event`; DecodeError (`bad-cursor`) for anything else."""
        match = _match_cursor(text)
        if match is not None:
            cursor = cls(*map(int, match.groups()))
            if cursor.height <= _HEIGHT_MAX and max(cursor.transaction, cursor.event) <= (
                POSITION_MAX
            ):
                return cursor
        raise DecodeError(
            "a cursor is height.transaction.event, three decimal numbers",
            reason="bad-cursor",
            remedy="Use a cursor from an earlier answer, or leave it out to begin anew.",
        )

    def __str__(self) -> str:
        return f"{self.height}.{self.transaction}.{self.event}"


@dataclass(frozen=True, slots=True)
class EventInput:
    """An event from a program that holds no key: the node adds the salt and signs.

    The fields are those of `wire.event.Event`. Its attributes were checked already by encoding
    it with an all-zero salt, so its size is known to be within the limit.
    """

    id: str
    type: str
    source: str
    subject: str | None = None
    time_ms: int | None = None
    place: tuple[int, int] | None = None
    dataschema: str | None = None
    datacontenttype: str | None = None
    data: object = None
    extensions: Mapping[str, str | int | bool | bytes] = field(default_factory=dict)

    def with_salt(self, salt: bytes) -> Event:
        """The event as it is signed, under 16 random bytes of salt."""
        return Event(
            salt=salt,
            id=self.id,
            type=self.type,
            source=self.source,
            subject=self.subject,
            time_ms=self.time_ms,
            place=self.place,
            dataschema=self.dataschema,
            datacontenttype=self.datacontenttype,
            data=self.data,  # type: ignore[arg-type]  # JSON values are a subset of CBOR's
            extensions=self.extensions,
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one submitted transaction (or of one event's transaction).

    `verdict` accept goes with `status` pending, committed, expired or duplicate; ignore and
    reject go with `rejected` and a `reason` of protocol/registry.md. `id` is None when the bytes
    could not be decoded. `height` and `leaf_index` are set once committed. `event` is the event's
    position in the transaction, set by `submit_events` only. `detail` is one sentence for people.

    What this node knows already is no error: the same transaction again has verdict accept and
    the status it has by now.
    """

    id: bytes | None
    verdict: VerdictKind
    status: StatusName
    reason: str = ""
    height: int | None = None
    leaf_index: int | None = None
    event: int | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class TransactionStatus:
    """Where the transaction `id` stands; the optional fields as far as they are known.

    `time_ms` is the time of its block, `count` its number of events.
    """

    id: bytes
    status: StatusName
    reason: str = ""
    height: int | None = None
    leaf_index: int | None = None
    time_ms: int | None = None
    author: bytes | None = None
    count: int | None = None


@dataclass(frozen=True, slots=True)
class EventFilter:
    """What events must match; None matches all, and all given fields must match.

    `type` ending in `.*` matches every type with that prefix. `author` is a public key, `member`
    a member's name. `since_ms` (inclusive) and `until_ms` (exclusive) bound the event's time, or
    its block's when it has none. `bbox_e7` is (west, south, east, north) in 1e-7 degrees, edges
    included; west above east crosses the antimeridian.
    """

    type: str | None = None
    source: str | None = None
    subject: str | None = None
    author: bytes | None = None
    member: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    bbox_e7: tuple[int, int, int, int] | None = None


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event that stands on the ledger; `event` is None when its body was withheld or erased.

    `time_ms` is the time of its block. A duplicate of an earlier event is in no answer.
    """

    cursor: Cursor
    transaction: bytes
    author: bytes
    member: str | None
    time_ms: int
    event: Event | None


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events in the ledger's order; `next` goes into the next request, None at the end."""

    events: tuple[StoredEvent, ...]
    next: Cursor | None


@dataclass(frozen=True, slots=True)
class EventBatch:
    """The next events of a stream, and `cursor`: how far the ledger was read for them.

    `events` may be empty with a cursor that moved: nothing there matched the filter.
    """

    events: tuple[StoredEvent, ...]
    cursor: Cursor


@dataclass(frozen=True, slots=True)
class BlockTransaction:
    """One transaction of a block; `outcome` is apply's (applied, duplicate, expired, ...)."""

    id: bytes
    author: bytes
    count: int
    outcome: str
    leaf_index: int | None


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """A block as stored; height 0 is the genesis, whose `data` is the genesis file.

    `parent` is None for the genesis. `tree_size` is the ledger's after this block. `change` are
    the bytes of its change of who orders: one more leaf, behind the transactions.
    """

    height: int
    hash: bytes
    parent: bytes | None
    time_ms: int
    epoch: int
    rules: int
    data: bytes
    transactions: tuple[BlockTransaction, ...]
    tree_size: int | None = None
    change: bytes | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """Whether all is well, and if not, why: each reason a sentence for the operator."""

    is_ok: bool
    reasons: tuple[str, ...] = ()


ChangeOperation = Literal["add", "remove", "promote", "demote", "replace"]


@dataclass(frozen=True, slots=True)
class ChangeWanted:
    """A change of who orders, as an operator asks for it.

    `cards` are the bytes of cards of new nodes, `nodes` name known ones (peer id, member/name,
    name or member), `force` those for which an unsafe change is to be made all the same.
    """

    operation: ChangeOperation
    cards: tuple[bytes, ...] = ()
    nodes: tuple[str, ...] = ()
    force: tuple[str, ...] = ()
    is_observer: bool = False
    timeout_ms: int = 30_000


class Service(Protocol):
    """The node, as the HTTP surface sees it."""

    def head(self) -> Head:
        """The last applied block. Called for every answer: must be cheap and never raise."""
        ...

    async def submit(
        self, carried: Sequence[bytes], wait: Wait, timeout_ms: int
    ) -> Sequence[Answer]:
        """Admit carried transactions and wait as told; one answer each, in the same order.

        When `timeout_ms` is over, what is still on its way is answered as `pending`. What is
        wrong with one of many is in its answer, never raised; a full mempool or quota is verdict
        ignore with reason `queue-full` or `...-quota`. Raises MempoolFull when nothing at all
        was taken for lack of room, Unavailable when the node can take nothing right now.
        """
        ...

    async def submit_events(
        self, events: Sequence[EventInput], wait: Wait, timeout_ms: int
    ) -> Sequence[Answer]:
        """Sign `events` as the node's own author, up to 256 and 64 KiB a transaction, and submit.

        One answer for each event, in order, with its transaction's id and the event's position.
        (source, id) names an event: one that this node's author has on the ledger, or has on its
        way, is not signed again; its answer is that of the first transaction. Raises as `submit`.
        """
        ...

    async def transaction(self, id: bytes, *, is_linearizable: bool) -> TransactionStatus:
        """Where the transaction stands; `unknown` when this node never heard of it.

        Raises Unavailable or NotLeader when a linearizable read cannot be confirmed in time.
        """
        ...

    async def trace(self, id: bytes) -> Mapping[str, object]:
        """What `p2pcity trace` shows, JSON-able: when each node did what with the transaction.

        Waits a bounded time for the other nodes. Raises Unavailable when too many ask at once.
        """
        ...

    async def transaction_bytes(self, id: bytes) -> bytes | None:
        """The carried bytes of a committed or pending transaction, None when not here.

        An erased or withheld event is its 32-byte leaf hash.
        """
        ...

    async def events(
        self, filter: EventFilter, after: Cursor | None, limit: int, *, is_linearizable: bool
    ) -> EventPage:
        """At most `limit` events after `after` (None: from the beginning) that match.

        May be fewer, with `next` set, to bound the bytes of a page.
        Raises Unavailable or NotLeader as `transaction` does.
        """
        ...

    async def known_events(self, names: Sequence[bytes]) -> Sequence[bool]:
        """Which of these event names (`wire.event.name_key`) stand on the ledger, in order.

        Linearizable: what was committed when the call began is known. Raises as `transaction`.
        """
        ...

    async def next_events(
        self, filter: EventFilter, after: Cursor, limit: int, timeout_ms: int
    ) -> EventBatch:
        """The next committed events after `after`; waits up to `timeout_ms` for the first.

        Ordered, gap-free and local to this node: the stream calls it again with the batch's
        cursor, only once the client has taken the batch before. Returns no later than
        `timeout_ms`, with the same cursor when nothing was applied since. An erased event comes
        with `event` None. A cursor above the head waits for the head to get there.
        """
        ...

    async def block(self, height: int | None) -> StoredBlock | None:
        """The block at `height`, the last applied one for None; None when it is not here."""
        ...

    async def status(self) -> Mapping[str, object]:
        """What `p2pcity status` shows, JSON-able."""
        ...

    async def peers(self) -> Mapping[str, object]:
        """What `p2pcity peers` shows, JSON-able: `{"peers": [...]}`."""
        ...

    async def raft(self) -> Mapping[str, object]:
        """What `p2pcity raft status` shows, JSON-able."""
        ...

    async def mempool(self) -> Mapping[str, object]:
        """Counts, bytes and bounds of the mempool, JSON-able."""
        ...

    def metrics(self) -> bytes:
        """Every figure of the node in Prometheus's text format, version 0.0.4."""
        ...

    def live(self) -> Health:
        """Whether the node's loops turn."""
        ...

    def ready(self) -> Health:
        """Whether the node has a leader, applies, and its lag is under the bound."""
        ...

    async def transfer_leader(self, to: str | None) -> Mapping[str, object]:
        """Ask for leadership to move to the voter `to`, or to the best one; JSON-able answer.

        Raises NotLeader when this node does not lead, Unavailable when nobody can take over,
        ConfigError when `to` is no voter.
        """
        ...

    async def change_voters(self, wanted: ChangeWanted) -> Mapping[str, object]:
        """Change who orders, and return once that is in effect; JSON-able answer.

        Raises NotLeader when this node does not lead, ConfigError and DecodeError for what was
        named wrongly, ChangeRefused when the change does not fit or is unsafe and not forced,
        Unavailable when it is not in effect in time.
        """
        ...

    async def what_if(self, wanted: ChangeWanted) -> Mapping[str, object]:
        """Judge a change without making it; JSON-able answer. Raises as `change_voters`."""
        ...
