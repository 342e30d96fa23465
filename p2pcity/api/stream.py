"""`GET /v1/stream`: committed events as server-sent events, in order, gap-free, once each.

    id: 17.0.3                       the cursor: height.transaction.event
    data: {"specversion":"1.0",...}  the CloudEvent, see json_mapping.py

An erased event has `event: tombstone`. While nothing comes, a comment goes out every 15 s; when
events were passed over that no filter matched, an `id:` line without data does the same and moves
the client's cursor on (WHATWG HTML section 9.2.6: it is remembered and nothing is dispatched).

Back-pressure: the next events are read once the ones before are in the socket, so a slow client
holds one batch. It is cut off when the socket takes nothing for `send_timeout_s`, and resumes
with Last-Event-ID.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio
from starlette.types import Receive, Scope, Send

from p2pcity.api import json_mapping, parameters
from p2pcity.api.dispatch import Context
from p2pcity.api.problems import RETRY_AFTER_MS, Problem
from p2pcity.api.service import Cursor, EventBatch, EventFilter, StoredEvent
from p2pcity.errors import Pruned

CONTENT_TYPE: Final = "text/event-stream"
BATCH_EVENTS_MAX: Final = 64
RECONNECT_MS: Final = 1000
_LOOK_MS: Final = 1


async def get_stream(context: Context) -> EventStream:
    """Handle `GET /v1/stream`: Last-Event-ID wins over `from`; without both, only new events."""
    parameters.choose_type(context.request, (CONTENT_TYPE,))
    wanted = context.query.filter()
    start = context.query.number("from", -1, 0, parameters.HEIGHT_MAX)
    last = context.request.headers.get("last-event-id")
    if last:
        after = parameters.read_cursor("Last-Event-ID", last)
    elif start >= 0:
        after = Cursor.before(start)
    else:
        after = Cursor.before(context.service.head().height + 1)
    return EventStream(context, wanted, after)


class EventStream:
    """The answer: an ASGI application that sends until the client or the node leaves."""

    def __init__(self, context: Context, wanted: EventFilter, after: Cursor) -> None:
        self._context = context
        self._wanted = wanted
        self._after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events.

        Raises Problem 503 when too many streams are open, Pruned when events behind the cursor
        are not kept here any more.
        """
        try:
            self._context.streams.acquire_on_behalf_of_nowait(self)
        except trio.WouldBlock:
            raise Problem(
                503,
                "too-many-streams",
                "this node serves as many streams as it may",
                remedy="Come again later, or ask another node.",
                retry_after_ms=RETRY_AFTER_MS,
            ) from None
        self._context.statistics.streams_open += 1
        try:
            # Looked at before the answer begins: what was pruned is an answer of its own.
            await self._context.service.next_events(self._wanted, self._after, 1, _LOOK_MS)
            headers = [
                (b"content-type", CONTENT_TYPE.encode()),
                (b"cache-control", b"no-store"),
                (b"x-accel-buffering", b"no"),
            ]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            if scope["method"] != "HEAD":
                async with trio.open_nursery() as nursery:
                    for wait in (self._wait_client_gone, self._wait_closing):
                        nursery.start_soon(_cancel_after, wait, receive, nursery.cancel_scope)
                    await self._send_events(send)
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._context.statistics.streams_open -= 1
            self._context.streams.release_on_behalf_of(self)

    async def _send_events(self, send: Send) -> None:
        service, after = self._context.service, self._after
        timeout_ms = int(self._context.config.keep_alive_interval_s * 1000)
        # With the cursor at once: who is cut off before the first event resumes here, not later.
        text = f"retry: {RECONNECT_MS}\nid: {after}\n\n".encode()
        while True:
            await send({"type": "http.response.body", "body": text, "more_body": True})
            try:
                batch = await service.next_events(self._wanted, after, BATCH_EVENTS_MAX, timeout_ms)
            except Pruned:  # the client was too slow; it is told so when it comes again
                return
            assert batch.cursor >= after, "a stream never goes back"
            text = _write_batch(batch, after)
            after = batch.cursor

    async def _wait_client_gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async def _wait_closing(self, receive: Receive) -> None:
        await self._context.closing.wait()


def _write_batch(batch: EventBatch, after: Cursor) -> bytes:
    if batch.cursor == after:
        return b": still here\n\n"
    lines = [_write_event(event) for event in batch.events]
    if not batch.events or batch.events[-1].cursor < batch.cursor:
        lines.append(f"id: {batch.cursor}\n\n".encode())
    return b"".join(lines)


def _write_event(event: StoredEvent) -> bytes:
    name = b"event: tombstone\n" if event.event is None else b""
    data = json_mapping.dump(json_mapping.stored_event(event))
    return b"id: %b\n%bdata: %b\n\n" % (str(event.cursor).encode(), name, data)


async def _cancel_after(
    wait: Callable[[Receive], Awaitable[None]], receive: Receive, scope: trio.CancelScope
) -> None:
    await wait(receive)
    scope.cancel()
