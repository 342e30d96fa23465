"""A Noise session that opens at once whatever the socket has, and closes what goes into one write.

The library reads the two bytes of a packet's length, then the packet, then the twelve bytes of
a frame's head and then the frame, each through several locks: a dozen turns of the scheduler for
each short message, which is most of what an idle node does (measured).
"""

from typing import Final

from libp2p.io.exceptions import ConnectionClosedError, DecryptionFailedException
from libp2p.security.noise.io import NoiseTransportReadWriter
from libp2p.security.secure_session import SecureSession
from noise.exceptions import NoiseInvalidMessage  # type: ignore[import-untyped]  # it has no stubs

from p2pcity.net.guard import SocketStream

_LENGTH_BYTES: Final = 2
# Of a Noise message's 65,535 bytes the tag takes 16 (Noise specification, sections 3 and 11).
_OPEN_BYTES_MAX: Final = 65_535 - 16


class Session(SecureSession):
    """The library's session, once the handshake is over, on a socket of ours."""

    def __init__(self, session: SecureSession, socket: SocketStream) -> None:
        super().__init__(
            local_peer=session.local_peer,
            local_private_key=session.local_private_key,
            remote_peer=session.remote_peer,
            remote_permanent_pubkey=session.remote_permanent_pubkey,
            is_initiator=session.is_initiator,
            conn=session.conn,
        )
        assert isinstance(session.conn, NoiseTransportReadWriter)
        self._noise = session.conn.noise_state
        self.socket = socket
        self._sealed = bytearray()
        self._opened = b""

    async def receive(self) -> bytes:
        """Return everything that has come and is not read yet; waits for some, empty at the end.

        Raises DecryptionFailedException, or ConnectionClosedError when the peer broke it off.
        """
        opened, self._opened = self._opened, b""
        while not opened:
            data = await self.socket.read()
            if not data:
                return b""
            self._sealed += data
            opened = self._open()
        return opened

    def _open(self) -> bytes:
        sealed = self._sealed
        found = []
        start, available = 0, len(sealed)
        while available - start >= _LENGTH_BYTES:
            begin = start + _LENGTH_BYTES
            end = begin + int.from_bytes(sealed[start:begin], "big")
            if end > available:
                break
            try:
                found.append(self._noise.decrypt(bytes(sealed[begin:end])))
            except NoiseInvalidMessage as error:
                raise DecryptionFailedException(str(error)) from error
            start = end
        del sealed[:start]
        return found[0] if len(found) == 1 else b"".join(found)

    async def read(self, n: int | None = None) -> bytes:
        """Return from 1 to `n` bytes; raises ConnectionClosedError at the end."""
        if n == 0:
            return b""
        if not self._opened:
            self._opened = await self.receive()
            if not self._opened:
                raise ConnectionClosedError("the connection was closed")
        piece, self._opened = self._opened[:n], self._opened[n:] if n is not None else b""
        return piece

    async def write(self, data: bytes) -> None:
        """Send `data`; raises ConnectionClosedError. One at a time: packets are numbered."""
        sealed: list[bytes] = []
        for start in range(0, len(data), _OPEN_BYTES_MAX):
            packet = self._noise.encrypt(data[start : start + _OPEN_BYTES_MAX])
            sealed += (len(packet).to_bytes(_LENGTH_BYTES, "big"), packet)
        await self.socket.write(b"".join(sealed))
