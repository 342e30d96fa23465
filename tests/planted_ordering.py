"""Bugs beside the core: the disk, apply, the way in, and the order between them."""

import itertools
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Final
from unittest import mock

from p2pcity.admission.admission import Admission
from p2pcity.admission.seen import Seen
from p2pcity.errors import DecodeError, SyncFailedError
from p2pcity.ledger import records, segment_found, segment_log, segment_tail
from p2pcity.ordering.apply import Applier
from p2pcity.ordering.clock_rule import ClockRule
from p2pcity.ordering.proposer import Proposer
from p2pcity.ordering.pump import Pump, Save
from p2pcity.raft.raft_log import RaftLog
from p2pcity.wire.block import Block
from p2pcity.wire.raft import AppendAnswer, Entry
from p2pcity.wire.transaction import decode_carried
from tests.planted_case import Planted


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


@contextmanager
def _applied_before_disk() -> Iterator[None]:
    """Committed entries go to apply beside their own save, and not after it."""
    real = Pump.begin

    def take_committed(self: RaftLog, bytes_max: int) -> list[Entry]:
        if self.handed_out >= self.commit or not self.has_apply_room(bytes_max):
            return []
        found = self.entries(self.handed_out + 1, self.commit + 1, bytes_max)
        self.handed_out = found[-1].index
        self._batches.append((self.handed_out, 0))
        return found

    def begin(self: Pump) -> Save | None:
        save = real(self)
        if save is not None and save.ready.committed_entries:
            self._apply(save.ready.committed_entries)
        return save

    with (
        mock.patch.object(RaftLog, "take_committed", take_committed),
        mock.patch.object(Pump, "begin", begin),
    ):
        yield


def _duplicate_id_in_one_block() -> AbstractContextManager[Any]:
    real = Applier._judge

    def judge(
        self: Applier, carried: Any, block_time_ms: int, seen_ids: set[bytes], known: Any
    ) -> Any:
        return real(self, carried, block_time_ms, set(), known)

    return mock.patch.object(Applier, "_judge", judge)


def _duplicate_id_of_an_older_block() -> AbstractContextManager[Any]:
    real = Applier._judge

    class Nothing:
        def has_transaction(self, _id: bytes, /) -> bool:
            return False

        def has_event(self, _name_key: bytes, /) -> bool:
            return False

    def judge(
        self: Applier, carried: Any, block_time_ms: int, seen_ids: set[bytes], _known: Any
    ) -> Any:
        return real(self, carried, block_time_ms, seen_ids, Nothing())

    return mock.patch.object(Applier, "_judge", judge)


def _expired_by_own_clock() -> AbstractContextManager[Any]:
    """Every applier has a clock of its own, three seconds from the one before."""
    real = Applier._judge
    clocks: dict[int, int] = {}
    offsets = itertools.cycle((0, 3000, 6000))

    def judge(
        self: Applier, carried: Any, block_time_ms: int, seen_ids: set[bytes], known: Any
    ) -> Any:
        offset = clocks.setdefault(id(self), next(offsets))
        return real(self, carried, block_time_ms + offset, seen_ids, known)

    return mock.patch.object(Applier, "_judge", judge)


def _forgotten_when_proposed() -> AbstractContextManager[Any]:
    """A transaction leaves the mempool with its block's proposal and not with its commit."""
    real = Proposer._propose_one

    def propose_one(self: Proposer, now_ms: int) -> tuple[int, Block] | None:
        made = real(self, now_ms)
        if made is not None:
            self._mempool.remove(self._in_flight[made[0]])
        return made

    return mock.patch.object(Proposer, "_propose_one", propose_one)


@contextmanager
def _garbled_copy_remembered() -> Iterator[None]:
    """A garbled copy is remembered by its id, so the true one passes for a duplicate."""
    real_screen, real_reject = Admission.screen, Seen.reject
    newest: list[bytes] = []

    def screen(self: Admission, data: bytes, *rest: Any, **named: Any) -> Any:
        newest[:] = [data]
        return real_screen(self, data, *rest, **named)

    def reject(self: Seen, digest: bytes, reason: str) -> None:
        real_reject(self, digest, reason)
        with suppress(DecodeError):
            self.accept(digest, decode_carried(newest[0]).transaction.id)

    with (
        mock.patch.object(Admission, "screen", screen),
        mock.patch.object(Seen, "reject", reject),
    ):
        yield


@contextmanager
def _torn_tail_not_cut() -> Iterator[None]:
    real = segment_log.SegmentLog._mend

    def mend(self: segment_log.SegmentLog, recovered: segment_found.Recovered) -> None:
        """Go on behind the torn bytes, as if they were records."""
        if not recovered.bytes_cut:
            real(self, recovered)
        self._tail.is_mark_synced = True

    with mock.patch.object(segment_log.SegmentLog, "_mend", mend):
        yield


def _corruption_cut_as_a_tail() -> AbstractContextManager[Any]:
    return mock.patch.object(records, "find_mark", return_value=None)


def _checksum_not_checked() -> AbstractContextManager[Any]:
    return mock.patch.object(records, "_checksum", return_value=bytes(records.CHECKSUM_BYTES))


def _failed_sync_tried_again() -> AbstractContextManager[Any]:
    """A sync that failed is called once more, and its success believed."""
    real = segment_tail.SegmentTail.sync

    def sync(self: segment_tail.SegmentTail) -> None:
        try:
            real(self)
        except SyncFailedError:
            real(self)

    return mock.patch.object(segment_tail.SegmentTail, "sync", sync)


def _wild_clock_proposes() -> AbstractContextManager[Any]:
    return mock.patch.object(ClockRule, "may_propose", return_value=True)


ORDERING: Final[Mapping[str, Planted]] = {
    "append-before-sync": Planted(
        "an append is acknowledged before its sync", _append_acknowledged_before_sync, 3
    ),
    "applied-before-disk": Planted(
        "committed entries are applied before they are on this node's disk",
        _applied_before_disk,
        3,
    ),
    "duplicate-in-block": Planted(
        "the same id twice in one block is applied twice", _duplicate_id_in_one_block, 15
    ),
    "duplicate-of-older-block": Planted(
        "an id that an older block holds is applied again", _duplicate_id_of_an_older_block, 40
    ),
    "expired-by-own-clock": Planted(
        "whether a transaction is expired is judged by each node's own clock",
        _expired_by_own_clock,
        9,
    ),
    "forgotten-when-proposed": Planted(
        "a transaction is settled when it is proposed", _forgotten_when_proposed, 3
    ),
    "garbled-copy-remembered": Planted(
        "a garbled copy takes the true transaction's place in the seen-cache",
        _garbled_copy_remembered,
        75,
    ),
    "torn-tail-kept": Planted(
        "a torn tail stays, and new records follow it", _torn_tail_not_cut, 3
    ),
    "corruption-cut": Planted(
        "damage below a sync mark is cut like a torn tail", _corruption_cut_as_a_tail, 6
    ),
    "checksum-unchecked": Planted("no record's checksum is looked at", _checksum_not_checked, 6),
    "failed-sync-tried-again": Planted(
        "after a failed sync the node syncs again and goes on", _failed_sync_tried_again, 6
    ),
    "wild-clock-proposes": Planted(
        "a leader's clock is not compared with the voters'", _wild_clock_proposes, 60
    ),
}
