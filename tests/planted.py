"""Bugs to be planted on purpose: the test of the tests.

Each is a patch of production code under a name, switched on for as long as a context lasts.
`seeds` is within how many seeds of the simulator (from 0 on) it must be found; None where
seeds hardly ever find it and a script does (`script` names it).
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final
from unittest import mock

from p2pcity.ledger import segment_log, segment_recovery
from p2pcity.ordering.apply import Applier
from p2pcity.ordering.clock_rule import ClockRule
from p2pcity.ordering.pump import Pump, Save
from p2pcity.raft import reading, replication
from p2pcity.raft.raft import Raft
from p2pcity.raft.raw_node import RawNode
from p2pcity.raft.reads import LeaderReads, Read
from p2pcity.raft.ready import Ready
from p2pcity.wire.raft import AppendAnswer


@dataclass(frozen=True, slots=True)
class Planted:
    """One bug: what it is, how it is switched on, and within how many seeds it is found."""

    what: str
    plant: Callable[[], AbstractContextManager[Any]]
    seeds: int | None
    script: str = ""


def _vote_not_synced() -> AbstractContextManager[Any]:
    real = RawNode.ready

    def ready(self: RawNode) -> Ready:
        taken = real(self)
        if taken.must_sync and not taken.entries:
            taken = self._outstanding = replace(taken, must_sync=False)
        return taken

    return mock.patch.object(RawNode, "ready", ready)


def _append_acknowledged_before_sync() -> AbstractContextManager[Any]:
    real = Pump.begin

    def begin(self: Pump) -> Save | None:
        save = real(self)
        if save is not None:
            for receiver, message in save.ready.messages:
                if isinstance(message, AppendAnswer):
                    self._send(receiver, message)
        return save

    return mock.patch.object(Pump, "begin", begin)


def _older_term_committed_by_counting() -> AbstractContextManager[Any]:
    def commit(raft: Raft) -> None:
        matches = {peer: progress.match for peer, progress in raft.progress.items()}
        if not raft.raft_log.commit_to(raft.configuration.committed(matches)):
            return
        while raft.uncommitted and raft.uncommitted[0][0] <= raft.raft_log.commit:
            raft.uncommitted_bytes -= raft.uncommitted.popleft()[1]
        raft.is_flush_due = True
        reading.release(raft)

    return mock.patch.object(replication, "_commit", commit)


def _read_round_reused() -> AbstractContextManager[Any]:
    real = LeaderReads.open_round

    def open_round(self: LeaderReads, read: Read, index: int) -> None:
        is_first = self.round == 0
        real(self, read, index)
        if not is_first:
            # As if the round that is under way, or answered already, would do.
            self.round -= 1
            self._rounds[-1] = (self.round, self._rounds[-1][1])

    return mock.patch.object(LeaderReads, "open_round", open_round)


def _duplicate_id_in_one_block() -> AbstractContextManager[Any]:
    real = Applier._judge

    def judge(
        self: Applier, carried: Any, block_time_ms: int, seen_ids: set[bytes], known: Any
    ) -> Any:
        return real(self, carried, block_time_ms, set(), known)

    return mock.patch.object(Applier, "_judge", judge)


@contextmanager
def _torn_tail_not_cut() -> Iterator[None]:
    real = segment_log.SegmentLog._mend

    def mend(self: segment_log.SegmentLog, recovered: segment_recovery.Recovered) -> None:
        """Go on behind the torn bytes, as if they were records."""
        if not recovered.bytes_cut:
            real(self, recovered)
        self._is_mark_synced = True

    with mock.patch.object(segment_log.SegmentLog, "_mend", mend):
        yield


def _wild_clock_proposes() -> AbstractContextManager[Any]:
    return mock.patch.object(ClockRule, "may_propose", return_value=True)


PLANTED: Final[dict[str, Planted]] = {
    "vote-not-synced": Planted("a vote leaves before it is on disk", _vote_not_synced, 3),
    "append-before-sync": Planted(
        "an append is acknowledged before its sync", _append_acknowledged_before_sync, 3
    ),
    "older-term-counted": Planted(
        "an entry of an older term is committed by counting (figure 8)",
        _older_term_committed_by_counting,
        100,
    ),
    "read-round-reused": Planted(
        "a read is confirmed by answers from before it was asked", _read_round_reused, 100
    ),
    "duplicate-in-block": Planted(
        "the same id twice in one block is applied twice", _duplicate_id_in_one_block, 100
    ),
    "torn-tail-kept": Planted(
        "a torn tail stays, and new records follow it", _torn_tail_not_cut, 30
    ),
    "wild-clock-proposes": Planted(
        "a leader's clock is not compared with the voters'", _wild_clock_proposes, 30
    ),
}
"""Every planted bug by its name."""
