"""Keeping a connection to every known peer: one loop each, with back-off."""

from typing import Final

import trio
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from multiaddr import Multiaddr  # type: ignore[import-untyped]  # it has no stubs

from p2pcity.net.config import NetConfig
from p2pcity.net.guard import SocketStream
from p2pcity.net.host import CityHost
from p2pcity.net.links import Link, Links
from p2pcity.net.peers import PeerBook, PeerRecord

# The side with the larger peer id lets the other one dial first, so that two nodes that start
# together seldom make two connections; it still dials, for a peer behind NAT cannot be reached.
_COURTESY_S: Final = 0.25
_IDLE_S: Final = 10.0


class Dialler:
    """Dials peers that have no connection.

    The library's own way, `connect` and `dial_peer`, waits 250 ms each time, forgets nothing
    for 60 s after a failure and drops loopback addresses; so the transport is dialled directly.
    """

    def __init__(
        self, config: NetConfig, own: str, host: CityHost, links: Links, book: PeerBook
    ) -> None:
        self._config = config
        self._own = own
        self._host = host
        self._links = links
        self._book = book
        self._under_way: set[SocketStream] = set()

    async def run(self, record: PeerRecord) -> None:
        """Keep one peer connected until it is not allowed any more."""
        if self._own > record.peer:
            await self._pause(record, _COURTESY_S)
        while self._book.is_current(record):
            link = self._links.active(record.peer)
            if link is not None and not link.ended.is_set():
                await link.ended.wait()
            elif not record.addresses or not self._book.is_admitted(record.peer):
                await self._pause(record, _IDLE_S)
                continue
            elif await self._try(record):
                continue
            backoff = record.refused_backoff if record.is_refused else record.backoff
            await self._pause(record, backoff.next_s())

    async def _pause(self, record: PeerRecord, delay_s: float) -> None:
        with trio.move_on_after(delay_s):
            await record.changed.wait()

    async def _try(self, record: PeerRecord) -> bool:
        """Dial the addresses in turn; True when the peer is connected, by whichever side."""
        for address in list(record.addresses):
            link = await self._dial(record, address)
            if link is not None and await link.wait_ready():
                record.prefer(address)
                return True
            active = self._links.active(record.peer)
            if active is not None and not active.ended.is_set():
                return True
            if record.is_refused:
                break
        return False

    async def _dial(self, record: PeerRecord, address: str) -> Link | None:
        try:
            with trio.fail_after(self._config.dial_timeout_s):
                raw = await self._host.tcp.dial(Multiaddr(address))
        except Exception as error:  # noqa: BLE001
            # The library raises what sockets, resolvers and its own layers do.
            record.last_error = f"{address}: {_describe(error)}"
            return None
        assert isinstance(raw, RawConnection)
        assert isinstance(raw.stream, SocketStream)
        socket = raw.stream
        link = None
        self._under_way.add(socket)
        try:
            link = await self._upgrade(record, address, raw, socket)
        finally:
            self._under_way.discard(socket)
            if link is None:
                socket.abort()
        return link

    async def _upgrade(
        self, record: PeerRecord, address: str, raw: RawConnection, socket: SocketStream
    ) -> Link | None:
        link = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._abort_late, socket)
            try:
                peer_id = ID.from_string(record.peer)
                conn = await self._host.swarm.upgrade_outbound_raw_conn(raw, peer_id)
                link = self._links.of(conn)
            except Exception as error:  # noqa: BLE001
                # As above. A deadline by cancelling would hang in the library's clean-up.
                record.last_error = f"{address}: {_describe(error)}"
            nursery.cancel_scope.cancel()
        return link

    async def _abort_late(self, socket: SocketStream) -> None:
        await trio.sleep(self._config.dial_timeout_s)
        socket.abort()

    def abort(self) -> None:
        """Give up all dials under way."""
        for socket in self._under_way:
            socket.abort()


def _describe(error: BaseException) -> str:
    """Return the innermost message of a chain of the library's wrappers."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, BaseExceptionGroup) and error.exceptions:
        return _describe(error.exceptions[0])
    return str(error) or type(error).__name__
