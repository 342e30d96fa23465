"""`p2pcity check`: is what lies in a data directory what it should be?

Offline and without changing anything: the segment log is verified record by record, every
committed block is applied again (chain of hashes, body roots, event roots, signatures, tree), and
the views are compared row by row with those that come out of that. It begins at the genesis, or,
where blocks were pruned, at the base, whose records are compared with the marks of its head.
"""

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from p2pcity.errors import ConfigError, CorruptionError, LedgerError
from p2pcity.ledger import database, views_store
from p2pcity.ledger.base_store import BaseStore
from p2pcity.ledger.data_directory import DataDirectory
from p2pcity.ledger.offline_log import OfflineLog
from p2pcity.ledger.rebuild import BATCH_BYTES_MAX, Progress, replay
from p2pcity.ledger.views_reader import ViewsDamaged, damage_named
from p2pcity.ledger.views_store import ViewsStore
from p2pcity.ordering.apply import AppliedBlock
from p2pcity.views import meta, schema
from p2pcity.views.connection import RowDamaged
from p2pcity.wire.base import HEIGHT_SHIFT
from p2pcity.wire.genesis import Genesis

FINDINGS_MAX: Final = 20
_REBUILD: Final = "Run `p2pcity rebuild`: the views are made anew from the log, nothing is lost."
_ROWS_AT_ONCE: Final = 1_000

