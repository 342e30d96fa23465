"""Reading the segment log at a start: verify everything, cut only what nobody was promised.

The rule: a bad record with a true sync mark anywhere above it was on the disk once, and has
gone bad since: corruption, and the node stops. A bad record with no mark above it is the tail
that a crash tore: no answer, no vote and no acknowledgement ever followed it, and it is cut.

With a `Mender` the walk goes on behind damage: what can be proven is made again
(`segment_repair`), and what can't is a gap. A gap whose entries were truncated later holds
nothing that matters any more; any other is a hole, and the node takes no part until it is filled.

A log that was pruned begins with the oldest file there is, and continues the base: what files
hold below it is walked and forgotten. A file whose header continues no checksum, though it is not
the first, was begun anew behind a base that others gave: the files before it are left over.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from p2pcity.errors import CorruptionError
from p2pcity.ledger import records, segment_index_file, segment_repair
from p2pcity.ledger.records import BadRecord, FileHeader, Kind, Record
from p2pcity.ledger.segment_file import denied, list_segments, newer_format
from p2pcity.ledger.segment_found import Gap, Mended, Recovered, note_vote
from p2pcity.ledger.segment_index import BEGINNING, EntryIndex, Place, Start
from p2pcity.ledger.segment_repair import Mender, Site
from p2pcity.wire.raft import HardState

PAGE_BYTES: Final = 4096


@dataclass(slots=True)
class _File:
    """A file while it is walked; `following` is the checksum by the next file's header."""

    sequence: int
    buffer: bytes
    following: bytes | None
    is_last: bool


class EntryDamaged(CorruptionError):
    """An entry that was right at the start reads wrong: the next start fetches it again."""


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


def does_not_reach(directory: Path, start: Start) -> CorruptionError:
    """Return the error for a log that lacks what its base says was committed."""
    what = f"it lacks the entry at index {start.index}, where the base ends"
    return corrupt(directory, start.index, what)


def recover(
    directory: Path,
    mender: Mender | None = None,
    *,
    start: Start = BEGINNING,
    index_bytes: int | None = None,
) -> Recovered:
    """Read and verify all files in `directory`; nothing is written.

    Without a `mender` damage is not worked around. With `index_bytes` bytes that a saved index
    speaks of are hashed instead of walked, and files of which more than that was walked are to
    get one (`Recovered.saved_indexes`). `start` is what the base says the log goes on
    from. Raises ConfigError when there is no log, no right to read it, or a newer format;
    CorruptionError with the index (the best known one) when the log can't be trusted.
    """
    files = list_segments(directory)
    if not files:
        raise denied(directory, FileNotFoundError())
    begin = _find_beginning(files) if start.index else 0
    state: Recovered | None = None
    for position, (sequence, first_index, path) in enumerate(files[begin:], begin):
        is_last = position == len(files) - 1
        is_next = sequence == (files[position - 1][0] if state else sequence - 1) + 1
        if not is_next or (state is None and sequence != 1 and not start.index):
            last = state.index.last_index + 1 if state else 1
            raise corrupt(directory, last, f"the file before {path.name} is missing")
        buffer = _read(path)
        following = None if is_last else _peek(files[position + 1][2])
        mended: Mended | None = None
        try:
            header, record = records.parse_file_header(buffer)
        except BadRecord as bad:
            # A file gets its name once its header is durable, so no crash tears it.
            expected = _expected(state, sequence, first_index, following)
            data = segment_repair.restore_header(buffer, expected) if mender else None
            if data is None:
                index = state.index.last_index + 1 if state else 1
                raise corrupt(directory, index, f"the header of {path.name}: {bad}") from bad
            mended = Mended(Kind.FILE, first_index - 1, sequence, 0, data)
            buffer = data + buffer[len(data) :]
            header, record = records.parse_file_header(buffer)
        if state is None:
            state = _begin(directory, header, start)
            state.left_over = [path for _, _, path in files[:begin]]
        if mended is not None:
            state.mended.append(mended)
        _check_header(state, header, sequence, first_index, path)
        state.paths[sequence], state.lowest = path, first_index
        previous = following.previous if following else None
        file = _File(sequence, buffer, previous, is_last)
        _take_file(state, file, record, mender, index_bytes)
    assert state is not None
    _finish(state, mender)
    return state


def _find_beginning(files: Sequence[tuple[int, int, Path]]) -> int:
    """Return the position of the last file that begins a log anew, of the oldest if none does."""
    for position in range(len(files) - 1, 0, -1):
        header = _peek(files[position][2])
        if header is not None and header.previous == records.ZERO_CHECKSUM:
            return position
    return 0


def _begin(directory: Path, header: FileHeader, start: Start) -> Recovered:
    """Return the state before the oldest file; what it continues is in the base, if anywhere."""
    state = Recovered(directory, header, start)
    if header.sequence > 1:
        state.index = EntryIndex(Start(header.first_index - 1, 0))
        state.checksum = header.previous
    return state


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise denied(path, error) from error


