"""The outbox: what this node accepted is on its disk before the client hears of it.

Rows are written in groups: whoever comes while a group is on its way to the disk is in the
next one. What is settled (committed, expired) is written lazily, since losing that only means
that the transaction is offered once more after a restart and found to be known.
"""

from collections import deque
from collections.abc import Iterable, Sequence

import trio

from p2pcity.errors import Unavailable
from p2pcity.ledger.outbox import Outbox, SettledState
from p2pcity.ledger.writer import WriterThread
from p2pcity.wire.transaction import Carried

_RETRY_S = 1.0
_GROUP_MAX = 1000
_WAITING_MAX = 20_000


class _Write:
    """One caller's rows and whether they are on disk."""

    __slots__ = ("done", "error", "rows")

    def __init__(self, rows: list[tuple[bytes, int, bytes]]) -> None:
        self.rows = rows
        self.done = trio.Event()
        self.error: Unavailable | None = None


class OutboxLoop:
    """Group commit in front of `ledger.outbox`."""

    def __init__(self, outbox: Outbox, writer: WriterThread) -> None:
        self._outbox = outbox
        self._writer = writer
        self._pending: set[bytes] = set()
        self._writes: deque[_Write] = deque()
        # Rows on their way to the disk: whoever brings one of them again waits for it too.
        self._under_way: dict[bytes, _Write] = {}
        self._settled: dict[bytes, SettledState] = {}
        self._work = trio.Event()

    @property
    def pending_count(self) -> int:
        """How many accepted transactions of this node are neither committed nor expired."""
        return len(self._pending)

    def load(self, pending: Iterable[bytes]) -> None:
        """Take note of what an earlier run of this node accepted and did not see the end of."""
        self._pending.update(pending)

    def is_pending(self, id_: bytes) -> bool:
        """Whether `id_` is in the outbox and not settled."""
        return id_ in self._pending

    async def accept(self, carried: Sequence[Carried]) -> None:
        """Return when `carried` are on disk; raises Unavailable when the disk has no room."""
        others = {self._under_way.get(item.transaction.id) for item in carried}
        new = {
            item.transaction.id: (item.transaction.id, item.transaction.expires_ms, item.data)
            for item in carried
            if item.transaction.id not in self._pending
        }
        rows = list(new.values())
        writes = [write for write in others if write is not None]
        if rows:
            writes.append(self._begin(rows))
        for write in writes:
            await write.done.wait()
            if write.error is not None:
                raise write.error

    def _begin(self, rows: list[tuple[bytes, int, bytes]]) -> _Write:
        if len(self._under_way) > _WAITING_MAX:
            raise Unavailable("the outbox has too many rows waiting", remedy="Send more slowly.")
        write = _Write(rows)
        self._writes.append(write)
        # Pending from now on: what is settled while the rows are on their way is not missed.
        for id_, _, _ in rows:
            self._pending.add(id_)
            self._under_way[id_] = write
        self._work.set()
        return write

    def settle(self, ids: Iterable[bytes], state: SettledState) -> None:
        """Say that `ids` ended as `state`; those that are not in the outbox are passed over."""
        for id_ in ids:
            if id_ in self._pending:
                self._pending.discard(id_)
                self._settled[id_] = state
        if self._settled:
            self._work.set()

    async def run(self) -> None:
        """Write groups for as long as the node runs."""
        while True:
            await self._work.wait()
            self._work = trio.Event()
            while self._writes or self._settled:
                await self._write_group()

    async def _write_group(self) -> None:
        group: list[_Write] = []
        count = 0
        while self._writes and count < _GROUP_MAX:
            write = self._writes.popleft()
            group.append(write)
            count += len(write.rows)
        # The end of a row that is not written yet waits for it: settled first, it would come
        # back as pending.
        behind = {row[0] for write in self._writes for row in write.rows}
        settled = {id_: end for id_, end in self._settled.items() if id_ not in behind}
        for id_ in settled:
            del self._settled[id_]
        try:
            rows = [row for write in group for row in write.rows]
            await self._writer.run(self._outbox.write, rows, settled)
        except Unavailable as error:
            # No room on the disk: the clients hear it, the node goes on, nothing was accepted.
            for write in group:
                write.error = error
                self._pending.difference_update(row[0] for row in write.rows)
            # The ends are not lost: they wait for the next group.
            self._settled = settled | self._settled
            if not group:
                await trio.sleep(_RETRY_S)
        for write in group:
            for id_, _, _ in write.rows:
                self._under_way.pop(id_, None)
            write.done.set()
