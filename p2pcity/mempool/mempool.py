"""The mempool: transactions that were admitted and not yet applied.

Bounded in bytes and per author; every operation costs O(1), `select` and `since` O(result).
Each admission has a number, counted from 1 in this run of the node, by which peers ask for
what they have not seen.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from p2pcity.errors import MempoolFull
from p2pcity.mempool.admissions import Admissions
from p2pcity.mempool.expiries import Expiries
from p2pcity.wire.block import ITEM_HEAD_BYTES_MAX
from p2pcity.wire.transaction import Carried


@dataclass(frozen=True, slots=True)
class MempoolConfig:
    """Bounds of the mempool, in bytes of carried transactions unless the name says otherwise.

    Decoded events take about ten times their bytes; above `decoded_bytes_max` in the mempool
    they are dropped, and decoded again when their block is applied.
    """

    bytes_max: int = 64 * 1024 * 1024
    author_bytes_max: int = 16 * 1024 * 1024
    transactions_max: int = 131_072
    decoded_bytes_max: int = 8 * 1024 * 1024
    admissions_max: int = 131_072


@dataclass(frozen=True, slots=True)
class MempoolStatistics:
    """What the mempool holds now, and the number of its newest admission."""

    transactions: int
    bytes: int
    bytes_max: int
    authors: int
    last_number: int


class _Queue:
    """The transactions of one author, in the order in which they came."""

    __slots__ = ("bytes", "items")

    def __init__(self) -> None:
        self.items: dict[bytes, Carried] = {}
        self.bytes = 0


class Mempool:
    """Holds admitted transactions and picks those of the next block."""

    def __init__(self, config: MempoolConfig | None = None) -> None:
        self._config = config or MempoolConfig()
        self._by_id: dict[bytes, Carried] = {}
        self._by_digest: dict[bytes, Carried] = {}
        self._queues: dict[bytes, _Queue] = {}
        self._expiries = Expiries()
        self._expired_in_add: list[bytes] = []
        self._admissions = Admissions(self._config.admissions_max)
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, id: object) -> bool:
        return id in self._by_id

    def has_room(self, carried: Carried) -> bool:
        """Whether `add` would take `carried` now."""
        size = len(carried.data)
        queue = self._queues.get(carried.transaction.author)
        return (
            self._bytes + size <= self._config.bytes_max
            and len(self._by_id) < self._config.transactions_max
            and (queue.bytes if queue else 0) + size <= self._config.author_bytes_max
        )

    def add(self, carried: Carried, now_ms: int) -> None:
        """Take an accepted transaction; one whose id is here already changes nothing.

        `now_ms` is the wall clock: when the mempool is full, what expired goes first. Raises
        MempoolFull when there is still no room, in all or for this author.
        """
        id = carried.transaction.id
        if id in self._by_id:
            return
        if not self.has_room(carried):
            self._expired_in_add = self.expire(now_ms)
            if not self.has_room(carried):
                raise MempoolFull("the mempool is full, or this author's share of it")
        author = carried.transaction.author
        queue = self._queues.get(author)
        if queue is None:
            queue = self._queues[author] = _Queue()
        size = len(carried.data)
        queue.items[id] = carried
        queue.bytes += size
        self._by_id[id] = carried
        self._by_digest[carried.digest] = carried
        self._bytes += size
        self._expiries.add(id, carried.transaction.expires_ms)
        self._admissions.add(id)
        if self._bytes > self._config.decoded_bytes_max:
            carried.forget_events()

    def get(self, id: bytes) -> Carried | None:
        """Return the transaction with this id."""
        return self._by_id.get(id)

    def by_digest(self, digest: bytes) -> Carried | None:
        """Return the transaction whose carried bytes have this SHA-256."""
        return self._by_digest.get(digest)

    def remove(self, ids: Iterable[bytes]) -> None:
        """Drop what was applied; ids that are not here are passed over."""
        for id in ids:
            carried = self._by_id.pop(id, None)
            if carried is None:
                continue
            del self._by_digest[carried.digest]
            size = len(carried.data)
            self._bytes -= size
            author = carried.transaction.author
            queue = self._queues[author]
            del queue.items[id]
            queue.bytes -= size
            if not queue.items:
                del self._queues[author]
            self._expiries.remove(id, carried.transaction.expires_ms)

    def expire(self, now_ms: int) -> list[bytes]:
        """Drop what expired (`expires <= now_ms`); return the ids, with those that `add` dropped.

        So each id is told once, whoever had to make room.
        """
        expired = self._expiries.pop(now_ms)
        self.remove(expired)
        told, self._expired_in_add = self._expired_in_add, []
        return told + expired

    def select(
        self,
        bytes_max: int,
        exclude: AbstractSet[bytes] | Callable[[bytes], bool] = frozenset(),
    ) -> list[Carried]:
        """Return transactions for a block: one of each author in turn, each author's in order.

        Their items in a block take at most `bytes_max` bytes in all. `exclude` are the ids that
        are under way in other blocks. The first that does not fit ends the choice, and its
        author stands first in the next block; those served go to the end of the turn.
        """
        is_excluded = exclude if callable(exclude) else exclude.__contains__
        chosen: list[Carried] = []
        served: dict[bytes, None] = {}
        room = bytes_max
        for author, carried in self._take_turns(is_excluded):
            size = len(carried.data) + ITEM_HEAD_BYTES_MAX
            if size > room:
                break
            room -= size
            chosen.append(carried)
            served[author] = None
        for author in served:
            self._queues[author] = self._queues.pop(author)
        return chosen

    def since(self, number: int, limit: int) -> tuple[int, list[bytes]]:
        """Return (last, ids): up to `limit` ids admitted after `number` and still here.

        Ask again with `last`. What was applied meanwhile is left out: the asker gets it in a
        block. Admissions older than the bounded memory of them are left out too.
        """
        return self._admissions.since(number, limit, self._by_id.__contains__)

    def statistics(self) -> MempoolStatistics:
        """Return what the mempool holds now."""
        return MempoolStatistics(
            transactions=len(self._by_id),
            bytes=self._bytes,
            bytes_max=self._config.bytes_max,
            authors=len(self._queues),
            last_number=self._admissions.last,
        )

    def _take_turns(self, is_excluded: Callable[[bytes], bool]) -> Iterator[tuple[bytes, Carried]]:
        """Yield one transaction of each author in turn, until all are told."""
        waiting: deque[tuple[bytes, Iterator[Carried]]] = deque()
        # The first turn walks the dict itself, so that few of many authors cost few steps.
        for author, queue in self._queues.items():
            rest: Iterator[Carried] = (
                item for id, item in queue.items.items() if not is_excluded(id)
            )
            first = next(rest, None)
            if first is not None:
                yield author, first
                waiting.append((author, rest))
        while waiting:
            author, rest = waiting.popleft()
            following = next(rest, None)
            if following is not None:
                yield author, following
                waiting.append((author, rest))
