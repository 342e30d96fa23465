"""What the core reads from disk; the segment log implements it."""

from typing import Protocol

from p2pcity.wire.raft import Entry, HardState


class LogStorage(Protocol):
    """The persisted part of the raft_log, as of the last save that finished.

    Reads may raise LedgerError, which goes up through the core and stops the node.
    """

    @property
    def first_index(self) -> int:
        """The index of the oldest entry that can be read; last_index + 1 when there is none."""
        ...

    @property
    def last_index(self) -> int:
        """The index of the newest entry, 0 in a new log."""
        ...

    @property
    def hard_state(self) -> HardState:
        """The hard state of the last save."""
        ...

    def term(self, index: int) -> int:
        """The term of the entry at `index`, for first_index - 1 to last_index; 0 for index 0."""
        ...

    def entries(self, low: int, high: int, bytes_max: int) -> list[Entry]:
        """The entries from `low` to `high` - 1 up to `bytes_max` of payload, at least one."""
        ...
