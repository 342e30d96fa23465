"""Yamux frames as they may come: cut anywhere, with every flag, beyond every bound; and what goes.

The other side is written by hand, frame by frame (hashicorp/yamux, spec.md); the session below
carries bytes as they are, without Noise.
"""

import struct
from collections.abc import Sequence

import pytest
import trio
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamError, MuxedStreamReset
from trio.testing import MockClock, wait_all_tasks_blocked

from p2pcity.errors import DecodeError
from p2pcity.net.muxing import CityStream, CityYamux

DATA, WINDOW, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8
WINDOW_BYTES = 256 * 1024
UNREAD_BYTES_MAX = 100_000


def frame(kind: int, number: int, body: bytes | int = b"", flags: int = 0) -> bytes:
    length, data = (body, b"") if isinstance(body, int) else (len(body), body)
    return struct.pack("!BBHII", 0, kind, flags, number, length) + data


class Socket:
    def __init__(self) -> None:
        self.is_aborted = False

    def abort(self) -> None:
        self.is_aborted = True


class HandSession:
    """`net.session.Session` with a test at the other end."""

    is_initiator = True

    def __init__(self) -> None:
        self.socket = Socket()
        self.sent = bytearray()
        self._put, self._get = trio.open_memory_channel[bytes](10_000)

    async def receive(self) -> bytes:
        return await self._get.receive()

    async def write(self, data: bytes) -> None:
        self.sent += data

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()

    async def give(self, *pieces: bytes) -> None:
        for piece in pieces:
            self._put.send_nowait(piece)
        await wait_all_tasks_blocked()

    def frames(self) -> list[tuple[int, int, int, int]]:
        """(kind, flags, stream, length) of all that was sent."""
        found, at = [], 0
        while at < len(self.sent):
            _, kind, flags, number, length = struct.unpack_from("!BBHII", self.sent, at)
            at += 12 + (length if kind == DATA else 0)
            found.append((kind, flags, number, length))
        self.sent.clear()
        return found


class Case:
    def __init__(self, nursery: trio.Nursery) -> None:
        self.session = HandSession()
        self.muxed = CityYamux(
            self.session,  # type: ignore[arg-type]  # it has what a session has
            ID(b"peer"),
            UNREAD_BYTES_MAX,
        )
        nursery.start_soon(self.muxed.start)

    async def open(self, number: int = 2, *, flags: int = 0) -> CityStream:
        await self.session.give(frame(WINDOW, number, 0, SYN | flags))
        stream = await self.muxed.accept_stream()
        assert isinstance(stream, CityStream)
        self.session.frames()
        return stream

    async def end(self) -> None:
        await self.session.give(b"")
        assert self.muxed.is_closed


def cut(data: bytes, size: int) -> Sequence[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1, 5, 12, 13, 1000])
async def test_frames_may_be_cut_anywhere(nursery: trio.Nursery, size: int) -> None:
    case = Case(nursery)
    stream = await case.open()
    text = bytes(range(256)) * 3
    sent = b"".join(frame(DATA, 2, piece) for piece in cut(text, 100)) + frame(DATA, 2, b"", FIN)
    await case.session.give(*cut(sent, size))
    got = b""
    while len(got) < len(text):
        got += await stream.read(70)
    assert got == text
    with pytest.raises(MuxedStreamEOF):
        await stream.read()
    await case.end()


async def test_a_stream_that_is_opened_with_data_is_acknowledged(nursery: trio.Nursery) -> None:
    case = Case(nursery)
    await case.session.give(frame(DATA, 4, b"hello", SYN))
    stream = await case.muxed.accept_stream()
    assert await stream.read() == b"hello"
    assert case.session.frames() == [(WINDOW, ACK, 4, 0)]
    # The same number again is somebody else's stream: the second is refused.
    await case.session.give(frame(WINDOW, 4, 0, SYN))
    assert case.session.frames() == [(WINDOW, RST, 4, 0)]
    await case.end()


@pytest.mark.parametrize("kind", [DATA, WINDOW])
async def test_a_reset_wakes_whoever_reads_and_whoever_writes(
    nursery: trio.Nursery, kind: int
) -> None:
    case = Case(nursery)
    stream = await case.open()
    ends: list[Exception] = []

    async def note(step: str) -> None:
        try:
            await (stream.read() if step == "read" else stream.write(bytes(WINDOW_BYTES + 1)))
        except MuxedStreamError as error:
            ends.append(error)

    nursery.start_soon(note, "read")
    nursery.start_soon(note, "write")
    await wait_all_tasks_blocked()
    assert ends == []
    await case.session.give(frame(kind, 2, 0, RST))
    assert {type(error) for error in ends} == {MuxedStreamReset, MuxedStreamError}
    await case.end()


