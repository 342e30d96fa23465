"""What every request passes: a size and a deadline for its body, one place where errors end.

Hypercorn closes slow headers, but leaves slow bodies open, and it never lets go of a connection
whose body nobody reads. So each answer that goes out before the body came in lingers a moment
(a client that still sends would else lose the answer to a reset), and then whatever is left is
taken off Hypercorn's queue until it says that the client is gone.
"""

from __future__ import annotations

from typing import Final

import structlog
import trio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from p2pcity.api.problems import Problem, from_error, internal_error, to_response
from p2pcity.api.service import Service
from p2pcity.api.statistics import HttpStatistics
from p2pcity.errors import P2PCityError

LINGER_S: Final = 1.0
LINGER_BYTES_MAX: Final = 16 * 1024 * 1024

_log = structlog.get_logger(__name__)


class Guard:
    """The outermost ASGI application: adds the head's headers, ends errors, drains bodies."""

    def __init__(self, app: ASGIApp, service: Service, statistics: HttpStatistics) -> None:
        self._app = app
        self._service = service
        self._statistics = statistics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI 3.0)."""
        if scope["type"] != "http":
            await _refuse(scope["type"], receive, send)
            return
        exchange = Exchange(scope, receive, send, self._service, self._statistics)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except Problem as problem:
            await self._answer(problem, scope, exchange)
        except P2PCityError as error:
            await self._answer(from_error(error), scope, exchange)
        except Exception:  # noqa: BLE001 - the root of this request's task
            # A bug costs one answer, not the node.
            _log.exception("request failed", method=scope["method"], path=scope["path"][:200])
            await self._answer(internal_error(), scope, exchange)

    async def _answer(self, problem: Problem, scope: Scope, exchange: Exchange) -> None:
        # Once an answer has begun there is no way to say more: the connection just ends.
        if not exchange.is_started:
            await to_response(problem)(scope, exchange.receive, exchange.send)


class Exchange:
    """One request and its answer: knows how far each of them got."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        service: Service,
        statistics: HttpStatistics,
    ) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._service = service
        self._statistics = statistics
        self.is_started = False
        # A request without these headers has no body (RFC 9112 section 6.3).
        self._has_rest = any(
            name in (b"content-length", b"transfer-encoding") and value != b"0"
            for name, value in scope["headers"]
        )

    async def receive(self) -> Message:
        """Pass the next message on, and see whether it is the body's last."""
        message = await self._receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            self._has_rest = False
        return message

    async def send(self, message: Message) -> None:
        """Pass the answer on, with the head's headers; drain what is left of the body."""
        if message["type"] == "http.response.start":
            self.is_started = True
            self._statistics.count(self._scope, message["status"])
            head = self._service.head()
            message["headers"] = [
                *message.get("headers", ()),
                (b"p2pcity-height", str(head.height).encode()),
                (b"p2pcity-head", head.hash.hex().encode()),
            ]
            if self._has_rest:
                message["headers"].append((b"connection", b"close"))
        elif self._has_rest and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._linger()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._drain)
                await self._send({"type": "http.response.body", "body": b""})
                nursery.cancel_scope.deadline = trio.current_time() + LINGER_S
            return
        await self._send(message)

    async def _linger(self) -> None:
        """Take what the client still sends, for a while, so that it can read the answer."""
        size = 0
        with trio.move_on_after(LINGER_S):
            while self._has_rest and size < LINGER_BYTES_MAX:
                size += len((await self.receive()).get("body", b""))

    async def _drain(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass


async def read_body(
    receive: Receive, declared: str | None, size_max: int, timeout_s: float
) -> bytes:
    """Return the whole body.

    `declared` is its Content-Length, if any. Raises Problem: 413 above `size_max` bytes (without
    reading on), 408 when it is not here within `timeout_s`, 400 when the client leaves.
    """
    if declared is not None and declared.isdecimal() and int(declared[:20]) > size_max:
        raise _too_large(size_max)
    parts: list[bytes] = []
    size = 0
    with trio.move_on_after(timeout_s):
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise Problem(400, "malformed", "the client left before the body's end")
            part: bytes = message.get("body", b"")
            size += len(part)
            if size > size_max:
                raise _too_large(size_max)
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)
    raise Problem(
        408,
        "slow-body",
        f"the body was not here within {timeout_s:g} s",
        remedy="Send the body at once, or in several smaller requests.",
        headers={"Connection": "close"},
    )


def _too_large(size_max: int) -> Problem:
    return Problem(
        413,
        "size",
        f"the body has more than {size_max} bytes",
        remedy="Send it in several smaller requests.",
    )


async def _refuse(kind: str, receive: Receive, send: Send) -> None:
    """Turn a WebSocket away (Hypercorn answers 403); there is nothing else beside HTTP here."""
    if kind == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1000})
