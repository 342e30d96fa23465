"""Networks on loopback for the tests of the net room: real libp2p, free ports, no sleeps."""

import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

import trio

from p2pcity.cli.testnet.making import free_ports
from p2pcity.crypto.keys import PrivateKey, peer_id
from p2pcity.net.config import NetConfig
from p2pcity.net.network import Handlers, Network
from p2pcity.wire import limits
from p2pcity.wire.hello import Hello, parameters_digest

NETWORK: Final = bytes.fromhex("c0ffee") + bytes(29)
PREFIX: Final = "/p2pcity/c0ffee00"
TOPIC: Final = f"{PREFIX}/transactions/1"
DEADLINE_S: Final = 60.0


_GIVEN: Final[deque[int]] = deque(maxlen=64)


def free_port() -> int:
    """Return a port that nobody listens on, and that no outgoing connection is given.

    Nor one that somebody else had lately from here: who asked for it may not listen yet.
    """
    [port] = free_ports(1, but=_GIVEN)
    _GIVEN.append(port)
    return port


@dataclass
class Place:
    """One node of a test: its key, its network, and what it got."""

    key: PrivateKey
    port: int
    config: NetConfig
    allowed: set[str] = field(default_factory=set)
    known: dict[str, tuple[str, ...]] = field(default_factory=dict)
    hello_network: bytes = NETWORK
    hello_parameters: bytes = field(default_factory=parameters_digest)
    raft: deque[tuple[str, bytes]] = field(default_factory=deque)
    gossip: deque[tuple[str, bytes]] = field(default_factory=deque)
    ups: list[tuple[str, bool]] = field(default_factory=list)
    on_raft: Callable[[str, bytes], bool | None] = lambda peer, data: None
    answer_gate: trio.Event | None = None
    network: Network = field(init=False)
    _changed: trio.Event = field(default_factory=trio.Event)
    _stop: trio.CancelScope | None = None

    def __post_init__(self) -> None:
        self.id = peer_id(self.key.public)
        self.make_network()

    def make_network(self) -> None:
        """Make the network anew, as a restarted process would."""
        self.network = Network(
            self.config,
            self.key,
            self.hello,
            self.allowed.__contains__,
            lambda: self.known,
            Handlers(self._take_raft, self._answer, self._take_gossip, self._note_peer),
        )

    @property
    def address(self) -> str:
        return f"/ip4/127.0.0.1/tcp/{self.port}/p2p/{self.id}"

    def hello(self) -> Hello:
        return Hello(
            network=self.hello_network,
            protocol=limits.PROTOCOL_VERSION,
            protocol_oldest=limits.PROTOCOL_VERSION_OLDEST,
            release="0.1.0",
            parameters=self.hello_parameters,
            incarnation=bytes(16),
            height=7,
            addresses=(self.address,),
            time_ms=int(time.time() * 1000),
        )

    def knows(self, *others: "Place") -> None:
        """Allow `others` and know where they are."""
        for other in others:
            self.allowed.add(other.id)
            self.known[other.id] = (other.address,)

    def _take_raft(self, peer: str, data: bytes) -> bool | None:
        self.raft.append((peer, data))
        self._note()
        return self.on_raft(peer, data)

    async def _take_gossip(self, peer: str, data: bytes) -> bool:
        self.gossip.append((peer, data))
        self._note()
        return not data.startswith(b"bad")

    def _note_peer(self, peer: str, is_up: bool) -> None:
        self.ups.append((peer, is_up))
        self._note()

    async def _answer(self, peer: str, protocol: str, data: bytes) -> bytes:
        if self.answer_gate is not None:
            await self.answer_gate.wait()
        return protocol.encode() + b":" + data

    def _note(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Wait until something that this place got makes `is_so` true, within the deadline."""
        with trio.fail_after(DEADLINE_S):
            while not is_so():
                # Most of what tests wait for wakes us; states inside the network do not.
                with trio.move_on_after(0.02):
                    await self._changed.wait()

    async def wait_peer(self, other: "Place") -> None:
        """Wait until `other` is connected with all streams."""
        with trio.fail_after(DEADLINE_S):
            await self.network.wait_connected(other.id)

    async def start(self, nursery: trio.Nursery) -> None:
        await nursery.start(self._run)

    async def _run(self, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        with trio.CancelScope() as self._stop:
            await self.network.run(task_status=task_status)

    def stop(self) -> None:
        assert self._stop is not None
        self._stop.cancel()


def make_places(count: int, **changes: object) -> list[Place]:
    """Return `count` places, in the order of their peer ids, that do not know each other yet."""
    keys = sorted((PrivateKey.generate() for _ in range(count)), key=lambda k: peer_id(k.public))
    places = []
    for key in keys:
        port = free_port()
        config = NetConfig(listen=(f"/ip4/127.0.0.1/tcp/{port}",), has_mdns=False)
        places.append(Place(key, port, replace(config, **changes)))  # type: ignore[arg-type]  # any
    return places


def introduce(places: list[Place]) -> None:
    """Let all places know each other."""
    for place in places:
        place.knows(*(other for other in places if other is not place))


@asynccontextmanager
async def _running(places: list[Place]) -> AsyncIterator[trio.Nursery]:
    async with trio.open_nursery() as nursery:
        for place in places:
            await place.start(nursery)
        yield nursery
        nursery.cancel_scope.cancel()


def running(*places: Place) -> AbstractAsyncContextManager[trio.Nursery]:
    """Run the networks of `places` for as long as the context lasts."""
    return _running(list(places))


async def connect_all(places: list[Place]) -> None:
    """Wait until each place is connected to each other one."""
    async with trio.open_nursery() as nursery:
        for place in places:
            for other in places:
                if other is not place:
                    nursery.start_soon(partial(place.wait_peer, other))


class Relay:
    """A TCP relay in front of a place, which can stop passing bytes on, as a stalled link does."""

    def __init__(self, target_port: int) -> None:
        self.port = free_port()
        self._target_port = target_port
        self._thawed = trio.Event()
        self._thawed.set()

    def freeze(self) -> None:
        """Hold back everything from now on; connections stay open."""
        self._thawed = trio.Event()

    async def run(self, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Relay until cancelled."""
        listeners = await trio.open_tcp_listeners(self.port, host="127.0.0.1")
        task_status.started()
        await trio.serve_listeners(self._relay, listeners)

    async def _relay(self, near: trio.SocketStream) -> None:
        far = await trio.open_tcp_stream("127.0.0.1", self._target_port)
        async with near, far, trio.open_nursery() as nursery:
            nursery.start_soon(self._pass_on, near, far, nursery.cancel_scope)
            nursery.start_soon(self._pass_on, far, near, nursery.cancel_scope)

    async def _pass_on(
        self, source: trio.SocketStream, sink: trio.SocketStream, cancel_scope: trio.CancelScope
    ) -> None:
        try:
            async for chunk in source:
                await self._thawed.wait()
                await sink.send_all(chunk)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        cancel_scope.cancel()
