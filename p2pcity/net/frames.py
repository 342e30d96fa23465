"""How messages lie on a kept stream: frames with a length and a kind, large ones in pieces.

A frame is `length u32 big-endian | kind u8 | body`, the length counting kind and body and at
most 128 KiB (BULK_PIECE_BYTES_MAX). A message that fits is one WHOLE frame; a larger one is any
number of PIECE frames and one LAST frame, in order and with nothing but PING and PONG between
them. Pure: bytes in, messages out.
"""

import struct
from typing import Final

from p2pcity.errors import DecodeError
from p2pcity.wire.limits import BULK_PIECE_BYTES_MAX

WHOLE: Final = 0
PIECE: Final = 1
LAST: Final = 2
PING: Final = 3
PONG: Final = 4
LANE: Final = 5

_HEAD = struct.Struct(">IB")
_LENGTH_BYTES: Final = 4
BODY_BYTES_MAX: Final = BULK_PIECE_BYTES_MAX - 1
PING_BYTES: Final = 8
LANE_BYTES_MAX: Final = 16
_VARINT_BYTES_MAX: Final = 10


def encode_frame(kind: int, body: bytes) -> bytes:
    """Return one frame; `body` is at most BODY_BYTES_MAX bytes."""
    assert len(body) <= BODY_BYTES_MAX, "messages are cut by encode_message"
    return _HEAD.pack(len(body) + 1, kind) + body


def encode_message(message: bytes) -> list[bytes]:
    """Return the frames that carry `message`, in order."""
    if len(message) <= BODY_BYTES_MAX:
        return [encode_frame(WHOLE, message)]
    frames = []
    for start in range(0, len(message), BODY_BYTES_MAX):
        piece = message[start : start + BODY_BYTES_MAX]
        is_last = start + BODY_BYTES_MAX >= len(message)
        frames.append(encode_frame(LAST if is_last else PIECE, piece))
    return frames


class FrameReader:
    """Takes a stream's bytes as they come and gives complete messages.

    `feed` returns (kind, body) with kind WHOLE (pieces put together), PING, PONG or LANE. A
    length, a kind or a message beyond the bounds raises DecodeError before anything of that
    size is kept; the stream is of no use afterwards.
    """

    def __init__(self, message_bytes_max: int) -> None:
        self._message_bytes_max = message_bytes_max
        self._buffer = bytearray()
        self._pieces: list[bytes] = []
        self._pieces_bytes = 0

    def feed(self, chunk: bytes) -> list[tuple[int, bytes]]:
        """Return the messages that `chunk` completes; raises DecodeError."""
        buffer = self._buffer
        buffer += chunk
        found: list[tuple[int, bytes]] = []
        offset = 0
        available = len(buffer)
        while available - offset >= _LENGTH_BYTES:
            length = int.from_bytes(buffer[offset : offset + _LENGTH_BYTES], "big")
            if not 0 < length <= BULK_PIECE_BYTES_MAX:
                raise DecodeError(f"a frame of {length} bytes", reason="size")
            end = offset + _LENGTH_BYTES + length
            if end > available:
                break
            kind = buffer[offset + _LENGTH_BYTES]
            body = bytes(buffer[offset + _LENGTH_BYTES + 1 : end])
            offset = end
            self._take(kind, body, found)
        if offset:
            del buffer[:offset]
        return found

    def _take(self, kind: int, body: bytes, found: list[tuple[int, bytes]]) -> None:
        if kind == WHOLE and not self._pieces:
            if len(body) > self._message_bytes_max:
                raise DecodeError(f"a message of {len(body)} bytes", reason="size")
            found.append((WHOLE, body))
        elif kind in (PIECE, LAST):
            self._pieces_bytes += len(body)
            if self._pieces_bytes > self._message_bytes_max:
                raise DecodeError(f"a message above {self._message_bytes_max} bytes", reason="size")
            if len(body) < BODY_BYTES_MAX and (kind == PIECE or not body):
                # A flood of empty pieces would grow the list and never the byte count.
                raise DecodeError("a piece that is not full")
            self._pieces.append(body)
            if kind == LAST:
                found.append((WHOLE, b"".join(self._pieces)))
                self._pieces = []
                self._pieces_bytes = 0
        elif _is_small_frame(kind, body):
            found.append((kind, body))
        else:
            raise DecodeError(f"a frame of kind {kind} with {len(body)} bytes is out of place")


def _is_small_frame(kind: int, body: bytes) -> bool:
    if kind == LANE:
        return 0 < len(body) <= LANE_BYTES_MAX
    return kind in (PING, PONG) and len(body) == PING_BYTES


class VarintReader:
    """Splits a byte stream into frames with an unsigned LEB128 length, as libp2p's pubsub does."""

    def __init__(self, frame_bytes_max: int) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the frames that `chunk` completes; raises DecodeError."""
        buffer = self._buffer
        buffer += chunk
        found = []
        offset = 0
        while (head := self._read_length(offset)) is not None:
            length, start = head
            if len(buffer) - start < length:
                break
            found.append(bytes(buffer[start : start + length]))
            offset = start + length
        if offset:
            del buffer[:offset]
        return found

    def _read_length(self, offset: int) -> tuple[int, int] | None:
        length = 0
        for index in range(_VARINT_BYTES_MAX):
            if offset + index >= len(self._buffer):
                return None
            byte = self._buffer[offset + index]
            length |= (byte & 0x7F) << (7 * index)
            if length > self._frame_bytes_max:
                raise DecodeError(f"a frame of {length} bytes", reason="size")
            if not byte & 0x80:
                return length, offset + index + 1
        raise DecodeError("a length of more than ten bytes")
