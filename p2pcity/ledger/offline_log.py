"""The segment log of a node that does not run, read without writing a byte."""

from pathlib import Path
from typing import Final

from p2pcity.errors import ConfigError
from p2pcity.ledger.segment_file import SegmentReader
from p2pcity.ledger.segment_found import Recovery
from p2pcity.ledger.segment_index import BEGINNING, Start
from p2pcity.ledger.segment_reading import read_entry
from p2pcity.ledger.segment_recovery import does_not_reach, recover
from p2pcity.wire.raft import Entry, HardState

_ENTRIES_MAX: Final = 4_096


class OfflineLog:
    """Entries and hard state of a data directory; a torn tail is left out, not cut."""

    def __init__(
        self, directory: Path, start: Start = BEGINNING, *, may_begin_anew: bool = False
    ) -> None:
        """Verify the log in `directory` (`log/`), which goes on from `start`.

        With `may_begin_anew` others gave the base, and a log that does not reach it is no damage.
        Raises ConfigError, CorruptionError.
        """
        self._recovered = recover(directory, start=start)
        if self._recovered.is_behind and may_begin_anew:
            raise ConfigError(
                f"the base of {directory.parent} was moved into place, and its log not yet begun "
                "anew behind it",
                remedy="Start the node once: it finishes that. Then run this again.",
            )
        if self._recovered.is_behind:
            raise does_not_reach(directory, start)
        self._reader = SegmentReader()

    @property
    def first_index(self) -> int:
        """The index of the oldest entry that was not pruned."""
        return self._recovered.start.index + 1

    @property
    def last_index(self) -> int:
        """The newest entry's index, 0 when there is none."""
        return self._recovered.index.last_index

    @property
    def hard_state(self) -> HardState:
        """Term, vote and commit index as they were last written."""
        return self._recovered.hard_state

    @property
    def incarnation(self) -> bytes:
        """The 16 bytes that the log was made with."""
        return self._recovered.header.incarnation

    @property
    def network(self) -> bytes | None:
        """The network that the log is bound to, None before its first start."""
        return self._recovered.network

    @property
    def recovery(self) -> Recovery:
        """What the walk over the files found."""
        return self._recovered.report()

    def term(self, index: int) -> int:
        """Return the term of the entry at `index`, from the one before the first entry on."""
        return self._recovered.index.term(index)

    def entries(self, low: int, high: int, bytes_max: int) -> list[Entry]:
        """Return the entries from `low` to below `high`: at least one, up to `bytes_max` payload.

        Raises CorruptionError with the index of an entry that is damaged.
        """
        assert self.first_index <= low <= high <= self.last_index + 1, f"no entries {low} to {high}"
        found: list[Entry] = []
        size = 0
        for index in range(low, min(high, low + _ENTRIES_MAX)):
            size += self._recovered.index.payload_length(index)
            if found and size > bytes_max:
                break
            found.append(self._read(index))
        return found

    def close(self) -> None:
        """Close the file that is open, if any."""
        self._reader.close()

    def _read(self, index: int) -> Entry:
        place = self._recovered.index.place(index)
        path = self._recovered.paths[place.sequence]
        return Entry(place.term, index, read_entry(self._reader, path, index, place))
