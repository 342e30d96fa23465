"""Frames: what is written is read, however it is cut up; what is out of bounds is refused."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pcity.errors import DecodeError
from p2pcity.net.frames import (
    BODY_BYTES_MAX,
    LANE,
    LAST,
    PIECE,
    PING,
    PONG,
    WHOLE,
    FrameReader,
    VarintReader,
    encode_frame,
    encode_message,
)
from p2pcity.wire.limits import BULK_PIECE_BYTES_MAX

MESSAGE_MAX = 4 * BULK_PIECE_BYTES_MAX


def feed(reader: FrameReader, data: bytes, step: int) -> list[tuple[int, bytes]]:
    found = []
    for start in range(0, len(data), step):
        found += reader.feed(data[start : start + step])
    return found


def test_a_frame_is_length_kind_body() -> None:
    assert encode_frame(WHOLE, b"abc") == bytes.fromhex("00000004 00 616263")
    assert encode_frame(PING, bytes(8)) == bytes.fromhex("00000009 03") + bytes(8)


@pytest.mark.parametrize("step", [1, 3, 4, 5, 1000])
def test_small_messages_survive_any_cut(step: int) -> None:
    messages = [b"", b"a", b"bc" * 50, bytes(300)]
    data = b"".join(frame for message in messages for frame in encode_message(message))
    data += encode_frame(PONG, b"12345678") + encode_frame(LANE, b"bulk")
    expected = [(WHOLE, message) for message in messages]
    expected += [(PONG, b"12345678"), (LANE, b"bulk")]
    assert feed(FrameReader(MESSAGE_MAX), data, step) == expected


@pytest.mark.parametrize(
    "size",
    [BODY_BYTES_MAX - 1, BODY_BYTES_MAX, BODY_BYTES_MAX + 1, 2 * BODY_BYTES_MAX, MESSAGE_MAX],
)
def test_large_messages_go_in_pieces(size: int) -> None:
    message = bytes(range(256)) * (size // 256 + 1)
    message = message[:size]
    frames = encode_message(message)
    assert all(len(frame) <= 4 + BULK_PIECE_BYTES_MAX for frame in frames)
    assert len(frames) == max(1, -(-size // BODY_BYTES_MAX))
    assert feed(FrameReader(MESSAGE_MAX), b"".join(frames), 65536) == [(WHOLE, message)]


def test_a_ping_may_stand_between_pieces() -> None:
    first, last = encode_message(bytes(BODY_BYTES_MAX + 1))
    found = FrameReader(MESSAGE_MAX).feed(first + encode_frame(PING, bytes(8)) + last)
    assert found == [(PING, bytes(8)), (WHOLE, bytes(BODY_BYTES_MAX + 1))]


@given(st.lists(st.binary(max_size=200), max_size=20), st.integers(1, 64))
def test_any_messages_survive_any_cut(messages: list[bytes], step: int) -> None:
    data = b"".join(frame for message in messages for frame in encode_message(message))
    found = feed(FrameReader(MESSAGE_MAX), data, step)
    assert found == [(WHOLE, message) for message in messages]


@given(st.binary(max_size=300))
def test_any_bytes_give_messages_or_a_decode_error(data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        FrameReader(MESSAGE_MAX).feed(data)


FULL = bytes(BODY_BYTES_MAX)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("an empty frame", bytes(4)),
        ("one byte too long", (BULK_PIECE_BYTES_MAX + 1).to_bytes(4, "big")),
        ("2^32 - 1 bytes", b"\xff\xff\xff\xff"),
        ("an unknown kind", encode_frame(9, b"")),
        ("a ping of seven bytes", encode_frame(PING, bytes(7))),
        ("a lane without a name", encode_frame(LANE, b"")),
        ("a lane with a long name", encode_frame(LANE, bytes(17))),
        ("a piece that is not full", encode_frame(PIECE, b"x")),
        ("an empty piece", encode_frame(PIECE, b"")),
        ("an empty last piece", encode_frame(PIECE, FULL) + encode_frame(LAST, b"")),
        ("a whole one between pieces", encode_frame(PIECE, FULL) + encode_frame(WHOLE, b"x")),
        ("a message without an end", encode_frame(PIECE, FULL) * 5),
    ],
)
def test_what_is_out_of_bounds_is_refused(name: str, data: bytes) -> None:
    with pytest.raises(DecodeError):
        FrameReader(MESSAGE_MAX).feed(data)


def test_a_whole_message_above_the_bound_is_refused() -> None:
    with pytest.raises(DecodeError) as raised:
        FrameReader(100).feed(encode_frame(WHOLE, bytes(101)))
    assert raised.value.reason == "size"


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
def test_varint_frames_survive_any_cut(step: int) -> None:
    frames = [b"", b"a", bytes(127), bytes(128), bytes(300)]
    data = b"".join(_varint(len(frame)) + frame for frame in frames)
    reader = VarintReader(1000)
    found = []
    for start in range(0, len(data), step):
        found += reader.feed(data[start : start + step])
    assert found == frames


@pytest.mark.parametrize(
    "data", [b"\xe9\x07", b"\xff" * 9 + b"\x01", b"\x80" * 10, b"\xff" * 20], ids=bytes.hex
)
def test_varint_lengths_have_a_bound(data: bytes) -> None:
    with pytest.raises(DecodeError):
        VarintReader(1000).feed(data)


def test_a_truncated_varint_waits() -> None:
    assert VarintReader(1000).feed(b"\x80") == []


def _varint(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
