"""What stands between libp2p 0.8.1 and the world: sockets and multistream with bounds.

Found by measuring: reads of two bytes at a time, a token of the inbound limiter that is kept
until shutdown for every connection ever accepted, multistream lines of any length, and
`close()` that hangs on a stalled link.
"""

import os
import socket
from collections import OrderedDict
from contextlib import suppress
from typing import Final

import trio
from libp2p.abc import IRawConnection
from libp2p.custom_types import THandler
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.exceptions import ConnectionClosedError, IOException
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.protocol_muxer.exceptions import MultiselectCommunicatorError
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.transport.tcp.tcp import TCP, TCPListener
from libp2p.utils.varint import read_varint_prefixed_bytes_limited
from multiaddr import Multiaddr  # type: ignore[import-untyped]  # it has no stubs

# A handshake up to the end of Noise takes about 1 KiB.
_HANDSHAKE_BYTES_MAX: Final = 32 * 1024
_READ_BYTES: Final = 64 * 1024
# Not more than this lies unsent in the kernel, so that a heartbeat never queues behind megabytes.
_UNSENT_BYTES_MAX: Final = 64 * 1024
_LINE_BYTES_MAX: Final = 1024
_LINES_MAX: Final = 32


class SocketStream(TrioTCPStream):
    """libp2p's TCP stream with a read buffer, counters, a handshake budget and a hard close.

    `heard_s` is when the peer's last byte came (trio's clock).
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        super().__init__(stream)
        self._buffer = b""
        self._offset = 0
        self._budget: int | None = _HANDSHAKE_BYTES_MAX
        self._closed = trio.Event()
        self.bytes_in = 0
        self.bytes_out = 0
        self.heard_s = trio.current_time()
        lowat = getattr(socket, "TCP_NOTSENT_LOWAT", None)
        if lowat is not None:
            stream.setsockopt(socket.IPPROTO_TCP, lowat, _UNSENT_BYTES_MAX)

    async def read(self, n: int | None = None) -> bytes:
        """Return up to `n` bytes, from the buffer when it has some; empty at the end."""
        if n == 0:
            return b""
        if self._offset >= len(self._buffer):
            data = await self._receive()
            if n is None or len(data) <= n:
                return data
            self._buffer, self._offset = data, 0
        end = len(self._buffer) if n is None else self._offset + n
        piece = self._buffer[self._offset : end]
        self._offset += len(piece)
        return piece

    async def _receive(self) -> bytes:
        # Without the library's lock: a connection has one reader, and a lock costs a turn of
        # the scheduler.
        try:
            data = bytes(await self.stream.receive_some(_READ_BYTES))
        except trio.BrokenResourceError as error:
            raise ConnectionClosedError(f"reset by the peer: {error}") from error
        except trio.ClosedResourceError:
            data = b""
        self.bytes_in += len(data)
        self.heard_s = trio.current_time()
        if self._budget is not None:
            self._budget -= len(data)
            if self._budget < 0:
                self.abort()
                raise IOException("more bytes than a handshake has")
        if not data:
            self._closed.set()
        return data

    async def write(self, data: bytes) -> None:
        """Send all of `data`; raises ConnectionClosedError when the connection is gone.

        One at a time. What the kernel takes at once goes without a turn of the scheduler. A write
        that is cancelled half way ends the connection, which is of no use after it.
        """
        sent = self._send_now(data)
        self.bytes_out += len(data)
        if sent == len(data):
            return
        is_whole = False
        try:
            await self.stream.send_all(memoryview(data)[sent:])
            is_whole = True
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ConnectionClosedError(f"the connection is gone: {error}") from error
        finally:
            if not is_whole:
                self.abort()

    def _send_now(self, data: bytes) -> int:
        try:
            return os.write(self.stream.socket.fileno(), data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise ConnectionClosedError(f"the connection is gone: {error}") from error

    async def close(self) -> None:
        """Close the socket."""
        self._closed.set()
        await super().close()

    def admit(self) -> None:
        """Lift the handshake budget: the peer is known now."""
        self._budget = None

    def abort(self, *, is_stalled: bool = False) -> None:
        """Close the socket under everything, at once and without waiting.

        Readers and writers above end with errors within milliseconds. For a stalled link the
        unsent bytes are dropped too, else the kernel keeps trying for minutes.
        """
        self._closed.set()
        if is_stalled and self.stream.socket.fileno() >= 0:
            linger = b"\x01\x00\x00\x00" + bytes(4)
            # One that the kernel has given up already has nothing left to drop.
            with suppress(OSError):
                self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.stream.socket.close()

    @property
    def is_closed(self) -> bool:
        """True once either side closed the connection."""
        return self._closed.is_set()

    async def wait_closed(self) -> None:
        """Return once either side closed the connection."""
        await self._closed.wait()


class GuardedTCP(TCP):
    """libp2p's TCP transport with our streams and a bound on handshakes under way."""

    def __init__(self, handshakes_max: int) -> None:
        super().__init__()
        self._handshakes_max = handshakes_max
        self._handshakes: OrderedDict[SocketStream, None] = OrderedDict()
        self.evicted_count = 0

    async def dial(self, maddr: Multiaddr) -> IRawConnection:
        """Open a connection to `maddr`."""
        raw = await super().dial(maddr)
        assert isinstance(raw, RawConnection)
        assert isinstance(raw.stream, TrioTCPStream)
        raw.stream = SocketStream(raw.stream.stream)
        return raw

    def create_listener(self, handler_function: THandler) -> TCPListener:
        """Return a listener whose handlers end when their connection does."""

        async def handle(plain: ReadWriteCloser) -> None:
            assert isinstance(plain, TrioTCPStream)
            stream = SocketStream(plain.stream)
            self._start_handshake(stream)
            # The library's handler waits for shutdown with a token of the inbound limiter in
            # its hand: without an end of its own, the 257th reconnect would be the last.
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_run_handler, handler_function, stream, nursery.cancel_scope)
                await stream.wait_closed()
                self.end_handshake(stream)
                nursery.cancel_scope.cancel()

        return TCPListener(handle)

    def _start_handshake(self, stream: SocketStream) -> None:
        # The oldest goes: who floods us with half handshakes evicts himself, while an honest
        # one takes milliseconds.
        while len(self._handshakes) >= self._handshakes_max:
            oldest, _ = self._handshakes.popitem(last=False)
            oldest.abort()
            self.evicted_count += 1
        self._handshakes[stream] = None

    def end_handshake(self, stream: SocketStream) -> None:
        """Say that `stream` became a connection, or is gone."""
        self._handshakes.pop(stream, None)


async def _run_handler(
    handler: THandler, stream: SocketStream, cancel_scope: trio.CancelScope
) -> None:
    try:
        await handler(stream)
    finally:
        if not stream.is_closed:
            stream.abort()
        cancel_scope.cancel()


class LimitedCommunicator(MultiselectCommunicator):
    """Multistream-select with short lines and few of them."""

    def __init__(self, read_writer: ReadWriteCloser) -> None:
        super().__init__(read_writer)
        self._lines = 0

    async def read(self) -> str:
        """Return the next line; MultiselectCommunicatorError beyond the bounds."""
        self._lines += 1
        if self._lines > _LINES_MAX:
            raise MultiselectCommunicatorError("too many lines")
        try:
            line = await read_varint_prefixed_bytes_limited(self.read_writer, _LINE_BYTES_MAX)
            text = line.decode()
        except (IOException, ValueError) as error:
            raise MultiselectCommunicatorError("not a multistream line") from error
        if not text.endswith("\n"):
            raise MultiselectCommunicatorError("a line without an end")
        return text[:-1]
