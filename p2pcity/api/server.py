"""Serves the HTTP surface on the Unix socket and, when configured, over TCP.

The Unix socket has full rights (its mode decides who may connect), TCP reads openly or by token
and writes by token. Slow headers are cut off after 5 s, slow bodies after 10 s, clients that take
nothing after 30 s; the number of connections, of streams and the size of everything is bounded.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack
from functools import partial
from typing import Any

import structlog
import trio

from p2pcity.api.config import ApiConfig
from p2pcity.api.connections import Acceptor
from p2pcity.api.dispatch import Access, make_router
from p2pcity.api.limits import Guard
from p2pcity.api.listeners import TcpSecrets, open_tcp, open_unix
from p2pcity.api.routes import OPERATIONS
from p2pcity.api.service import Service
from p2pcity.api.statistics import HttpStatistics
from p2pcity.errors import ConfigError

# trio.TaskStatus[tuple[str, ...]]; the stubs that come with libp2p are older than trio.
TaskStatus = Any

_log = structlog.get_logger(__name__)


def make_app(
    service: Service,
    config: ApiConfig,
    access: Access,
    *,
    closing: trio.Event | None = None,
    streams: trio.CapacityLimiter | None = None,
    statistics: HttpStatistics | None = None,
) -> Guard:
    """Return the ASGI application of one listener; `closing` ends its streams."""
    counted = HttpStatistics() if statistics is None else statistics
    router = make_router(
        OPERATIONS,
        access,
        service,
        config,
        trio.Event() if closing is None else closing,
        trio.CapacityLimiter(config.streams_max) if streams is None else streams,
        counted,
    )
    return Guard(router, service, counted)


async def serve(
    config: ApiConfig,
    service: Service,
    *,
    statistics: HttpStatistics | None = None,
    secrets: TcpSecrets | None = None,
    task_status: TaskStatus = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; then answer what is under way and be gone within 2 s.

    Whoever hands in `secrets` can have them read anew meanwhile; what is answered is counted in
    `statistics`. Starts with the addresses it listens on: `unix:PATH`, `http://HOST:PORT`,
    `https://...`. Raises ConfigError, before it starts, when a socket, the tokens or TLS cannot
    be had.
    """
    closing = trio.Event()
    streams = trio.CapacityLimiter(config.streams_max)
    make = partial(
        make_app,
        service,
        config,
        closing=closing,
        streams=streams,
        statistics=HttpStatistics() if statistics is None else statistics,
    )
    with ExitStack() as stack:
        acceptors: list[Acceptor] = []
        addresses: list[str] = []
        if config.bind is not None:
            held = TcpSecrets() if secrets is None else secrets
            held.load(config)
            listener = stack.enter_context(open_tcp(config.bind))
            app = make(Access(False, held.tokens, config.is_read_by_token))
            acceptors.append(Acceptor(listener, app, config, config.connections_max, held))
            addresses.append(_url(listener, is_tls=held.tls is not None))
        if config.unix_socket is not None:
            unix = open_unix(config.unix_socket, config.unix_socket_mode)
            stack.callback(unix.close)
            app = make(Access(True))
            acceptors.append(Acceptor(unix.socket, app, config, config.unix_connections_max))
            addresses.append(f"unix:{config.unix_socket}")
        if not acceptors:
            raise ConfigError(
                "the HTTP surface has nothing to listen on",
                remedy="Set api.unix_socket or api.bind.",
            )
        _log.info("http started", addresses=addresses)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_run, acceptors, closing, config.grace_s)
            task_status.started(tuple(addresses))
            try:
                await trio.sleep_forever()
            finally:
                closing.set()


async def _run(acceptors: list[Acceptor], closing: trio.Event, grace_s: float) -> None:
    """Accept until `closing`, then give the open connections `grace_s` to end.

    Shielded: the cancellation that ends `serve` must not cut answers off in the middle.
    """
    with trio.CancelScope(shield=True):
        async with trio.open_nursery() as timing:
            async with trio.open_nursery() as connections:
                async with trio.open_nursery() as accepting:
                    for acceptor in acceptors:
                        accepting.start_soon(acceptor.accept_connections, connections)
                    await closing.wait()
                    accepting.cancel_scope.cancel()
                for acceptor in acceptors:
                    await acceptor.drain()
                timing.start_soon(_abort_after, grace_s, acceptors, connections)
            timing.cancel_scope.cancel()


async def _abort_after(
    grace_s: float, acceptors: list[Acceptor], connections: trio.Nursery
) -> None:
    await trio.sleep(grace_s)
    # Hypercorn sends under a shield: cancelling alone would not wake it.
    for acceptor in acceptors:
        acceptor.abort()
    connections.cancel_scope.cancel()


def _url(listener: socket.socket, *, is_tls: bool) -> str:
    host, port = listener.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    return f"{'https' if is_tls else 'http'}://{name}:{port}"
