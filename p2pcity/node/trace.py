"""A transaction's way through the city: this node's moments of it, and those of all others."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import trio

from p2pcity.api.service import TransactionStatus
from p2pcity.api.times import write_time_us
from p2pcity.errors import LocalError, RemoteError, Unavailable
from p2pcity.net.network import Network
from p2pcity.node.membership import Membership
from p2pcity.node.moments import Moments
from p2pcity.wire import sync as sync_wire
from p2pcity.wire.moment import Moment
from p2pcity.wire.sync import StatusAnswer, StatusQuery

DEADLINE_S: Final = 2.0
"""How long a node is waited for; all are asked at once."""
_TRACES_MAX: Final = 4
_CLOCK_STEP_US: Final = 500

State = Literal["known", "unknown", "unreachable", "unsupported"]
"""`unknown`: it remembers nothing. `unsupported`: its release knows no traces."""


@dataclass(frozen=True, slots=True)
class _Told:
    """What one node said, or why it said nothing.

    Its clock is `offset_us` ahead of this node's, give or take `error_us`; None if unknown.
    """

    state: State
    moments: tuple[Moment, ...] = ()
    error: str = ""
    offset_us: int | None = None
    error_us: int | None = None

    def own_us(self, moment: Moment) -> int:
        """When that was by the asking node's clock, as far as its distance can be told."""
        if self.offset_us is None or self.error_us is None or abs(self.offset_us) <= self.error_us:
            return moment.time_us
        return moment.time_us - self.offset_us


class Trace:
    """Asks every node of the city what it remembers."""

    def __init__(
        self,
        *,
        network: Network,
        membership: Membership,
        moments: Moments,
        own_id: str,
        status: Callable[[bytes], Awaitable[TransactionStatus]],
    ) -> None:
        """Take the parts; `status` says where a transaction stands on this node's ledger."""
        self._network = network
        self._membership = membership
        self._moments = moments
        self._own_id = own_id
        self._status = status
        self._running = 0

    async def of(self, id_: bytes) -> Mapping[str, object]:
        """What `p2pcity trace` shows, JSON-able; takes `DEADLINE_S` at most for the others.

        Raises Unavailable when too many ask at once.
        """
        if self._running == _TRACES_MAX:
            raise Unavailable("too many traces are under way", remedy="Ask again in a moment.")
        self._running += 1
        try:
            told = await self._ask_all(id_)
        finally:
            self._running -= 1
        return self._document(await self._status(id_), told)

    async def _ask_all(self, id_: bytes) -> dict[str, _Told]:
        found: dict[str, _Told] = {}

        async def ask(peer: str) -> None:
            found[peer] = await self._ask(peer, id_)

        others = [peer for peer in self._membership.nodes if peer != self._own_id]
        async with trio.open_nursery() as nursery:
            for peer in others:
                nursery.start_soon(ask, peer)
        moments = self._moments.of(id_)
        own = _Told("known" if moments else "unknown", moments, offset_us=0, error_us=0)
        return {self._own_id: own, **{peer: found[peer] for peer in others}}

    async def _ask(self, peer: str, id_: bytes) -> _Told:
        question = sync_wire.encode(StatusQuery(id_))
        # In this order: what passes between the two makes the error larger, never too small.
        begin_s = trio.current_time()
        begin_us = self._moments.now_us()
        try:
            data = await self._network.request(peer, "status", question, DEADLINE_S)
            answer = sync_wire.decode_answer(data)
        except (RemoteError, LocalError) as error:
            return _Told("unreachable", error=str(error).replace(peer, "it"))
        if not isinstance(answer, StatusAnswer):
            self._network.penalise(peer)
            return _Told("unreachable", error="it answered another question")
        half_us = round((trio.current_time() - begin_s) * 500_000)
        # Its time is cut to the millisecond: half of one is added, and may be wrong.
        offset_us = answer.time_ms * 1000 + _CLOCK_STEP_US - (begin_us + half_us)
        error_us = half_us + _CLOCK_STEP_US
        if answer.trace is None:
            return _Told("unsupported", (), f"its release is {answer.release}", offset_us, error_us)
        state: State = "known" if answer.trace else "unknown"
        return _Told(state, answer.trace, "", offset_us, error_us)

    # -- what is shown -----------------------------------------------------------------------

    def _document(
        self, status: TransactionStatus, told: Mapping[str, _Told]
    ) -> Mapping[str, object]:
        begins = [item.own_us(moment) for item in told.values() for moment in item.moments]
        begin_us = min(begins, default=None)
        ends = [end for item in told.values() if (end := _end_us(item)) is not None]
        return {
            "version": 1,
            "id": status.id.hex(),
            "status": status.status,
            "reason": status.reason,
            "height": status.height,
            "leaf_index": status.leaf_index,
            "begin": None if begin_us is None else write_time_us(begin_us),
            "total_ms": None if begin_us is None or not ends else _ms(max(ends) - begin_us),
            "nodes": [self._node(peer, item, begin_us) for peer, item in told.items()],
        }

    def _node(self, peer: str, told: _Told, begin_us: int | None) -> dict[str, object]:
        end_us = _end_us(told)
        arrivals = [told.own_us(item) for item in told.moments if item.stage == "received"]
        return {
            "peer": peer,
            "name": self._membership.name(peer),
            "is_self": peer == self._own_id,
            "state": told.state,
            "error": told.error,
            "clock_offset_ms": None if told.offset_us is None else _ms(told.offset_us),
            "clock_error_ms": None if told.error_us is None else _ms(told.error_us),
            "total_ms": _ms(end_us - arrivals[0]) if arrivals and end_us is not None else None,
            "moments": [
                {
                    "stage": moment.stage,
                    "time": write_time_us(moment.time_us),
                    "after_ms": None if begin_us is None else _ms(told.own_us(moment) - begin_us),
                    "peer": moment.peer,
                    "peer_name": self._membership.name(moment.peer),
                    "term": moment.term,
                    "index": moment.index,
                    "height": moment.height,
                    "outcome": moment.outcome,
                }
                for moment in told.moments
            ],
        }


def _end_us(told: _Told) -> int | None:
    """When the node had applied it, by the asking node's clock."""
    return next((told.own_us(item) for item in told.moments if item.stage == "applied"), None)


def _ms(time_us: int) -> float:
    return time_us / 1000
