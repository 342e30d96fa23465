"""Kept streams: one long-lived stream a purpose and pair, with coalesced writes and bounds.

A new stream for every request costs a hundred times what a message on a kept one does, and
messages written one by one cost thirty times what fifty in a write do (both measured). So each
stream has a queue that is bounded in bytes and a writer that puts whatever waits into one write.
Reading is the other way round: a large piece of bytes in, one synchronous call a message out.
"""

import itertools
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
import trio
from libp2p.abc import INetStream
from libp2p.exceptions import BaseLibp2pError
from libp2p.network.stream.net_stream import NetStream
from libp2p.stream_muxer.exceptions import MuxedStreamEOF

from p2pcity.errors import DecodeError, P2PCityError, RemoteError, Unavailable
from p2pcity.net.config import LaneConfig
from p2pcity.net.frames import LANE, PING, PONG, WHOLE, FrameReader, encode_frame, encode_message
from p2pcity.net.muxing import CityStream
from p2pcity.net.peers import Traffic

_SLOW_WRITE_S: Final = 0.1
_FAST_WRITE_S: Final = 0.02
_WRITE_BYTES_MIN: Final = 4096

_REQUEST: Final = 0
_ANSWER: Final = 1
_REFUSED: Final = 2
_HEAD = struct.Struct(">BI")

_logger = structlog.get_logger("p2pcity.net.streams")

Answer = Callable[[str, str, bytes], Awaitable[bytes]]


