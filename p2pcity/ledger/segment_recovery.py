"""Reading the segment log at a start: verify everything, cut only what nobody was promised.

The rule: a bad record with a true sync mark anywhere above it was on the disk once, and has
gone bad since: corruption, and the node stops. A bad record with no mark above it is the tail
that a crash tore: no answer, no vote and no acknowledgement ever followed it, and it is cut.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from p2pcity.errors import ConfigError, CorruptionError
from p2pcity.ledger import records
from p2pcity.ledger.records import BadRecord, FileHeader, Kind, Record
from p2pcity.ledger.segment_file import denied, list_segments
from p2pcity.ledger.segment_index import EntryIndex, Place
from p2pcity.wire.raft import HardState

PAGE_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Recovery:
    """What the start found, for one line of the daemon's log.

    `bytes_cut` bytes were thrown away at `cut_offset` of `cut_file` because of `cut_reason`
    (0, 0 and empty: nothing was torn).
    """

    files: int
    records: int
    entries: int
    bytes_read: int
    bytes_cut: int = 0
    cut_file: str = ""
    cut_offset: int = 0
    cut_reason: str = ""


@dataclass(slots=True)
class Recovered:
    """The log's state after the walk; the segment log goes on from here.

    `tail` holds the bytes of the last file from `tail_offset` on (at or below its last mark, on
    a page's border) up to the last good record: they are written again, because after a failed
    sync the page cache shows what the disk does not have.
    """

    directory: Path
    header: FileHeader
    index: EntryIndex = field(default_factory=EntryIndex)
    hard_state: HardState = field(default_factory=lambda: HardState(term=0, vote=None, commit=0))
    network: bytes | None = None
    paths: dict[int, Path] = field(default_factory=dict)
    checksum: bytes = records.ZERO_CHECKSUM
    last_mark_end: int = 0
    last_mark_offset: int = 0
    tail_offset: int = 0
    tail: bytes = b""
    records: int = 0
    bytes_read: int = 0
    bytes_cut: int = 0
    cut_reason: str = ""

    @property
    def sequence(self) -> int:
        """The sequence number of the last file."""
        return max(self.paths)

    @property
    def size(self) -> int:
        """Where the last file's good records end."""
        return self.tail_offset + len(self.tail)

    def report(self) -> Recovery:
        """Return what to say about this start."""
        is_cut = self.bytes_cut > 0
        return Recovery(
            files=len(self.paths),
            records=self.records,
            entries=self.index.last_index,
            bytes_read=self.bytes_read,
            bytes_cut=self.bytes_cut,
            cut_file=self.paths[self.sequence].name if is_cut else "",
            cut_offset=self.size if is_cut else 0,
            cut_reason=self.cut_reason,
        )


def corrupt(directory: Path, index: int | None, what: str) -> CorruptionError:
    """Return the error that stops the node, with the way back to work."""
    place = "" if index is None else f" at index {index}"
    return CorruptionError(
        f"the raft_log in {directory} is corrupt{place}: {what}",
        index=index,
        remedy=(
            f"Restore {directory.parent} from a copy of its newest state, or remove this node "
            "from the city and let it join again under a new incarnation: `p2pcity init`."
        ),
    )


def recover(directory: Path) -> Recovered:
    """Read and verify all files in `directory`; nothing is written.

    Raises ConfigError when there is no log, no right to read it, or a newer format;
    CorruptionError with the index (the best known one) when the log can't be trusted.
    """
    files = list_segments(directory)
    if not files:
        raise denied(directory, FileNotFoundError())
    state: Recovered | None = None
    for position, (sequence, first_index, path) in enumerate(files):
        is_last = position == len(files) - 1
        if sequence != position + 1:
            last = state.index.last_index + 1 if state else 1
            raise corrupt(directory, last, f"the file before {path.name} is missing")
        buffer = _read(path)
        try:
            header, record = records.parse_file_header(buffer)
        except BadRecord as bad:
            # A file gets its name once its header is durable, so no crash tears it.
            index = state.index.last_index + 1 if state else 1
            raise corrupt(directory, index, f"the header of {path.name}: {bad}") from bad
        if state is None:
            state = Recovered(directory, header)
        _check_header(state, header, sequence, first_index, path)
        state.paths[sequence] = path
        _walk(state, sequence, buffer, record, is_last)
    assert state is not None
    _finish(state)
    return state


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise denied(path, error) from error


def _check_header(
    state: Recovered, header: FileHeader, sequence: int, first_index: int, path: Path
) -> None:
    """Compare a file's header with its name and with the files before it."""
    if header.version != records.FORMAT_VERSION:
        raise ConfigError(
            f"{path} has format {header.version}, this release knows {records.FORMAT_VERSION}",
            remedy="Install the release that wrote this data directory, or a newer one.",
        )
    expected = FileHeader(
        state.header.incarnation,
        state.header.mark_key,
        sequence,
        state.index.last_index + 1,
        state.checksum,
    )
    if header != expected or first_index != header.first_index:
        what = f"{path.name} does not continue the file before it"
        raise corrupt(state.directory, state.index.last_index + 1, what)


def _walk(state: Recovered, sequence: int, buffer: bytes, header: Record, is_last: bool) -> None:
    """Take in one file's records; cut the tail of the last file in `state`."""
    state.checksum = header.checksum
    state.last_mark_offset = 0
    state.last_mark_end = offset = records.FILE_HEADER_BYTES
    state.cut_reason, state.bytes_cut = "", 0
    while offset < len(buffer):
        try:
            record = records.parse_record(buffer, offset, state.checksum)
            _take(state, sequence, record)
        except BadRecord as bad:
            index = bad.index or state.index.last_index + 1
            name = state.paths[sequence].name
            if not is_last:
                raise corrupt(state.directory, index, f"{name}, offset {offset}: {bad}") from bad
            if records.find_mark(buffer, offset, state.header.mark_key, sequence) is not None:
                what = f"{name}, offset {offset}: {bad}, and was synced before"
                raise corrupt(state.directory, index, what) from bad
            state.bytes_cut, state.cut_reason = len(buffer) - offset, str(bad)
            break
        offset += record.length
        state.checksum = record.checksum
        state.records += 1
        if record.kind == Kind.SYNC_MARK:
            state.last_mark_offset, state.last_mark_end = record.offset, offset
    state.bytes_read += offset
    state.tail_offset = state.last_mark_offset // PAGE_BYTES * PAGE_BYTES
    state.tail = buffer[state.tail_offset : offset]


def _take(state: Recovered, sequence: int, record: Record) -> None:
    """Take in one good record.

    What contradicts the records before it was never written by this program: corruption, and
    no torn tail, since its checksum is right.
    """
    last = state.index.last_index
    if record.kind == Kind.ENTRY:
        parts = records.parse_entry(record.data)
        if record.index != last + 1 or parts.term < state.index.term(last):
            raise corrupt(state.directory, last + 1, f"entry {record.index} follows {last}")
        place = Place(parts.term, sequence, record.offset, record.length, parts.payload_length)
        state.index.append(place)
    elif record.kind == Kind.HARD_STATE:
        hard_state = records.parse_hard_state(record.data)
        if hard_state.term < state.hard_state.term or hard_state.commit > last:
            raise corrupt(state.directory, last + 1, "the hard state contradicts the entries")
        state.hard_state = hard_state
    elif record.kind == Kind.TRUNCATION:
        if not state.hard_state.commit < record.index <= last:
            raise corrupt(state.directory, record.index, "a committed entry is truncated")
        state.index.truncate(record.index)
    elif record.kind == Kind.SYNC_MARK:
        if not records.is_mark(state.header.mark_key, record.data, sequence, record.offset):
            raise corrupt(state.directory, last + 1, "a sync mark is not at its place")
    elif record.kind == Kind.NETWORK and state.network is None and len(record.data) == 32:
        state.network = record.data
    else:
        raise corrupt(state.directory, last + 1, f"a record of kind {record.kind} is impossible")


def _finish(state: Recovered) -> None:
    """Mend a group that was torn between its entries and its hard state.

    The entries came from a leader of their term. This node had no vote on disk in that term, so
    it sent none: the term is taken over with no vote.
    """
    term = state.index.term(state.index.last_index)
    if term > state.hard_state.term:
        state.hard_state = HardState(term=term, vote=None, commit=state.hard_state.commit)
