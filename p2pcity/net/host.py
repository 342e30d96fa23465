"""The libp2p host: one identity, TCP, Noise behind the gate, yamux, and a guard on each stream."""

import errno
import logging
import socket
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

# The library loads this when a connection ends: too late where no file may be opened any more.
import libp2p.utils.connection_shutdown  # noqa: F401
import trio
from libp2p.abc import INetConn, INetStream, INetwork, INotifee
from libp2p.crypto.ed25519 import Ed25519PrivateKey
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.exceptions import BaseLibp2pError
from libp2p.host.basic_host import BasicHost
from libp2p.host.ping import ID as PING_PROTOCOL
from libp2p.host.ping import PingService
from libp2p.identity.identify.identify import ID as IDENTIFY_PROTOCOL
from libp2p.identity.identify.identify import identify_handler_for
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.exceptions import SwarmException
from libp2p.network.stream.net_stream import NetStream
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore
from libp2p.protocol_muxer.exceptions import MultiselectClientError
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_PROTOCOL
from libp2p.transport.upgrader import TransportUpgrader
from multiaddr import Multiaddr  # type: ignore[import-untyped]  # it has no stubs

from p2pcity.crypto.keys import PrivateKey
from p2pcity.errors import ConfigError
from p2pcity.net import hello
from p2pcity.net.config import NetConfig
from p2pcity.net.gate import Gate, GatedNoise
from p2pcity.net.guard import GuardedTCP, LimitedCommunicator
from p2pcity.net.links import Link, Links
from p2pcity.net.muxing import CityMuxers, CityStream

_NEGOTIATE_S: Final = 5
_BEFORE_HELLO: Final = frozenset({hello.PROTOCOL, PING_PROTOCOL, IDENTIFY_PROTOCOL})


class CitySwarm(Swarm):
    """libp2p's swarm, which dials nobody by itself."""

    def _schedule_auto_connect(self) -> None:
        # The dialler keeps the connections; the library would go for 128 of its own choice.
        return


