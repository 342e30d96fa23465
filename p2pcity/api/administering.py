"""What only an operator on the Unix socket may do: change who orders, and ask what if."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.responses import Response

from p2pcity.api import json_mapping, parameters
from p2pcity.api.dispatch import Context
from p2pcity.api.problems import bad_parameter
from p2pcity.api.service import ChangeOperation, ChangeWanted
from p2pcity.api.submitting import JSON
from p2pcity.errors import DecodeError

CHANGE_BYTES_MAX: Final = 1024 * 1024
ITEMS_MAX: Final = 32
CHANGE_TIMEOUT_MS: Final = 30_000
OPERATIONS: Final[tuple[ChangeOperation, ...]] = ("add", "remove", "promote", "demote", "replace")
_NAMES: Final = frozenset(("cards", "nodes", "force", "is_observer", "timeout_ms"))

Handler = Callable[[Context], Awaitable[Response]]


def change(operation: ChangeOperation) -> Handler:
    """Return the handler of `POST /v1/admin/<operation>`."""

    async def post(context: Context) -> Response:
        wanted = _read(context.body, operation)
        return _json(await context.service.change_voters(wanted))

    return post


async def post_what_if(context: Context) -> Response:
    """Handle `POST /v1/admin/what-if`: the body of the operation that it names."""
    return _json(await context.service.what_if(_read(context.body, None)))


def _read(body: bytes, operation: ChangeOperation | None) -> ChangeWanted:
    """Read a ChangeWanted; without `operation` the body names it. DecodeError, Problem 400."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise DecodeError("the body is no JSON") from None
    if not isinstance(fields, dict):
        raise DecodeError("the body is no JSON object")
    if operation is None:
        named = fields.pop("operation", None)
        operation = next((item for item in OPERATIONS if item == named), None)
        if operation is None:
            raise bad_parameter("operation", f"not one of {', '.join(OPERATIONS)}")
    unknown = sorted(set(fields) - _NAMES)
    if unknown:
        raise bad_parameter(unknown[0][:40], "no such field")
    is_observer = fields.get("is_observer", False)
    if not isinstance(is_observer, bool):
        raise bad_parameter("is_observer", "not a boolean")
    timeout_ms = fields.get("timeout_ms", CHANGE_TIMEOUT_MS)
    if type(timeout_ms) is not int or not 1 <= timeout_ms <= parameters.TIMEOUT_MS_MAX:
        raise bad_parameter("timeout_ms", f"not a number from 1 to {parameters.TIMEOUT_MS_MAX}")
    return ChangeWanted(
        operation,
        tuple(_decode(item) for item in _texts(fields, "cards")),
        _texts(fields, "nodes"),
        _texts(fields, "force"),
        is_observer,
        timeout_ms,
    )


def _texts(fields: dict[str, object], name: str) -> tuple[str, ...]:
    value = fields.get(name, [])
    if not isinstance(value, list) or len(value) > ITEMS_MAX:
        raise bad_parameter(name, f"not an array of at most {ITEMS_MAX} texts")
    if not all(isinstance(item, str) and item for item in value):
        raise bad_parameter(name, "not texts alone")
    return tuple(value)


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise bad_parameter("cards", "not base64 of a card's bytes") from None


def _json(value: object) -> Response:
    return Response(json_mapping.dump(value), media_type=JSON)
