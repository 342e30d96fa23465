"""Saved indexes: what a start would find by walking a file of the segment log, kept beside it.

`NAME.index` speaks of the first `end` bytes of `NAME.segment`. A start hashes these bytes
and walks only those behind them; hashing takes a thirtieth of the time of a walk. Nothing rests
on a saved index: it is written without a sync, and one that is missing, torn or damaged, or whose
bytes are not those in the segment, is as if it was not there, and the file is walked.

All integers are big-endian and unsigned. A saved index is

    magic            8   `MAGIC`, which counts the format's versions too
    end              8   of how many bytes it speaks; a record ends there
    digest          32   BLAKE2b-256 over these bytes
    checksum        16   of the last record in them
    mark offset      8   where the last sync mark in them stands, 0 for none
    mark end         8   where it ends, else where the file's header does
    kept             8   the index of the newest entry that stands in an earlier file and was not
                         truncated
    term, commit     8, 8   the hard state
    network         32   the network id, zeros before the first binding
    votes length     4   then votes as UTF-8 text, each ended by a line feed, an empty one for
                         none: that of the hard state, then all the newest ones, oldest first
    columns              for the n entries in these bytes, in order: n terms of 8, n places of 8
                         (sequence << 32 | offset), n lengths of 4, n payload lengths of 4
    seal            32   BLAKE2b-256 over all before
"""

import hashlib
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from p2pcity.ledger.records import FILE_HEADER_BYTES, MARK_RECORD_BYTES
from p2pcity.ledger.segment_file import put
from p2pcity.ledger.segment_found import Recovered, note_vote
from p2pcity.ledger.segment_index import EntryIndex
from p2pcity.wire.raft import HardState

MAGIC: Final = b"p2pcidx1"
SUFFIX: Final = ".index"
NEW_SUFFIX: Final = ".part"
SEGMENT_SHARE: Final = 4
"""A file gets a saved index each time that this part of its greatest size was written."""
_HEAD: Final = struct.Struct(">8sQ32s16sQQQQQ32sI")
_DIGEST_BYTES: Final = 32
_NO_NETWORK: Final = bytes(32)


class SavedIndex(NamedTuple):
    """What is known of the first `end` bytes of a file; see the module's layout."""

    end: int
    digest: bytes
    checksum: bytes
    mark_offset: int
    mark_end: int
    kept: int
    hard_state: HardState
    votes: tuple[str | None, ...]
    network: bytes | None
    columns: bytes


def begin_digest(data: bytes | memoryview) -> Any:
    """Return the running digest over a file's bytes (`hashlib.blake2b`)."""
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES)


def encode(saved: SavedIndex) -> bytes:
    """Return the bytes of a saved index."""
    votes = b"".join(
        (vote or "").encode() + b"\n" for vote in (saved.hard_state.vote, *saved.votes)
    )
    head = _HEAD.pack(
        MAGIC,
        saved.end,
        saved.digest,
        saved.checksum,
        saved.mark_offset,
        saved.mark_end,
        saved.kept,
        saved.hard_state.term,
        saved.hard_state.commit,
        saved.network or _NO_NETWORK,
        len(votes),
    )
    data = b"".join((head, votes, saved.columns))
    seal: bytes = begin_digest(data).digest()
    return data + seal


def decode(data: bytes) -> SavedIndex | None:
    """Return what `encode` made into `data`, None for anything else."""
    if len(data) < _HEAD.size + _DIGEST_BYTES or data[: len(MAGIC)] != MAGIC:
        return None
    if begin_digest(memoryview(data)[:-_DIGEST_BYTES]).digest() != data[-_DIGEST_BYTES:]:
        return None
    _, end, digest, checksum, mark_offset, mark_end, kept, term, commit, network, length = (
        _HEAD.unpack_from(data)
    )
    text = data[_HEAD.size : _HEAD.size + length].decode()
    vote, *votes = (vote or None for vote in text.split("\n")[:-1])
    return SavedIndex(
        end,
        digest,
        checksum,
        mark_offset,
        mark_end,
        kept,
        HardState(term, vote, commit),
        tuple(votes),
        None if network == _NO_NETWORK else network,
        data[_HEAD.size + length : -_DIGEST_BYTES],
    )


