"""Accepts connections and lets Hypercorn's trio worker speak HTTP on each.

Hypercorn's own `serve` is not used: it has one application for all sockets, no bound on
connections, and it sends under a shield without a deadline, so a client that never reads would
hold the shutdown for ever. Here each connection's stream has a deadline on sending, is counted,
and is closed for good when the grace is over.
"""

from __future__ import annotations

import socket
from typing import Final, cast

import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ConnectionState
from starlette.types import ASGIApp

from p2pcity.api.config import ApiConfig
from p2pcity.api.listeners import TcpSecrets

HEADER_BYTES_MAX: Final = 16 * 1024
# accept() fails when file descriptors run out; asking again at once would only spin.
_ACCEPT_PAUSE_S: Final = 0.1

_log = structlog.get_logger(__name__)


class BoundedStream(trio.abc.HalfCloseableStream):
    """A socket's stream that gives up on a peer which takes nothing for `send_timeout_s`."""

    def __init__(self, stream: trio.SocketStream, send_timeout_s: float) -> None:
        self._stream = stream
        self._send_timeout_s = send_timeout_s

    @property
    def socket(self) -> trio.socket.SocketType:
        """The socket; Hypercorn asks it for the addresses."""
        return self._stream.socket

    async def send_all(self, data: bytes | memoryview | bytearray) -> None:
        """Send `data`; BrokenResourceError when that takes too long, and the socket is closed."""
        with trio.move_on_after(self._send_timeout_s) as scope:
            await self._stream.send_all(bytes(data))
        if scope.cancelled_caught:
            self.abort()
            raise trio.BrokenResourceError("the peer takes nothing")

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the socket takes something."""
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Say that nothing more is sent."""
        await self._stream.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive what is there."""
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        """Close the socket."""
        await self._stream.aclose()

    def abort(self) -> None:
        """Close the socket now; whoever sends or receives on it is woken with an error."""
        self._stream.socket.close()


class Acceptor:
    """Serves one application on one listening socket."""

    def __init__(
        self,
        listener: socket.socket,
        app: ASGIApp,
        config: ApiConfig,
        connections_max: int,
        secrets: TcpSecrets | None = None,
    ) -> None:
        self._listener = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
        self._app = ASGIWrapper(cast(ASGIFramework, app))
        self._config = config
        self._secrets = secrets
        self._room = trio.Semaphore(connections_max, max_value=connections_max)
        self._open: set[BoundedStream] = set()
        self._context = WorkerContext(None)
        self._hypercorn = Config()
        self._hypercorn.accesslog = None
        self._hypercorn.errorlog = None
        self._hypercorn.include_server_header = False
        self._hypercorn.h11_max_incomplete_size = HEADER_BYTES_MAX
        self._hypercorn.h2_max_header_list_size = HEADER_BYTES_MAX
        self._hypercorn.keep_alive_timeout = config.header_timeout_s
        self._hypercorn.ssl_handshake_timeout = config.header_timeout_s
        self._hypercorn.keep_alive_max_requests = 1_000_000

    async def accept_connections(self, nursery: trio.Nursery) -> None:
        """Accept until cancelled; the connections live in `nursery`.

        Pauses while `connections_max` are open, and shortly when descriptors run out.
        """
        is_failing = False
        while True:
            await self._room.acquire()
            try:
                stream = await self._listener.accept()
            except OSError as error:
                self._room.release()
                if not is_failing:
                    _log.warning("cannot accept connections", reason=str(error))
                is_failing = True
                await trio.sleep(_ACCEPT_PAUSE_S)
                continue
            is_failing = False
            nursery.start_soon(self._serve, BoundedStream(stream, self._config.send_timeout_s))

    async def drain(self) -> None:
        """Close what is idle, and tell the rest to close after its answer."""
        await self._listener.aclose()
        await self._context.terminated.set()

    def abort(self) -> None:
        """Close every connection now."""
        for stream in self._open:
            stream.abort()

    async def _serve(self, bounded: BoundedStream) -> None:
        self._open.add(bounded)
        stream: trio.abc.Stream = bounded
        tls = None if self._secrets is None else self._secrets.tls
        if tls is not None:
            stream = trio.SSLStream(bounded, tls, server_side=True, https_compatible=True)
        try:
            await TCPServer(
                self._app,
                self._hypercorn,
                self._context,
                ConnectionState({}),
                stream,  # type: ignore[arg-type]  # typed as SSLStream, serves both
            )
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            # The client left in the middle of something.
            pass
        except* Exception as errors:  # noqa: BLE001 - the root of a task
            # A bug costs one connection, not the node.
            _log.error("connection failed", exc_info=errors)
        finally:
            self._open.discard(bounded)
            self._room.release()
            bounded.abort()
