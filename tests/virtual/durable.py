"""What a node's disk keeps, as the checkers ask for it."""

from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.wire.raft import HardState


class Durable:
    """What a node's disk keeps, running or not: as the checkers ask for it."""

    def __init__(self, raft_log: SegmentLog) -> None:
        self._log = raft_log

    @property
    def hard_state(self) -> HardState:
        return self._log.hard_state

    @property
    def last_index(self) -> int:
        return self._log._index.last_index

    def term(self, index: int) -> int | None:
        known = self._log._index
        return known.term(index) if known.start.index <= index <= known.last_index else None
