"""Noise with a list at the door: only allowed peer ids get past the handshake.

libp2p 0.8.1 has no gate by peer id. Both sides of a Noise handshake prove their identity key
(libp2p's Noise specification), so the check stands right behind it: nothing that an unknown
peer says above the handshake is ever read.
"""

from collections.abc import Callable

import structlog
import trio
from libp2p.abc import IRawConnection, ISecureConn
from libp2p.crypto.keys import KeyPair, PrivateKey
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.security.exceptions import HandshakeFailure
from libp2p.security.noise.transport import Transport
from libp2p.security.secure_session import SecureSession

from p2pcity.net.guard import SocketStream
from p2pcity.net.pacing import OncePer, TokenBucket
from p2pcity.net.session import Session

_LOG_INTERVAL_S = 60.0
# In all: a stranger can make a new key for each try.
_LOG_LINES_PER_INTERVAL = 10

_logger = structlog.get_logger("p2pcity.net.gate")


class Gate:
    """Who may connect; counts and logs (once a minute a peer) those who may not."""

    def __init__(self, is_allowed: Callable[[str], bool]) -> None:
        self._is_allowed = is_allowed
        self._once = OncePer(_LOG_INTERVAL_S)
        self._lines = TokenBucket(
            _LOG_LINES_PER_INTERVAL / _LOG_INTERVAL_S, _LOG_LINES_PER_INTERVAL, 0.0
        )
        self.refused_count = 0

    def check(self, peer: str, address: str) -> None:
        """Raise HandshakeFailure when `peer` is not on the list."""
        if self._is_allowed(peer):
            return
        self.refused_count += 1
        now_s = trio.current_time()
        swallowed = self._once.is_due(peer, now_s)
        if swallowed is not None and self._lines.take(now_s):
            _logger.warning("peer_refused", peer=peer, address=address, before=swallowed)
        raise HandshakeFailure(f"{peer} is not on the list")


class GatedNoise(Transport):
    """libp2p's Noise, refusing whoever the gate does not know, both ways."""

    def __init__(self, key_pair: KeyPair, noise_key: PrivateKey, gate: Gate) -> None:
        super().__init__(key_pair, noise_privkey=noise_key)
        self._gate = gate

    async def secure_inbound(self, conn: IRawConnection) -> ISecureConn:
        """Shake hands with a peer that dialled us; HandshakeFailure when it is unknown."""
        return self._admit(await super().secure_inbound(conn), conn)

    async def secure_outbound(self, conn: IRawConnection, peer_id: ID) -> ISecureConn:
        """Shake hands with a peer that we dialled; HandshakeFailure when it is unknown."""
        return self._admit(await super().secure_outbound(conn, peer_id), conn)

    def _admit(self, session: ISecureConn, conn: IRawConnection) -> ISecureConn:
        peer = session.get_remote_peer()
        address = conn.get_remote_address()
        if peer == self.local_peer:
            raise HandshakeFailure("the peer has this node's own key")
        self._gate.check(peer.to_base58(), f"{address[0]}:{address[1]}" if address else "")
        assert isinstance(conn, RawConnection)
        assert isinstance(conn.stream, SocketStream), "GuardedTCP makes the connections"
        assert isinstance(session, SecureSession)
        # From here on the peer is known; its bytes are bounded by the layers above.
        conn.stream.admit()
        return Session(session, conn.stream)