def _peek(path: Path) -> FileHeader | None:
    """Return the header of the next file, None when it is harmed too."""
    try:
        with path.open("rb") as file:
            return records.parse_file_header(file.read(records.FILE_HEADER_BYTES))[0]
    except OSError as error:
        raise denied(path, error) from error
    except BadRecord:
        return None


def _expected(
    state: Recovered | None, sequence: int, first_index: int, following: FileHeader | None
) -> FileHeader | None:
    """Return the header that a file must have by the files around it."""
    if state is not None:
        last = state.index.last_index
        return FileHeader(
            state.header.incarnation, state.header.mark_key, sequence, last + 1, state.checksum
        )
    if following is None or sequence > 1:
        return None
    return following._replace(
        sequence=sequence, first_index=first_index, previous=records.ZERO_CHECKSUM
    )


def _check_header(
    state: Recovered, header: FileHeader, sequence: int, first_index: int, path: Path
) -> None:
    """Compare a file's header with its name and with the files before it."""
    if header.version > records.FORMAT_VERSION:
        raise newer_format(path, header.version, records.FORMAT_VERSION)
    expected = _expected(state, sequence, first_index, None)
    is_next = expected is not None and header == expected._replace(version=header.version)
    if not is_next or header.version < state.version or first_index != header.first_index:
        what = f"{path.name} does not continue the file before it"
        raise corrupt(state.directory, state.index.last_index + 1, what)
    state.version = header.version


def _take_file(
    state: Recovered,
    file: _File,
    header: Record,
    mender: Mender | None,
    index_bytes: int | None,
) -> None:
    """Take in one file: what a saved index says of it, then the records behind."""
    state.checksum = header.checksum
    state.last_mark_offset = 0
    state.last_mark_end = state.indexed_end = records.FILE_HEADER_BYTES
    state.cut_reason, state.bytes_cut = "", 0
    if index_bytes is None:
        _walk(state, file, mender)
        return
    segment_index_file.resume(state, file.buffer)
    _walk(state, file, mender)
    is_long = not file.is_last or state.size - state.indexed_end >= index_bytes
    segment_index_file.note(state, file.buffer, is_wanted=is_long)


def _walk(state: Recovered, file: _File, mender: Mender | None) -> None:
    """Take in the records behind the saved index; cut the tail of the last file in `state`."""
    offset = state.indexed_end
    while offset < len(file.buffer):
        try:
            record = records.parse_record(file.buffer, offset, state.checksum)
            _take(state, file.sequence, record)
        except BadRecord as bad:
            mark = records.find_mark(file.buffer, offset, state.header.mark_key, file.sequence)
            if file.is_last and mark is None:
                state.bytes_cut, state.cut_reason = len(file.buffer) - offset, str(bad)
                break
            offset = _work_around(state, file, offset, mark, mender, bad)
            continue
        offset += record.length
        state.checksum = record.checksum
        if record.kind == records.SYNC_MARK:
            state.last_mark_offset, state.last_mark_end = record.offset, offset
    state.bytes_read += offset
    state.tail_offset = state.last_mark_offset // PAGE_BYTES * PAGE_BYTES
    state.tail = file.buffer[state.tail_offset : offset]


def _work_around(
    state: Recovered,
    file: _File,
    offset: int,
    mark: int | None,
    mender: Mender | None,
    bad: BadRecord,
) -> int:
    """Make the bad record at `offset` again, or leave a gap; where the walk goes on."""
    index = bad.index or state.index.last_index + 1
    name = state.paths[file.sequence].name
    what = f"{name}, offset {offset}: {bad}"
    what += ", and was synced before" if file.is_last else ""
    if mender is None:
        raise corrupt(state.directory, index, what) from bad
    buffer = file.buffer
    end = segment_repair.find_end(buffer, offset, mark) if mark is not None else len(buffer)
    site = Site(
        buffer,
        offset,
        end,
        file.sequence,
        state.header.mark_key,
        state.checksum,
        file.following,
        state.index.last_index,
        state.hard_state,
        state.votes,
    )
    data = segment_repair.restore(site, mender)
    if data is not None and data != buffer[offset : offset + len(data)]:
        file.buffer = buffer[:offset] + data + buffer[offset + len(data) :]
        record = records.parse_record(data, 0, state.checksum)
        state.mended.append(Mended(Kind(record.kind), record.index, file.sequence, offset, data))
        return offset
    if mark is None:
        raise corrupt(state.directory, index, what) from bad
    _leave_gap(state, site, what)
    return end


def _leave_gap(state: Recovered, site: Site, what: str) -> None:
    last = state.index.last_index
    gap = Gap(last + 1, last, what)
    if not segment_repair.is_framed_entry(site):
        # More than an entry may have stood there: a vote, or a truncation, which would make
        # what is not known to be committed worthless.
        state.is_vote_known = False
        gap.doubt_first, gap.doubt_last = state.hard_state.commit + 1, last
    state.gaps.append(gap)
    state.open_gap = gap
    state.checksum = site.buffer[site.end - records.CHECKSUM_BYTES : site.end]


