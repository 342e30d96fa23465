"""A node's real segment log and base over its disk in memory, and what of them would survive."""

from collections.abc import Sequence
from typing import Any, cast

from p2pcity.ledger.base_incoming import Incoming, open_installed
from p2pcity.ledger.records import MARK_RECORD_BYTES
from p2pcity.ledger.segment_file import SUFFIX
from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.ledger.segment_repair import Mender
from p2pcity.wire.raft import Entry, HardState
from tests.sim.files import MemoryDisk


class Durable:
    """What the newest sync left behind: the checkers compare with it what a node says."""

    def __init__(self) -> None:
        self.hard_state = HardState()
        self._written_hard_state = HardState()
        self._terms: list[int] = []
        self.last_index = 0

    @property
    def written_index(self) -> int:
        """The newest entry that was written; a crash of the process alone keeps it."""
        return len(self._terms)

    def term(self, index: int) -> int:
        """The term of a durable entry, -1 where there is none, 0 where only a base has it."""
        return self._terms[index - 1] if 0 < index <= self.last_index else -1

    def wrote(self, hard_state: HardState | None, entries: Sequence[Entry]) -> None:
        """The log wrote this, synced or not."""
        if entries:
            first = entries[0].index
            self._terms[first - 1 :] = [entry.term for entry in entries]
            self.last_index = min(self.last_index, first - 1)
        if hard_state is not None:
            self._written_hard_state = hard_state

    def synced(self) -> None:
        """Everything written so far is durable."""
        self.last_index = len(self._terms)
        self.hard_state = self._written_hard_state

    def recovered(self, log: SegmentLog) -> None:
        """A log was opened: what it says is durable."""
        before = log.first_index - 1
        known = self._terms[:before]
        self._terms = known + [0] * (before - len(known))
        self._terms += [log.term(index) for index in range(before + 1, log.last_index + 1)]
        self.hard_state = self._written_hard_state = log.hard_state
        self.last_index = log.last_index


class Storage:
    """One node's disk and the log on it."""

    def __init__(
        self, disk: MemoryDisk, incarnation: bytes, *, cache_bytes_max: int, segment_bytes_max: int
    ) -> None:
        self.disk = disk
        self._cache_bytes_max = cache_bytes_max
        self._segment_bytes_max = segment_bytes_max
        self.init(incarnation)

    def init(self, incarnation: bytes) -> None:
        """What `p2pcity init` does: make a log, once."""
        self.durable = Durable()
        mark_key = self.disk.random.randbytes(16)
        SegmentLog.create(self._directory("log"), incarnation, mark_key=mark_key)

    def _directory(self, name: str) -> Any:
        """A directory, as the ledger takes it: a path that is none."""
        return cast(Any, self.disk.directory / name)

    def incoming(self) -> Incoming:
        """Take up the base that is being fetched from others."""
        return Incoming(self._directory("base/incoming"), self.bases.stored)

    def open(self, incarnation: bytes, mender: Mender) -> SegmentLog:
        """What a start does, in its order; raises what base and log raise.

        A log with holes is as good as none: it counts for nothing until they are filled.
        """
        self.bases, _ = open_installed(self._directory("base"))
        log = SegmentLog.open(
            self._directory("log"),
            clock=lambda: 0.0,
            cache_bytes_max=self._cache_bytes_max,
            segment_bytes_max=self._segment_bytes_max,
            mender=mender,
            start=self.bases.start,
            may_begin_anew=self.bases.is_given,
        )
        assert log.incarnation == incarnation, "nobody changes disks between nodes"
        if not log.holes:
            log.bind_network(mender.network)
            self.durable.recovered(log)
        return log

    def save(
        self,
        log: SegmentLog,
        hard_state: HardState | None,
        entries: Sequence[Entry],
        must_sync: bool,
    ) -> None:
        """One save, and what it made durable."""
        log.save(hard_state, entries, must_sync)
        self.durable.wrote(hard_state, entries)
        self._note_synced()

    def remove_files(self, log: SegmentLog) -> int:
        """Remove the files that hold nothing any more, and what that made durable."""
        count = log.remove_files()
        self.durable.wrote(log.hard_state, ())
        self._note_synced()
        return count

    def _note_synced(self) -> None:
        file = self.disk.names[max(n for n in self.disk.names if n.endswith(SUFFIX))]
        if file.synced_size >= len(file.cache) - MARK_RECORD_BYTES:
            self.durable.synced()
