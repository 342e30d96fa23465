"""The raft_log as the core sees it: entries on disk, a tail in memory, and four indexes.

    applied <= handed_out <= min(commit, stable), and commit <= last_index

An entry above `stable` lives only in the tail. The tail also keeps recent entries that are on
disk, so that sending and applying them reads nothing. Terms never fall along the log, so
questions about terms are answered by bisection.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final

from p2pcity.errors import CorruptionError
from p2pcity.raft.log_storage import LogStorage
from p2pcity.wire.raft import Entry

ENTRIES_MAX: Final = 4096
"""Entries in one append or one batch for apply, whatever their bytes."""


class RaftLog:
    """Entries, and how far they are persisted, committed, handed out and applied."""

    def __init__(self, storage: LogStorage, *, applied: int, tail_bytes_max: int) -> None:
        last = storage.last_index
        if applied > last:
            raise CorruptionError(
                f"index {applied} was applied, but the log ends at {last}",
                index=last + 1,
                remedy="The log lost entries: replace this node under a new incarnation.",
            )
        self._storage = storage
        self._tail: list[Entry] = []
        self._tail_first = last + 1
        self._tail_bytes = 0
        self._tail_bytes_max = tail_bytes_max
        self._batches: deque[tuple[int, int]] = deque()
        self._batch_bytes = 0
        self._cut = last + 1
        self.stable = last
        # The commit index on disk is a hint that is never synced by itself.
        self.commit = max(min(storage.hard_state.commit, last), applied)
        self.handed_out = applied
        self.applied = applied

    @property
    def first_index(self) -> int:
        """The index of the oldest entry that can be read."""
        return self._storage.first_index

    @property
    def memory_first(self) -> int:
        """The index from which on entries are in memory."""
        return self._tail_first

    @property
    def last_index(self) -> int:
        """The index of the newest entry, on disk or not."""
        return self._tail_first + len(self._tail) - 1

    @property
    def last_term(self) -> int:
        """The term of the newest entry, 0 in an empty log."""
        term = self.term(self.last_index)
        assert term is not None, "the last term is always known"
        return term

    def term(self, index: int) -> int | None:
        """The term at `index`; None beyond the end and below what storage keeps."""
        if index >= self._tail_first:
            offset = index - self._tail_first
            return self._tail[offset].term if offset < len(self._tail) else None
        if index < self.first_index - 1:
            return None
        return self._storage.term(index)

    def is_up_to_date(self, last_index: int, last_term: int) -> bool:
        """Whether a log that ends so is at least as good as this one (Raft section 5.4.1)."""
        own = self.last_term
        return last_term > own or (last_term == own and last_index >= self.last_index)

    def first_conflict(self, entries: Sequence[Entry]) -> int | None:
        """The first index at which `entries` bring something this log lacks; None if nothing."""
        for entry in entries:
            if self.term(entry.index) != entry.term:
                return entry.index
        return None

    def last_index_below(self, index: int, term: int) -> int:
        """The greatest index up to `index` whose entry's term is at most `term`.

        Both sides use it to skip a whole term per rejection (Raft section 5.3). Never below
        what storage keeps.
        """
        low = self.first_index - 1
        high = max(low, min(index, self.last_index))
        while low < high:
            middle = (low + high + 1) // 2
            at_middle = self.term(middle)
            assert at_middle is not None, "bisection stays inside the log"
            if at_middle <= term:
                low = middle
            else:
                high = middle - 1
        return low

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries, cutting whatever stood at their indexes; never what is committed."""
        first = entries[0].index
        assert self.commit < first <= self.last_index + 1, "committed entries stay, without gaps"
        previous = self.term(first - 1)
        assert previous is not None, "an append stands on a known entry"
        if first < self._tail_first:
            self._tail_first = first
            self._tail.clear()
            self._tail_bytes = 0
        else:
            offset = first - self._tail_first
            self._tail_bytes -= sum(len(entry.payload) for entry in self._tail[offset:])
            del self._tail[offset:]
        self.stable = min(self.stable, first - 1)
        self._cut = min(self._cut, first)
        for index, entry in enumerate(entries, start=first):
            assert entry.index == index, "indexes have no gaps"
            assert entry.term >= previous, "terms never fall"
            previous = entry.term
            self._tail_bytes += len(entry.payload)
        self._tail.extend(entries)

    def entries(self, low: int, high: int, bytes_max: int) -> list[Entry]:
        """Entries from `low` to `high` - 1: at least one, at most `bytes_max` of payload."""
        assert self.first_index <= low < high <= self.last_index + 1, "a readable range"
        high = min(high, low + ENTRIES_MAX)
        if low < self._tail_first:
            found = self._storage.entries(low, min(high, self._tail_first), bytes_max)
            assert found, "storage returns at least one entry"
            assert found[0].index == low, "storage begins where it was asked to"
        else:
            offset = low - self._tail_first
            found = self._tail[offset : high - self._tail_first]
        total = 0
        for count, entry in enumerate(found):
            total += len(entry.payload)
            if total > bytes_max and count:
                return found[:count]
        return found

    @property
    def has_unstable(self) -> bool:
        """Whether entries wait to be saved."""
        return self.stable < self.last_index

    @property
    def unstable_bytes(self) -> int:
        """Payload bytes of the entries that wait to be saved or are being saved."""
        start = max(0, self.stable + 1 - self._tail_first)
        return sum(len(entry.payload) for entry in self._tail[start:])

    def take_unstable(self) -> tuple[Entry, ...]:
        """The entries that are not on disk yet, to be saved now."""
        self._cut = self.last_index + 1
        return tuple(self._tail[self.stable + 1 - self._tail_first :])

    def mark_stable(self, index: int) -> None:
        """What `take_unstable` gave, up to `index`, is synced.

        Entries that were replaced since then have to be saved again, and only those.
        """
        self.stable = max(self.stable, min(index, self._cut - 1))
        self._trim()

    def commit_to(self, index: int) -> bool:
        """Raise the commit index; returns whether it moved."""
        assert index <= self.last_index, "nothing beyond the end is committed"
        if index <= self.commit:
            return False
        self.commit = index
        return True

    @property
    def is_apply_due(self) -> bool:
        """Whether `take_committed` would hand something out, room permitting."""
        return self.handed_out < min(self.commit, self.stable)

    def take_committed(self, bytes_max: int) -> list[Entry]:
        """Hand out the next committed and persisted entries.

        At most `bytes_max` of payload are out at once, except that one entry always fits when
        nothing is.
        """
        if not self.is_apply_due or not self.has_apply_room(bytes_max):
            return []
        high = min(self.commit, self.stable) + 1
        found = self.entries(self.handed_out + 1, high, bytes_max - self._batch_bytes)
        self.handed_out = found[-1].index
        size = sum(len(entry.payload) for entry in found)
        self._batches.append((self.handed_out, size))
        self._batch_bytes += size
        return found

    def has_apply_room(self, bytes_max: int) -> bool:
        """Whether apply has caught up far enough to be given more."""
        return not self._batches or (
            self._batch_bytes < bytes_max and self.handed_out - self.applied < ENTRIES_MAX
        )

    def mark_applied(self, index: int) -> None:
        """Apply finished everything up to `index`."""
        assert self.applied <= index <= self.handed_out, "only what was handed out is applied"
        self.applied = index
        while self._batches and self._batches[0][0] <= index:
            self._batch_bytes -= self._batches.popleft()[1]

    def _trim(self) -> None:
        if self._tail_bytes <= self._tail_bytes_max and len(self._tail) <= 2 * ENTRIES_MAX:
            return
        drop = 0
        kept = self._tail_bytes
        for entry in self._tail:
            if entry.index > self.stable or (
                2 * kept <= self._tail_bytes_max and len(self._tail) - drop <= ENTRIES_MAX
            ):
                break
            kept -= len(entry.payload)
            drop += 1
        del self._tail[:drop]
        self._tail_first += drop
        self._tail_bytes = kept