class KeptStream:
    """One stream of a pair: `send` queues, `run` reads and writes until the stream ends."""

    def __init__(
        self,
        stream: INetStream,
        config: LaneConfig,
        *,
        on_message: Callable[[bytes], None],
        on_pong: Callable[[int], None] | None = None,
        reader: FrameReader | None = None,
    ) -> None:
        # Past the library's wrapper, which takes a lock to look at a state that nobody here asks.
        assert isinstance(stream, NetStream)
        assert isinstance(stream.muxed_stream, CityStream)
        self._stream = stream.muxed_stream
        self._config = config
        self._on_message = on_message
        self._on_pong = on_pong
        self._reader = reader or FrameReader(config.message_bytes_max)
        self._queue: deque[bytes] = deque()
        self._wake = trio.Event()
        self._write_bytes_max = config.write_bytes_max
        self._is_ended = False
        self._is_writing = False
        self.queued_bytes = 0
        self.dropped_count = 0
        # Set once `run` returns: why, and whether the peer is to blame.
        self.reason = ""
        self.is_blamed = False

    def send(self, message: bytes) -> bool:
        """Queue `message`; False (and counted) when the queue is full or the stream ended."""
        if self._is_ended or self.queued_bytes + len(message) > self._config.queue_bytes_max:
            self.dropped_count += 1
            return False
        for frame in encode_message(message):
            self._push(frame)
        return True

    def send_frame(self, kind: int, body: bytes) -> None:
        """Queue a PING, PONG or LANE frame; these are small and always fit."""
        if not self._is_ended and self.queued_bytes < 2 * self._config.queue_bytes_max:
            self._push(encode_frame(kind, body))

    def _push(self, frame: bytes) -> None:
        self._queue.append(frame)
        self.queued_bytes += len(frame)
        self._wake.set()

    @property
    def traffic(self) -> Traffic:
        """The bytes of this stream so far."""
        return self._stream.traffic

    @property
    def is_busy(self) -> bool:
        """True while something is queued or being written."""
        return not self._is_ended and (bool(self._queue) or self._is_writing)

    async def run(self) -> None:
        """Read and write until the stream ends or fails; then `reason` says why. Never raises."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._run_to_end, self._read, nursery.cancel_scope)
                nursery.start_soon(self._run_to_end, self._write, nursery.cancel_scope)
        finally:
            self._is_ended = True
            self._queue.clear()
            self.queued_bytes = 0

    async def _run_to_end(
        self, step: Callable[[], Awaitable[None]], cancel_scope: trio.CancelScope
    ) -> None:
        try:
            await step()
        except DecodeError as error:
            self._end(f"malformed: {error}", is_blamed=True)
        except trio.TooSlowError:
            self._end("a write took too long")
        except MuxedStreamEOF:
            self._end("the peer closed the stream")
        except (BaseLibp2pError, OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            self._end("the connection ended")
        except Exception as error:  # a task's root
            # A handler of ours failed on what the peer sent. The connection goes,
            # the node stays, and the log has the traceback.
            _logger.exception("stream_handler_failed")
            self._end(f"{type(error).__name__}: {error}")
        cancel_scope.cancel()

    def _end(self, reason: str, *, is_blamed: bool = False) -> None:
        if not self.reason:
            self.reason = reason
            self.is_blamed = is_blamed

    def take(self, found: list[tuple[int, bytes]]) -> None:
        """Act on frames that were read before `run`; raises DecodeError."""
        for kind, body in found:
            if kind == WHOLE:
                self._on_message(body)
            elif kind == PING:
                self.send_frame(PONG, body)
            elif kind == PONG and self._on_pong is not None:
                self._on_pong(int.from_bytes(body, "big"))
            elif kind == LANE:
                raise DecodeError("a lane that is named twice")

    async def _read(self) -> None:
        await self._stream.deliver(lambda chunk: self.take(self._reader.feed(chunk)))

    async def _write(self) -> None:
        while True:
            if not self._queue:
                self._wake = trio.Event()
                await self._wake.wait()
            chunk = self._take()
            started_s = trio.current_time()
            self._is_writing = True
            with trio.fail_after(self._config.write_deadline_s):
                await self._stream.write(chunk)
            self._is_writing = False
            self._adapt(trio.current_time() - started_s)

    def _take(self) -> bytes:
        taken = [self._queue.popleft()]
        size = len(taken[0])
        while self._queue and size + len(self._queue[0]) <= self._write_bytes_max:
            frame = self._queue.popleft()
            size += len(frame)
            taken.append(frame)
        self.queued_bytes -= size
        if size > self._write_bytes_max:
            # A frame larger than what the link takes in a moment goes in parts.
            frame = taken[0]
            self._queue.appendleft(frame[self._write_bytes_max :])
            self.queued_bytes += size - self._write_bytes_max
            return frame[: self._write_bytes_max]
        return taken[0] if len(taken) == 1 else b"".join(taken)

    def _adapt(self, took_s: float) -> None:
        # On a slow link a write of 128 KiB would hold up the control lane for as long as it
        # takes; both share one connection.
        if took_s > _SLOW_WRITE_S:
            self._write_bytes_max = max(self._write_bytes_max // 2, _WRITE_BYTES_MIN)
        elif took_s < _FAST_WRITE_S:
            self._write_bytes_max = min(self._write_bytes_max * 2, self._config.write_bytes_max)


class RequestStream:
    """Questions and answers of both sides on one kept stream, told apart by number.

    A message is `kind u8 | number u32 | body`: a request carries its asker's number, an answer
    or refusal the number of the request that it answers.
    """

    def __init__(
        self,
        stream: INetStream,
        config: LaneConfig,
        *,
        peer: str,
        protocol: str,
        answer: Answer,
        on_fault: Callable[[str], None],
        outstanding_max: int,
        handlers_max: int,
    ) -> None:
        self.kept = KeptStream(stream, config, on_message=self._take)
        self._peer = peer
        self._protocol = protocol
        self._answer = answer
        self._on_fault = on_fault
        self._outstanding_max = outstanding_max
        self._handlers_max = handlers_max
        self._numbers = itertools.count(1)
        self._last_number = 0
        self._waiting: dict[int, _Waiting] = {}
        self._asked: deque[tuple[int, bytes]] = deque()
        self._handlers = 0
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """Serve until the stream ends; whoever waits for an answer then gets Unavailable."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await self.kept.run()
                nursery.cancel_scope.cancel()
        finally:
            self._nursery = None
            for waiting in self._waiting.values():
                waiting.error = Unavailable(f"the connection to {self._peer} ended")
                waiting.done.set()

    async def ask(self, data: bytes, timeout_s: float) -> bytes:
        """Return the peer's answer to `data`.

        Raises Unavailable (too many outstanding, full queue, no answer in time, connection
        ended) or RemoteError (the peer refused).
        """
        if len(self._waiting) >= self._outstanding_max:
            raise Unavailable(f"{len(self._waiting)} {self._protocol} requests are outstanding")
        number = next(self._numbers) & 0xFFFFFFFF
        if not self.kept.send(_HEAD.pack(_REQUEST, number) + data):
            raise Unavailable(f"the {self._protocol} stream to {self._peer} is full or has ended")
        self._last_number = number
        waiting = self._waiting[number] = _Waiting()
        try:
            with trio.move_on_after(timeout_s):
                await waiting.done.wait()
        finally:
            del self._waiting[number]
        if waiting.error is not None:
            raise waiting.error
        if waiting.answer is None:
            raise Unavailable(f"{self._peer} gave no {self._protocol} answer in {timeout_s:g} s")
        return waiting.answer

    def _take(self, message: bytes) -> None:
        if len(message) < _HEAD.size:
            raise DecodeError("a request of too few bytes")
        kind, number = _HEAD.unpack_from(message)
        body = message[_HEAD.size :]
        if kind == _REQUEST:
            self._take_request(number, body)
        elif kind in (_ANSWER, _REFUSED):
            if not 0 < number <= self._last_number:
                raise DecodeError("an answer to nothing")
            waiting = self._waiting.get(number)
            # An answer after its deadline finds nobody: dropped without blame.
            if waiting is not None:
                if kind == _ANSWER:
                    waiting.answer = body
                else:
                    reason = body[:200].decode("utf-8", "replace")
                    waiting.error = RemoteError(f"{self._peer} refused: {reason}")
                waiting.done.set()
        else:
            raise DecodeError(f"a request of kind {kind}")

    def _take_request(self, number: int, body: bytes) -> None:
        if len(self._asked) >= self._outstanding_max:
            self._send(_REFUSED, number, b"busy")
            return
        self._asked.append((number, body))
        if self._handlers < self._handlers_max and self._nursery is not None:
            self._handlers += 1
            self._nursery.start_soon(self._handle)

    async def _handle(self) -> None:
        try:
            while self._asked:
                number, body = self._asked.popleft()
                await self._handle_one(number, body)
        finally:
            self._handlers -= 1

    async def _handle_one(self, number: int, body: bytes) -> None:
        try:
            answer = await self._answer(self._peer, self._protocol, body)
        except RemoteError as error:
            self._on_fault(f"a bad {self._protocol} request: {error}")
            self._send(_REFUSED, number, b"malformed")
        except P2PCityError as error:
            self._send(_REFUSED, number, str(error).encode())
        except Exception:  # a task's root
            # Our own failure is ours to log, and no peer's business.
            _logger.exception("request_handler_failed", protocol=self._protocol, peer=self._peer)
            self._send(_REFUSED, number, b"internal")
        else:
            self._send(_ANSWER, number, answer)

    def _send(self, kind: int, number: int, body: bytes) -> None:
        self.kept.send(_HEAD.pack(kind, number) + body)


class _Waiting:
    """A request that waits for its answer."""

    __slots__ = ("answer", "done", "error")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.answer: bytes | None = None
        self.error: P2PCityError | None = None
