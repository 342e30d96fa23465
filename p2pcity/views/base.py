"""What the views need of a base: the full keys of what was pruned, by position.

The look-up tables keep 8 bytes of each key for ever. Above the base the log has the rest; at or
below it the base's records do.
"""

from typing import Protocol

from p2pcity.wire.base import Record


class Base(Protocol):
    """The records of what was pruned, at one moment."""

    @property
    def height(self) -> int:
        """The height up to which blocks were pruned, 0 for none."""

    @property
    def floor(self) -> int:
        """The first position behind the base: what stands below is found here."""

    def find_transaction(self, position: int) -> Record | None:
        """Return the record of the transaction at `position`, None when it was dropped."""

    def find_event(self, position: int) -> Record | None:
        """Return the record of the event at `position`, None for a duplicate."""

    def check(self, position: int) -> None:
        """Verify the records around `position`, before another key there is believed."""

    def count_events(self, position: int) -> int:
        """Return how many events the transaction at `position` brought into the views."""


class _NoBase:
    """The base of a node that keeps everything."""

    height = 0
    floor = 0

    def find_transaction(self, position: int) -> Record | None:
        """There is no position below the floor."""
        return None

    def find_event(self, position: int) -> Record | None:
        """There is no position below the floor."""
        return None

    def check(self, position: int) -> None:
        """There is no position below the floor."""

    def count_events(self, position: int) -> int:
        """There is no position below the floor."""
        return 0


NO_BASE: Base = _NoBase()
