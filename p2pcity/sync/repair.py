"""Which peer to ask for which missing entry of a damaged log, and what they gave.

Whether what they gave is right is not decided here: the log proves it by its own checksums
(`ledger.segment_repair`), so that no peer has to be believed. Only that an entry is committed is
taken from them, where nothing hangs on it but an entry that is there already, or where a quorum
of voters holds it and says so, which then needs no copy of ours.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from typing import Final

from p2pcity.wire.raft import Entry
from p2pcity.wire.sync import EntriesAnswer, EntriesQuery

WANTED_MAX: Final = 4_096
BYTES_MAX: Final = 64 * 1024 * 1024
PEER_BYTES_MAX: Final = 8 * 1024 * 1024
"""So much of one peer is kept: what is wrong of it leaves room for what others give."""
_VERSIONS_MAX: Final = 8


class Repair:
    """The missing entries of one log, as far as others know them; bounded in count and bytes."""

    def __init__(
        self, holes: Sequence[tuple[int, int]], committed: Mapping[int, int] | None = None
    ) -> None:
        """Take the holes, and the terms of what is known to be committed, by index."""
        self._wanted = list(_first_of(holes, WANTED_MAX))
        self._is_wanted = set(self._wanted)
        self._settled: dict[str, set[int]] = {}
        self._given: dict[int, dict[Entry, list[str]]] = {}
        self._said: dict[str, EntriesAnswer] = {}
        self._lacking: set[str] = set()
        self._first = holes[0][0] if holes else 0
        self._holders: dict[int, dict[Entry, set[str]]] = {}
        # What each peer gave last, by index: a new word of it takes the place of the one before.
        self._words: dict[str, dict[int, Entry]] = {}
        self._peer_bytes: Counter[str] = Counter()
        # Kept for as long as the log has holes: an entry that was in doubt would be again.
        self.committed: dict[int, int] = dict(committed or {})

    @property
    def entries(self) -> dict[int, list[Entry]]:
        """What was given, by index, what most peers gave first."""
        return {
            index: sorted(versions, key=lambda entry: -len(versions[entry]))
            for index, versions in self._given.items()
        }

    @property
    def is_full(self) -> bool:
        """Whether nobody is asked any more, since too much is kept already."""
        return self._peer_bytes.total() >= BYTES_MAX

    def givers(self, index: int) -> list[str]:
        """Return who gave any version of the entry at `index`."""
        return sorted({peer for peers in self._given.get(index, {}).values() for peer in peers})

    def question(self, peer: str) -> EntriesQuery | None:
        """Return what to ask this peer next; None when it said all that it can in this round."""
        if self.is_full or self._peer_bytes[peer] >= PEER_BYTES_MAX:
            return None
        settled = self._settled.setdefault(peer, set())
        left = (index for index in self._wanted if index not in settled)
        index = next(left, None)
        return None if index is None else EntriesQuery(index)

    def take(self, peer: str, question: EntriesQuery, answer: EntriesAnswer) -> bool:
        """Keep what is wanted of an answer; False when it does not fit the question."""
        settled = self._settled.setdefault(peer, set())
        settled.add(question.index)
        if answer.index != question.index:
            return False
        self._said[peer] = replace(answer, entries=())
        if question.index == self._first and not answer.entries:
            self._lacking.add(peer)
        if answer.first > question.index:
            settled.update(index for index in self._wanted if index < answer.first)
        for entry in answer.entries:
            settled.add(entry.index)
            if entry.index not in self._is_wanted:
                continue
            if entry.index <= answer.commit:
                self.committed[entry.index] = entry.term
            if self._keep(peer, entry) and entry.index <= answer.commit:
                self._holders.setdefault(entry.index, {}).setdefault(entry, set()).add(peer)
        return True

    def _keep(self, peer: str, entry: Entry) -> bool:
        words = self._words.setdefault(peer, {})
        before = words.get(entry.index)
        if before == entry:
            return True
        versions = self._given.setdefault(entry.index, {})
        if before is not None:
            del words[entry.index]
            self._peer_bytes[peer] -= len(before.payload)
            versions[before].remove(peer)
            if not versions[before]:
                del versions[before]
            holders = self._holders.get(entry.index, {})
            if peers := holders.pop(before, set()) - {peer}:
                holders[before] = peers
        if entry not in versions and len(versions) >= _VERSIONS_MAX:
            return False
        words[entry.index] = entry
        self._peer_bytes[peer] += len(entry.payload)
        versions.setdefault(entry, []).append(peer)
        return True

    def successors(self, is_quorum: Callable[[Set[str]], bool]) -> list[Entry]:
        """Return the entries that a quorum of others holds as committed, from the first hole on.

        Then nobody can give what stood there, if that was something else: it was never committed.
        """
        found: list[Entry] = []
        for index in range(self._first, self._first + len(self._wanted)):
            versions = self._holders.get(index, {})
            entry = next((x for x, peers in versions.items() if is_quorum(peers)), None)
            if entry is None:
                break
            found.append(entry)
        return found

    def ahead(self, index: int) -> set[str]:
        """Return who said in this round that more is committed than up to `index`."""
        return {peer for peer, answer in self._said.items() if answer.commit > index}

    def first_kept(self) -> int | None:
        """Return the oldest entry that anybody says to keep, as far as the first hole counts.

        In this round, of those who know that one to be committed; None when nobody answered so.
        Who gave nothing of it lacks it too, and keeps nothing of it wherever its log begins.
        """
        return min(
            (
                max(self._said[peer].first, self._first + 1 if peer in self._lacking else 0)
                for peer in self.ahead(self._first - 1)
            ),
            default=None,
        )

    def refused(self, peer: str, question: EntriesQuery) -> None:
        """The peer gave no answer: it is not asked for this one again in this round."""
        self._settled.setdefault(peer, set()).add(question.index)

    def begin_round(self) -> None:
        """Ask everybody anew: they may have come to know more."""
        self._settled.clear()
        self._said.clear()
        self._lacking.clear()


def _first_of(holes: Sequence[tuple[int, int]], count_max: int) -> Iterator[int]:
    left = count_max
    for first, last in holes:
        for index in range(first, min(last + 1, first + left)):
            yield index
            left -= 1
