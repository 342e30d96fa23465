"""The table of operations, version 1: what the HTTP surface is.

Errors are left out of each row: `openapi.py` adds the problem documents that any operation of
that kind can answer with.
"""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from p2pcity.api import (
    administering,
    cloudevents,
    json_mapping,
    parameters,
    reading,
    schemas,
    stream,
    submitting,
)
from p2pcity.api.dispatch import BINARY, Context, Operation, Parameter, Reply
from p2pcity.api.openapi import document
from p2pcity.wire.limits import TRANSACTION_BYTES_MAX

SEQUENCE_BYTES_MAX: Final = 8 * 1024 * 1024
# JSON may need six times the bytes of the event it stands for (escapes), and the event has 32 KiB.
EVENT_JSON_BYTES_MAX: Final = 256 * 1024
EVENT_BINARY_BYTES_MAX: Final = 64 * 1024
NAMES_BYTES_MAX: Final = 34 * reading.NAMES_MAX + 16


def _query(name: str, schema: schemas.Schema, description: str) -> Parameter:
    return Parameter(name, "query", schema, description)


_WAITING: Final = (
    _query(
        "wait",
        {"type": "string", "enum": ["none", "accepted", "committed"], "default": "accepted"},
        "Answer once admitted (none), on this node's disk (accepted), or ordered (committed).",
    ),
    _query(
        "timeout_ms",
        {
            "type": "integer",
            "minimum": 1,
            "maximum": parameters.TIMEOUT_MS_MAX,
            "default": parameters.TIMEOUT_MS_DEFAULT,
        },
        "How long to wait; then 202 with the id: it is still on its way.",
    ),
)
_CONSISTENCY: Final = _query(
    "consistency",
    {"type": "string", "enum": ["linearizable", "local"], "default": "linearizable"},
    "linearizable: all that was committed when you asked. local: what this node has applied.",
)
_FILTERS: Final = (
    _query("type", schemas.TEXT, "Exactly, or every type with a prefix that ends in `.*`."),
    _query("source", schemas.TEXT, "Exactly."),
    _query("subject", schemas.TEXT, "Exactly."),
    _query("author", schemas.HASH, "The author's public key."),
    _query("member", schemas.TEXT, "The name of the author's member."),
    _query("since", schemas.TIME, "The event's time (or its block's), inclusive."),
    _query("until", schemas.TIME, "The event's time (or its block's), exclusive."),
    _query("bbox", {"type": "string"}, "west,south,east,north in decimal degrees (RFC 7946)."),
)
_SUBMITTED: Final = (
    Reply(200, "All stand on the ledger.", {submitting.JSON: "AnswerOrAnswers"}),
    Reply(202, "Taken, and not all committed yet.", {submitting.JSON: "AnswerOrAnswers"}),
)


def _shown(path: str, name: str, summary: str, read: reading.Show) -> Operation:
    reply = Reply(200, summary, {submitting.JSON: "Object"})
    return Operation("GET", path, name, summary, "read", reading.show(read), (reply,))


_CHANGED: Final = (
    Reply(200, "It is in effect on this node.", {submitting.JSON: "Object"}),
    Reply(409, "It does not fit, or is unsafe and not forced."),
)
_CHANGE_SUMMARIES: Final = {
    "add": "Take new nodes in, by their cards. Unix socket of the leader only.",
    "remove": "Remove nodes. Unix socket of the leader only.",
    "promote": "Let learners vote. Unix socket of the leader only.",
    "demote": "Let voters only follow. Unix socket of the leader only.",
    "replace": "Take new nodes in and remove others. Unix socket of the leader only.",
}
_CHANGES: Final = tuple(
    Operation(
        "POST",
        f"/v1/admin/{name}",
        f"{name}Nodes",
        _CHANGE_SUMMARIES[name],
        "local",
        administering.change(name),
        _CHANGED,
        (),
        {submitting.JSON: administering.CHANGE_BYTES_MAX},
    )
    for name in administering.OPERATIONS
)


async def _get_openapi(context: Context) -> Response:
    return Response(_OPENAPI, media_type=submitting.JSON)


