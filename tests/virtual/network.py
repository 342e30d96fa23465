"""What `net.Network` is to the node, over the wires of a seed.

Kept streams with bounded queues, questions answered by at most four tasks a stream, gossip
judged in order by the task that reads it, a peer that is up from hello until its connection
ended: as the network room does it, by its own `NetConfig`.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from p2pcity.crypto import keys
from p2pcity.crypto.keys import PrivateKey
from p2pcity.errors import P2PCityError, RemoteError, Unavailable
from p2pcity.net.config import NetConfig
from p2pcity.net.network import Handlers
from p2pcity.net.peers import PeerInfo
from p2pcity.wire.hello import Hello
from tests.virtual.wires import Pipe

if TYPE_CHECKING:
    from tests.virtual.host import Host

LANES: Final = ("control", "bulk")
ASKED: Final = ("forward", "sync", "status")
STREAMS: Final = (*LANES, *ASKED, "gossip")
_SEEN_MAX: Final = 4096
_REQUEST, _ANSWER, _REFUSED = 0, 1, 2


class VirtualNetwork:
    """One life of a node on the wires."""

    def __init__(
        self,
        host: "Host",
        config: NetConfig,
        key: PrivateKey,
        hello: Callable[[], Hello],
        allowed: Callable[[str], bool],
        known_addresses: object,
        handlers: Handlers,
    ) -> None:
        self.host = host
        self.wires = host.wires
        self.config = config
        self.own = keys.peer_id(key.public)
        self.hello = hello
        self.is_allowed = allowed
        self.handlers = handlers
        self.active: dict[str, End] = {}
        self.ends: list[End] = []
        # Whether it vanished without a word: its machine lost power, or the wire its plug.
        self.is_silent = False
        self._up: dict[str, None] = {}
        self._coming: deque[End] = deque()
        self._bell = trio.Event()
        self._published = 0
        self._seen: dict[bytes, None] = {}
        self.dropped_count = 0

    @property
    def is_paused(self) -> bool:
        """Whether its process stands still."""
        return self.host.is_paused

    def connect(self, other: "VirtualNetwork") -> None:
        """A connection is made; called from outside."""
        for network, end in zip((self, other), Connection(self, other).ends, strict=True):
            network._coming.append(end)
            network._bell.set()

    def review(self) -> None:
        """The city has changed: cut off who is not in it any more, dial who is."""
        for end in list(self.ends):
            if not self.is_allowed(end.peer):
                end.close("not allowed any more")
        self.wires.look_around()

    async def run(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """`Network.run`."""
        self.wires.join(self)
        try:
            async with trio.open_nursery() as nursery:
                task_status.started()
                while True:
                    while self._coming:
                        end = self._coming.popleft()
                        if not end.is_ended:
                            nursery.start_soon(end.run)
                    self._bell = trio.Event()
                    await self._bell.wait()
        finally:
            self.wires.leave(self)
            for end in self._coming:
                end.connection.broken(end)

    def adopt(self, end: "End") -> None:
        """Hello is done: this connection is the one in use."""
        before = self.active.get(end.peer)
        self.active[end.peer] = end
        self.ends.append(end)
        if before is not None:
            before.close("replaced by another connection to the same peer")
        if end.peer not in self._up:
            self._up[end.peer] = None
            self.handlers.on_peer(end.peer, True)
        elif before is None or before.hello.incarnation != end.hello.incarnation:
            self.handlers.on_peer(end.peer, True)

    def drop(self, end: "End") -> None:
        """A connection has ended."""
        self.ends.remove(end)
        if self.active.get(end.peer) is end:
            del self.active[end.peer]
            self._up.pop(end.peer)
            self.handlers.on_peer(end.peer, False)
        self.wires.look_around()

    # -- what the node calls -----------------------------------------------------------------

    def send(self, peer: str, lane: str, data: bytes) -> bool:
        """`Network.send`."""
        if self.host.is_dead:
            return False
        self.host.sends(peer, data)
        end = self.active.get(peer)
        lane_config = self.config.control if lane == "control" else self.config.bulk
        if end is None or not end.put(lane, data, lane_config.queue_bytes_max):
            self.dropped_count += 1
            return False
        return True

    async def request(self, peer: str, protocol: str, data: bytes, timeout_s: float) -> bytes:
        """`Network.request`."""
        end = self.active.get(peer)
        if end is None:
            raise Unavailable(f"{peer} is not connected")
        return await end.ask(protocol, data, timeout_s)

    async def publish(self, data: bytes) -> None:
        """`Network.publish`."""
        await trio.lowlevel.checkpoint()
        self._published += 1
        name = f"{self.host.number}.{self.host.life}.{self._published}".encode()
        self._seen[name] = None
        self.pass_on(name, data)

    def pass_on(self, name: bytes, data: bytes, without: str = "") -> None:
        """Send a gossip message to the mesh; what does not fit is dropped."""
        message = bytes([len(name)]) + name + data
        for peer, end in self.active.items():
            if peer != without and self.wires.random.random() >= self.wires.gossip_loss:
                end.put("gossip", message, 512 * 64 * 1024)

    def is_new(self, name: bytes) -> bool:
        """Whether a gossip message comes for the first time."""
        if name in self._seen:
            return False
        self._seen[name] = None
        if len(self._seen) > _SEEN_MAX:
            del self._seen[next(iter(self._seen))]
        return True

    def penalise(self, peer: str, points: float = 0.0) -> None:
        """`Network.penalise`: no node here deserves it."""
        self.host.world.violate(AssertionError(f"{self.host} blames {peer}"))

    def is_connected(self, peer: str) -> bool:
        """`Network.is_connected`."""
        return peer in self._up

    def peers(self) -> tuple[PeerInfo, ...]:
        """`Network.peers`."""
        return tuple(
            PeerInfo(
                peer,
                "connected",
                is_connected=True,
                height=end.hello.height,
                incarnation=end.hello.incarnation,
            )
            for peer, end in self.active.items()
        )

    def statistics(self) -> dict[str, int]:
        """`Network.statistics`."""
        return {"connected": len(self._up), "dropped": self.dropped_count}

    def addresses(self) -> tuple[str, ...]:
        """`Network.addresses`."""
        return ()


class _Waiting:
    """A question that waits for its answer."""

    __slots__ = ("answer", "done", "error")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.answer: bytes | None = None
        self.error: P2PCityError | None = None


class End:
    """One node's side of a connection."""

    def __init__(
        self, connection: "Connection", network: VirtualNetwork, peer: str, hello: Hello
    ) -> None:
        self.connection = connection
        self.network = network
        self.own = network.own
        self.peer = peer
        self.hello = hello
        self.is_ended = False
        self.heard_s = trio.current_time()
        self.pipes: dict[str, Pipe] = {}
        self._inboxes: dict[str, deque[bytes]] = {name: deque() for name in STREAMS}
        self._bells = {name: trio.Event() for name in STREAMS}
        self._scope = trio.CancelScope()
        self._numbers = 0
        self._waiting: dict[int, _Waiting] = {}
        self._asked: dict[str, deque[tuple[int, bytes]]] = {name: deque() for name in ASKED}
        self._handlers = dict.fromkeys(ASKED, 0)

    def close(self, reason: str) -> None:
        """End it; from outside, or from the node."""
        if not self.is_ended:
            self.is_ended = True
            self.network.host.world.say("closed", self.network.host, self.peer[-4:], reason)
            self._scope.cancel()

    def arrive(self, stream: str, data: bytes) -> None:
        """Bytes came in; called from outside."""
        if not self.is_ended:
            self._inboxes[stream].append(data)
            self._bells[stream].set()

    def put(self, stream: str, data: bytes, queue_bytes_max: int) -> bool:
        """Send bytes unless the connection is over or too much waits."""
        pipe = self.pipes[stream]
        unread = self.connection.other(self)._inboxes[stream]
        if self.is_ended or pipe.size + sum(map(len, unread)) + len(data) > queue_bytes_max:
            return False
        if not self.connection.is_over and not self.network.host.is_dead:
            self.network.wires.send(pipe, data)
        return True

    async def run(self) -> None:
        """Read every stream until the connection ends."""
        network = self.network
        if self.connection.is_over:
            return
        network.adopt(self)
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    for lane in LANES:
                        nursery.start_soon(self._read, lane, self._take_raft)
                    for name in ASKED:
                        nursery.start_soon(
                            self._read, name, partial(self._take_asked, nursery, name)
                        )
                    nursery.start_soon(self._read_gossip)
                    await self._keep_alive()
        finally:
            self.is_ended = True
            self.connection.broken(self)
            network.drop(self)
            for waiting in self._waiting.values():
                waiting.error = Unavailable(f"the connection to {self.peer} ended")
                waiting.done.set()

    async def _read(self, stream: str, take: Callable[[bytes], None]) -> None:
        inbox = self._inboxes[stream]
        while True:
            while inbox:
                take(inbox.popleft())
            self._bells[stream] = trio.Event()
            await self._bells[stream].wait()

    def _take_raft(self, data: bytes) -> None:
        assert self.network.handlers.on_raft(self.peer, data) is not False, "a Raft message is bad"

    async def _read_gossip(self) -> None:
        network, inbox = self.network, self._inboxes["gossip"]
        while True:
            while inbox:
                message = inbox.popleft()
                name, data = message[1 : 1 + message[0]], message[1 + message[0] :]
                if network.is_new(name):
                    assert await network.handlers.on_gossip(self.peer, data), "gossip is rejected"
                    network.pass_on(name, data, without=self.peer)
            self._bells["gossip"] = trio.Event()
            await self._bells["gossip"].wait()

    async def _keep_alive(self) -> None:
        """Pings both ways, without sending them: what counts is who would hear them."""
        config, network = self.network.config, self.network
        way = network.wires.way(self.peer, self.own)
        due_s = trio.current_time()
        while True:
            due_s += config.ping_interval_s
            await trio.sleep_until(due_s)
            now_s = trio.current_time()
            peer = network.wires.networks.get(self.peer)
            is_heard = not self.connection.is_over and peer is not None and not peer.is_paused
            if is_heard and not way.cuts:
                self.heard_s = now_s
            if now_s - due_s > config.ping_interval_s:
                self.heard_s = max(self.heard_s, now_s - config.silence_s / 2)
                due_s = now_s
            if now_s - self.heard_s > config.silence_s:
                self.close(f"not heard for {config.silence_s:g} s")

    # -- questions ---------------------------------------------------------------------------

    async def ask(self, protocol: str, data: bytes, timeout_s: float) -> bytes:
        """`RequestStream.ask`."""
        config = self.network.config
        if len(self._waiting) >= config.requests_outstanding_max:
            raise Unavailable(f"{len(self._waiting)} {protocol} requests are outstanding")
        self._numbers += 1
        number = self._numbers
        message = bytes([_REQUEST]) + number.to_bytes(4, "big") + data
        if not self.put(protocol, message, config.requests.queue_bytes_max):
            raise Unavailable(f"the {protocol} stream to {self.peer} is full or has ended")
        waiting = self._waiting[number] = _Waiting()
        try:
            with trio.move_on_after(timeout_s):
                await waiting.done.wait()
        finally:
            del self._waiting[number]
        if waiting.error is not None:
            raise waiting.error
        if waiting.answer is None:
            raise Unavailable(f"{self.peer} gave no {protocol} answer in {timeout_s:g} s")
        return waiting.answer

    def _take_asked(self, nursery: trio.Nursery, protocol: str, message: bytes) -> None:
        kind, number, body = message[0], int.from_bytes(message[1:5], "big"), message[5:]
        if kind == _REQUEST:
            asked, config = self._asked[protocol], self.network.config
            if len(asked) >= config.requests_outstanding_max:
                self._answer(protocol, _REFUSED, number, b"busy")
                return
            asked.append((number, body))
            if self._handlers[protocol] < config.request_handlers_max:
                self._handlers[protocol] += 1
                nursery.start_soon(self._handle, protocol)
            return
        waiting = self._waiting.get(number)
        if waiting is not None:
            if kind == _ANSWER:
                waiting.answer = body
            else:
                waiting.error = RemoteError(f"{self.peer} refused: {body.decode()}")
            waiting.done.set()

    async def _handle(self, protocol: str) -> None:
        asked = self._asked[protocol]
        try:
            while asked:
                number, body = asked.popleft()
                try:
                    answer = await self.network.handlers.on_request(self.peer, protocol, body)
                except RemoteError as error:
                    raise AssertionError(f"an honest {protocol} request is blamed") from error
                except P2PCityError as error:
                    self._answer(protocol, _REFUSED, number, str(error).encode())
                else:
                    self._answer(protocol, _ANSWER, number, answer)
        finally:
            self._handlers[protocol] -= 1

    def _answer(self, protocol: str, kind: int, number: int, body: bytes) -> None:
        message = bytes([kind]) + number.to_bytes(4, "big") + body
        self.put(protocol, message, self.network.config.requests.queue_bytes_max)


class Connection:
    """Two ends and the pipes between them."""

    def __init__(self, one: VirtualNetwork, other: VirtualNetwork) -> None:
        self.wires = one.wires
        hellos = one.hello(), other.hello()
        self.ends = (End(self, one, other.own, hellos[1]), End(self, other, one.own, hellos[0]))
        self.is_over = False
        self.pipes: list[Pipe] = []
        for end, peer in (self.ends, self.ends[::-1]):
            way = self.wires.way(end.own, peer.own)
            for stream in STREAMS:
                pipe = Pipe(way, peer, stream)
                end.pipes[stream] = pipe
                self.pipes.append(pipe)

    def other(self, end: End) -> End:
        """The end on the other side."""
        return self.ends[1] if end is self.ends[0] else self.ends[0]

    def broken(self, end: End) -> None:
        """`end` is gone: the other side hears of it, if the way there is open."""
        if self.is_over:
            return
        self.is_over = True
        for pipe in self.pipes:
            pipe.flying.clear()
            pipe.size = 0
        other = self.other(end)
        way = self.wires.way(end.own, other.own)
        if not way.cuts and not end.network.is_silent:
            self.wires.world.after(way.latency_s, other.close, "the connection ended")
