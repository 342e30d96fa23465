"""The wires between the nodes of one machine: a TCP relay for each pair and direction of dialling.

Each node knows every other only by the address of a relay, so that all their bytes pass here.
What is held is not lost but late, as TCP makes of packets that a network drops for a while; a
connection can be reset, or left half open. With cables the kernel loses packets instead of what
relays would hold. The relays run in a trio thread of their own; the methods may be called from
any thread.
"""

import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self, TypeVar

import trio

from p2pcity.cli.chaos.cables import Cables
from p2pcity.cli.chaos.links import Links, Wire
from p2pcity.cli.testnet.making import free_ports
from p2pcity.errors import Unavailable

_T = TypeVar("_T")

_CHUNK_BYTES: Final = 16 * 1024
_CHUNKS_MAX: Final = 64
_CONNECTIONS_MAX: Final = 256
_HERE: Final = "127.0.0.1"
_START_S: Final = 10.0
_DIAL_S: Final = 5.0
_LOOK_S: Final = 0.2
_BACKLOG: Final = 64
_BIND_TRIES: Final = 20
_SLOW_BYTES: Final = 1400
# linux/tcp.h: the first byte of TCP_INFO is the state; these have no peer any more.
_GONE: Final = (7, 8)


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens to one wire: held by so many, late by up to so much, slowed to so much."""

    holds: int = 0
    delay_s: float = 0.0
    bytes_per_s: float = 0.0


@dataclass(eq=False, slots=True)
class _Connection:
    """One connection through a relay: `dialler` dialled `listener`."""

    dialler: str
    listener: str
    near: trio.SocketStream
    far: trio.SocketStream | None = None
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    half_open_at: str = ""

    def is_between(self, one: str, other: str) -> bool:
        return {self.dialler, self.listener} == {one, other}


class Wires(Links):
    """All relays of a network; a context manager that starts and ends them."""

    def __init__(
        self, nodes: Iterable[str], seed: int = 0, *, cables: Cables | None = None
    ) -> None:
        """Take the names of the nodes; `retarget` says where each listens."""
        super().__init__(nodes)
        self._cables = cables
        self._cutting = threading.Lock()
        self._targets: dict[str, int] = {}
        self._random = random.Random(seed)
        self._rules: dict[Wire, Rule] = {wire: Rule() for wire in self.all}
        self._sockets = {wire: _bound(self.host(*wire)) for wire in self._rules}
        # Nobody listens here: nodes tell each other this address instead of their own.
        self._refusing = _bound(_HERE)
        self._connections: list[_Connection] = []
        self._changed = trio.Event()
        self._thread = threading.Thread(target=self._run, name="wires", daemon=True)
        self._is_up = threading.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self._scope = trio.CancelScope()
        self.held_bytes: dict[Wire, int] = dict.fromkeys(self._rules, 0)
        self.late_bytes: dict[Wire, int] = dict.fromkeys(self._rules, 0)
        self.passed_bytes: dict[Wire, int] = dict.fromkeys(self._rules, 0)
        self.cut_connections = 0

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._is_up.wait(_START_S):
            raise Unavailable("the relays between the nodes do not start")
        return self

    def __exit__(self, *_: object) -> None:
        token = self._token
        if token is not None:
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(self._scope.cancel)
        self._thread.join(_START_S)
        for bound in (*self._sockets.values(), self._refusing):
            bound.close()

    def host(self, dialler: str, listener: str) -> str:
        """The address at which `dialler` reaches `listener`, and from which `listener` comes."""
        return _HERE if self._cables is None else self._cables.face(dialler, listener)

    def port(self, dialler: str, listener: str) -> int:
        """The port of `host` at which `dialler` reaches `listener`."""
        number: int = self._sockets[dialler, listener].getsockname()[1]
        return number

    @property
    def refusing_port(self) -> int:
        """A port of 127.0.0.1 that is taken and refuses every connection."""
        number: int = self._refusing.getsockname()[1]
        return number

    # -- faults ------------------------------------------------------------------------------

    def hold(self, wires: Iterable[Wire]) -> None:
        """Hold back all bytes of these wires from now on; cables lose their packets instead."""
        self._count(wires, 1)

    def release(self, wires: Iterable[Wire]) -> None:
        """End one `hold` of these wires; what was held goes on its way."""
        self._count(wires, -1)

    def delay(self, wires: Iterable[Wire], seconds: float) -> None:
        """Deliver these wires' bytes late, each chunk by half to all of `seconds`; 0 ends it."""
        self._set(wires, delay_s=seconds)

    def slow(self, wires: Iterable[Wire], bytes_per_s: float) -> None:
        """Let no more than so many bytes a second through each of these wires; 0 ends it."""
        self._set(wires, bytes_per_s=bytes_per_s)

    def mend(self, wires: Iterable[Wire] | None = None) -> None:
        """End what was done to these wires (or to all); what was held goes on its way."""
        chosen = tuple(self._rules if wires is None else wires)
        with self._cutting:
            self._change(lambda: self._rules.update({wire: Rule() for wire in chosen}))
            self._cut()

    def held(self, wires: Iterable[Wire]) -> int:
        """How many bytes of these wires were held or lost so far."""
        if self._cables is not None:
            return self._cables.dropped_bytes(wires)
        return sum(self.held_bytes[wire] for wire in wires)

    def reset(self, one: str, other: str) -> int:
        """Reset all connections between two nodes; return how many."""
        return self._change(lambda: self._end(one, other, ""))

    def leave_half_open(self, one: str, other: str) -> int:
        """Reset the connections at `other`, while `one` hears nothing of it; return how many."""
        return self._change(lambda: self._end(one, other, one))

    def connections(self, one: str, other: str) -> int:
        """How many connections between two nodes are open, at both ends as far as is known."""
        return self._change(lambda: len(self._between(one, other, is_silent=False)))

    def silent(self, one: str, other: str) -> int:
        """How many connections between two nodes were left half open, and nobody noticed yet."""
        return self._change(lambda: len(self._between(one, other, is_silent=True)))

    def _between(self, one: str, other: str, *, is_silent: bool) -> list[_Connection]:
        return [
            connection
            for connection in self._connections
            if connection.is_between(one, other) and bool(connection.half_open_at) == is_silent
        ]

    def _count(self, wires: Iterable[Wire], more: int) -> None:
        chosen = tuple(wires)

        def change() -> None:
            for wire in chosen:
                rule = self._rules[wire]
                self._rules[wire] = replace(rule, holds=max(0, rule.holds + more))

        with self._cutting:
            self._change(change)
            self._cut()

    def _cut(self) -> None:
        if self._cables is not None:
            self._cables.cut([wire for wire, rule in self._rules.items() if rule.holds])

    def _is_held(self, wire: Wire) -> bool:
        """Whether the relay holds a wire: what cables lose does not come to it."""
        return self._cables is None and self._rules[wire].holds > 0

    def _set(self, wires: Iterable[Wire], **changes: Any) -> None:
        chosen = tuple(wires)

        def change() -> None:
            for wire in chosen:
                self._rules[wire] = replace(self._rules[wire], **changes)

        self._change(change)

    def _end(self, one: str, other: str, half_open_at: str) -> int:
        chosen = [c for c in self._between(one, other, is_silent=False) if c.far is not None]
        for connection in chosen:
            connection.half_open_at = half_open_at
            connection.scope.cancel()
        self.cut_connections += len(chosen)
        return len(chosen)

    def _change(self, what: Callable[[], _T]) -> _T:
        """Do something in the trio thread, and let whoever waits there look again."""

        def change() -> _T:
            done = what()
            self._changed.set()
            self._changed = trio.Event()
            return done

        assert self._token is not None, "the wires are a context manager"
        return trio.from_thread.run_sync(change, trio_token=self._token)

    def renew(self, node: str) -> None:
        """Leave everything as it is: relays and ports outlive the node's process."""

    def retarget(self, node: str, port: int) -> None:
        """Let new connections to a node go to this port of 127.0.0.1."""
        self._targets[node] = port

    # -- in the trio thread ------------------------------------------------------------------

    def _run(self) -> None:
        trio.run(self._serve)

    async def _serve(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with self._scope:
            async with trio.open_nursery() as nursery:
                for wire, bound in self._sockets.items():
                    bound.listen(_BACKLOG)
                    listener = trio.SocketListener(trio.socket.from_stdlib_socket(bound.dup()))
                    nursery.start_soon(self._accept, wire, listener)
                self._is_up.set()

    async def _accept(self, wire: Wire, listener: trio.SocketListener) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                near = await listener.accept()
                if sum((c.dialler, c.listener) == wire for c in self._connections) >= (
                    _CONNECTIONS_MAX
                ):
                    _abort(near)
                    continue
                connection = _Connection(*wire, near)
                self._connections.append(connection)
                nursery.start_soon(self._relay, connection)

    async def _relay(self, connection: _Connection) -> None:
        near = connection.near
        try:
            with connection.scope:
                await self._pass_both_ways(connection)
        except (OSError, trio.TooSlowError):
            # The node behind it is down: its peer must hear of it.
            connection.scope.cancel()
        finally:
            far = connection.far
            is_cut = connection.scope.cancel_called
            silent = near if connection.half_open_at == connection.dialler else far
            for stream in (near, far):
                if stream is None or (connection.half_open_at and stream is silent):
                    continue
                if is_cut:
                    _abort(stream)
                else:
                    stream.socket.close()
            self._connections.remove(connection)
        if connection.half_open_at and silent is not None:
            await self._keep_silent(connection, silent)

    async def _keep_silent(self, connection: _Connection, stream: trio.SocketStream) -> None:
        """Take what comes and answer nothing, until the node behind it gives up."""
        self._connections.append(connection)
        with contextlib.suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            while await stream.receive_some(_CHUNK_BYTES):
                pass
        self._connections.remove(connection)
        _abort(stream)

    async def _pass_both_ways(self, connection: _Connection) -> None:
        there = (connection.dialler, connection.listener)
        back = (connection.listener, connection.dialler)
        # A TCP handshake needs both ways; who gave up meanwhile is not connected any more.
        while self._is_held(there) or self._is_held(back):
            if _is_gone(connection.near):
                return
            with trio.move_on_after(_LOOK_S):
                await self._changed.wait()
        with trio.fail_after(_DIAL_S):
            far = await trio.open_tcp_stream(
                _HERE,
                self._targets[connection.listener],
                local_address=self.host(connection.listener, connection.dialler),
            )
        connection.far = far
        async with trio.open_nursery() as nursery:
            for wire, source, sink in ((there, connection.near, far), (back, far, connection.near)):
                to, of = trio.open_memory_channel[tuple[float, bytes]](_CHUNKS_MAX)
                nursery.start_soon(self._read, wire, source, to)
                nursery.start_soon(self._write, wire, of, sink, nursery.cancel_scope)

    async def _read(
        self,
        wire: Wire,
        source: trio.SocketStream,
        to: trio.MemorySendChannel[tuple[float, bytes]],
    ) -> None:
        """Take bytes, and note when each chunk is due; an empty one is the end."""
        due_s = 0.0
        while True:
            try:
                chunk = bytes(await source.receive_some(_CHUNK_BYTES))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                chunk = b""
            delay_s = self._rules[wire].delay_s * self._random.uniform(0.5, 1.0)
            due_s = max(due_s, trio.current_time() + delay_s)
            await to.send((due_s, chunk))
            if not chunk:
                return

    async def _write(
        self,
        wire: Wire,
        of: trio.MemoryReceiveChannel[tuple[float, bytes]],
        sink: trio.SocketStream,
        scope: trio.CancelScope,
    ) -> None:
        async for due_s, chunk in of:
            if due_s > trio.current_time():
                self.late_bytes[wire] += len(chunk)
                await trio.sleep_until(due_s)
            if self._is_held(wire):
                self.held_bytes[wire] += max(1, len(chunk))
                while self._is_held(wire):
                    await self._changed.wait()
            if not chunk:
                # The end of the connection, as late as any of its bytes.
                scope.cancel()
                return
            try:
                await self._send(wire, chunk, sink)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                # Nobody takes it any more; the other side must hear of it.
                scope.cancel()
                return
            self.passed_bytes[wire] += len(chunk)

    async def _send(self, wire: Wire, chunk: bytes, sink: trio.SocketStream) -> None:
        for piece in _pieces(chunk, self._rules[wire].bytes_per_s):
            rate = self._rules[wire].bytes_per_s
            if rate:
                self.late_bytes[wire] += len(piece)
                await trio.sleep(len(piece) / rate)
            await sink.send_all(piece)


def _pieces(chunk: bytes, bytes_per_s: float) -> Iterator[bytes]:
    """A slow wire takes an MTU's worth at a time, so that its pace is even."""
    size = _SLOW_BYTES if bytes_per_s else len(chunk)
    for start in range(0, len(chunk), size):
        yield chunk[start : start + size]


def _bound(host: str) -> socket.socket:
    for _ in range(_BIND_TRIES):
        bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            bound.bind((host, free_ports(1)[0]))
        except OSError:
            # Somebody took it in between.
            bound.close()
            continue
        return bound
    raise Unavailable("no TCP port of this machine stays free", remedy="End what takes them.")


def _abort(stream: trio.SocketStream) -> None:
    """Close with a reset: the other side must not wait for an orderly end."""
    with contextlib.suppress(OSError):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


def _is_gone(stream: trio.SocketStream) -> bool:
    try:
        state = stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    except OSError:
        return True
    return bytes(state)[0] in _GONE
