"""Bugs beside the core: the disk, apply, the way in, and the order between them."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final
from unittest import mock

from p2pcity.ledger import segment_log, segment_recovery
from p2pcity.ordering.apply import Applier
from p2pcity.ordering.clock_rule import ClockRule
from p2pcity.ordering.pump import Pump, Save
from p2pcity.wire.raft import AppendAnswer
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


ORDERING: Final[Mapping[str, Planted]] = {
    "append-before-sync": Planted(
        "an append is acknowledged before its sync", _append_acknowledged_before_sync, 3
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
