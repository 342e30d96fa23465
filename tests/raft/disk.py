"""A disk in memory: what was not synced may be gone after a crash."""

from random import Random

from p2pcity.wire.raft import Entry, HardState


class Disk:
    """Implements LogStorage; a crash keeps what was synced and a prefix of the rest."""

    def __init__(self) -> None:
        self.hard_state = HardState()
        self.syncs = 0
        self._base = Entry(0, 0, b"")
        self._entries: list[Entry] = []
        self._synced: tuple[HardState, tuple[Entry, ...]] = (HardState(), ())

    @property
    def first_index(self) -> int:
        """What `prune` left."""
        return self._base.index + 1

    @property
    def last_index(self) -> int:
        """The index of the newest entry."""
        return self._base.index + len(self._entries)

    def term(self, index: int) -> int:
        """The term at an index, 0 before the first entry."""
        assert self._base.index <= index <= self.last_index
        offset = index - self.first_index
        return self._entries[offset].term if offset >= 0 else self._base.term

    def entries(self, low: int, high: int, bytes_max: int) -> list[Entry]:
        """A slice; at least one entry."""
        assert self.first_index <= low < high <= self.last_index + 1
        found = self._entries[low - self.first_index : high - self.first_index]
        total = 0
        for count, entry in enumerate(found):
            total += len(entry.payload)
            if total > bytes_max and count:
                return found[:count]
        return found

    def save(
        self, hard_state: HardState | None, entries: tuple[Entry, ...], must_sync: bool
    ) -> None:
        """Write, and sync if asked to."""
        if entries:
            first = entries[0].index
            assert self.hard_state.commit < first <= self.last_index + 1, "no gaps, nor holes"
            self._entries[first - self.first_index :] = entries
        if hard_state is not None:
            assert hard_state.commit <= self.last_index, "what is committed is there"
            self.hard_state = hard_state
        if must_sync:
            self.syncs += 1
            self._synced = (self.hard_state, tuple(self._entries))

    def prune(self, index: int) -> None:
        """Keep nothing up to `index`, which is committed, but its term."""
        assert self.first_index <= index <= self.hard_state.commit, "only what is committed goes"
        kept = index - self._base.index
        self._base = self._entries[kept - 1]
        del self._entries[:kept]
        self._synced = (self.hard_state, tuple(self._entries))

    def take_over(self, other: "Disk") -> None:
        """Begin where `other` begins, with what is committed there; term and vote stay."""
        assert self.last_index <= other.hard_state.commit, "nothing goes that was acknowledged"
        self._base = other._base
        commit = other.hard_state.commit
        self._entries = [entry for entry in other._entries if entry.index <= commit]
        term = max(self.hard_state.term, self.term(commit))
        vote = self.hard_state.vote if term == self.hard_state.term else None
        self.hard_state = HardState(term, vote, commit)
        self._synced = (self.hard_state, tuple(self._entries))

    def crash(self, random: Random | None) -> None:
        """Lose what was not synced; with `random`, the page cache may have kept it."""
        if random is None or random.random() < 0.7:
            self.hard_state = self._synced[0]
            self._entries = list(self._synced[1])

    def crash_in_save(
        self, hard_state: HardState | None, entries: tuple[Entry, ...], random: Random
    ) -> None:
        """Crash before the sync: any number of the records made it, in their order."""
        kept = random.randrange(len(entries) + 2)
        self.save(None, entries[:kept], False)
        if kept > len(entries):
            self.save(hard_state, (), False)
        self._synced = (self.hard_state, tuple(self._entries))

    def preset(self, terms: list[int]) -> None:
        """Write a log with these terms, as the paper's figures give them."""
        entries = tuple(
            Entry(term, index, f"{index}@{term}".encode())
            for index, term in enumerate(terms, start=1)
        )
        self._entries = list(entries)
        self.hard_state = HardState(term=max(terms, default=0))
        self._synced = (self.hard_state, entries)

    def terms(self) -> list[int]:
        """The terms of all entries."""
        return [entry.term for entry in self._entries]