class CityHost(BasicHost):
    """libp2p's host, with every inbound stream guarded, counted and held back until hello."""

    def __init__(
        self,
        swarm: Swarm,
        tcp: GuardedTCP,
        links: Links,
        config: NetConfig,
        on_fault: Callable[[Link, str], None],
    ) -> None:
        super().__init__(
            network=swarm,
            negotiate_timeout=_NEGOTIATE_S,
            # An empty table would be taken for none and filled with the library's own.
            default_protocols=OrderedDict({PING_PROTOCOL: PingService(self).handle_ping}),
            disable_identify_address_discovery=True,
        )
        self.set_stream_handler(IDENTIFY_PROTOCOL, identify_handler_for(self))
        self.swarm = swarm
        self.tcp = tcp
        self._links = links
        self._config = config
        self._on_fault = on_fault
        self._select = MultiselectClient()
        swarm.register_notifee(_ConnectionNotifee(self._note_connection))

    def _note_connection(self, conn: INetConn) -> None:
        link = self._links.of(conn)
        if link is not None:
            self.tcp.end_handshake(link.socket)

    async def new_stream(self, peer_id: ID, protocol_ids: Sequence[TProtocol]) -> INetStream:
        """Open a stream on the peer's link in use; SwarmException when there is none."""
        link = self._links.active(peer_id.to_base58())
        if link is None or link.ended.is_set():
            raise SwarmException(f"{peer_id} is not connected")
        return await self.open_stream(link, protocol_ids)

    async def open_stream(self, link: Link, protocol_ids: Sequence[TProtocol]) -> INetStream:
        """Open a stream on this very connection; SwarmException when the peer does not agree."""
        stream = await link.conn.new_stream()
        try:
            with trio.fail_after(_NEGOTIATE_S):
                protocol = await self._select.select_one_of(
                    protocol_ids, LimitedCommunicator(stream), _NEGOTIATE_S
                )
        except (MultiselectClientError, trio.TooSlowError) as error:
            await reset(stream)
            raise SwarmException(f"no stream for {protocol_ids[0]}: {error}") from error
        _name(link, stream, protocol)
        return stream

    async def _swarm_stream_handler(self, net_stream: INetStream) -> None:
        assert isinstance(net_stream, NetStream)
        conn = net_stream.swarm_conn
        link = self._links.of(conn) if conn is not None else None
        if link is None or link.streams_open >= self._config.streams_per_connection_max:
            await reset(net_stream)
            return
        link.streams_open += 1
        try:
            await self._serve(net_stream, link)
        except (BaseLibp2pError, OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            await reset(net_stream)
        except Exception as error:  # noqa: BLE001
            # A stream's root: whatever a peer provokes ends here, and costs the peer.
            await reset(net_stream)
            self._on_fault(link, f"{net_stream.get_protocol()}: {type(error).__name__}: {error}")
        finally:
            link.streams_open -= 1

    async def _serve(self, stream: INetStream, link: Link) -> None:
        protocol, handler = await self.multiselect.negotiate(
            LimitedCommunicator(stream), _NEGOTIATE_S
        )
        if protocol is None or handler is None:
            await reset(stream)
            return
        _name(link, stream, protocol)
        if protocol not in _BEFORE_HELLO and not await link.wait_ready():
            await reset(stream)
            return
        await handler(stream)

    def _schedule_identify(self, peer_id: ID, *, reason: str) -> None:
        # Hello tells what identify would, signed; and the library asks in a system task, whose
        # failure would end the process.
        return

    async def _push_identify_to_all_peers(self) -> None:
        return


class _ConnectionNotifee(INotifee):
    """Tells of new connections; ends are noticed at the socket."""

    def __init__(self, on_connected: Callable[[INetConn], None]) -> None:
        self._on_connected = on_connected

    async def connected(self, network: INetwork, conn: INetConn) -> None:
        """Take up a new connection."""
        self._on_connected(conn)

    async def disconnected(self, network: INetwork, conn: INetConn) -> None:
        """Do nothing."""

    async def opened_stream(self, network: INetwork, stream: INetStream) -> None:
        """Do nothing."""

    async def closed_stream(self, network: INetwork, stream: INetStream) -> None:
        """Do nothing."""

    async def listen(self, network: INetwork, multiaddr: Multiaddr) -> None:
        """Do nothing."""

    async def listen_close(self, network: INetwork, multiaddr: Multiaddr) -> None:
        """Do nothing."""


def build_host(
    config: NetConfig,
    key: PrivateKey,
    gate: Gate,
    links: Links,
    on_fault: Callable[[Link, str], None],
) -> CityHost:
    """Return a host with the node's key; nothing runs and nothing listens yet."""
    # The library logs what peers provoke, as errors and with tracebacks; what matters of it is
    # logged by this room, with a limit a peer.
    logging.getLogger("libp2p").setLevel(logging.CRITICAL)
    secret = Ed25519PrivateKey.from_bytes(key.seed)
    key_pair = KeyPair(secret, secret.get_public_key())
    own = ID.from_pubkey(key_pair.public_key)
    peerstore = PeerStore()
    peerstore.add_key_pair(own, key_pair)
    noise = GatedNoise(key_pair, create_new_key_pair().private_key, gate)
    upgrader = TransportUpgrader({NOISE_PROTOCOL: noise}, {}, _NEGOTIATE_S)
    upgrader.muxer_multistream = CityMuxers(_NEGOTIATE_S, config.unread_bytes_max)
    tcp = GuardedTCP(config.handshakes_max)
    swarm = CitySwarm(
        own,
        peerstore,
        upgrader,
        [tcp],
        RetryConfig(max_retries=0),
        ConnectionConfig(
            max_connections=config.connections_max,
            high_watermark=config.connections_max,
            max_connections_per_peer=2 * config.connections_per_peer_max,
            min_connections=0,
            low_watermark=0,
            auto_connect_interval=3600.0,
            inbound_upgrade_timeout=config.dial_timeout_s,
            outbound_upgrade_timeout=config.dial_timeout_s,
            outbound_stream_protocol_negotiation_timeout=_NEGOTIATE_S,
            inbound_stream_protocol_negotiation_timeout=_NEGOTIATE_S,
        ),
    )
    return CityHost(swarm, tcp, links, config, on_fault)


def parse_listen(text: str) -> tuple[Multiaddr, str, int]:
    """Return (multiaddr, host, port) of a listening address; ConfigError when it is none."""
    remedy = "Write addresses to listen on like /ip4/0.0.0.0/tcp/4710."
    try:
        address = Multiaddr(text)
        names = [protocol.name for protocol in address.protocols()]
        if len(names) != 2 or names[0] not in ("ip4", "ip6") or names[1] != "tcp":
            raise ConfigError(f"{text} is not an address to listen on", remedy=remedy)
        host = str(address.value_for_protocol(names[0]))
        port = int(str(address.value_for_protocol("tcp")))
    except ConfigError:
        raise
    except Exception as error:  # multiaddr raises whatever its codecs do
        raise ConfigError(f"{text} is not a multiaddr: {error}", remedy=remedy) from error
    return address, host, port


def check_port(text: str) -> None:
    """Raise ConfigError when somebody listens on the address already.

    libp2p sets SO_REUSEPORT on its listener, so that two nodes share a port without an error
    and each gets half of the connections. A plain socket without it finds out.
    """
    _, host, port = parse_listen(text)
    if port == 0:
        return
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # A connection of the last run in TIME_WAIT is no obstacle, a listener still is.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ConfigError(
                    f"port {port} on {host} is taken by another process",
                    remedy="Stop that process (ss -ltnp shows it), or listen on another port.",
                ) from error
            raise ConfigError(
                f"cannot listen on {host} port {port}: {error.strerror}",
                remedy="Listen on an address of this machine and a port that the user may use.",
            ) from error


def _name(link: Link, stream: INetStream, protocol: TProtocol) -> None:
    stream.set_protocol(protocol)
    if protocol == PROTOCOL_ID_V11:
        assert isinstance(stream, NetStream)
        assert isinstance(stream.muxed_stream, CityStream)
        link.note_gossip(stream.muxed_stream)


async def reset(stream: INetStream) -> None:
    """Reset a stream, without waiting for a stalled link."""
    with trio.CancelScope(deadline=trio.current_time() + 1, shield=True):
        await stream.reset()
