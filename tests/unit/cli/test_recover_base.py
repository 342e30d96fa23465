"""`p2pcity raft recover` on a node that was stopped while a base from others lay ready."""

import contextlib
from pathlib import Path

import pytest

from p2pcity.errors import ConfigError
from p2pcity.ledger.base_incoming import Incoming, open_installed
from p2pcity.ledger.offline_log import OfflineLog
from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.wire.raft import Entry, HardState
from tests.pruned_case import INCARNATION, TERM, VOTE, Opened, make_chain, make_directory


def test_a_base_that_lies_ready_is_moved_into_place_first(tmp_path: Path) -> None:
    """Else the epoch would begin behind the old log, and the next start would drop it."""
    make_directory(tmp_path / "donor")
    donor = Opened.open(tmp_path / "donor")
    base = donor.prune()
    late = tmp_path / "late"
    chain, _ = make_chain()
    SegmentLog.create(late / "log", INCARNATION)
    log = SegmentLog.open(late / "log")
    log.bind_network(chain.genesis.network)
    for index, payload in list(chain.pairs())[:20]:
        log.save(HardState(TERM, VOTE, index), [Entry(1, index, payload or b"")], True)
    log.close()
    incoming = Incoming(late / "base" / "incoming", None)
    incoming.begin(base.stored.data)
    incoming.add(base.read_records(0, base.head.records))
    incoming.finish()
    incoming.close()
    bases, is_new = open_installed(late / "base")
    with contextlib.closing(bases):
        assert is_new
        assert bases.head == base.head
        with pytest.raises(ConfigError, match="not yet begun anew"):
            OfflineLog(late / "log", bases.start, may_begin_anew=bases.is_given)
        log = SegmentLog.open(late / "log", start=bases.start, may_begin_anew=bases.is_given)
        assert log.first_index == base.head.index + 1
        log.close()
    donor.close()
