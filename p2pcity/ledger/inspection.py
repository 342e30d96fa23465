"""`p2pcity inspect`: what lies in the data directory of a node that does not run.

Not a byte is written, no file is made, and neither configuration nor keys nor genesis are needed.
The segment log is walked as a start walks it, so that what is said about damage is what the next
start will do. What only a comparison with the genesis and the signatures shows is `check`'s.
"""

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from p2pcity.errors import (
    CorruptionError,
    DecodeError,
    LedgerError,
    LockedError,
    RulesTooOldError,
)
from p2pcity.ledger import base_incoming, base_store, database, lock, promises_file, records
from p2pcity.ledger.base_store import StoredBase, StoredHead
from p2pcity.ledger.check import Finding
from p2pcity.ledger.data_directory import DataDirectory
from p2pcity.ledger.outbox import FORMAT_VERSION as OUTBOX_FORMAT
from p2pcity.ledger.outbox import Outbox, OutboxCount
from p2pcity.ledger.segment_file import SegmentReader, denied, list_segments
from p2pcity.ledger.segment_found import Mended, Recovered
from p2pcity.ledger.segment_index import BEGINNING, Start
from p2pcity.ledger.segment_reading import read_entry
from p2pcity.ledger.segment_recovery import does_not_reach, recover
from p2pcity.ledger.segment_repair import Mender
from p2pcity.ledger.views_reader import damage_named
from p2pcity.ledger.views_store import verify
from p2pcity.ordering.apply import check_rules
from p2pcity.views import meta, schema
from p2pcity.views.meta import Meta
from p2pcity.wire import block as block_wire

_NO_INDEX: Final = (
    "its -wal holds something and its -shm is gone, which only a writer can make again"
)
_NEXT_ENTRIES: Final = 256
_VIEWS_REMEDY: Final = "Nothing is lost: the next start makes the views anew from the log."


@dataclass(frozen=True, slots=True)
class SegmentSize:
    """One file of the log."""

    name: str
    first_index: int
    bytes: int


@dataclass(slots=True)
class Inspection:
    """What was found; None for what is not there, or could not be read (then a finding says why).

    `peer` is the node that the lock file names, `views_schema` the views' format. `is_clean` says
    whether the last process closed its files, None when none ever ran on them. `too_old` is why
    this release can't apply what comes next, if it can't.
    """

    directory: DataDirectory
    peer: str | None = None
    segments: list[SegmentSize] = field(default_factory=list)
    log: Recovered | None = None
    base: StoredHead | None = None
    views_schema: int | None = None
    views: Meta | None = None
    outbox: OutboxCount | None = None
    is_clean: bool | None = None
    too_old: RulesTooOldError | None = None
    free_bytes: int = 0
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """Whether nothing is damaged."""
        return not self.findings

    @property
    def formats(self) -> dict[str, int]:
        """The format of each part that was read."""
        found = {
            "log": None if self.log is None else self.log.version,
            "outbox": None if self.outbox is None else OUTBOX_FORMAT,
            "views": self.views_schema,
        }
        return {name: number for name, number in found.items() if number is not None}

    @property
    def network(self) -> bytes | None:
        """The network that the log is bound to, or the one that base or views are of."""
        known = [
            self.log.network if self.log is not None else None,
            self.base.head.network if self.base is not None else None,
            self.views.network if self.views is not None else None,
        ]
        return next((network for network in known if network is not None), None)


def inspect(directory: DataDirectory) -> Inspection:
    """Look at a data directory; BLOCKING, reads all of it.

    Raises LockedError while a node runs on it, ConfigError when there is no log, no right to
    read, or a newer format.
    """
    found = Inspection(directory, lock.last_holder(directory.path))
    if not directory.has_log:
        raise denied(directory.log, FileNotFoundError())
    found.free_bytes = directory.free_bytes()
    _try(found, lambda: _look_at_base(found))
    _try(found, lambda: _look_at_views(found), _VIEWS_REMEDY)
    _try(found, lambda: _look_at_log(found))
    _try(found, lambda: _look_at_outbox(found))
    _compare(found)
    _try(found, lambda: _look_at_rules(found))
    _look_at_the_rest(found)
    found.is_clean = _is_clean(found)
    # A node that was started meanwhile may have changed anything.
    lock.last_holder(directory.path)
    return found


def _try(found: Inspection, look: Callable[[], None], remedy: str = "") -> None:
    try:
        look()
    except LockedError:
        raise
    except LedgerError as error:
        index = error.index if isinstance(error, CorruptionError) else None
        found.findings.append(Finding(str(error), remedy or error.remedy, index))


def _look_at_base(found: Inspection) -> None:
    directory = found.directory.base
    stored = base_store.read_head(directory / "head")
    if stored is None:
        return
    found.base = stored
    path = directory / "records"
    descriptor = base_store.open_records(path, os.O_RDONLY)
    try:
        base_store.verify(StoredBase(stored, path, descriptor), directory)
    finally:
        os.close(descriptor)


def _look_at_views(found: Inspection) -> None:
    path = found.directory.views
    if not path.exists():
        found.notes.append("there are no views; the next start makes them from the log")
        return
    with damage_named(path):
        connection = database.connect_untouched(path)
        if connection is None:
            found.notes.append(f"{path.name} was not read: {_NO_INDEX}")
            return
        with contextlib.closing(connection):
            [(found.views_schema,)] = connection.execute("PRAGMA user_version").fetchall()
            if found.views_schema != schema.VERSION:
                found.notes.append(
                    f"the views have schema {found.views_schema}, this release has "
                    f"{schema.VERSION}: the next start makes them anew from the log"
                )
                return
            found.views = meta.read(connection)
            verify(connection)


