"""The network of a node: one object that the rest of the node talks to.

Peers are named by their peer id. A peer counts as connected once hello is done both ways.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import structlog
import trio
from libp2p.tools.anyio_service import background_trio_service

from p2pcity.crypto.keys import PrivateKey, peer_id
from p2pcity.errors import ConfigError, Unavailable
from p2pcity.net.config import NetConfig
from p2pcity.net.connections import PENALTY_POINTS, Connections, Handlers, Lane, RequestProtocol
from p2pcity.net.dialling import Dialler
from p2pcity.net.discovery import local_addresses, run_mdns
from p2pcity.net.gate import Gate
from p2pcity.net.gossip import CityPubsub
from p2pcity.net.host import CityHost, build_host, check_port, parse_listen
from p2pcity.net.links import Link
from p2pcity.net.peers import PeerBook, PeerInfo, PeerRecord
from p2pcity.wire.hello import Hello

_REVIEW_S: Final = 1.0
_FLUSH_S: Final = 0.3
_CLOSE_S: Final = 0.5
_STOP_S: Final = 2.0


_logger = structlog.get_logger("p2pcity.net.network")

__all__ = ["Handlers", "Lane", "Network", "RequestProtocol"]

# trio.TaskStatus[None]; the stubs that come with libp2p are older than trio and lack it.
TaskStatus = Any
KnownAddresses = Mapping[str, Sequence[str]] | Callable[[], Mapping[str, Sequence[str]]]


class Network:
    """Connections, streams, requests and gossip with all peers that are allowed.

    `hello` is asked for at every hello; `allowed` says whether a peer id may connect, and is
    asked again every second, so that a peer that is struck off is cut off; `known_addresses`
    (a mapping of peer id to multiaddrs, or a callable that returns one) likewise.
    """

    def __init__(
        self,
        config: NetConfig,
        key: PrivateKey,
        hello: Callable[[], Hello],
        allowed: Callable[[str], bool],
        known_addresses: KnownAddresses,
        handlers: Handlers,
        *,
        rng: random.Random | None = None,
    ) -> None:
        self._config = config
        self._key = key
        self._hello = hello
        self._known_addresses = known_addresses
        self._handlers = handlers
        self.own = peer_id(key.public)
        self._book = PeerBook(config, self.own, allowed, rng or random.Random())
        self._book.on_record = self._start_dialling
        self._connections = Connections(config, key, hello, handlers, self._book, self.own)
        self._links = self._connections.links
        self._gate = Gate(self._book.is_admitted)
        self._nursery: trio.Nursery | None = None
        self._host: CityHost | None = None
        self._pubsub: CityPubsub | None = None
        self._dialler: Dialler | None = None
        self.dropped_count = 0

    # -- what the node calls -----------------------------------------------------------------

    def send(self, peer: str, lane: Lane | str, data: bytes) -> bool:
        """Queue a Raft message on a lane; False when the peer is not connected or it is full."""
        link = self._links.active(peer)
        kept = link.lanes.get(lane) if link is not None else None
        if kept is None or not kept.send(data):
            self.dropped_count += 1
            return False
        return True

    async def request(
        self, peer: str, protocol: RequestProtocol | str, data: bytes, timeout_s: float
    ) -> bytes:
        """Ask a peer and return its answer.

        Raises Unavailable when the peer is not connected, has too much outstanding or does not
        answer in time, and RemoteError when it refuses.
        """
        link = self._links.active(peer)
        stream = link.requests.get(protocol) if link is not None else None
        if stream is None:
            raise Unavailable(f"{peer} is not connected")
        return await stream.ask(data, timeout_s)

    async def publish(self, data: bytes) -> None:
        """Send one message of up to GOSSIP_BYTES_MAX bytes to the transactions topic.

        Never waits for a peer: what does not fit into a peer's queue is dropped and counted.
        """
        if self._pubsub is not None:
            await self._pubsub.send(data)

    def penalise(self, peer: str, points: float = PENALTY_POINTS) -> None:
        """Add demerits to a peer; at the threshold it is cut off and refused for a while."""
        self._connections.penalise(peer, points)

    def add_addresses(self, peer: str, addresses: Sequence[str], source: str = "config") -> None:
        """Tell where a peer can be dialled; ignored for one that is not allowed."""
        record = self._book.record(peer)
        if record is not None:
            record.add_addresses(addresses, source)

    def is_connected(self, peer: str) -> bool:
        """Tell whether hello with `peer` is done and the connection lives."""
        return peer in self._connections.up

    def peers(self) -> tuple[PeerInfo, ...]:
        """Return all known peers and their state."""
        return tuple(self._describe(record) for record in self._book.records())

    def addresses(self) -> tuple[str, ...]:
        """Return the multiaddrs, with `/p2p/`, under which this node listens.

        A wildcard stands for the addresses of this machine that others can reach.
        """
        found: list[str] = []
        for text in self._listening():
            _, host, port = parse_listen(text)
            if host in ("0.0.0.0", "::"):
                found.extend(local_addresses(port))
            else:
                found.append(text)
        return tuple(f"{text}/p2p/{self.own}" for text in dict.fromkeys(found))

    def statistics(self) -> dict[str, int]:
        """Return counters and gauges by name."""
        counters = {
            "connected": len(self._connections.up),
            "connections": len(self._links.all()),
            "dropped": self.dropped_count,
            "faults": self._connections.fault_count,
            "refused": self._gate.refused_count,
            "handshakes_evicted": self._host.tcp.evicted_count if self._host else 0,
        }
        if self._pubsub is not None:
            gossip = self._pubsub.counters
            counters |= {f"gossip_{name}": getattr(gossip, name) for name in gossip.__slots__}
        return counters

    async def wait_connected(self, peer: str) -> None:
        """Return once the peer is connected and all its streams are there."""
        await self._connections.wait_whole(peer)

    # -- running -----------------------------------------------------------------------------

    async def run(self, *, task_status: TaskStatus = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled; started once the node listens. Raises ConfigError at the start.

        The order is the one that works with the library: host, pubsub, subscription, and only
        then the listener, for a peer that dials in between would end the process.
        """
        for text in self._config.listen:
            check_port(text)
        failures: list[ConfigError] = []
        stopping = trio.Event()
        async with trio.open_nursery() as nursery:
            # Shielded, so that a cancelled node can still say what it has queued and close its
            # connections in order; `_shut_down` has its deadlines, and the shield ends with it.
            shield = trio.CancelScope(shield=True)

            async def run_shielded() -> None:
                with shield:
                    failures.extend(await self._run_host(stopping, task_status))
                nursery.cancel_scope.cancel()

            nursery.start_soon(run_shielded)
            try:
                await trio.Event().wait()
            finally:
                stopping.set()
                shield.deadline = trio.current_time() + _STOP_S
        # Raised out here, where no nursery wraps it into a group.
        if failures:
            raise failures[0]

    async def _run_host(self, stopping: trio.Event, task_status: TaskStatus) -> list[ConfigError]:
        prefix = f"/p2pcity/{self._hello().network.hex()[:8]}"
        topic = f"{prefix}/transactions/1"
        host = self._host = build_host(
            self._config, self._key, self._gate, self._links, self._connections.fault_on_link
        )
        async with host.run([]):
            pubsub = self._pubsub = CityPubsub(
                host,
                topic,
                self._config,
                is_allowed=self._book.is_admitted,
                on_message=self._take_gossip,
                on_fault=self._connections.fault,
            )
            self._connections.attach(host, pubsub, prefix)
            self._dialler = Dialler(self._config, self.own, host, self._links, self._book)
            async with (
                background_trio_service(pubsub),
                background_trio_service(pubsub.gossipsub),
                trio.open_nursery() as nursery,
            ):
                await pubsub.wait_until_ready()
                await pubsub.subscribe(topic)
                failures = await self._listen(host)
                if not failures:
                    self._serve(nursery)
                    task_status.started()
                    await stopping.wait()
                await self._shut_down(host, pubsub)
                nursery.cancel_scope.cancel()
        return failures

    async def _listen(self, host: CityHost) -> list[ConfigError]:
        addresses = [parse_listen(text)[0] for text in self._config.listen]
        if addresses:
            await host.swarm.listen(*addresses)
        if len(host.swarm.listeners) == len(addresses):
            return []
        return [
            ConfigError(
                f"cannot listen on {', '.join(self._config.listen)}",
                remedy="Listen on addresses of this machine and ports that are free.",
            )
        ]

    def _serve(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._connections.start(nursery)
        self._review()
        for record in self._book.records():
            self._start_dialling(record)
        nursery.start_soon(self._review_regularly)
        if self._config.has_mdns:
            nursery.start_soon(
                run_mdns, self.own, self.addresses, partial(self._found, source="mdns")
            )

    async def _shut_down(self, host: CityHost, pubsub: CityPubsub) -> None:
        self._nursery = None
        with trio.move_on_after(_FLUSH_S):
            # Polled, for once: events for it would cost something on every write.
            while self._is_busy():  # noqa: ASYNC110
                await trio.sleep(0.01)
        if self._dialler is not None:
            self._dialler.abort()
        self._connections.close_all("this node stops")
        with trio.move_on_after(_CLOSE_S):
            # The closed sockets take the connections with them, all at once; the library's
            # own close goes through them one by one.
            while host.swarm.connections:  # noqa: ASYNC110
                await trio.sleep(0.01)
        with trio.move_on_after(_CLOSE_S):
            await host.close()
        pubsub.seen_messages.stop()

    def _is_busy(self) -> bool:
        return any(kept.is_busy for link in self._links.all() for kept in link.kept)

    def _listening(self) -> list[str]:
        if self._host is None:
            return []
        listeners = self._host.swarm.listeners.values()
        return [str(address) for listener in listeners for address in listener.get_addrs()]

    async def _take_gossip(self, peer: str, data: bytes) -> bool:
        try:
            return await self._handlers.on_gossip(peer, data)
        except Exception:  # a stream's root: our own failure is no peer's fault
            _logger.exception("gossip_handler_failed", peer=peer)
            return True

    # -- who there is ------------------------------------------------------------------------

    async def _review_regularly(self) -> None:
        while True:
            await trio.sleep(_REVIEW_S)
            self._review()

    def _review(self) -> None:
        known = self._known_addresses
        for peer, addresses in (known() if callable(known) else known).items():
            self._found(peer, addresses, source="ledger")
        for link in self._links.all():
            if not self._book.is_admitted(link.peer):
                link.close("not allowed any more")
        self._book.prune()

    def _found(self, peer: str, addresses: Sequence[str], *, source: str) -> None:
        record = self._book.record(peer)
        if record is not None:
            record.add_addresses(addresses, source)

    def _start_dialling(self, record: PeerRecord) -> None:
        if self._nursery is not None and self._dialler is not None and not record.is_dialled:
            record.is_dialled = True
            self._nursery.start_soon(self._dialler.run, record)

    # -- what is shown -----------------------------------------------------------------------

    def _describe(self, record: PeerRecord) -> PeerInfo:
        peer = record.peer
        now_s = trio.current_time()
        link = self._links.active(peer)
        is_up = peer in self._connections.up
        if is_up:
            state = "connected"
        elif record.banned_until_s > now_s:
            state = "banned"
        elif record.is_refused:
            state = "refused"
        elif not record.addresses:
            state = "unknown-address"
        else:
            state = "connecting" if self._links.to(peer) else "disconnected"
        shown = PeerInfo(
            peer=peer,
            state=state,
            is_connected=is_up,
            address=next(iter(record.addresses), ""),
            addresses=tuple(record.addresses),
            score=-round(record.demerits.value(now_s), 1) or 0.0,
            last_refusal=record.last_refusal,
            last_error=record.last_error,
            release=record.release,
        )
        return shown if link is None else self._describe_link(shown, link)

    def _describe_link(self, shown: PeerInfo, link: Link) -> PeerInfo:
        hello, pubsub = link.hello, self._pubsub
        return PeerInfo(
            peer=shown.peer,
            state=shown.state,
            is_connected=shown.is_connected,
            direction="out" if link.is_dialled else "in",
            address=link.address,
            addresses=shown.addresses,
            rtt_ms=link.rtt_ms,
            is_in_mesh=pubsub is not None and pubsub.is_in_mesh(link.peer),
            bytes_in=link.socket.bytes_in,
            bytes_out=link.socket.bytes_out,
            in_bytes_per_s=round(link.bytes_per_s[0]),
            out_bytes_per_s=round(link.bytes_per_s[1]),
            duplicate_percent=None if pubsub is None else pubsub.duplicate_percent(link.peer),
            traffic=link.traffic,
            queued_bytes=sum(kept.queued_bytes for kept in link.kept),
            dropped=sum(kept.dropped_count for kept in link.kept),
            height=hello.height if hello is not None else None,
            incarnation=hello.incarnation if hello is not None else None,
            hello=hello,
            release=shown.release,
            score=shown.score,
            last_refusal=shown.last_refusal,
            last_error=shown.last_error,
        )
