"""Where clients reach a node: a visit is one request, and ends when the node dies."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import trio

from p2pcity.errors import ConfigError, LocalError, P2PCityError
from p2pcity.node.service import NodeService

if TYPE_CHECKING:
    from tests.virtual.host import Host

ResultT = TypeVar("ResultT")
Call = Callable[[NodeService], Awaitable[Any]]


PATIENCE_S: Final = 6.0


class Gone(Exception):
    """No answer came: the node is not there, died, or is too far away."""


class _Visit:
    """A client's request at the door, and what came of it."""

    __slots__ = ("begin_s", "call", "done", "error", "result", "scope")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.begin_s = trio.current_time()
        self.done = trio.Event()
        self.result: Any = None
        self.error: Exception | None = Gone("the node went away, or the client hung up")
        self.scope = trio.CancelScope()


class Door:
    """The door of one host, over all its lives."""

    def __init__(self, host: "Host") -> None:
        self._host = host
        self._visits: list[_Visit] = []
        self._inside: dict[_Visit, None] = {}
        self._bell = trio.Event()

    @property
    def stuck_count(self) -> int:
        """How many requests the node is at for longer than any client waits.

        Those that follow a stream are there nearly all the time, so that at no moment nobody is.
        """
        now_s = trio.current_time()
        return sum(now_s - visit.begin_s > PATIENCE_S for visit in self._inside)

    async def receive(self, nursery: trio.Nursery, service: NodeService) -> None:
        """Let clients in for as long as this life lasts."""
        while True:
            visits, self._visits = self._visits, []
            for visit in visits:
                self._inside[visit] = None
                nursery.start_soon(self._serve, visit, service)
            self._bell = trio.Event()
            if not self._visits:
                await self._bell.wait()

    async def _serve(self, visit: _Visit, service: NodeService) -> None:
        try:
            with visit.scope:
                visit.result = await visit.call(service)
                visit.error = None
        except P2PCityError as error:
            if not isinstance(error, LocalError | ConfigError):
                self._host.world.violate(error)
            visit.error = error
        finally:
            # A node that died answers nothing: `close` was there before.
            if self._inside.pop(visit, 0) is None:
                visit.done.set()

    def close(self) -> None:
        """The node is gone: whoever waits for an answer hears so."""
        visits = [*self._inside, *self._visits]
        self._inside.clear()
        self._visits.clear()
        for visit in visits:
            visit.error = Gone(f"{self._host} died")
            visit.done.set()

    async def ask(
        self, call: Callable[[NodeService], Awaitable[ResultT]], timeout_s: float
    ) -> ResultT:
        """Ask as a client; raises Gone without an answer, or what the node answers."""
        wires = self._host.wires
        await trio.sleep(wires.latency_s * wires.random.random())
        if not self._host.is_up:
            raise Gone(f"{self._host} is not there")
        visit = _Visit(call)
        self._visits.append(visit)
        self._bell.set()
        with trio.move_on_after(timeout_s):
            await visit.done.wait()
        if not visit.done.is_set():
            # The client hangs up; a node that waits for something hears of it.
            visit.scope.cancel()
            raise Gone(f"{self._host} did not answer")
        await trio.sleep(wires.latency_s * wires.random.random())
        if visit.error is not None:
            raise visit.error
        return cast(ResultT, visit.result)
