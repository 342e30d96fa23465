"""Yamux on a session of ours: all frames of one read at once, windows, and bounds.

The library's streams, their opening, closing and resetting stay; what happens for every message
is here (yamux specification, hashicorp/yamux spec.md). In the library each frame takes a dozen
turns of the scheduler and each read answers with a window update; a receive window binds nobody.
"""

import struct
from collections.abc import Callable
from typing import Final, NoReturn

import trio
from libp2p.abc import IMuxedConn, ISecureConn
from libp2p.custom_types import TProtocol
from libp2p.exceptions import BaseLibp2pError
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamError, MuxedStreamReset
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream
from libp2p.stream_muxer.yamux import yamux
from libp2p.stream_muxer.yamux.yamux import (
    FLAG_ACK,
    FLAG_FIN,
    FLAG_RST,
    FLAG_SYN,
    MAX_MESSAGE_SIZE,
    TYPE_DATA,
    TYPE_GO_AWAY,
    TYPE_PING,
    TYPE_WINDOW_UPDATE,
    Yamux,
    YamuxStream,
)
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX_PROTOCOL

from p2pcity.errors import DecodeError
from p2pcity.net.peers import Traffic
from p2pcity.net.session import Session

_HEAD = struct.Struct("!BBHII")
_DATA_BYTES_MAX: Final = MAX_MESSAGE_SIZE - _HEAD.size
_WINDOW_S: Final = 5.0


class CityStream(YamuxStream):
    """A yamux stream without locks, which gives credit once half of its window was read.

    The peer still has the other half then, and never waits for it. One task reads it.
    """

    conn: "CityYamux"
    _unsaid_bytes: int = 0

    def __init__(self, stream_id: int, conn: "CityYamux", is_initiator: bool) -> None:
        super().__init__(stream_id, conn, is_initiator)
        self._has_window = trio.Event()
        self.bytes_in = 0
        self.bytes_out = 0
        self._take: Callable[[bytes], None] | None = None
        self._failure: Exception | None = None

    @property
    def traffic(self) -> Traffic:
        """The bytes of this stream so far, without what yamux and Noise add."""
        return Traffic(self.bytes_in, self.bytes_out)

    async def deliver(self, take: Callable[[bytes], None]) -> NoReturn:
        """Hand all that comes to `take` at once, in the connection's own task, until the end.

        Raises what `take` raises, MuxedStreamEOF at the end, or MuxedStreamReset.
        """
        while self.conn.stream_buffers.get(self.stream_id):
            take(await self.read())
        self._take = take
        try:
            while True:
                await self._wait_data()
                if self._failure is not None:
                    raise self._failure
        finally:
            self._take = None

    def hand_over(self, piece: bytes) -> bool:
        """Give `piece` to whoever `deliver` serves; False when nobody does."""
        if self._take is None:
            return False
        self._unsaid_bytes += len(piece)
        try:
            self._take(piece)
        except Exception as error:  # noqa: BLE001
            # Not the connection's failure: the one that waits in `deliver` raises it.
            self._take, self._failure = None, error
            self.conn.stream_events[self.stream_id].set()
        return True

    async def _wait_data(self) -> None:
        """Wait until there is something new; raises MuxedStreamEOF or MuxedStreamReset."""
        conn, number = self.conn, self.stream_id
        if self.reset_received:
            raise MuxedStreamReset("the stream was reset")
        is_gone = number not in conn.stream_buffers
        if is_gone or self.recv_closed or conn.event_shutting_down.is_set():
            raise MuxedStreamEOF("the stream has ended")
        event = conn.stream_events[number] = trio.Event()
        await event.wait()

    async def read(self, n: int | None = -1) -> bytes:
        """Return up to `n` bytes (None and -1: all) once there are some.

        Raises MuxedStreamEOF at the end, MuxedStreamReset when either side reset the stream.
        """
        while not (buffer := self.conn.stream_buffers.get(self.stream_id)):
            await self._wait_data()
        if n is None or n < 0 or n >= len(buffer):
            data = bytes(buffer)
            buffer.clear()
        else:
            data = bytes(buffer[:n])
            del buffer[:n]
        self._unsaid_bytes += len(data)
        if self.closed:
            self.conn._finalize_stream_locked(self, fully_closed=True)
        else:
            await self.give_credit()
        return data

    async def give_credit(self) -> None:
        """Tell the peer how much was read, if that is half of a window."""
        if self._unsaid_bytes >= self._grow_threshold():
            unsaid, self._unsaid_bytes = self._unsaid_bytes, 0
            await self._auto_tune_and_send_window_update(bytes_read=unsaid)

    async def write(self, data: bytes) -> None:
        """Send all of `data`; raises MuxedStreamError, also after 5 s without the peer's credit."""
        start = 0
        while start < len(data):
            if self.closed or self.send_closed:
                raise MuxedStreamError("the stream is closed")
            if self.send_window <= 0:
                await self._wait_window()
                continue
            piece = data[start : start + min(self.send_window, _DATA_BYTES_MAX)]
            self.send_window -= len(piece)
            head = _HEAD.pack(0, TYPE_DATA, 0, self.stream_id, len(piece))
            await self.conn.send_frame(head + piece)
            self.bytes_out += len(piece)
            start += len(piece)

    async def _wait_window(self) -> None:
        if self._has_window.is_set():
            self._has_window = trio.Event()
        with trio.move_on_after(_WINDOW_S):
            await self._has_window.wait()
            return
        raise MuxedStreamError(f"the peer gave no credit in {_WINDOW_S:g} s")

    def widen(self, credit: int) -> None:
        """Take the peer's credit, in bytes; whoever waits for it, or for an end, looks again."""
        self.send_window += credit
        self._has_window.set()


