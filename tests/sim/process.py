"""A node's process in the event heap: what it does later, and what waits while it is stopped."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from random import Random
from typing import Any, Final

from p2pcity.wire.raft import Message
from tests.sim.sockets import Call, as_read
from tests.sim.world import World

_HELD_MAX: Final = 5000


class Process(ABC):
    """Calls belong to one life of it; a pause holds them back, a crash forgets them."""

    def __init__(self, world: World, random: Random) -> None:
        self.world = world
        self.random = random
        self.life = 0
        self.is_paused = False
        self._held: list[Call] = []

    @abstractmethod
    def receive(self, sender: str, incarnation: bytes, message: Message) -> None:
        """Take a Raft message off the wire."""

    def after(self, delay: int, function: Callable[..., None], *arguments: Any) -> None:
        """Call `function` in `delay`, in this life, and not while the node is paused."""
        self.world.after(delay, self._call, self.life, function, arguments)

    def _call(self, life: int, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if life != self.life:
            return
        if self.is_paused:
            if len(self._held) < _HELD_MAX:
                self._held.append((life, function, arguments))
            return
        function(*arguments)

    def arrive(self, function: Callable[..., None], *arguments: Any) -> None:
        """Something comes in now, or once the node runs again."""
        self._call(self.life, function, arguments)

    def pause(self) -> None:
        """As SIGSTOP does: time passes, nothing runs, messages wait in the sockets."""
        self.is_paused = True

    def resume(self) -> None:
        """As SIGCONT does: what waited comes in at once, each sender's in order.

        Which socket is read first is chance, so a read may overtake a peer's older message.
        """
        self.is_paused = False
        held, self._held = self._held, []
        if held:
            self.world.struck["pause"] += 1
        for life, function, arguments in as_read(held, self.receive, self.random):
            self._call(life, function, arguments)

    def drop_held(self) -> None:
        """What waited is lost with the process."""
        self._held.clear()
