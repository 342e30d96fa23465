"""Serves entries of the raft_log to peers: from disk, in a thread, and no faster than it may."""

from collections.abc import Callable
from typing import Final

from p2pcity.errors import CorruptionError, Pruned, Unavailable
from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.ledger.writer import WriterThread
from p2pcity.node.pacing import BYTES_PER_S, Pace
from p2pcity.wire.limits import BLOCK_BYTES_MAX
from p2pcity.wire.raft import Entry
from p2pcity.wire.sync import ENTRIES_MAX, EntriesAnswer, EntriesQuery

_ENTRY_OVERHEAD_BYTES: Final = 256


class EntryServing:
    """Answers questions for entries, one after the other, at `bytes_per_s` in all."""

    def __init__(
        self,
        *,
        raft_log: SegmentLog,
        thread: WriterThread,
        on_damage: Callable[[CorruptionError], None],
        bytes_per_s: int = BYTES_PER_S,
    ) -> None:
        self._raft_log = raft_log
        self._thread = thread
        self._on_damage = on_damage
        self.pace = Pace("entries", bytes_per_s)
        self._is_closed = False

    def close(self) -> None:
        """Begin no further read: what is queued in the thread is the last."""
        self._is_closed = True

    async def answer(self, question: EntriesQuery) -> EntriesAnswer:
        """Return entries from the asked index on; none when this node has not got them.

        Raises Unavailable when too many wait, and when an entry turns out to be damaged: what
        is wrong with it is told to `on_damage`.
        """
        async with self.pace.turn():
            if self._is_closed:
                raise Unavailable("the raft_log is being opened anew")
            # Saved together: what is committed by it was known in no later term.
            hard_state = self._raft_log.hard_state
            try:
                entries = await self._thread.run(self._read, question.index)
            except CorruptionError as error:
                self._on_damage(error)
                raise Unavailable(f"entry {question.index} can't be read here") from error
            size = sum(len(entry.payload) + _ENTRY_OVERHEAD_BYTES for entry in entries)
            self.pace.gave(size)
        return EntriesAnswer(
            question.index,
            hard_state.term,
            hard_state.commit,
            tuple(entries),
            self._raft_log.first_index,
        )

    def _read(self, index: int) -> list[Entry]:
        try:
            entries = self._raft_log.entries_from(index, ENTRIES_MAX, BLOCK_BYTES_MAX)
        except Pruned:  # just now
            return []
        # Only in answers: a single entry may be larger than a block in the log.
        return entries if entries and len(entries[0].payload) <= BLOCK_BYTES_MAX else []