def resume(state: Recovered, buffer: bytes) -> None:
    """Take over what the saved index of the last file in `state` says, if it fits `buffer`.

    `buffer` has all bytes of that file, with a header that was checked. The walk goes on at
    `indexed_end`.
    """
    end = state.indexed_end
    state.digest = begin_digest(memoryview(buffer)[:end])
    try:
        saved = decode(state.paths[state.sequence].with_suffix(SUFFIX).read_bytes())
    except OSError:  # none yet, or it can't be read: the file is walked
        return
    if saved is None or state.gaps or not end <= saved.end <= len(buffer):
        return
    digest = begin_digest(memoryview(buffer)[: saved.end])
    if digest.digest() != saved.digest or saved.kept > state.index.last_index:
        return
    state.digest = digest
    state.index.go_on(saved.kept, saved.columns)
    state.checksum = saved.checksum
    state.last_mark_offset, state.last_mark_end = saved.mark_offset, saved.mark_end
    state.lowest = min(state.lowest, saved.kept + 1)
    state.hard_state = saved.hard_state
    state.votes = list(saved.votes)
    state.network = saved.network
    state.indexed_end = saved.end


def note(state: Recovered, buffer: bytes, *, is_wanted: bool) -> None:
    """Follow the walk over the last file in `state` to its end; keep what it led to if wanted.

    It is written once the log is in order. Nothing is kept of a log with a gap.
    """
    state.digest.update(memoryview(buffer)[state.indexed_end : state.size])
    if not is_wanted or state.gaps or state.size == state.indexed_end:
        return
    kept, columns = state.index.since(state.sequence)
    state.saved_indexes[state.sequence] = encode(
        SavedIndex(
            state.size,
            state.digest.digest(),
            state.checksum,
            state.last_mark_offset,
            state.last_mark_end,
            kept,
            state.hard_state,
            tuple(state.votes),
            state.network,
            columns,
        )
    )
    state.indexed_end = state.size


def write(path: Path, data: bytes) -> None:
    """Put a saved index beside the file at `path`, in place of an older one."""
    try:
        put(path.with_suffix(SUFFIX), path.with_suffix(NEW_SUFFIX), data)
    except OSError:
        # A start takes longer without it, that is all; the log's own writes say what the disk has.
        return


def remove(path: Path) -> None:
    """Remove the saved index of a file that is gone."""
    _unlink(path.with_suffix(SUFFIX))


def _unlink(path: Path) -> None:
    with suppress(OSError):  # the next start tries again
        path.unlink(missing_ok=True)


def remove_strays(directory: Path, paths: Iterable[Path]) -> None:
    """Remove what stands beside no file of the log, or was not finished."""
    names = {path.with_suffix(SUFFIX).name for path in paths}
    for path in list(directory.iterdir()):
        if path.name.endswith((SUFFIX, NEW_SUFFIX)) and path.name not in names:
            _unlink(path)


class IndexWriter:
    """Follows what is written to the last file, and saves its index."""

    def __init__(self, recovered: Recovered, segment_bytes_max: int) -> None:
        """Go on from where a start has brought the log."""
        self._path = recovered.paths[recovered.sequence]
        self._lowest = recovered.lowest
        self._digest = recovered.digest
        self._end = recovered.indexed_end
        self._votes = recovered.votes
        self._distance = segment_bytes_max // SEGMENT_SHARE

    def wrote(self, data: bytes) -> None:
        """These bytes were appended."""
        self._digest.update(data)

    def voted(self, vote: str | None) -> None:
        """A hard state with this vote was written."""
        note_vote(self._votes, vote)

    def truncated(self, index: int) -> None:
        """Everything from `index` on was replaced, also what stands in older files."""
        self._lowest = min(self._lowest, index)

    def began(self, path: Path, first_index: int, data: bytes) -> None:
        """Another file is the last one, and begins with `data`."""
        self._path, self._lowest = path, first_index
        self._digest, self._end = begin_digest(data), FILE_HEADER_BYTES

    def is_due(self, size: int) -> bool:
        """Whether so much was written since the last one that a start would take long."""
        return size - self._end >= self._distance

    def write(
        self,
        index: EntryIndex,
        size: int,
        checksum: bytes,
        hard_state: HardState,
        network: bytes | None,
    ) -> None:
        """Write one for the last file as it is: `size` bytes, which end with a sync mark.

        Not when a part of the file's entries was forgotten: its places are not known any more,
        and an older file may have what they replaced.
        """
        if index.start.index >= self._lowest:
            return
        sequence = int(self._path.name[:16], 16)
        kept, columns = index.since(sequence)
        votes = tuple(self._votes)
        offset = size - MARK_RECORD_BYTES
        digest = self._digest.digest()
        data = encode(
            SavedIndex(
                size, digest, checksum, offset, size, kept, hard_state, votes, network, columns
            )
        )
        write(self._path, data)
        self._end = size