async def test_no_more_is_written_than_the_peer_gives_credit_for(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    case = Case(nursery)
    stream = await case.open()
    nursery.start_soon(stream.write, bytes(WINDOW_BYTES + 10))
    await wait_all_tasks_blocked()
    assert sum(length for *_, length in case.session.frames()) == WINDOW_BYTES
    nursery.start_soon(stream.write, bytes(20))
    await case.session.give(frame(WINDOW, 2, 4))
    assert case.session.frames() == [(DATA, 0, 2, 4)]
    await case.session.give(frame(WINDOW, 2, 100))
    # Both go on, whichever of them had the four bytes.
    assert sum(length for *_, length in case.session.frames()) == 10 + 20 - 4
    with pytest.raises(MuxedStreamError, match="no credit in 5 s"):
        await stream.write(bytes(WINDOW_BYTES))
    await case.end()


async def test_what_is_delivered_comes_in_order_and_brings_credit(nursery: trio.Nursery) -> None:
    case = Case(nursery)
    stream = await case.open()
    await case.session.give(frame(DATA, 2, b"early"))
    got: list[bytes] = []
    ends: list[Exception] = []

    async def take() -> None:
        try:
            await stream.deliver(got.append)
        except MuxedStreamEOF as error:
            ends.append(error)

    nursery.start_soon(take)
    await wait_all_tasks_blocked()
    assert got == [b"early"]
    for _ in range(4):
        await case.session.give(frame(DATA, 2, bytes(50_000)))
    [(kind, _, number, credit)] = case.session.frames()
    assert (kind, number) == (WINDOW, 2)
    assert credit >= WINDOW_BYTES // 2
    assert len(b"".join(got)) == 200_005
    assert stream.traffic == (200_005, 0)
    await case.session.give(frame(DATA, 2, b"last", FIN))
    assert got[-1] == b"last"
    assert len(ends) == 1
    await case.end()


async def test_who_takes_what_is_delivered_may_fail_and_the_connection_goes_on(
    nursery: trio.Nursery,
) -> None:
    case = Case(nursery)
    stream, other = await case.open(2), await case.open(4)
    ends: list[Exception] = []

    def refuse(_: bytes) -> None:
        raise DecodeError("not what was agreed")

    async def take() -> None:
        try:
            await stream.deliver(refuse)
        except DecodeError as error:
            ends.append(error)

    nursery.start_soon(take)
    await wait_all_tasks_blocked()
    await case.session.give(frame(DATA, 2, b"x") + frame(DATA, 2, b"y") + frame(DATA, 4, b"z"))
    assert len(ends) == 1
    assert await other.read() == b"z"
    await case.end()


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"\x01" + frame(WINDOW, 2, 0)[1:], id="another version"),
        pytest.param(frame(7, 2, 0), id="another kind"),
        pytest.param(frame(DATA, 2, UNREAD_BYTES_MAX + 1), id="more than is kept"),
        pytest.param(
            frame(DATA, 2, bytes(60_000)) + frame(DATA, 2, 60_000), id="more than is kept, in two"
        ),
    ],
)
async def test_what_breaks_the_rules_ends_the_connection(
    nursery: trio.Nursery, sent: bytes
) -> None:
    case = Case(nursery)
    stream = await case.open()
    await case.session.give(sent)
    assert case.muxed.is_closed
    assert case.session.socket.is_aborted
    assert "DecodeError" in case.muxed.failure
    with pytest.raises((MuxedStreamEOF, MuxedStreamReset)):
        await stream.read()


async def test_data_for_no_stream_is_passed_over(nursery: trio.Nursery) -> None:
    case = Case(nursery)
    stream = await case.open()
    await case.session.give(
        frame(DATA, 6, b"nobody") + frame(WINDOW, 6, 5) + frame(WINDOW, 6, 0, FIN)
    )
    await case.session.give(frame(DATA, 2, b"somebody"))
    assert await stream.read() == b"somebody"
    await case.end()


async def test_pings_are_answered_and_go_away_ends_it(nursery: trio.Nursery) -> None:
    case = Case(nursery)
    await case.open()
    await case.session.give(frame(PING, 0, 77, SYN))
    assert case.session.frames() == [(PING, ACK, 0, 77)]
    await case.session.give(frame(GO_AWAY, 0, 0))
    assert case.muxed.is_closed
    assert not case.session.socket.is_aborted


async def test_both_sides_close_and_nothing_is_left(nursery: trio.Nursery) -> None:
    case = Case(nursery)
    for number in range(2, 2000, 2):
        stream = await case.open(number)
        await case.session.give(frame(DATA, number, b"x", FIN))
        assert await stream.read() == b"x"
        await stream.close()
    assert (len(case.muxed.streams), len(case.muxed.stream_buffers)) == (0, 0)
    own = [await case.muxed.open_stream() for _ in range(3)]
    assert [stream.stream_id for stream in own] == [1, 3, 5]
    for opened in own:
        await opened.reset()
    assert not case.muxed.streams
    await case.end()
