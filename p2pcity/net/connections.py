"""What happens on a connection: hello, the kept streams, heartbeats, and its end.

A connection that completed hello and is the one in use makes its peer "up". Then two Raft lanes
and a stream for each kind of request are opened on it, all by the side that dialled: hello is
that side's to begin too, so there is no waiting for each other. A stream that fails takes its
connection with it, so that a pair is either whole or down.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

import structlog
import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.exceptions import BaseLibp2pError
from libp2p.network.stream.net_stream import NetStream

from p2pcity.crypto.keys import PrivateKey
from p2pcity.errors import DecodeError
from p2pcity.net import hello as hello_exchange
from p2pcity.net.config import NetConfig
from p2pcity.net.frames import LANE, PING, FrameReader
from p2pcity.net.gossip import CityPubsub
from p2pcity.net.hello import Outcome
from p2pcity.net.host import CityHost
from p2pcity.net.links import Link, Links
from p2pcity.net.pacing import OncePer
from p2pcity.net.peers import PeerBook
from p2pcity.net.streams import KeptStream, RequestStream
from p2pcity.wire.hello import Hello

Lane = Literal["control", "bulk"]
RequestProtocol = Literal["forward", "sync", "status"]
LANES: Final[tuple[Lane, ...]] = ("control", "bulk")
REQUEST_PROTOCOLS: Final[tuple[RequestProtocol, ...]] = ("forward", "sync", "status")

_FAULT_POINTS: Final = 25.0
PENALTY_POINTS: Final = 10.0
_LOG_INTERVAL_S: Final = 60.0
_LANE_DEADLINE_S: Final = 5.0
_FAREWELL_S: Final = 1.0
_RTT_NS_MAX: Final = 60 * 10**9


_logger = structlog.get_logger("p2pcity.net")


@dataclass(frozen=True, slots=True)
class Handlers:
    """What the node does with what peers send.

    All but `on_request` are called synchronously, from the reader of a stream, and must not
    take long. `on_peer` with True comes again when a newer connection, which takes over, names
    another incarnation. `on_raft` returning False and `on_gossip` returning False blame the
    peer, as does a RemoteError from `on_request`; other P2PCityErrors from it become a refusal
    with a reason.
    """

    on_raft: Callable[[str, bytes], bool | None]
    on_request: Callable[[str, str, bytes], Awaitable[bytes]]
    on_gossip: Callable[[str, bytes], Awaitable[bool]]
    on_peer: Callable[[str, bool], None]


class Connections:
    """All connections of a node, from their handshake to their end."""

    def __init__(
        self,
        config: NetConfig,
        key: PrivateKey,
        hello: Callable[[], Hello],
        handlers: Handlers,
        book: PeerBook,
        own: str,
    ) -> None:
        self._config = config
        self._key = key
        self._hello = hello
        self._handlers = handlers
        self._book = book
        self._once = OncePer(_LOG_INTERVAL_S)
        self._waiting: list[tuple[str, trio.Event]] = []
        self._nursery: trio.Nursery | None = None
        self._host: CityHost | None = None
        self._pubsub: CityPubsub | None = None
        self._prefix = ""
        self.links = Links(own, self._start_link)
        self.up: set[str] = set()
        self.fault_count = 0

    def attach(self, host: CityHost, pubsub: CityPubsub, prefix: str) -> None:
        """Take up the host's streams; `prefix` begins the names of the city's protocols."""
        self._host = host
        self._pubsub = pubsub
        self._prefix = prefix
        host.set_stream_handler(hello_exchange.PROTOCOL, self._take_hello)
        host.set_stream_handler(TProtocol(f"{prefix}/raft/1"), self._take_lane)
        for protocol in REQUEST_PROTOCOLS:
            host.set_stream_handler(
                TProtocol(f"{prefix}/{protocol}/1"), partial(self._take_requests, protocol)
            )

    def start(self, nursery: trio.Nursery) -> None:
        """Supervise new connections in `nursery` from now on."""
        self._nursery = nursery
        nursery.start_soon(self._keep_alive)

    def close_all(self, reason: str) -> None:
        """End all connections and take no new ones."""
        self._nursery = None
        for link in self.links.all():
            link.close(reason)
            self._drop(link)

    def close(self, peer: str, reason: str) -> None:
        """End all connections to `peer`."""
        for link in self.links.to(peer):
            link.close(reason)

    def penalise(self, peer: str, points: float) -> None:
        """Add demerits; a peer that is banned by them loses its connections."""
        if self._book.penalise(peer, points):
            self.close(peer, "banned for what it sent")

    async def wait_whole(self, peer: str) -> None:
        """Return once `peer` is up and all streams to it are there."""
        while not self._is_whole(peer):
            event = trio.Event()
            self._waiting.append((peer, event))
            await event.wait()

    def _is_whole(self, peer: str) -> bool:
        link = self.links.active(peer)
        if link is None or peer not in self.up:
            return False
        return len(link.lanes) + len(link.requests) == len(LANES) + len(REQUEST_PROTOCOLS)

    def _notice(self, peer: str) -> None:
        for waiting in [item for item in self._waiting if item[0] == peer]:
            self._waiting.remove(waiting)
            waiting[1].set()

    def _start_link(self, link: Link) -> None:
        if self._nursery is None:
            link.close("this node stops")
            return
        self._book.record(link.peer)
        if len(self.links.to(link.peer)) > self._config.connections_per_peer_max:
            link.close("too many connections")
        self._nursery.start_soon(self._supervise, link)

    async def _supervise(self, link: Link) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._close_with_socket, link)
                nursery.start_soon(self._live, link, nursery)
                nursery.start_soon(self._retire, link)
                await link.ended.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._drop(link)

    async def _close_with_socket(self, link: Link) -> None:
        await link.socket.wait_closed()
        link.close("the connection was closed")

    async def _retire(self, link: Link) -> None:
        await link.replaced.wait()
        # The peer may not have chosen yet: to it, an end before that would be ours.
        await trio.sleep(_FAREWELL_S)
        link.close("replaced by another connection to the same peer")

    async def _live(self, link: Link, nursery: trio.Nursery) -> None:
        try:
            with trio.fail_after(self._config.hello_timeout_s):
                if link.is_dialled:
                    await self._say_hello(link)
                is_ready = await link.wait_ready()
            if not is_ready:
                await trio.sleep(_FAREWELL_S)
                link.close("refused")
                return
            if link.is_dialled:
                for lane in LANES:
                    nursery.start_soon(self._open_lane, link, lane)
                for protocol in REQUEST_PROTOCOLS:
                    nursery.start_soon(self._open_requests, link, protocol)
        except trio.TooSlowError:
            link.close("no hello in time")
        except BaseLibp2pError as error:
            link.close(f"hello failed: {error}")
        except Exception as error:  # noqa: BLE001
            # A task's root: a peer's bytes, or our own failure with them.
            self.fault_on_link(link, f"hello: {type(error).__name__}: {error}")

    def _drop(self, link: Link) -> None:
        if self._host is not None:
            self._host.swarm.remove_conn(link.conn)
            self._host.tcp.end_handshake(link.socket)
        if self.links.remove(link) and link.peer in self.up:
            self.up.discard(link.peer)
            _logger.info("peer_down", peer=link.peer, reason=link.reason)
            if self._pubsub is not None and self._pubsub.manager.is_running:
                self._pubsub.remove_peer(link.peer)
            self._handlers.on_peer(link.peer, False)

    async def _keep_alive(self) -> None:
        """Ping who was not heard, cut off who stays silent: all links in one turn."""
        interval_s = self._config.ping_interval_s
        due_s = trio.current_time()
        while True:
            due_s += interval_s
            await trio.sleep_until(due_s)
            now_s = trio.current_time()
            stood_still = now_s - due_s > interval_s
            for link in self.links.all():
                if link.is_ready:
                    if stood_still:
                        # What the peers said meanwhile is in the socket: read it before judging.
                        heard_s = now_s - self._config.silence_s / 2
                        link.socket.heard_s = max(link.socket.heard_s, heard_s)
                    self._look_after(link, now_s)
            if stood_still:
                due_s = now_s

    def _look_after(self, link: Link, now_s: float) -> None:
        config = self._config
        control = link.lanes.get("control")
        silence_s = config.silence_without_lane_s if control is None else config.silence_s
        quiet_s = now_s - link.socket.heard_s
        link.take_sample(now_s)
        if quiet_s > silence_s:
            link.close(f"not heard for {silence_s:g} s", is_stalled=True)
        elif control is not None and (
            quiet_s >= config.ping_interval_s
            or now_s - link.pinged_s >= config.round_trip_interval_s
        ):
            control.send_frame(PING, time.monotonic_ns().to_bytes(8, "big"))
            link.pinged_s = now_s

    # -- hello -------------------------------------------------------------------------------

    async def _say_hello(self, link: Link) -> None:
        assert self._host is not None
        stream = await self._host.open_stream(link, [hello_exchange.PROTOCOL])
        outcome = await hello_exchange.greet(stream, self._key, self._hello(), link.peer)
        self._decide(link, outcome)

    async def _take_hello(self, stream: INetStream) -> None:
        link = self._link_of(stream)
        if link is None or link.is_dialled or link.decided.is_set():
            await stream.reset()
            return
        with trio.move_on_after(self._config.hello_timeout_s):
            outcome = await hello_exchange.welcome(stream, self._key, self._hello(), link.peer)
            self._decide(link, outcome)
            await stream.close()

    def _decide(self, link: Link, outcome: Outcome) -> None:
        record = self._book.record(link.peer)
        if record is None or link.decided.is_set():
            link.close("not allowed any more")
            return
        link.hello = outcome.hello
        record.release = outcome.hello.release
        before = self.links.active(link.peer)
        if outcome.reason:
            record.is_refused = True
            record.last_refusal = outcome.reason
            self._log_refusal(link, outcome)
        elif self.links.adopt(link):
            link.is_ready = True
            record.is_refused = False
            record.last_error = ""
            record.backoff.reset()
            record.refused_backoff.reset()
            record.add_addresses(outcome.hello.addresses, "hello")
            self._note_up(link, before)
        link.decided.set()

    def _log_refusal(self, link: Link, outcome: Outcome) -> None:
        swallowed = self._once.is_due(f"hello {link.peer}", trio.current_time())
        if swallowed is not None:
            _logger.warning(
                "hello_refused",
                peer=link.peer,
                by="this node" if outcome.is_ours else "the peer",
                reason=outcome.reason,
                detail=outcome.detail,
                before=swallowed,
            )

    def _note_up(self, link: Link, before: Link | None) -> None:
        assert self._pubsub is not None
        self._pubsub.add_peer(link.peer)
        if link.peer not in self.up:
            self.up.add(link.peer)
            _logger.info("peer_up", peer=link.peer, address=link.address, out=link.is_dialled)
            self._handlers.on_peer(link.peer, True)
        elif _incarnation(before) != _incarnation(link):
            # A wiped node, back before its old connection was found dead: it is somebody else.
            self._handlers.on_peer(link.peer, True)

    def _link_of(self, stream: INetStream) -> Link | None:
        assert isinstance(stream, NetStream)
        return self.links.of(stream.swarm_conn) if stream.swarm_conn is not None else None

    # -- kept streams ------------------------------------------------------------------------

    async def _open_lane(self, link: Link, lane: Lane) -> None:
        stream = await self._open(link, "raft")
        if stream is not None:
            kept = self._make_lane(link, lane, stream, None)
            kept.send_frame(LANE, lane.encode())
            await self._run_lane(link, lane, kept)

    async def _take_lane(self, stream: INetStream) -> None:
        link = self._link_of(stream)
        if link is None:
            return
        reader = FrameReader(self._config.bulk.message_bytes_max)
        with trio.fail_after(_LANE_DEADLINE_S):
            # The first frame comes alone: the other side waits for nothing, but writes it first.
            found = reader.feed(await stream.read())
            while not found:
                found = reader.feed(await stream.read())
        kind, body = found[0]
        lane = next((name for name in LANES if name.encode() == body), None)
        if kind != LANE or lane is None or lane in link.lanes:
            raise DecodeError("a Raft stream that does not begin with its lane")
        kept = self._make_lane(link, lane, stream, reader)
        kept.take(found[1:])
        await self._run_lane(link, lane, kept)

    def _make_lane(
        self, link: Link, lane: Lane, stream: INetStream, reader: FrameReader | None
    ) -> KeptStream:
        return KeptStream(
            stream,
            self._config.control if lane == "control" else self._config.bulk,
            on_message=partial(self._take_raft, link),
            on_pong=partial(self._take_pong, link),
            reader=reader,
        )

    async def _run_lane(self, link: Link, lane: Lane, kept: KeptStream) -> None:
        link.lanes[lane] = kept
        self._notice(link.peer)
        await kept.run()
        self._end_kept(link, kept)

    async def _open_requests(self, link: Link, protocol: RequestProtocol) -> None:
        stream = await self._open(link, protocol)
        if stream is not None:
            await self._run_requests(link, protocol, stream)

    async def _take_requests(self, protocol: RequestProtocol, stream: INetStream) -> None:
        link = self._link_of(stream)
        if link is None or protocol in link.requests:
            await stream.reset()
            return
        await self._run_requests(link, protocol, stream)

    async def _run_requests(
        self, link: Link, protocol: RequestProtocol, stream: INetStream
    ) -> None:
        requests = RequestStream(
            stream,
            self._config.requests,
            peer=link.peer,
            protocol=protocol,
            answer=self._handlers.on_request,
            on_fault=partial(self.fault, link.peer),
            outstanding_max=self._config.requests_outstanding_max,
            handlers_max=self._config.request_handlers_max,
        )
        link.requests[protocol] = requests
        self._notice(link.peer)
        await requests.run()
        self._end_kept(link, requests.kept)

    async def _open(self, link: Link, name: str) -> INetStream | None:
        assert self._host is not None
        try:
            return await self._host.open_stream(link, [TProtocol(f"{self._prefix}/{name}/1")])
        except Exception as error:  # noqa: BLE001
            # A task's root: the library raises what its layers do.
            link.close(f"no {name} stream: {error}")
            return None

    def _end_kept(self, link: Link, kept: KeptStream) -> None:
        if kept.is_blamed:
            self.fault_on_link(link, kept.reason)
        else:
            link.close(kept.reason)

    def _take_raft(self, link: Link, data: bytes) -> None:
        if self._handlers.on_raft(link.peer, data) is False:
            raise DecodeError("a Raft message that cannot be decoded")

    def _take_pong(self, link: Link, sent_ns: int) -> None:
        took_ns = time.monotonic_ns() - sent_ns
        if 0 <= took_ns < _RTT_NS_MAX:
            link.rtt_ms = took_ns / 1e6

    # -- blame -------------------------------------------------------------------------------

    def fault(self, peer: str, reason: str, is_fatal: bool = False) -> None:
        """Note what a peer did wrong; a fatal fault ends its connections."""
        self.fault_count += 1
        swallowed = self._once.is_due(f"fault {peer}", trio.current_time())
        if swallowed is not None:
            _logger.warning("peer_fault", peer=peer, reason=reason, before=swallowed)
        self.penalise(peer, _FAULT_POINTS if is_fatal else PENALTY_POINTS)
        if is_fatal:
            self.close(peer, reason)

    def fault_on_link(self, link: Link, reason: str) -> None:
        """Note a fault that ends this connection."""
        self.fault(link.peer, reason)
        link.close(reason)


def _incarnation(link: Link | None) -> bytes | None:
    return link.hello.incarnation if link is not None and link.hello is not None else None
