"""JSON Schemas (2020-12, as OpenAPI 3.1 has them) of what goes in and comes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

Schema = Mapping[str, Any]

HASH: Final[Schema] = {"type": "string", "pattern": "^[0-9a-fA-F]{64}$"}
CURSOR: Final[Schema] = {
    "type": "string",
    "pattern": r"^[0-9]{1,18}\.[0-9]{1,9}\.[0-9]{1,9}$",
    "description": "height.transaction.event",
}
TIME: Final[Schema] = {"type": "string", "format": "date-time"}
HEIGHT: Final[Schema] = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
STATUS: Final[Schema] = {
    "type": "string",
    "enum": ["unknown", "pending", "committed", "expired", "duplicate", "rejected"],
}
VERDICT: Final[Schema] = {"type": "string", "enum": ["accept", "ignore", "reject"]}
_NUMBER: Final[Schema] = {"type": "number"}
TEXT: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": 2048}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _null(schema: Schema) -> dict[str, Any]:
    return {"anyOf": [dict(schema), {"type": "null"}]}


def _object(properties: Mapping[str, object], *optional: str, **more: object) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "required": required, "properties": dict(properties), **more}


_DEGREES: Final = {
    "anyOf": [{"type": "string", "pattern": r"^-?[0-9]{1,3}(\.[0-9]{1,15})?$"}, {"type": "number"}]
}
_EXTENSION: Final = {
    "anyOf": [
        {"type": "string"},
        {"type": "boolean"},
        {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
    ]
}

_CLOUDEVENT: Final = {
    "specversion": {"const": "1.0"},
    "id": TEXT,
    "source": TEXT,
    "type": TEXT,
    "subject": TEXT,
    "time": TIME,
    "dataschema": TEXT,
    "datacontenttype": TEXT,
    "longitude": _DEGREES,
    "latitude": _DEGREES,
    "data": {"description": "any JSON value"},
    "data_base64": {"type": "string", "contentEncoding": "base64"},
}
_CLOUDEVENT_OPTIONAL: Final = tuple(
    name for name in _CLOUDEVENT if name not in ("specversion", "id", "source", "type")
)
_OWN: Final = {
    "p2pcitycursor": CURSOR,
    "p2pcityheight": HEIGHT,
    "p2pcitytransaction": HASH,
    "p2pcityevent": {"type": "integer", "minimum": 0, "maximum": 255},
    "p2pcityauthor": HASH,
    "p2pcityblocktime": TIME,
    "p2pcitymember": {"type": "string"},
}

SCHEMAS: Final[Mapping[str, Schema]] = {
    "Problem": _object(
        {
            "type": {"type": "string", "format": "uri-reference"},
            "title": {"type": "string"},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": {"type": "string"},
            "reason": {"type": "string", "description": "stable; programs decide by it"},
            "remedy": {"type": "string", "description": "what to do, for people"},
        },
        description="RFC 9457; further members depend on the reason",
    ),
    "CloudEvent": _object(
        _CLOUDEVENT,
        *_CLOUDEVENT_OPTIONAL,
        description="CloudEvents 1.0 JSON; longitude and latitude, always both, are its place",
        propertyNames={"pattern": "^[a-z0-9_]{1,64}$"},
        additionalProperties=_EXTENSION,
        dependentRequired={"longitude": ["latitude"], "latitude": ["longitude"]},
    ),
    "CloudEventBatch": {
        "type": "array",
        "minItems": 1,
        "maxItems": 4096,
        "items": _ref("CloudEvent"),
    },
    "StoredEvent": {
        "anyOf": [
            _object({**_CLOUDEVENT, **_OWN}, *_CLOUDEVENT_OPTIONAL, "p2pcitymember"),
            _object({"p2pcitytombstone": {"const": True}, **_OWN}, "p2pcitymember"),
        ]
    },
    "EventPage": _object(
        {"events": {"type": "array", "items": _ref("StoredEvent")}, "next": _null(CURSOR)}
    ),
    "Answer": _object(
        {
            "id": _null(HASH),
            "verdict": VERDICT,
            "status": STATUS,
            "reason": {"type": "string"},
            "detail": {"type": "string"},
            "height": _null(HEIGHT),
            "leaf_index": _null(HEIGHT),
            "event": {"type": "integer", "minimum": 0, "maximum": 255},
        },
        "event",
    ),
    "Answers": _object({"answers": {"type": "array", "items": _ref("Answer")}}),
    "AnswerOrAnswers": {"anyOf": [_ref("Answer"), _ref("Answers")]},
    "TransactionStatus": _object(
        {
            "id": HASH,
            "status": STATUS,
            "reason": {"type": "string"},
            "height": _null(HEIGHT),
            "leaf_index": _null(HEIGHT),
            "time": _null(TIME),
            "author": _null(HASH),
            "count": _null({"type": "integer", "minimum": 1, "maximum": 256}),
        }
    ),
    "Trace": _object(
        {
            "version": {"const": 1},
            "id": HASH,
            "status": STATUS,
            "reason": {"type": "string"},
            "height": _null(HEIGHT),
            "leaf_index": _null(HEIGHT),
            "begin": _null(TIME),
            "total_ms": _null(_NUMBER),
            "nodes": {"type": "array", "items": _ref("TraceOfNode")},
        },
        description="times after `begin` are by the clock of the node that was asked",
    ),
    "TraceOfNode": _object(
        {
            "peer": {"type": "string"},
            "name": _null({"type": "string"}),
            "is_self": {"type": "boolean"},
            "state": {"enum": ["known", "unknown", "unreachable", "unsupported"]},
            "error": {"type": "string"},
            "clock_offset_ms": _null(_NUMBER),
            "clock_error_ms": _null(_NUMBER),
            "total_ms": _null(_NUMBER),
            "moments": {"type": "array", "items": _ref("Moment")},
        },
        description="`unknown`: it remembers nothing; its clock is so far ahead of the asked one's",
    ),
    "Moment": _object(
        {
            "stage": {"type": "string", "description": "of protocol/registry.md, or a later one"},
            "time": {**TIME, "description": "by the node's own clock"},
            "after_ms": _null(_NUMBER),
            "peer": _null({"type": "string"}),
            "peer_name": _null({"type": "string"}),
            "term": _null(HEIGHT),
            "index": _null(HEIGHT),
            "height": _null(HEIGHT),
            "outcome": {"type": "string"},
        }
    ),
    "Block": _object(
        {
            "height": HEIGHT,
            "hash": HASH,
            "parent": _null(HASH),
            "time": TIME,
            "epoch": HEIGHT,
            "rules": HEIGHT,
            "size": HEIGHT,
            "tree_size": _null(HEIGHT),
            "transactions": {
                "type": "array",
                "items": _object(
                    {
                        "id": HASH,
                        "author": HASH,
                        "count": {"type": "integer", "minimum": 1, "maximum": 256},
                        "outcome": {"type": "string"},
                        "leaf_index": _null(HEIGHT),
                    }
                ),
            },
            "change": _null({"type": "string", "description": "of who orders: its bytes in hex"}),
        }
    ),
    "Health": _object(
        {
            "is_ok": {"type": "boolean"},
            "reasons": {"type": "array", "items": {"type": "string"}},
        }
    ),
    "Change": _object(
        {
            "operation": {
                "enum": ["add", "remove", "promote", "demote", "replace"],
                "description": "of what-if alone",
            },
            "cards": {
                "type": "array",
                "maxItems": 32,
                "items": {"type": "string", "contentEncoding": "base64"},
                "description": "cards of new nodes",
            },
            "nodes": {
                "type": "array",
                "maxItems": 32,
                "items": TEXT,
                "description": "nodes by peer id, member/name, name or member",
            },
            "force": {
                "type": "array",
                "maxItems": 32,
                "items": TEXT,
                "description": "nodes for which an unsafe change is made all the same",
            },
            "is_observer": {"type": "boolean", "description": "the new nodes never vote"},
            "timeout_ms": {"type": "integer", "minimum": 1, "maximum": 60_000},
        },
        "operation",
        "cards",
        "nodes",
        "force",
        "is_observer",
        "timeout_ms",
    ),
    "Object": {"type": "object"},
    "Bytes": {"type": "string", "contentMediaType": "application/octet-stream"},
    "Lines": {"type": "string", "description": "one StoredEvent a line"},
    "Metrics": {"type": "string", "description": "Prometheus's text exposition format"},
    "EventStream": {"type": "string", "description": "server-sent events, WHATWG HTML 9.2"},
}