def _close_gap(state: Recovered, gap: Gap, record: Record) -> None:
    """Find out from the first record behind a gap which entries stood in it."""
    last = state.index.last_index
    until = record.index - 1 if record.kind == Kind.ENTRY else record.index
    if record.kind == Kind.TRUNCATION:
        until = max(until, last)
    if until < last:
        raise corrupt(state.directory, until + 1, f"{gap.what}, and a truncation with it")
    for _ in range(last, until):
        state.index.append_missing()
    gap.last = until
    state.open_gap = None


def _take(state: Recovered, sequence: int, record: Record) -> None:
    """Take in one good record.

    What contradicts the records before it was never written by this program: corruption, and
    no torn tail, since its checksum is right.
    """
    if state.open_gap is not None:
        _close_gap(state, state.open_gap, record)
    last = state.index.last_index
    kind, parts = record.kind, record.entry
    if parts is not None:
        if record.index != last + 1 or parts.term < state.index.term(last):
            raise corrupt(state.directory, last + 1, f"entry {record.index} follows {last}")
        place = Place(parts.term, sequence, record.offset, record.length, parts.payload_length)
        state.index.append(place)
    elif kind == records.HARD_STATE:
        hard_state, before = records.parse_hard_state(record.data), state.hard_state
        if hard_state.term < before.term or hard_state.commit > last:
            raise corrupt(state.directory, last + 1, "the hard state contradicts the entries")
        state.hard_state = hard_state
        state.is_vote_known = True
        vote = hard_state.vote
        if vote != before.vote or not state.votes:
            note_vote(state.votes, vote)
    elif kind == Kind.TRUNCATION:
        if not state.hard_state.commit < record.index <= last:
            raise corrupt(state.directory, record.index, "a committed entry is truncated")
        state.index.truncate(record.index)
        state.lowest = min(state.lowest, record.index)
        for gap in state.gaps:
            gap.truncate(record.index)
    elif kind == Kind.SYNC_MARK:
        if not records.is_mark(state.header.mark_key, record.data, sequence, record.offset):
            raise corrupt(state.directory, last + 1, "a sync mark is not at its place")
    elif kind == Kind.NETWORK and len(record.data) == 32 and state.network in (None, record.data):
        state.network = record.data
    else:
        raise corrupt(state.directory, last + 1, f"a record of kind {kind} is impossible")


def _finish(state: Recovered, mender: Mender | None) -> None:
    """Mend a group that was torn between its entries and its hard state.

    The entries came from a leader of their term. This node had no vote on disk in that term, so
    it sent none: the term is taken over with no vote.
    """
    _join(state)
    for gap in state.gaps:
        index = gap.doubt_last
        is_kept = index > state.index.start.index  # What the base covers is in no doubt.
        if mender and is_kept and mender.committed.get(index) == state.index.term(index):
            # What is committed is truncated nowhere, and equal terms are equal logs.
            gap.doubt_last = 0
        state.index.doubt(max(gap.doubt_first, state.start.index + 1), gap.doubt_last)
    # Holes are filled before anybody votes; a log that begins anew has none.
    if not state.is_vote_known and (state.is_behind or not state.holes):
        what = f"{state.gaps[-1].what}: the newest term and vote may have stood there"
        raise corrupt(state.directory, None, what)
    old = state.hard_state
    term, commit = state.index.term(state.index.last_index), max(old.commit, state.start.index)
    if state.is_behind:
        return
    if term > old.term:
        state.hard_state = HardState(term=term, vote=None, commit=commit)
    elif commit > old.commit:
        state.hard_state = HardState(old.term, old.vote, commit)


def _join(state: Recovered) -> None:
    """Let the log go on from where the base ends."""
    index, start = state.index, state.start
    if index.start.index > start.index:
        what = f"entries behind {start.index}, where the base ends, are missing"
        raise corrupt(state.directory, start.index + 1, what)
    is_held = index.last_index >= start.index and (
        index.start.index == start.index
        or (index.is_missing(start.index) and _follows(index, start))
        or index.term(start.index) == start.term
    )
    if is_held:
        state.index = index.behind(start)
    elif start.index <= min(index.last_index, state.hard_state.commit):
        what = f"another entry was committed at index {start.index} than where the base ends"
        raise corrupt(state.directory, start.index, what)
    else:
        state.is_behind = True


def _follows(index: EntryIndex, start: Start) -> bool:
    """Whether what stands behind a missing entry came after the one of the base.

    A leader of its term, or of a later one, has the committed entry in its log (Raft, section
    5.4.3); what an earlier one wrote behind that index was never committed.
    """
    behind = range(start.index + 1, index.last_index + 1)
    first = next((at for at in behind if not index.is_missing(at)), None)
    return first is None or index.term(first) >= start.term
