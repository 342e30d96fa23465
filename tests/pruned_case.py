"""A node's disk with a few hundred small blocks, to be pruned, and what must come back of it."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Self

from p2pcity.ledger import base_incoming
from p2pcity.ledger.base_store import BaseStore, StoredBase
from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.ledger.views_reader import ViewsReader
from p2pcity.ledger.views_store import ViewsStore
from p2pcity.wire.limits import BASE_INTERVAL_BLOCKS
from p2pcity.wire.raft import Entry, HardState
from p2pcity.wire.transaction import Carried
from tests.chain_case import Chain

HEIGHT: Final = 2 * BASE_INTERVAL_BLOCKS + 40
TERM: Final = 3
VOTE: Final = "somebody"
SEGMENT_BYTES: Final = 60_000
INCARNATION: Final = b"i" * 16


@cache
def make_chain() -> tuple[Chain, list[Carried]]:
    """A chain of HEIGHT blocks, and its transactions: events, duplicates, dropped ones, gaps."""
    chain = Chain()
    made: list[Carried] = []
    for height in range(1, HEIGHT + 1):
        if height % 50 == 0:
            chain.add_nothing()
        if height % 4:
            chain.add()
            continue
        item = chain.carried(chain.event(), chain.event(type=f"permit.type-{height % 5}"))
        again = [made[-3]] if height % 20 == 0 else []
        expired = [chain.carried(expires_ms=1)] if height % 28 == 0 else []
        if height % 36 == 0:
            # One of its events has a name that is taken.
            taken = made[-1].decoded_events()[0]
            assert taken is not None
            again.append(chain.carried(chain.event(id=taken.id), chain.event()))
        made.append(item)
        chain.add(item, *again, *expired)
    return chain, made


@dataclass(slots=True)
class Opened:
    """The stores of one life."""

    bases: BaseStore
    log: SegmentLog
    views: ViewsStore
    reader: ViewsReader

    @classmethod
    def open(cls, directory: Path) -> Self:
        """What a start does, in its order; whatever the views lack is applied."""
        chain, _ = make_chain()
        base_incoming.install(directory / "base")
        bases = BaseStore.open(directory / "base")
        log = SegmentLog.open(
            directory / "log",
            segment_bytes_max=SEGMENT_BYTES,
            start=bases.start,
            may_begin_anew=bases.is_given,
        )
        views = ViewsStore.open(
            directory / "views.db", genesis=chain.genesis, raft_log=log, bases=bases
        )
        opened = cls(bases, log, views, views.open_reader())
        opened.catch_up()
        return opened

    def catch_up(self) -> None:
        """Apply what the log has."""
        first, last = self.views.applied_index + 1, self.log.last_index
        if first <= last:
            entries = self.log.entries(first, last + 1, 1 << 40)
            self.views.apply_blocks([(entry.index, entry.payload) for entry in entries])

    def prune(self) -> StoredBase:
        """Prune one interval, in the order in which the node does it."""
        before = 0 if self.bases.head is None else self.bases.head.height
        data = self.views.base_head(before + BASE_INTERVAL_BLOCKS)
        assert data is not None
        new = self.bases.begin(data)
        heights = range(before + 1, before + BASE_INTERVAL_BLOCKS + 1)
        new.add(b"".join(self.reader.base_records(height) for height in heights))
        base = new.finish()
        self.bases.publish(base)
        self.log.forget(base.head.index)
        self.log.remove_files()
        while self.views.prune():
            pass
        return base

    def close(self) -> None:
        """Close all, as after a stop."""
        self.reader.close()
        self.views.close()
        self.log.close()
        self.bases.close()

    def drop(self) -> None:
        """Let go of the files without a word, as after a kill."""
        self.reader.close()
        self.views._connection.close()
        self.log._tail.file.close()
        self.bases.close()


def make_directory(directory: Path) -> None:
    """A log with all of the chain, committed under TERM and VOTE, and its views."""
    chain, _ = make_chain()
    SegmentLog.create(directory / "log", INCARNATION)
    log = SegmentLog.open(directory / "log", segment_bytes_max=SEGMENT_BYTES)
    log.bind_network(chain.genesis.network)
    for index, payload in chain.pairs():
        entry = Entry(1, index, payload or b"")
        log.save(HardState(TERM, VOTE, index - 1), [entry], index % 100 == 0)
    log.save(HardState(TERM, VOTE, chain.last_index), [], True)
    log.close()
    Opened.open(directory).close()


def log_bytes(directory: Path) -> int:
    """How much the log takes on the disk."""
    return sum(path.stat().st_size for path in (directory / "log").iterdir())