def _look_at_log(found: Inspection) -> None:
    directory = found.directory.log
    found.segments = [
        SegmentSize(path.name, first_index, path.stat().st_size)
        for _, first_index, path in list_segments(directory)
    ]
    head = None if found.base is None else found.base.head
    start = BEGINNING if head is None else Start(head.index, head.term)
    # What is needed to make a record of the network id again; any other is no proof.
    log = recover(directory, Mender(found.network or b""), start=start)
    found.log = log
    for mended in log.mended:
        found.findings.append(_mended(log, mended))
    for gap in log.gaps:
        found.findings.append(
            Finding(gap.what, _gap_remedy(gap.hole), None if gap.hole is None else gap.hole[0])
        )
    if log.bytes_cut:
        report = log.report()
        found.notes.append(
            f"{report.cut_file}: the last {report.bytes_cut} bytes, from offset "
            f"{report.cut_offset} on, were torn by a crash ({report.cut_reason}); nobody was "
            "promised anything in them, and the next start cuts them"
        )
    if not log.is_behind:
        return
    if found.base is None or not found.base.is_given:
        raise does_not_reach(directory, start)
    found.notes.append(
        "the log ends before the base that others gave: the next start begins it anew behind that"
    )


def _mended(log: Recovered, mended: Mended) -> Finding:
    kind = mended.kind.name.lower().replace("_", " ")
    name = log.paths[mended.sequence].name
    return Finding(
        f"{name}, offset {mended.offset}: a record ({kind}) is damaged",
        "The next start makes it again from the checksums around it. Check the disk (smartctl).",
        mended.index if mended.kind == records.Kind.ENTRY else None,
    )


def _gap_remedy(hole: tuple[int, int] | None) -> str:
    if hole is None:
        return "What stood there was replaced later; the next start passes it over."
    first, last = hole
    which = f"entry {first}" if first == last else f"entries {first} to {last}"
    return f"The next start fetches {which} from the other nodes, and takes no part until then."


def _look_at_outbox(found: Inspection) -> None:
    path = found.directory.outbox
    if not path.exists():
        return
    found.outbox = Outbox.count(path)
    if found.outbox is None:
        found.notes.append(f"{path.name} was not read: {_NO_INDEX}, or it is of an older format")


def _compare(found: Inspection) -> None:
    """Hold what was read against each other."""
    if found.log is None or found.views is None:
        return
    last = found.log.index.last_index
    if found.views.network != found.network:
        found.findings.append(Finding("the views are of another network", _VIEWS_REMEDY))
    elif found.views.applied_index > last and not found.log.is_behind:
        found.findings.append(
            Finding(
                f"the views stand at index {found.views.applied_index}, the log ends at {last}: "
                "committed entries are missing",
                "Restore log/ from a newer copy, or let the node join again: "
                "`p2pcity init --rejoin`.",
                index=last + 1,
            )
        )


def _look_at_rules(found: Inspection) -> None:
    """Look for the block at which this release would stop: it is among the next to be applied."""
    log = found.log
    if log is None or found.views is None or log.gaps:
        return
    first = found.views.applied_index + 1
    with contextlib.closing(SegmentReader()) as reader:
        for index in range(first, min(log.index.last_index, first + _NEXT_ENTRIES) + 1):
            place = log.index.place(index)
            payload = read_entry(reader, log.paths[place.sequence], index, place)
            try:
                if payload:
                    check_rules(block_wire.decode(payload).header)
            except RulesTooOldError as error:
                found.too_old = error
                found.notes.append(f"{error}. {error.remedy}")
                return
            except DecodeError:
                # What is no block is for the apply loop to judge.
                return


def _look_at_the_rest(found: Inspection) -> None:
    directory = found.directory
    if directory.recovery_marker.exists():
        found.notes.append("`p2pcity raft recover` was interrupted; the next start finishes it")
    incoming = directory.base / "incoming"
    if (incoming / base_incoming.COMPLETE).exists():
        found.notes.append("a base that others gave lies ready: the next start moves it into place")
    elif (incoming / base_incoming.HEAD).exists():
        found.notes.append("a base was being fetched from others; the next start goes on with that")
    try:
        promises_file.read(directory.promises)
    except DecodeError as error:
        found.notes.append(
            f"{directory.promises.name} can't be read ({error}); it is an aid and is written anew"
        )


def _is_clean(found: Inspection) -> bool | None:
    log, outbox = found.log, found.directory.outbox
    if log is not None and log.network is None:
        return None
    # A node that stops brings its marks to the disk, and its WALs into the databases. Only it opens
    # the outbox; readers of the views may leave an empty WAL behind.
    is_torn = log is not None and (log.bytes_cut > 0 or log.last_mark_end != log.size)
    has_wal = outbox.with_name(outbox.name + "-wal").exists() or _has_bytes(found.directory.views)
    return not is_torn and not has_wal


def _has_bytes(database_path: Path) -> bool:
    wal = database_path.with_name(database_path.name + "-wal")
    return wal.exists() and wal.stat().st_size > 0
