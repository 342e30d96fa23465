"""Who waits for which transaction to be applied; told once, by the apply loop."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import trio

from p2pcity.errors import Unavailable


@dataclass(frozen=True, slots=True)
class Settled:
    """How a transaction ended: `state` is committed, duplicate, expired or rejected.

    A duplicate is committed too, but each of its events stood on the ledger before. `height` and
    `leaf_index` are None unless it is committed.
    """

    state: Literal["committed", "duplicate", "expired", "rejected"]
    reason: str = ""
    height: int | None = None
    leaf_index: int | None = None


class _Group:
    """One client's wait for several transactions."""

    __slots__ = ("done", "missing", "settled")

    def __init__(self, ids: Iterable[bytes]) -> None:
        self.missing = set(ids)
        self.settled: dict[bytes, Settled] = {}
        self.done = trio.Event()


class Waiters:
    """The open waits by transaction id; bounded, so that a flood of waits is refused."""

    def __init__(self, ids_max: int = 100_000) -> None:
        self._groups: dict[bytes, list[_Group]] = {}
        self._ids_max = ids_max

    def __len__(self) -> int:
        return len(self._groups)

    def is_awaited(self, id_: bytes) -> bool:
        """Whether anybody waits for `id_`."""
        return id_ in self._groups

    def settle(self, id_: bytes, settled: Settled) -> None:
        """Tell everyone who waits for `id_` how it ended."""
        for group in self._groups.pop(id_, ()):
            group.settled[id_] = settled
            group.missing.discard(id_)
            if not group.missing:
                group.done.set()

    def open(self, ids: Iterable[bytes]) -> _Group:
        """Begin to wait for `ids`; raises Unavailable when too many wait already.

        Opened before the transactions are offered, so that no end can be missed.
        """
        group = _Group(ids)
        if len(self._groups) + len(group.missing) > self._ids_max:
            raise Unavailable("too many transactions are waited for", remedy="Wait for fewer.")
        for id_ in group.missing:
            self._groups.setdefault(id_, []).append(group)
        if not group.missing:
            group.done.set()
        return group

    def close(self, group: _Group) -> None:
        """Stop waiting: what is still missing stays missing."""
        for id_ in group.missing:
            groups = self._groups.get(id_)
            if groups is not None:
                groups.remove(group)
                if not groups:
                    del self._groups[id_]

    async def wait_settled(self, group: _Group, timeout_s: float) -> dict[bytes, Settled]:
        """Wait until all of `group` ended or the time is over; what ended, by id."""
        try:
            with trio.move_on_after(timeout_s):
                await group.done.wait()
        finally:
            self.close(group)
        return group.settled