OPERATIONS: Final[tuple[Operation, ...]] = (
    Operation(
        "POST",
        "/v1/transactions",
        "submitTransactions",
        "Submit a signed transaction, or a CBOR sequence of up to 4,096.",
        "write",
        submitting.post_transactions,
        _SUBMITTED,
        _WAITING,
        {submitting.CBOR: TRANSACTION_BYTES_MAX, submitting.CBOR_SEQUENCE: SEQUENCE_BYTES_MAX},
    ),
    Operation(
        "POST",
        "/v1/events",
        "submitEvents",
        "Submit CloudEvents; the node signs. (source, id) makes a retry harmless.",
        "write",
        submitting.post_events,
        _SUBMITTED,
        _WAITING,
        {
            cloudevents.STRUCTURED: EVENT_JSON_BYTES_MAX,
            cloudevents.BATCHED: SEQUENCE_BYTES_MAX,
            BINARY: EVENT_BINARY_BYTES_MAX,
        },
    ),
    Operation(
        "GET",
        "/v1/transactions/{id}",
        "getTransaction",
        "Where a transaction stands, or its bytes.",
        "read",
        reading.get_transaction,
        (
            Reply(
                200,
                "Its status, `unknown` too, or its carried bytes.",
                {submitting.JSON: "TransactionStatus", submitting.CBOR: "Bytes"},
            ),
            Reply(404, "Its bytes are not here."),
        ),
        (Parameter("id", "path", schemas.HASH, "The transaction's id."), _CONSISTENCY),
    ),
    Operation(
        "GET",
        "/v1/transactions/{id}/trace",
        "traceTransaction",
        "When each node of the city received, proposed, committed and applied a transaction.",
        "read",
        reading.get_trace,
        (Reply(200, "What each node remembers of it.", {submitting.JSON: "Trace"}),),
        (Parameter("id", "path", schemas.HASH, "The transaction's id."),),
    ),
    Operation(
        "GET",
        "/v1/events",
        "queryEvents",
        "Events on the ledger, in its order, by filters that must all match.",
        "read",
        reading.get_events,
        (
            Reply(
                200,
                "A page; `next` (P2PCITY-Next for NDJSON) is the cursor of the one after it.",
                {submitting.JSON: "EventPage", reading.NDJSON: "Lines"},
            ),
        ),
        (
            *_FILTERS,
            _query(
                "limit",
                {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": parameters.PAGE_MAX,
                    "default": parameters.PAGE_DEFAULT,
                },
                "At most so many events.",
            ),
            _query("cursor", schemas.CURSOR, "Only what comes after it."),
            _CONSISTENCY,
        ),
    ),
    Operation(
        "POST",
        "/v1/events/known",
        "knownEvents",
        "Which events, by the hash of (author, source, id), stand on the ledger.",
        "read",
        reading.post_known_events,
        (Reply(200, "A CBOR array of booleans, in order.", {submitting.CBOR: "Bytes"}),),
        (),
        {submitting.CBOR: NAMES_BYTES_MAX},
    ),
    Operation(
        "GET",
        "/v1/stream",
        "streamEvents",
        "Events as they are committed: ordered, gap-free, once each.",
        "read",
        stream.get_stream,
        (Reply(200, "It goes on until you leave.", {stream.CONTENT_TYPE: "EventStream"}),),
        (
            _query("from", schemas.HEIGHT, "Begin with this height; only new events without it."),
            *_FILTERS,
            Parameter("Last-Event-ID", "header", schemas.CURSOR, "Resume after it."),
        ),
    ),
    Operation(
        "GET",
        "/v1/blocks/{height}",
        "getBlock",
        "A block: its header and what became of its transactions, or its bytes.",
        "read",
        reading.get_block,
        (
            Reply(200, "The block.", {submitting.JSON: "Block", submitting.CBOR: "Bytes"}),
            Reply(404, "This node has no block at this height."),
        ),
        (
            Parameter(
                "height",
                "path",
                {"type": "string", "pattern": "^(latest|0|[1-9][0-9]{0,17})$"},
                "A height, or `latest`.",
            ),
        ),
    ),
    _shown("/v1/status", "getStatus", "What `p2pcity status` shows.", lambda s: s.status()),
    _shown("/v1/peers", "getPeers", "What `p2pcity peers` shows.", lambda s: s.peers()),
    _shown("/v1/raft", "getRaft", "What `p2pcity raft status` shows.", lambda s: s.raft()),
    _shown("/v1/mempool", "getMempool", "The mempool's figures.", lambda s: s.mempool()),
    Operation(
        "POST",
        "/v1/admin/transfer",
        "transferLeader",
        "Hand leadership over. Unix socket only.",
        "local",
        reading.post_transfer,
        (Reply(200, "The handover has begun.", {submitting.JSON: "Object"}),),
        (_query("to", schemas.TEXT, "A voter by peer id or name; the best one without it."),),
    ),
    *_CHANGES,
    Operation(
        "POST",
        "/v1/admin/what-if",
        "whatIf",
        "Judge a change of who orders without making it. Unix socket of the leader only.",
        "local",
        administering.post_what_if,
        (
            Reply(200, "SAFE or UNSAFE, with the figures.", {submitting.JSON: "Object"}),
            Reply(409, "The change does not fit."),
        ),
        (),
        {submitting.JSON: administering.CHANGE_BYTES_MAX},
    ),
    Operation(
        "GET",
        "/livez",
        "getLive",
        "Whether the node's loops turn.",
        "open",
        reading.get_live,
        (Reply(200, "They do.", {submitting.JSON: "Health"}),),
    ),
    Operation(
        "GET",
        "/readyz",
        "getReady",
        "Whether the node has a leader, applies, and its lag is under the bound.",
        "open",
        reading.get_ready,
        (Reply(200, "It is ready.", {submitting.JSON: "Health"}),),
    ),
    Operation(
        "GET",
        "/metrics",
        "getMetrics",
        "Every figure of the node, for Prometheus.",
        "read",
        reading.get_metrics,
        (
            Reply(
                200,
                "Text format 0.0.4; all names begin with `p2pcity_`.",
                {reading.METRICS: "Metrics"},
            ),
        ),
    ),
    Operation(
        "GET",
        "/openapi.json",
        "getOpenapi",
        "This document.",
        "open",
        _get_openapi,
        (Reply(200, "OpenAPI 3.1.", {submitting.JSON: "Object"}),),
    ),
)

_OPENAPI: Final = json_mapping.dump(document(OPERATIONS))