# Table, its key's columns, and what its first column has to be shifted by to be a height.
_COMPARED: Final = (
    ("city", "one", None),
    ("blocks", "height", 0),
    ("transactions", "position", HEIGHT_SHIFT),
    ("transaction_ids", "prefix, position", None),
    ("events", "position", HEIGHT_SHIFT),
    ("names", "prefix, position", None),
    ("types", "label, text", None),
    ("spans", "span", None),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, where (Raft index, height: None when unknown), and what to do."""

    what: str
    remedy: str
    index: int | None = None
    height: int | None = None


@dataclass(slots=True)
class Report:
    """What a check found. `outcomes` counts the blocks' transactions by what became of them.

    `notes` are worth knowing and nothing wrong. `head` and `root` are those that come out of the
    log, to be compared with another node's.
    """

    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    last_index: int = 0
    committed: int = 0
    height: int = 0
    head: bytes = b""
    tree_size: int = 0
    root: bytes = b""
    events: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def add(
        self, error: LedgerError, *, index: int | None = None, height: int | None = None
    ) -> None:
        """Add what an error says; `index` is where it came up, unless it knows better."""
        known = error.index if isinstance(error, CorruptionError) else None
        where = index if known is None else known
        self.findings.append(Finding(str(error), error.remedy, where, height))


def check(
    directory: DataDirectory,
    genesis: Genesis,
    scratch: Path,
    progress: Progress = lambda done, last: None,
) -> Report:
    """Check a data directory whose lock the caller holds; BLOCKING.

    `scratch` is a new, empty directory for the views that are made to compare with: about a
    third of the log's size. Raises ConfigError when there is nothing to check.
    """
    report = Report()
    with contextlib.ExitStack() as stack:
        try:
            bases = stack.enter_context(contextlib.closing(BaseStore.open(directory.base)))
            opened = OfflineLog(directory.log, bases.start, may_begin_anew=bases.is_given)
            raft_log = stack.enter_context(contextlib.closing(opened))
        except LedgerError as error:
            report.add(error)
            return report
        if raft_log.network not in (None, genesis.network):
            raise ConfigError(
                f"{directory.path} belongs to another network than the genesis file",
                remedy="Give the genesis file of that network.",
            )
        recovery = raft_log.recovery
        if recovery.bytes_cut:
            report.notes.append(
                f"{recovery.cut_file}: {recovery.bytes_cut} bytes at its end were torn by a crash; "
                "the next start cuts them"
            )
        if bases.head is not None:
            report.notes.append(f"blocks up to height {bases.head.height} were pruned")
        scratch /= "views.db"
        _check_ledger(directory, genesis, raft_log, bases, scratch, report, progress)
    return report


def _check_ledger(
    directory: DataDirectory,
    genesis: Genesis,
    raft_log: OfflineLog,
    bases: BaseStore,
    scratch: Path,
    report: Report,
    progress: Progress,
) -> None:
    applied = _read_applied_index(directory.views, genesis, bases, report)
    report.last_index = raft_log.last_index
    report.committed = max(raft_log.hard_state.commit, min(applied, raft_log.last_index))
    if applied > raft_log.last_index:
        report.findings.append(
            Finding(
                f"the views stand at index {applied}, the log ends at {raft_log.last_index}: "
                "committed entries are missing",
                "Restore log/ from a newer copy, or let the node join again: `p2pcity init`.",
                index=raft_log.last_index + 1,
            )
        )
        applied = 0
    views_store.create(scratch, genesis, bases.stored)
    store = ViewsStore.open(scratch, genesis=genesis, raft_log=raft_log, bases=bases)

    def count(blocks: list[AppliedBlock]) -> None:
        report.outcomes.update(item.outcome for block in blocks for item in block.transactions)

    def run_to(last: int) -> None:
        for batch_bytes_max in (BATCH_BYTES_MAX, 1):
            try:
                replay(
                    store,
                    genesis.network,
                    raft_log,
                    last,
                    batch_bytes_max=batch_bytes_max,
                    progress=lambda done, _: progress(done, report.committed),
                    on_applied=count,
                )
            except LedgerError:
                # The batch was rolled back; one by one, the right entry is named.
                if batch_bytes_max == 1:
                    raise

    try:
        run_to(applied)
        if applied:
            _compare(scratch, directory.views, report)
        run_to(report.committed)
    except LedgerError as error:
        report.add(error, index=store.applied_index + 1, height=store.height + 1)
    finally:
        report.height, report.head = store.height, store.head
        report.tree_size, report.root = store.frontier.size, store.frontier.root
        report.events = store.meta.events
        store.close()


def _read_applied_index(path: Path, genesis: Genesis, bases: BaseStore, report: Report) -> int:
    """Return how far the views go, 0 when they can't be compared (said in the report)."""
    if not path.exists():
        report.notes.append("there are no views; the next start makes them")
        return 0
    try:
        with (
            damage_named(path),
            contextlib.closing(database.connect(path, "NORMAL", is_read_only=True)) as connection,
        ):
            for row in connection.execute(f"PRAGMA integrity_check({FINDINGS_MAX})").fetchall():
                if row[0] != "ok":
                    report.findings.append(Finding(f"{path}: {row[0]}", _REBUILD))
            schema.check(connection)
            found = meta.read(connection)
            if found.network != genesis.network:
                raise RowDamaged("the views are of another network")
            if found.pruned < bases.base.height:
                report.notes.append(
                    "the views were not compared: the next start clears them of what was pruned"
                )
                return 0
            return found.applied_index
    except ViewsDamaged as error:
        report.findings.append(Finding(str(error), _REBUILD))
        return 0


def _compare(expected: Path, actual: Path, report: Report) -> None:
    """Compare two views files row by row, as they stand at the same applied index."""
    try:
        with (
            damage_named(actual),
            contextlib.closing(database.connect(expected, "NORMAL", is_read_only=True)) as left,
            contextlib.closing(database.connect(actual, "NORMAL", is_read_only=True)) as right,
        ):
            if meta.read(left) != meta.read(right):
                report.findings.append(
                    Finding(f"{actual}: its head is not what the log gives", _REBUILD)
                )
            for table, key, shift in _COMPARED:
                different = _first_difference(left, right, table, key)
                if different is not None:
                    height = None if shift is None else int(different[0]) >> shift
                    where = "" if height is None else f" at height {height}"
                    what = f"{actual}: a row of {table}{where} is not what the log gives"
                    report.findings.append(Finding(what, _REBUILD, height=height))
    except ViewsDamaged as error:
        report.findings.append(Finding(str(error), _REBUILD))


def _first_difference(
    left: sqlite3.Connection, right: sqlite3.Connection, table: str, key: str
) -> tuple[Any, ...] | None:
    ours, theirs = _rows(left, table, key), _rows(right, table, key)
    while True:
        one, other = next(ours, None), next(theirs, None)
        if one != other:
            return one or other
        if one is None:
            return None


def _rows(connection: sqlite3.Connection, table: str, key: str) -> Iterator[tuple[Any, ...]]:
    # NOT INDEXED: the table's own rows are compared; integrity_check compared the indexes.
    cursor = connection.execute(f"SELECT * FROM {table} NOT INDEXED ORDER BY {key}")
    while rows := cursor.fetchmany(_ROWS_AT_ONCE):
        yield from rows
