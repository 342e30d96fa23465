"""The hello exchange over a stream in memory: who says what when, and whose hello counts."""

from dataclasses import replace
from typing import Any, cast

import trio
import trio.testing
from libp2p.abc import INetStream

from p2pcity.crypto.keys import peer_id
from p2pcity.net import hello as hello_exchange
from p2pcity.net.frames import WHOLE, FrameReader, encode_frame
from p2pcity.wire import hello as hello_wire
from p2pcity.wire.hello import Hello, HelloAnswer
from p2pcity.wire.limits import HELLO_BYTES_MAX
from tests.vectors_genesis import NODES, STRANGER
from tests.vectors_hello import MINE

OWN, PEER = NODES[:2]


class Stream:
    """What the exchange uses of a stream, over one of trio's."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def read(self) -> bytes:
        return bytes(await self._stream.receive_some(65536))

    async def write(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def close(self) -> None:
        await self._stream.aclose()


async def _exchange(
    theirs: bytes, mine: Hello = MINE
) -> tuple[hello_exchange.Outcome, list[bytes]]:
    """Dial a node that answers; what it makes of the hello `theirs`, and what it said."""
    near, far = trio.testing.memory_stream_pair()
    outcomes: list[hello_exchange.Outcome] = []

    async def welcome() -> None:
        stream = cast(INetStream, Stream(far))
        outcomes.append(await hello_exchange.welcome(stream, OWN, mine, peer_id(PEER.public)))
        await far.aclose()

    said: list[tuple[int, bytes]] = []
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(welcome)
            await near.send_all(encode_frame(WHOLE, theirs))
            reader = FrameReader(HELLO_BYTES_MAX)
            while len(said) < 2:
                said += reader.feed(bytes(await near.receive_some(65536)))
            await near.send_all(encode_frame(WHOLE, HelloAnswer(True).encode()))
    return outcomes[0], [body for _, body in said]


async def test_the_dialled_side_says_hello_and_then_its_answer() -> None:
    outcome, (first, second) = await _exchange(hello_wire.make(PEER, replace(MINE, height=7)))
    assert (outcome.reason, outcome.hello.height) == ("", 7)
    assert hello_wire.decode(first) == (OWN.public, MINE)
    assert HelloAnswer.decode(second) == HelloAnswer(True)


async def test_somebody_elses_hello_is_refused_before_all_else() -> None:
    """The hello of another node, replayed; its other network is not even mentioned."""
    replayed = hello_wire.make(STRANGER, replace(MINE, network=bytes(32)))
    outcome, (_, second) = await _exchange(replayed)
    assert (outcome.reason, outcome.is_ours) == (hello_exchange.WRONG_KEY, True)
    assert HelloAnswer.decode(second).reason == "wrong-key"


async def test_the_first_reason_is_told() -> None:
    changes: list[tuple[dict[str, Any], str]] = [
        ({"network": bytes(32), "parameters": bytes(32)}, "wrong-network"),
        ({"protocol": 1, "protocol_oldest": 1, "parameters": bytes(32)}, "protocol-too-old"),
        ({"parameters": bytes(32)}, "other-parameters"),
    ]
    for change, reason in changes:
        _, (_, second) = await _exchange(hello_wire.make(PEER, replace(MINE, **change)))
        assert HelloAnswer.decode(second).reason == reason
