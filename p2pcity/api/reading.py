"""The ways out that answer at once: transactions, events, blocks, what the node says of itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import trio
from starlette.responses import Response

from p2pcity.api import json_mapping, parameters
from p2pcity.api.dispatch import Context
from p2pcity.api.problems import RETRY_AFTER_MS, Problem, bad_parameter
from p2pcity.api.service import EventPage, Health, Service
from p2pcity.api.submitting import CBOR, JSON
from p2pcity.errors import DecodeError
from p2pcity.wire import cbor

NDJSON: Final = "application/x-ndjson"
METRICS: Final = "text/plain"
# What a scraper needs to know of the text: Prometheus 3 refuses an answer that does not say it.
_METRICS_FORM: Final = "text/plain; version=0.0.4; charset=utf-8"
NEXT_HEADER: Final = "P2PCITY-Next"
NAMES_MAX: Final = 4096
_NAME_BYTES: Final = 32

# A larger page is written in a worker thread, so that heartbeats are not late.
_INLINE_EVENTS_MAX: Final = 100

Show = Callable[[Service], Awaitable[Mapping[str, object]]]


async def get_transaction(context: Context) -> Response:
    """Handle `GET /v1/transactions/{id}`."""
    id_ = parameters.read_hash("id", context.request.path_params["id"])
    is_linearizable = context.query.is_linearizable()
    media_type = parameters.choose_type(context.request, (JSON, CBOR))
    status = await context.service.transaction(id_, is_linearizable=is_linearizable)
    if media_type == JSON:
        return _json(json_mapping.transaction_status(status))
    data = await context.service.transaction_bytes(id_)
    if data is None:
        raise Problem(
            404,
            "unknown-transaction",
            f"the bytes of this transaction are not here; its status is {status.status}",
            remedy="Ask for JSON to see its status, or ask another node.",
        )
    return Response(data, media_type=CBOR)


async def get_trace(context: Context) -> Response:
    """Handle `GET /v1/transactions/{id}/trace`."""
    id_ = parameters.read_hash("id", context.request.path_params["id"])
    return _json(await context.service.trace(id_))


async def get_events(context: Context) -> Response:
    """Handle `GET /v1/events`."""
    query = context.query
    wanted = query.filter()
    after = query.cursor()
    limit = query.number("limit", parameters.PAGE_DEFAULT, 1, parameters.PAGE_MAX)
    is_linearizable = query.is_linearizable()
    media_type = parameters.choose_type(context.request, (JSON, NDJSON))
    page = await context.service.events(wanted, after, limit, is_linearizable=is_linearizable)
    write = _write_lines if media_type == NDJSON else _write_page
    if len(page.events) <= _INLINE_EVENTS_MAX:
        body = write(page)
    else:
        body = await trio.to_thread.run_sync(write, page)
    headers = {} if page.next is None else {NEXT_HEADER: str(page.next)}
    return Response(body, 200, headers, media_type)


async def post_known_events(context: Context) -> Response:
    """Handle `POST /v1/events/known`: a CBOR array of name keys in, one of booleans out."""
    names = cbor.decode(context.body)
    if not isinstance(names, list) or len(names) > NAMES_MAX:
        raise DecodeError(
            f"the body is no CBOR array of up to {NAMES_MAX} name keys",
            remedy="Send fewer at a time.",
        )
    keys = [name for name in names if isinstance(name, bytes) and len(name) == _NAME_BYTES]
    if len(keys) != len(names):
        raise DecodeError(
            f"a name key has {_NAME_BYTES} bytes",
            remedy="See protocol/02-event.md for the name of an event.",
        )
    known = await context.service.known_events(keys)
    return Response(cbor.encode(list(known)), media_type=CBOR)


async def get_block(context: Context) -> Response:
    """Handle `GET /v1/blocks/{height}`, where the height may be `latest`."""
    text = context.request.path_params["height"]
    height = (
        None
        if text == "latest"
        else parameters.read_number("height", text, 0, parameters.HEIGHT_MAX)
    )
    media_type = parameters.choose_type(context.request, (JSON, CBOR))
    block = await context.service.block(height)
    if block is None:
        raise Problem(
            404,
            "unknown-block",
            "this node has no block at this height",
            remedy="P2PCITY-Height says how far this node is.",
        )
    if media_type == CBOR:
        return Response(block.data, media_type=CBOR)
    return _json(json_mapping.block(block))


def show(read: Show) -> Callable[[Context], Awaitable[Response]]:
    """Return a handler that answers with what `read` gets of the service, as JSON."""

    async def get(context: Context) -> Response:
        return _json(await read(context.service))

    return get


async def get_metrics(context: Context) -> Response:
    """Handle `GET /metrics`; whatever Accept says, it is this text: scrapers take it."""
    return Response(context.service.metrics(), headers={"Content-Type": _METRICS_FORM})


async def get_live(context: Context) -> Response:
    """Handle `GET /livez`."""
    return _health(context.service.live(), "not-live")


async def get_ready(context: Context) -> Response:
    """Handle `GET /readyz`."""
    return _health(context.service.ready(), "not-ready")


async def post_transfer(context: Context) -> Response:
    """Handle `POST /v1/admin/transfer`."""
    to = context.query.text("to")
    if to is not None and not to.isascii():
        raise bad_parameter("to", "not a peer id")
    return _json(await context.service.transfer_leader(to))


def _health(health: Health, reason: str) -> Response:
    if not health.is_ok:
        raise Problem(
            503,
            reason,
            "; ".join(health.reasons) or "the node gives no reason",
            remedy="Run `p2pcity status` on the node.",
            members={"is_ok": False, "reasons": list(health.reasons)},
            retry_after_ms=RETRY_AFTER_MS,
        )
    return _json({"is_ok": True, "reasons": list(health.reasons)})


def _json(value: object) -> Response:
    return Response(json_mapping.dump(value), media_type=JSON)


def _write_page(page: EventPage) -> bytes:
    return json_mapping.dump(json_mapping.page(page))


def _write_lines(page: EventPage) -> bytes:
    return b"".join(
        json_mapping.dump(json_mapping.stored_event(event)) + b"\n" for event in page.events
    )
