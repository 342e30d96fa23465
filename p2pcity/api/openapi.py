"""The OpenAPI 3.1 document, written from the table of operations that the server checks by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from p2pcity.api import cloudevents, problems, schemas, submitting
from p2pcity.api.dispatch import BINARY, Operation, Reply

VERSION: Final = "1.2.0"
"""The surface's version: rises with every addition, its first number with every break."""

_HEADERS: Final = {
    "P2PCITY-Height": {
        "description": "The height of the last block that this node has applied.",
        "schema": {"type": "integer"},
        "required": True,
    },
    "P2PCITY-Head": {
        "description": "The hash of that block.",
        "schema": dict(schemas.HASH),
        "required": True,
    },
}

_BINARY_MODE: Final = (
    "CloudEvents binary mode: the attributes as `ce-` headers (ce-specversion: 1.0, ce-id, "
    "ce-source, ce-type, ...), any other Content-Type as datacontenttype, the body as the data."
)


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """Return the document as JSON-able values."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "p2pcity",
            "version": VERSION,
            "summary": "One ledger of city events that many organisations run together.",
            "description": (
                "Errors are problem documents (RFC 9457) with a stable `reason`. Every answer "
                "names the height and head hash of the node that gave it."
            ),
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": {name: dict(schema) for name, schema in schemas.SCHEMAS.items()},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    value: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": {
            str(reply.status): _reply(reply)
            for reply in sorted((*operation.replies, *_problems(operation)), key=_status_of)
        },
    }
    if operation.parameters:
        value["parameters"] = [
            {
                "name": item.name,
                "in": item.place,
                "required": item.place == "path",
                "description": item.description,
                "schema": dict(item.schema),
            }
            for item in operation.parameters
        ]
    if operation.bodies:
        value["requestBody"] = _body(operation)
    if operation.right in ("read", "write"):
        # The empty requirement: on the Unix socket, and for reads that are open, none is needed.
        value["security"] = [{}, {"token": []}]
    return value


def _body(operation: Operation) -> dict[str, Any]:
    value: dict[str, Any] = {
        "required": True,
        "content": {
            name: {"schema": _body_schema(name)} for name in operation.bodies if name != BINARY
        },
    }
    if BINARY in operation.bodies:
        value["description"] = _BINARY_MODE
    return value


def _body_schema(content_type: str) -> dict[str, Any]:
    name = {
        cloudevents.STRUCTURED: "CloudEvent",
        cloudevents.BATCHED: "CloudEventBatch",
        submitting.JSON: "Change",
    }.get(content_type, "Bytes")
    return {"$ref": f"#/components/schemas/{name}"}


def _reply(reply: Reply) -> dict[str, Any]:
    content = dict(reply.content) or {problems.CONTENT_TYPE: "Problem"}
    return {
        "description": reply.description,
        "headers": _HEADERS,
        "content": {
            media_type: {"schema": {"$ref": f"#/components/schemas/{name}"}}
            for media_type, name in content.items()
        },
    }


def _problems(operation: Operation) -> list[Reply]:
    """Return the errors that an operation of this kind can answer with."""
    found = [
        Reply(400, "A parameter or the body cannot be read."),
        Reply(405, "Another method of this path."),
        Reply(500, "A bug in the node."),
        Reply(503, "Not now; Retry-After says when."),
    ]
    if operation.right in ("read", "write"):
        found.append(Reply(401, "A token is needed."))
    if operation.right != "open":
        found.append(Reply(403, "The token, or TCP, does not allow this."))
    if operation.method == "GET":
        found.append(Reply(406, "Accept names nothing that this can be answered with."))
        found.append(Reply(410, "Older than what this node keeps; `first_height` is its oldest."))
    if operation.bodies:
        found += [
            Reply(408, "The body came too slowly."),
            Reply(413, "The body, a transaction or an event is too large."),
            Reply(415, "The content type is not read here."),
            Reply(422, "Not taken, with the reason."),
            Reply(429, "No room; Retry-After says when to come again."),
        ]
    return found


def _status_of(reply: Reply) -> int:
    return reply.status
