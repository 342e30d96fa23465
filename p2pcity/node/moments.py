"""What this node did with which transaction, and when: the memory that `p2pcity trace` asks.

The newest transactions only, in memory only, bounded in number and in bytes. What happens to
several transactions at once is one moment that they share, so that a stage costs each of them a
look-up and an append.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from p2pcity.wire.moment import Moment, Stage

TRANSACTIONS_MAX: Final = 32_768
BYTES_MAX: Final = 16 * 1024 * 1024
# Measured and rounded up: an id with its place and its list, and a moment.
_TRANSACTION_BYTES: Final = 512
_MOMENT_BYTES: Final = 192
# From so many moments on only stages that it has not got yet are noted: a transaction that is
# offered to a leader again and again keeps room for its end.
_REPEATS_FROM: Final = 12
_RANGES_MAX: Final = 1024


# A moment's fields in their order: a tuple is made in a tenth of the time.
_Fields = tuple[Stage, int, str | None, int | None, int | None, int | None, str]


class _Kept:
    """One transaction's moments, and the bytes that it is charged for."""

    __slots__ = ("bytes", "moments")

    def __init__(self) -> None:
        self.bytes = _TRANSACTION_BYTES
        self.moments: list[_Fields] = []

    def has(self, stage: str) -> bool:
        return any(fields[0] == stage for fields in self.moments)


class Moments:
    """The moments of recent transactions, the longest-known transaction forgotten first."""

    def __init__(
        self,
        now_us: Callable[[], int],
        *,
        transactions_max: int = TRANSACTIONS_MAX,
        bytes_max: int = BYTES_MAX,
    ) -> None:
        """Remember at most so much; `now_us` is the wall clock, `bytes_max` an estimate's bound."""
        self.now_us = now_us
        self._transactions_max = transactions_max
        self._bytes_max = bytes_max
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._bytes = 0
        # First and last index, and the moment, of what is committed and not yet applied.
        self._committed: deque[tuple[int, int, int]] = deque(maxlen=_RANGES_MAX)

    def __len__(self) -> int:
        return len(self._kept)

    def of(self, id_: bytes) -> tuple[Moment, ...]:
        """What is remembered of a transaction, in the order in which it was noted."""
        kept = self._kept.get(id_)
        return () if kept is None else tuple(Moment(*fields) for fields in kept.moments)

    def note(
        self,
        stage: Stage,
        ids: Iterable[bytes],
        *,
        time_us: int | None = None,
        peer: str | None = None,
        term: int | None = None,
        index: int | None = None,
        height: int | None = None,
        outcome: str = "",
    ) -> None:
        """Note that `ids` came to a stage, now or at `time_us`."""
        at_us = self.now_us() if time_us is None else time_us
        self._add(ids, (stage, at_us, peer, term, index, height, outcome))

    def committed(self, first: int, last: int) -> None:
        """Note that the entries from `first` to `last` are committed.

        Which transactions they hold is known once they are applied.
        """
        self._committed.append((first, last, self.now_us()))

    def applied(self, index: int, height: int, ends: Sequence[tuple[bytes, str]]) -> None:
        """Note that a block was applied: its Raft index and height, and how each id ended."""
        ids = [id_ for id_, _ in ends]
        committed_us = self._committed_us(index)
        if committed_us is not None:
            self._add(ids, ("committed", committed_us, None, None, index, height, ""))
        at_us = self.now_us()
        by_outcome: dict[str, list[bytes]] = {}
        for id_, outcome in ends:
            by_outcome.setdefault(outcome, []).append(id_)
        for outcome, group in by_outcome.items():
            self._add(group, ("applied", at_us, None, None, index, height, outcome))

    def _committed_us(self, index: int) -> int | None:
        """When `index` was committed; blocks are applied in order, what is below is dropped."""
        while self._committed and self._committed[0][1] < index:
            self._committed.popleft()
        if self._committed and self._committed[0][0] <= index:
            return self._committed[0][2]
        return None

    def _add(self, ids: Iterable[bytes], fields: _Fields) -> None:
        # All share the moment; the first one is charged for it.
        charge = _MOMENT_BYTES
        for id_ in ids:
            kept = self._kept.get(id_)
            if kept is None:
                kept = self._kept[id_] = _Kept()
                self._bytes += kept.bytes
            elif len(kept.moments) >= _REPEATS_FROM and kept.has(fields[0]):
                continue
            kept.moments.append(fields)
            kept.bytes += charge
            self._bytes += charge
            charge = 0
        while len(self._kept) > self._transactions_max or self._bytes > self._bytes_max:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= oldest.bytes
