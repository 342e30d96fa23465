"""What a walk over the segment log found: its state, what was made again, and what is missing."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from p2pcity.ledger import records
from p2pcity.ledger.records import FileHeader, Kind
from p2pcity.ledger.segment_index import BEGINNING, EntryIndex, Start
from p2pcity.wire.raft import HardState

_VOTES_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Recovery:
    """What the start found, for one line of the daemon's log.

    `bytes_cut` bytes were thrown away at `cut_offset` of `cut_file` because of `cut_reason`
    (0, 0 and empty: nothing was torn).
    """

    files: int
    entries: int
    bytes_read: int
    bytes_cut: int = 0
    cut_file: str = ""
    cut_offset: int = 0
    cut_reason: str = ""


@dataclass(frozen=True, slots=True)
class Mended:
    """A record that was made again: `data` belongs at `offset` of the file `sequence`.

    `index` is that of an entry, else the last index at that moment.
    """

    kind: Kind
    index: int
    sequence: int
    offset: int
    data: bytes


@dataclass(slots=True)
class Gap:
    """Bytes that stay unread, and the entries from `first` to `last` that stood there.

    Those from `doubt_first` to `doubt_last` stand before it; they were not known to be
    committed, and a truncation of them may have stood in the gap.
    """

    first: int
    last: int
    what: str
    doubt_first: int = 1
    doubt_last: int = 0

    @property
    def hole(self) -> tuple[int, int] | None:
        """The first and last index that can't be relied on; None when there is none (any more)."""
        if self.doubt_first <= self.doubt_last:
            return self.doubt_first, max(self.doubt_last, self.last)
        return (self.first, self.last) if self.first <= self.last else None

    def truncate(self, index: int) -> None:
        """A truncation behind the gap replaces everything from `index` on."""
        self.last = min(self.last, index - 1)
        self.doubt_last = min(self.doubt_last, index - 1)


@dataclass(slots=True)
class Recovered:
    """The log's state after the walk; the segment log goes on from here.

    `tail` holds the bytes of the last file from `tail_offset` on (at or below its last mark, on
    a page's border) up to the last good record: they are written again, because after a failed
    sync the page cache shows what the disk does not have. `is_behind` says that the log
    does not reach the entry that it should continue, or has another one there; `left_over` are
    files that a log which began anew no longer needs. `lowest`, the first index that it writes or
    truncates, and `digest` (the running one) are the last file's; its saved index ends at
    `indexed_end`, and `saved_indexes` has those that are to be written, by the file's sequence.
    `header` is the first file's, `version` the last one's format.
    """

    directory: Path
    header: FileHeader
    start: Start = BEGINNING
    index: EntryIndex = field(default_factory=EntryIndex)
    is_behind: bool = False
    left_over: list[Path] = field(default_factory=list)
    hard_state: HardState = field(default_factory=lambda: HardState(term=0, vote=None, commit=0))
    network: bytes | None = None
    paths: dict[int, Path] = field(default_factory=dict)
    checksum: bytes = records.ZERO_CHECKSUM
    last_mark_end: int = 0
    last_mark_offset: int = 0
    tail_offset: int = 0
    tail: bytes = b""
    bytes_read: int = 0
    bytes_cut: int = 0
    cut_reason: str = ""
    mended: list[Mended] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    open_gap: Gap | None = None
    votes: list[str | None] = field(default_factory=list)
    is_vote_known: bool = True
    version: int = 1
    lowest: int = 1
    digest: Any = None
    indexed_end: int = 0
    saved_indexes: dict[int, bytes] = field(default_factory=dict)

    @property
    def holes(self) -> tuple[tuple[int, int], ...]:
        """The first and last index of each run of entries that is missing, in order.

        A later gap may put entries below an earlier one in doubt.
        """
        holes: list[tuple[int, int]] = []
        first = self.start.index + 1
        for low, high in sorted(gap.hole for gap in self.gaps if gap.hole):
            if high < first:
                continue
            if holes and low <= holes[-1][1] + 1:
                low, high = holes[-1][0], max(holes.pop()[1], high)
            holes.append((max(low, first), high))
        return tuple(holes)

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
            entries=self.index.last_index,
            bytes_read=self.bytes_read,
            bytes_cut=self.bytes_cut,
            cut_file=self.paths[self.sequence].name if is_cut else "",
            cut_offset=self.size if is_cut else 0,
            cut_reason=self.cut_reason,
        )


def note_vote(votes: list[str | None], vote: str | None) -> None:
    """Keep a vote that is not among the newest ones yet."""
    if vote not in votes:
        votes.append(vote)
        del votes[:-_VOTES_MAX]
