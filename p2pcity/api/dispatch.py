"""From the table of operations to an ASGI application: paths, methods, rights, bodies, queries.

An `Operation` says everything about one method of one path; `openapi.py` writes the same table
down for readers, so that what is promised and what is checked cannot part.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import trio
from starlette.requests import Request
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from p2pcity.api import parameters
from p2pcity.api.config import ApiConfig, Tokens
from p2pcity.api.limits import read_body
from p2pcity.api.parameters import Query
from p2pcity.api.problems import Problem
from p2pcity.api.service import Service, traceparent
from p2pcity.api.statistics import HttpStatistics

BINARY: Final = "*/*"
"""As a key of `Operation.bodies`: any other content type, when the request has CloudEvents
headers (`ce-specversion`)."""

Right = Literal["open", "read", "write", "local"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the path or the query, with its JSON Schema."""

    name: str
    place: Literal["path", "query", "header"]
    schema: Mapping[str, object]
    description: str


@dataclass(frozen=True, slots=True)
class Reply:
    """One status that an operation answers with; `content` maps media types to schema names."""

    status: int
    description: str
    content: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Context:
    """What a handler gets: the request, its checked query and whole body, and the service."""

    service: Service
    config: ApiConfig
    request: Request
    query: Query
    content_type: str
    body: bytes
    closing: trio.Event
    streams: trio.CapacityLimiter
    statistics: HttpStatistics


Handler = Callable[[Context], Awaitable[ASGIApp]]


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path. `bodies` maps content types to the most bytes of such a body."""

    method: Literal["GET", "POST"]
    path: str
    name: str
    summary: str
    right: Right
    handler: Handler
    replies: Sequence[Reply]
    parameters: Sequence[Parameter] = ()
    bodies: Mapping[str, int] = field(default_factory=dict)

    @property
    def query_names(self) -> frozenset[str]:
        """The names of the parameters that the query may have."""
        return frozenset(item.name for item in self.parameters if item.place == "query")


@dataclass(frozen=True, slots=True)
class Access:
    """Who may do what on one listener: everything on the Unix socket, the rest by token."""

    is_local: bool
    tokens: Tokens | None = None
    is_read_by_token: bool = False

    def check(self, right: Right, request: Request) -> None:
        """Raise Problem 401 or 403 unless the request may use an operation of this right."""
        if self.is_local or right == "open":
            return
        if right == "local":
            raise Problem(
                403,
                "local-only",
                "this is answered on the Unix socket alone",
                remedy="Use the node's Unix socket.",
            )
        if right == "read" and not self.is_read_by_token:
            return
        if not self.tokens:
            raise Problem(
                403,
                "tcp-writes-off",
                "this node takes no writes over TCP: it has no tokens",
                remedy="Set http.tokens_file, or use the node's Unix socket.",
            )
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        granted = self.tokens.right_of(token.strip()) if scheme.lower() == "bearer" else None
        if granted is None:
            raise Problem(
                401,
                "bad-token" if scheme else "no-token",
                "this needs a token that the node knows",
                remedy="Send `Authorization: Bearer TOKEN` with a token of http.tokens_file.",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if right == "write" and granted != "write":
            raise Problem(
                403, "read-token", "this token only reads", remedy="Use a token that may write."
            )


class Endpoint:
    """All operations of one path, as an ASGI application."""

    def __init__(
        self,
        path: str,
        operations: Mapping[str, Operation],
        access: Access,
        service: Service,
        config: ApiConfig,
        closing: trio.Event,
        streams: trio.CapacityLimiter,
        statistics: HttpStatistics,
    ) -> None:
        # As the table of operations has it: the requests are counted by it.
        self.path = path
        self._operations = operations
        self._names = {key: item.query_names for key, item in operations.items()}
        self._allow = ", ".join(
            name for key in sorted(operations) for name in ((key, "HEAD")[: 1 + (key == "GET")])
        )
        self._access = access
        self._service = service
        self._config = config
        self._closing = closing
        self._streams = streams
        self._statistics = statistics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the request and let the operation's handler answer it."""
        request = Request(scope, receive)
        method = "GET" if request.method == "HEAD" else request.method
        operation = self._operations.get(method)
        if operation is None:
            raise Problem(
                405,
                "method-not-allowed",
                "this path does not know this method",
                remedy=f"Use one of: {self._allow}.",
                headers={"Allow": self._allow},
            )
        self._access.check(operation.right, request)
        # Each request has a task of its own: nobody else sees it.
        traceparent.set(request.headers.get("traceparent"))
        query = Query(request, self._names[method])
        content_type, body = "", b""
        if operation.bodies:
            content_type = parameters.content_type(request)
            size_max = _body_size_max(operation, content_type, request)
            body = await read_body(
                receive,
                request.headers.get("content-length"),
                size_max,
                self._config.body_timeout_s,
            )
        context = Context(
            self._service,
            self._config,
            request,
            query,
            content_type,
            body,
            self._closing,
            self._streams,
            self._statistics,
        )
        response = await operation.handler(context)
        await response(scope, receive, send)


def make_router(
    operations: Sequence[Operation],
    access: Access,
    service: Service,
    config: ApiConfig,
    closing: trio.Event,
    streams: trio.CapacityLimiter,
    statistics: HttpStatistics,
) -> ASGIApp:
    """Return the application of one listener."""
    paths: dict[str, dict[str, Operation]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method] = operation
    routes = [
        Route(path, Endpoint(path, methods, access, service, config, closing, streams, statistics))
        for path, methods in paths.items()
    ]
    return Router(routes, redirect_slashes=False, default=_not_found)


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    raise Problem(
        404,
        "not-found",
        "there is nothing at this path",
        remedy="Read /openapi.json for the paths.",
    )


def _body_size_max(operation: Operation, content_type: str, request: Request) -> int:
    size_max = operation.bodies.get(content_type)
    if size_max is None and BINARY in operation.bodies and "ce-specversion" in request.headers:
        size_max = operation.bodies[BINARY]
    if size_max is None:
        raise parameters.unsupported(
            f"the content type {content_type[:100]!r} is not read here"
            if content_type
            else "the content type is missing",
            [name for name in operation.bodies if name != BINARY],
        )
    return size_max
