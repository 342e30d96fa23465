"""What the leader knows about one peer's log, and what is under way to it.

    match < next, and match only grows while this leader leads

In `probe` the leader does not know where the logs part: one append at a time, then wait. In
`replicate` it sends ahead, as far as the bounds on messages and bytes in flight allow. A peer
that is held is far behind, and fetches from others what the leader has no longer in memory.
"""

import enum
from collections import deque
from typing import Final

from p2pcity.raft.config import RaftConfig

# Two may get lost before an observer takes its leader for gone.
_HEARTBEATS_PER_ELECTION: Final = 3


class ProgressState(enum.StrEnum):
    """How appends are sent to a peer."""

    PROBE = "probe"
    REPLICATE = "replicate"


class Progress:
    """One peer as its leader sees it; all indexes are of the leader's log."""

    def __init__(self, *, match: int, next_index: int, tick: int) -> None:
        self.match = match
        self.next = next_index
        self.state = ProgressState.PROBE
        self.is_probe_sent = False
        self.commit_sent = 0
        self.round = 0
        self.contact_tick = tick
        self.append_tick = tick
        self.heartbeat_tick: int | None = None
        self.in_flight_bytes = 0
        self._in_flight: deque[tuple[int, int]] = deque()
        self.is_held = False
        self.is_given_up = False
        self.news_tick = tick
        self.old_bytes = 0

    @property
    def in_flight_messages(self) -> int:
        """Appends with entries that have no answer yet."""
        return len(self._in_flight)

    def is_paused(self, config: RaftConfig) -> bool:
        """Whether no further append with entries may go out now."""
        if self.state is ProgressState.PROBE:
            return self.is_probe_sent
        # Room for a whole append is needed, so that the bound on bytes is never exceeded.
        return (
            len(self._in_flight) >= config.in_flight_messages_max
            or self.in_flight_bytes + config.append_bytes_max > config.in_flight_bytes_max
        )

    def is_retry_due(self, tick: int, config: RaftConfig, first_index: int) -> bool:
        """Whether something is under way and unanswered for so long that it may be lost.

        The same for a peer that lacks what lies below the leader's `first_index`.
        """
        is_waiting = (
            self.is_probe_sent or self.is_held or bool(self._in_flight) or self.next < first_index
        )
        return is_waiting and tick - self.append_tick >= config.retry_ticks

    def is_heartbeat_due(self, tick: int, config: RaftConfig) -> bool:
        """Whether an observer is to hear of its leader again: three times an election time-out."""
        if self.heartbeat_tick is None:
            return True
        return tick - self.heartbeat_tick >= config.election_ticks // _HEARTBEATS_PER_ELECTION

    def note_sent(self, last_index: int, size: int, tick: int) -> None:
        """An append up to `last_index` with `size` bytes of payload goes out."""
        if self.state is ProgressState.PROBE:
            self.is_probe_sent = True
            self.append_tick = tick
            return
        assert last_index >= self.next, "entries were sent"
        if not self._in_flight:
            self.append_tick = tick
        self.next = last_index + 1
        self._in_flight.append((last_index, size))
        self.in_flight_bytes += size

    def note_accepted(self, index: int, tick: int) -> bool:
        """The peer's log equals the leader's up to `index`; returns whether that is news."""
        self.append_tick = tick
        while self._in_flight and self._in_flight[0][0] <= index:
            self.in_flight_bytes -= self._in_flight.popleft()[1]
        is_news = index > self.match
        if is_news:
            self.news_tick = tick
        self.match = max(self.match, index)
        self.next = max(self.next, self.match + 1)
        if self.state is ProgressState.PROBE and index == self.match:
            self.become_replicate()
            return True
        return is_news

    def note_rejected(self, rejected: int, hint: int, tick: int) -> bool:
        """The peer lacks the entry at `rejected`; `hint` may match. False for an old answer."""
        if self.state is ProgressState.REPLICATE:
            if rejected <= self.match or rejected >= self.next:
                return False
            self.become_probe()
            return True
        if rejected != self.next - 1 or rejected <= self.match:
            return False
        self.append_tick = tick
        self.next = max(min(rejected, hint + 1), self.match + 1)
        self.is_probe_sent = False
        return True

    def hold(self, tick: int) -> None:
        """Send no entries any more: others have them too."""
        self.become_replicate()
        self.is_held = True
        self.news_tick = self.append_tick = tick

    def give_up(self) -> None:
        """Nobody else helps: send all that it lacks."""
        self.is_held, self.is_given_up = False, True

    def catch_up(self) -> None:
        """What it lacks is in the leader's memory."""
        self.is_held, self.is_given_up, self.old_bytes = False, False, 0

    def become_probe(self) -> None:
        """Forget what was sent: ask again from the last index known to match."""
        self.is_held = False
        self.state = ProgressState.PROBE
        self.next = self.match + 1
        self.is_probe_sent = False
        self._in_flight.clear()
        self.in_flight_bytes = 0

    def probe_again(self, next_index: int) -> None:
        """Ask once more from there down; nothing that was sent before will be answered."""
        self.become_probe()
        self.next = next_index
        self.is_probe_sent = True

    def become_replicate(self) -> None:
        """The logs agree up to `match`: send ahead from there."""
        self.state = ProgressState.REPLICATE
        self.next = self.match + 1
        self.is_probe_sent = False
        self._in_flight.clear()
        self.in_flight_bytes = 0