# `Yamux.open_stream` names its class outright, in the middle of what stays the library's; libp2p is
# pinned, and test_muxing opens a stream both ways.
yamux.YamuxStream = CityStream  # type: ignore[misc, assignment]  # a class of the library, replaced


class CityYamux(Yamux):
    """Yamux that cannot be filled with bytes nobody reads, and whose errors stay its own.

    `failure` says why it ended, if it was not in order.
    """

    # Those that the peer opens are made here, the others by the name above.
    streams: dict[int, CityStream]  # type: ignore[assignment]  # narrower than the library's

    def __init__(self, session: Session, peer_id: ID, unread_bytes_max: int) -> None:
        super().__init__(session, peer_id, is_initiator=session.is_initiator)
        self.session = session
        self._unread_bytes_max = unread_bytes_max
        self._rest = b""
        # Of the DATA frame that is under way: its stream, its flags and what is still to come.
        self._frame = (0, 0)
        self._frame_left = 0
        self.failure = ""

    async def start(self) -> None:
        """Run the connection until it ends."""
        try:
            await super().start()
        except Exception as error:  # noqa: BLE001
            # A task's root: the library's service would take the whole host down with it.
            self._fail(error)
            self.event_shutting_down.set()
            self.event_closed.set()

    def _fail(self, error: Exception) -> None:
        self.session.socket.abort()
        self.failure = f"{type(error).__name__}: {error}"

    async def handle_incoming(self) -> None:
        """Take frames until the connection ends, then tell all its streams."""
        try:
            while not self.event_shutting_down.is_set():
                data = await self.session.receive()
                if not data:
                    break
                await self._take(data)
        except (BaseLibp2pError, DecodeError, OSError, trio.ClosedResourceError) as error:
            self._fail(error)
        await self._cleanup_on_error()
        for stream in tuple(self.streams.values()):
            stream.widen(0)

    async def _take(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        while at < end:
            if self._frame_left:
                piece = data[at : at + self._frame_left]
                at += len(piece)
                self._frame_left -= len(piece)
                await self._give(piece)
            elif end - at >= _HEAD.size:
                version, kind, flags, number, length = _HEAD.unpack_from(data, at)
                if version != 0:
                    raise DecodeError(f"a yamux frame of version {version}")
                at += _HEAD.size
                await self._begin(kind, flags, number, length)
            else:
                break
        self._rest = data[at:]

    async def _begin(self, kind: int, flags: int, number: int, length: int) -> None:
        if kind in (TYPE_DATA, TYPE_WINDOW_UPDATE):
            if flags & FLAG_SYN and not await self._accept(number, flags):
                flags = 0
            if kind == TYPE_DATA and length:
                self._check_room(length)
                self._frame, self._frame_left = (number, flags), length
                return
            stream = self.streams.get(number)
            if stream is not None:
                if kind == TYPE_WINDOW_UPDATE:
                    stream.widen(length)
                self._end(stream, flags)
        elif kind == TYPE_PING:
            await self._take_ping(flags, length)
        elif kind == TYPE_GO_AWAY:
            self.event_shutting_down.set()
        else:
            raise DecodeError(f"a yamux frame of kind {kind}")

    def _check_room(self, length: int) -> None:
        # What nobody has read; the library only warns when a peer exceeds its receive window.
        unread = sum(map(len, self.stream_buffers.values()))
        if unread + length > self._unread_bytes_max:
            raise DecodeError(f"{unread} bytes that nobody has read, and {length} more")

    async def _give(self, piece: bytes) -> None:
        number, flags = self._frame
        stream = self.streams.get(number)
        if stream is None:
            return
        stream.bytes_in += len(piece)
        stream.recv_window = max(0, stream.recv_window - len(piece))
        if stream.hand_over(piece):
            await stream.give_credit()
        else:
            self.stream_buffers[number] += piece
            self.stream_events[number].set()
        if flags and not self._frame_left:
            self._end(stream, flags)

    def _end(self, stream: CityStream, flags: int) -> None:
        if flags & FLAG_FIN:
            stream.recv_closed = True
            stream.closed = stream.closed or stream.send_closed
        if flags & FLAG_RST:
            stream.closed = stream.reset_received = True
        if flags & (FLAG_FIN | FLAG_RST):
            self.stream_events[stream.stream_id].set()
            stream.widen(0)
            if stream.closed:
                self._finalize_stream_locked(stream, fully_closed=True)

    async def _accept(self, number: int, flags: int) -> bool:
        """Open the stream that the peer opens; False when it is open already."""
        if number in self.streams:
            await self.send_frame(_HEAD.pack(0, TYPE_WINDOW_UPDATE, FLAG_RST, number, 0))
            return False
        stream = self.streams[number] = CityStream(number, self, False)
        self.stream_buffers[number] = bytearray()
        self.stream_events[number] = trio.Event()
        if not flags & FLAG_RST:
            await self.send_frame(_HEAD.pack(0, TYPE_WINDOW_UPDATE, FLAG_ACK, number, 0))
        await self.new_stream_send_channel.send(stream)
        return True

    async def _take_ping(self, flags: int, value: int) -> None:
        if flags & FLAG_SYN:
            await self.send_frame(_HEAD.pack(0, TYPE_PING, FLAG_ACK, 0, value))
        elif flags & FLAG_ACK:
            self._ping_event.set()

    async def send_frame(self, frame: bytes) -> None:
        """Send one whole frame."""
        lock = self._write_lock
        try:
            lock.acquire_nowait()
        except trio.WouldBlock:
            await lock.acquire()
        try:
            await self.session.write(frame)
        finally:
            lock.release()

    async def _write_frame(self, data: bytes) -> None:
        await self.send_frame(data)


class CityMuxers(MuxerMultistream):
    """Yamux and nothing else, in our form (the library names its class outright)."""

    def __init__(self, negotiate_timeout: int, unread_bytes_max: int) -> None:
        super().__init__({TProtocol(YAMUX_PROTOCOL): Yamux}, negotiate_timeout)
        self._unread_bytes_max = unread_bytes_max

    async def new_conn(self, conn: ISecureConn, peer_id: ID) -> IMuxedConn:
        """Agree on yamux and return the muxed connection."""
        assert isinstance(conn, Session), "the gate makes the sessions"
        protocol, _ = await self._selector.select(conn, conn.is_initiator, self.negotiate_timeout)
        muxed = CityYamux(conn, peer_id, self._unread_bytes_max)
        return self._annotate_connection(muxed, conn, protocol)
