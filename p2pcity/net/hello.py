"""The hello exchange on a new connection (protocol `/p2pcity/hello/1`).

The side that dialled sends its hello; the other answers with its own hello and its answer to
the first; the dialling side closes with its answer. Each is one WHOLE frame. Both sides judge:
wrong network, versions, parameters, and a key that is not the connection's.
"""

from dataclasses import dataclass
from typing import Final

import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol

from p2pcity.crypto.keys import PrivateKey, peer_id
from p2pcity.errors import DecodeError
from p2pcity.net.frames import WHOLE, FrameReader, encode_frame
from p2pcity.wire import hello as hello_wire
from p2pcity.wire.hello import Hello, HelloAnswer
from p2pcity.wire.limits import HELLO_BYTES_MAX

PROTOCOL: Final = TProtocol("/p2pcity/hello/1")
WRONG_KEY: Final = "wrong-key"
_FAREWELL_S: Final = 1.0
_JOIN_ANEW: Final = (
    "a node of the older one joins anew: p2pcity init in an empty directory, then p2pcity raft add "
    "with its node.card on a node of the newer one"
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How hello went: the peer's hello, and a reason when one side refused.

    `is_ours` says that this node refused; otherwise the peer did.
    """

    hello: Hello
    reason: str = ""
    detail: str = ""
    is_ours: bool = True


async def greet(stream: INetStream, key: PrivateKey, mine: Hello, peer: str) -> Outcome:
    """Say hello first, as the side that dialled; raises DecodeError for what is no hello."""
    frames = _Frames(stream)
    await frames.send(hello_wire.make(key, mine))
    theirs = await frames.receive()
    their_answer = HelloAnswer.decode(await frames.receive())
    hello, answer = _judge(mine, theirs, peer)
    await frames.send(answer.encode())
    await stream.close()
    return _outcome(hello, answer, their_answer)


async def welcome(stream: INetStream, key: PrivateKey, mine: Hello, peer: str) -> Outcome:
    """Answer a hello, as the side that was dialled; raises DecodeError for what is no hello."""
    frames = _Frames(stream)
    hello, answer = _judge(mine, await frames.receive(), peer)
    await frames.send(hello_wire.make(key, mine))
    await frames.send(answer.encode())
    if answer.is_ok:
        return _outcome(hello, answer, HelloAnswer.decode(await frames.receive()))
    # Refused already; but the peer should have read why before the connection goes.
    with trio.move_on_after(_FAREWELL_S):
        await frames.receive()
    return _outcome(hello, answer, answer)


def _judge(mine: Hello, data: bytes, peer: str) -> tuple[Hello, HelloAnswer]:
    public, theirs = hello_wire.decode(data)
    if peer_id(public) != peer:
        # Somebody else's hello, replayed.
        return theirs, HelloAnswer(False, WRONG_KEY, f"the hello is signed by {peer_id(public)}")
    reason = hello_wire.judge(mine, theirs)
    if reason is None:
        return theirs, HelloAnswer(True)
    return theirs, HelloAnswer(False, reason, _detail(reason, mine, theirs))


def _detail(reason: str, mine: Hello, theirs: Hello) -> str:
    if reason == hello_wire.WRONG_NETWORK:
        return f"this node is in network {mine.network.hex()}, not {theirs.network.hex()}"
    if reason == hello_wire.OTHER_PARAMETERS:
        return f"the limits of protocol/parameters.toml differ: {_releases(mine, theirs)}"
    if reason == hello_wire.OLDER_EPOCH:
        return (
            f"epoch {mine.epoch} has begun without this node of epoch {theirs.epoch}; {_JOIN_ANEW}"
        )
    if reason == hello_wire.NEWER_EPOCH:
        return f"the peer is in epoch {theirs.epoch}, this node in {mine.epoch}; {_JOIN_ANEW}"
    return (
        f"this node speaks protocol {mine.protocol_oldest} to {mine.protocol}, "
        f"not {theirs.protocol_oldest} to {theirs.protocol}: {_releases(mine, theirs)}"
    )


def _releases(mine: Hello, theirs: Hello) -> str:
    return (
        f"this node runs release {mine.release}, the peer {theirs.release}; upgrade the older one"
    )


def _outcome(hello: Hello, mine: HelloAnswer, theirs: HelloAnswer) -> Outcome:
    if not mine.is_ok:
        return Outcome(hello, mine.reason, mine.detail)
    if not theirs.is_ok:
        return Outcome(hello, theirs.reason or "refused", theirs.detail, is_ours=False)
    return Outcome(hello)


class _Frames:
    """Whole frames on a stream that carries a handful of them."""

    def __init__(self, stream: INetStream) -> None:
        self._stream = stream
        self._reader = FrameReader(HELLO_BYTES_MAX)
        self._found: list[bytes] = []

    async def send(self, message: bytes) -> None:
        await self._stream.write(encode_frame(WHOLE, message))

    async def receive(self) -> bytes:
        while not self._found:
            chunk = await self._stream.read()
            if not chunk:
                raise DecodeError("the stream ended in the middle of hello")
            for kind, body in self._reader.feed(chunk):
                if kind != WHOLE:
                    raise DecodeError(f"a frame of kind {kind} in hello")
                self._found.append(body)
        return self._found.pop(0)
