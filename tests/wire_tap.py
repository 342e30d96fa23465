"""Notes everything that nodes of this process read from one another, where it is taken apart.

A tap stands between the frames (protocol/04-gossip.md, "Streams") and the code that judges what
is in them: what it has is what really travelled, through Noise, streams and pieces.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Final

import pytest
import trio

from p2pcity.net import hello as hello_exchange
from p2pcity.net.connections import Connections
from p2pcity.net.network import Network
from p2pcity.net.streams import RequestStream
from p2pcity.wire import cbor

_REQUEST, _ANSWER = 0, 1
_HEAD_BYTES: Final = 5


@dataclass
class WireTap:
    """Distinct messages by kind: `raft vote`, `sync fetch`, `forward answer`, `gossip batch`...

    `lanes` are those on which Raft messages of each type were sent.
    """

    messages: dict[str, set[bytes]] = field(default_factory=dict)
    lanes: dict[str, set[str]] = field(default_factory=dict)
    _changed: trio.Event = field(default_factory=trio.Event)

    def note(self, kind: str, data: bytes) -> None:
        """Keep a message and wake whoever waits."""
        self.messages.setdefault(kind, set()).add(data)
        self._changed.set()
        self._changed = trio.Event()

    async def wait_until(self, is_so: Callable[[], bool], deadline_s: float = 30.0) -> None:
        """Wait until what was said makes `is_so` true."""
        with trio.fail_after(deadline_s):
            while not is_so():
                # Nodes talk all the time; the bound is for what changes between two messages.
                with trio.move_on_after(0.05):
                    await self._changed.wait()

    async def wait_for(self, *kinds: str) -> None:
        """Wait until each of these kinds was read."""
        try:
            await self.wait_until(lambda: self.messages.keys() >= set(kinds))
        except trio.TooSlowError:
            pytest.fail(f"nobody said {sorted(set(kinds) - self.messages.keys())}")


def _named(data: bytes, key: str) -> str:
    fields: Any = cbor.decode(data)
    return str(fields[key])


def open_tap(monkeypatch: pytest.MonkeyPatch) -> WireTap:
    """Tap all networks of this process that start after this."""
    tap = WireTap()

    def tapped(place: type, name: str, note: Callable[..., None]) -> None:
        original = getattr(place, name)

        @wraps(original)
        def noting(self: Any, *arguments: Any) -> Any:
            note(self, *arguments)
            return original(self, *arguments)

        monkeypatch.setattr(place, name, noting)

    def note_raft(_: Connections, link: object, data: bytes) -> None:
        tap.note(f"raft {_named(data, 'type')}", data)

    def note_lane(_: Network, peer: str, lane: str, data: bytes) -> None:
        tap.lanes.setdefault(_named(data, "type"), set()).add(lane)

    def note_gossip(_: Network, peer: str, data: bytes) -> None:
        tap.note("gossip batch", data)

    def note_request(stream: RequestStream, message: bytes) -> None:
        protocol, body = stream._protocol, message[_HEAD_BYTES:]
        if message[0] not in (_REQUEST, _ANSWER):
            tap.note(f"{protocol} refused", body)
        elif protocol == "forward":
            tap.note(f"forward {'request' if message[0] == _REQUEST else 'answer'}", body)
        else:
            # Both protocols carry the messages of sync.cddl.
            tap.note(f"sync {_named(body, 'kind')}", body)

    tapped(Connections, "_take_raft", note_raft)
    tapped(Network, "send", note_lane)
    tapped(Network, "_take_gossip", note_gossip)
    tapped(RequestStream, "_take", note_request)
    receive = hello_exchange._Frames.receive

    async def receive_and_note(self: hello_exchange._Frames) -> bytes:
        data = await receive(self)
        # A hello begins with the tag of COSE_Sign1, an answer with the head of a map.
        tap.note("hello hello" if data[:1] == b"\xd2" else "hello answer", data)
        return data

    monkeypatch.setattr(hello_exchange._Frames, "receive", receive_and_note)
    return tap
