"""A simulated node's wall clock: right, or so many milliseconds off."""

from typing import Final

from tests.sim.world import START_MS, World

ALWAYS: Final = 1 << 62
RIGHT_MS_MAX: Final = 10
"""A clock that is off by no more counts as right."""


class WallClock:
    """Steps when a fault steps it; else it runs as virtual time does."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._wrong_until = -ALWAYS
        self.offset_ms = 0

    @property
    def now_ms(self) -> int:
        """What it says, Unix ms."""
        return START_MS + self._world.now // 1000 + self.offset_ms

    def set(self, offset_ms: int) -> None:
        """Step it to so many ms from the true time."""
        if not self.is_right:
            self._wrong_until = self._world.now
        self.offset_ms = offset_ms

    @property
    def is_right(self) -> bool:
        """Whether it shows the true time, nearly."""
        return abs(self.offset_ms) <= RIGHT_MS_MAX

    def was_right(self, for_us: int) -> bool:
        """Whether it is right, and was for so many microseconds."""
        return self.is_right and self._world.now - self._wrong_until > for_us
