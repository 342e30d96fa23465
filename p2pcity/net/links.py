"""One connection each, and which of several to a peer is the one in use."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

import trio
from libp2p.abc import INetConn
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.rcmgr import Direction

from p2pcity.net.guard import SocketStream
from p2pcity.net.muxing import CityStream, CityYamux
from p2pcity.net.peers import Traffic
from p2pcity.net.streams import KeptStream, RequestStream
from p2pcity.wire.hello import Hello

# A link that was not heard for this long gives way to a new one at once.
_QUIET_S: Final = 1.5
_SAMPLES: Final = 11
_NO_TRAFFIC: Final = Traffic(0, 0)


def _samples() -> deque[tuple[float, int, int]]:
    return deque(maxlen=_SAMPLES)


@dataclass(eq=False, slots=True)
class Link:
    """A connection to a peer, from the end of its handshake to its end.

    `is_ready` is set by a completed hello; `decided` once hello is over, however it went;
    `replaced` when another connection to the peer took its place; `ended` when the connection is
    to go or gone, and `reason` says why.
    """

    peer: str
    conn: SwarmConn
    socket: SocketStream
    is_dialled: bool
    opened_s: float
    address: str = ""
    hello: Hello | None = None
    is_ready: bool = False
    decided: trio.Event = field(default_factory=trio.Event)
    replaced: trio.Event = field(default_factory=trio.Event)
    ended: trio.Event = field(default_factory=trio.Event)
    reason: str = ""
    lanes: dict[str, KeptStream] = field(default_factory=dict)
    requests: dict[str, RequestStream] = field(default_factory=dict)
    streams_open: int = 0
    rtt_ms: float | None = None
    pinged_s: float = -math.inf
    _samples: deque[tuple[float, int, int]] = field(default_factory=_samples)
    _gossip: list[CityStream] = field(default_factory=list)
    _gossip_before: Traffic = _NO_TRAFFIC

    def close(self, reason: str, *, is_stalled: bool = False) -> None:
        """End the connection at once, by closing the socket underneath.

        The library's own close waits for the peer, for ever on a stalled link.
        """
        if not self.ended.is_set():
            self.reason = reason
        self.socket.abort(is_stalled=is_stalled)
        self.decided.set()
        self.ended.set()

    async def wait_ready(self) -> bool:
        """Wait for the end of hello; True when both sides said ok."""
        await self.decided.wait()
        return self.is_ready and not self.ended.is_set()

    @property
    def kept(self) -> tuple[KeptStream, ...]:
        """All kept streams."""
        return (*self.lanes.values(), *(stream.kept for stream in self.requests.values()))

    def take_sample(self, now_s: float) -> None:
        """Note how many bytes there were by now, for the rates; called each second or so."""
        self._samples.append((now_s, self.socket.bytes_in, self.socket.bytes_out))

    @property
    def bytes_per_s(self) -> tuple[float, float]:
        """What came and went a second, lately."""
        if len(self._samples) < 2:
            return 0.0, 0.0
        (begin_s, *begin), (end_s, *end) = self._samples[0], self._samples[-1]
        passed_s = max(end_s - begin_s, 1e-3)
        return (end[0] - begin[0]) / passed_s, (end[1] - begin[1]) / passed_s

    def note_gossip(self, stream: CityStream) -> None:
        """Count the bytes of a gossip stream, each way has its own, until the connection ends."""
        ended = [known for known in self._gossip if known.closed]
        self._gossip = [known for known in self._gossip if not known.closed] + [stream]
        self._gossip_before = _sum([self._gossip_before, *(known.traffic for known in ended)])

    @property
    def traffic(self) -> dict[str, Traffic]:
        """The bytes of gossip and of each kept stream by its name; `rest` is all else.

        That is hello, and what yamux and Noise add.
        """
        kept = {**self.lanes, **{name: stream.kept for name, stream in self.requests.items()}}
        gossip = _sum([self._gossip_before, *(stream.traffic for stream in self._gossip)])
        named = {"gossip": gossip, **{name: stream.traffic for name, stream in kept.items()}}
        rest = Traffic(
            self.socket.bytes_in - sum(traffic.bytes_in for traffic in named.values()),
            self.socket.bytes_out - sum(traffic.bytes_out for traffic in named.values()),
        )
        return {**named, "rest": rest}


def _sum(traffic: Sequence[Traffic]) -> Traffic:
    return Traffic(sum(item.bytes_in for item in traffic), sum(item.bytes_out for item in traffic))


class Links:
    """All links by connection, and the one in use of each peer."""

    def __init__(self, own: str, on_open: Callable[[Link], None]) -> None:
        self._own = own
        self._on_open = on_open
        self._by_conn: dict[INetConn, Link] = {}
        self._active: dict[str, Link] = {}

    def of(self, conn: INetConn) -> Link | None:
        """Return the link of a connection, opened at the first call; None when it is closed.

        A stream may arrive before the library says that there is a connection.
        """
        link = self._by_conn.get(conn)
        if link is not None:
            return link
        swarm_conn = cast(SwarmConn, conn)
        socket = cast(CityYamux, swarm_conn.muxed_conn).session.socket
        if swarm_conn.is_closed or socket.is_closed:
            return None
        address = socket.get_remote_address()
        link = Link(
            peer=swarm_conn.muxed_conn.peer_id.to_base58(),
            conn=swarm_conn,
            socket=socket,
            is_dialled=swarm_conn.direction == Direction.OUTBOUND,
            opened_s=trio.current_time(),
            address=f"{address[0]}:{address[1]}" if address else "",
        )
        self._by_conn[conn] = link
        self._on_open(link)
        return link

    def adopt(self, link: Link) -> bool:
        """Make a link whose hello is done the one in use; False when another one is better.

        Both sides come to the same choice: of two links that the same side dialled the newer
        one is kept, of two that each side dialled the one of the smaller peer id. A new one that
        loses is closed; one that was in use is `replaced`. A link that has gone quiet is not
        worth keeping.
        """
        current = self._active.get(link.peer)
        if current is not None and current is not link and not current.ended.is_set():
            is_quiet = trio.current_time() - current.socket.heard_s > _QUIET_S
            if current.is_dialled != link.is_dialled and not is_quiet:
                is_mine_kept = self._own < link.peer
                if link.is_dialled != is_mine_kept:
                    link.close("another connection to the same peer is kept")
                    return False
            self._active[link.peer] = link
            current.replaced.set()
            return True
        self._active[link.peer] = link
        return True

    def remove(self, link: Link) -> bool:
        """Forget an ended link; True when it was the one in use."""
        self._by_conn.pop(link.conn, None)
        if self._active.get(link.peer) is link:
            del self._active[link.peer]
            return True
        return False

    def active(self, peer: str) -> Link | None:
        """Return the link in use, None when the peer is not connected."""
        return self._active.get(peer)

    def to(self, peer: str) -> tuple[Link, ...]:
        """Return all links to a peer, whatever their state."""
        return tuple(link for link in self._by_conn.values() if link.peer == peer)

    def all(self) -> tuple[Link, ...]:
        """Return all links."""
        return tuple(self._by_conn.values())
