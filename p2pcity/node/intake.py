"""The way in for transactions from clients, gossip, forwarding and anti-entropy.

All of them come through `Intake.admit`: the cheap rules on the loop, decoding and signatures
in worker threads when there are many, the rules that depend on state on the loop again, then
the mempool. What is admitted is told to `on_admitted` once.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio

from p2pcity.admission.admission import Admission, StateView
from p2pcity.admission.verdict import Verdict, make_verdict
from p2pcity.crypto.digest import sha256
from p2pcity.errors import DecodeError, MempoolFull
from p2pcity.mempool.mempool import Mempool
from p2pcity.node.moments import Moments
from p2pcity.ordering.apply import AppliedBlock
from p2pcity.wire import transaction as transaction_wire
from p2pcity.wire.moment import Stage
from p2pcity.wire.transaction import Carried

RunInThread = Callable[..., Awaitable[Any]]
"""What runs a function in a worker thread under a `limiter`, as `trio.to_thread.run_sync` does."""

# Up to this many are examined on the loop, for some 4 ms: on busy cores hops to threads cost half
# as much again (measured).
_INLINE_MAX = 32
# One hop's work; small, so that a thread that decodes does not hold the interpreter for long.
_CHUNK = 16


@dataclass(frozen=True, slots=True)
class Admitted:
    """What became of one carried transaction; `carried` is None when it could not be decoded."""

    verdict: Verdict
    carried: Carried | None

    @property
    def is_accepted(self) -> bool:
        """Whether it is in the mempool now because of this call."""
        return self.verdict.kind == "accept"


class Intake:
    """Admits transactions into the mempool."""

    def __init__(
        self,
        *,
        admission: Admission,
        mempool: Mempool,
        state: StateView,
        network: bytes,
        now_ms: Callable[[], int],
        on_admitted: Callable[[Sequence[Carried], str | None], None],
        on_rejected: Callable[[str, str | None], None],
        moments: Moments,
        threads: int = 2,
        run_in_thread: RunInThread = trio.to_thread.run_sync,
    ) -> None:
        self._admission = admission
        self._mempool = mempool
        self._state = state
        self._network = network
        self._now_ms = now_ms
        self._on_admitted = on_admitted
        self._on_rejected = on_rejected
        self._moments = moments
        self._limiter = trio.CapacityLimiter(threads)
        self._run_in_thread = run_in_thread
        self.verdicts: dict[tuple[str, str], int] = {}

    async def admit(
        self, items: Sequence[bytes], peer: str | None, *, is_again: bool = False
    ) -> list[Admitted]:
        """Judge `items` in order and put the accepted ones into the mempool.

        `peer` is the peer id that sent them, None for this node's own clients, who had brought
        them to an earlier run of this node when it `is_again`. A transaction that finds the
        mempool full is ignored with reason `queue-full`.
        """
        received_us = self._moments.now_us()
        results: list[Admitted | None] = [None] * len(items)
        digests = [sha256(item) for item in items]
        open_: list[int] = []
        # One moment for all: to judge the clock by the others' costs as much as a signature.
        now_ms = self._now_ms()
        for position, item in enumerate(items):
            verdict = self._admission.screen(item, peer, now_ms, digest=digests[position])
            if verdict is None:
                open_.append(position)
            else:
                results[position] = Admitted(verdict, self._mempool.by_digest(digests[position]))
        examined = await self.examine([items[position] for position in open_])
        accepted: list[Carried] = []
        now_ms = self._now_ms()
        for position, outcome in zip(open_, examined, strict=True):
            admitted = self._decide(outcome, digests[position], peer, now_ms)
            results[position] = admitted
            if admitted.is_accepted and admitted.carried is not None:
                accepted.append(admitted.carried)
        if accepted:
            ids = [item.transaction.id for item in accepted]
            arrival: Stage = "reoffered" if is_again else "received"
            self._moments.note(arrival, ids, time_us=received_us, peer=peer)
            self._moments.note("admitted", ids)
            self._on_admitted(accepted, peer)
        judged = [result for result in results if result is not None]
        assert len(judged) == len(items), "every transaction has its verdict"
        for result in judged:
            key = (result.verdict.kind, result.verdict.reason)
            self.verdicts[key] = self.verdicts.get(key, 0) + 1
            if result.verdict.kind == "reject":
                self._on_rejected(result.verdict.reason, peer)
        return judged

    def note_applied(self, blocks: Sequence[AppliedBlock]) -> None:
        """Remember what `blocks` applied: gossip brings copies of it later."""
        for block in blocks:
            for item in block.transactions:
                if item.outcome == "applied" and item.carried is not None:
                    self._admission.note_applied(item.carried)

    @staticmethod
    def known_verdict(id_: bytes) -> Verdict:
        """The verdict of a transaction that is in the mempool already."""
        return make_verdict("known", id_)

    async def examine(self, items: Sequence[bytes]) -> list[Carried | DecodeError]:
        """The stateless rules for each of `items`: decoded and verified, or why not."""
        if len(items) <= _INLINE_MAX:
            return examine_all(self._network, items)
        results: list[list[Carried | DecodeError]] = [[] for _ in range(0, len(items), _CHUNK)]

        async def examine_chunk(number: int) -> None:
            chunk = items[number * _CHUNK : (number + 1) * _CHUNK]
            examine = partial(examine_all, self._network, chunk)
            results[number] = await self._run_in_thread(examine, limiter=self._limiter)

        async with trio.open_nursery() as nursery:
            for number in range(len(results)):
                nursery.start_soon(examine_chunk, number)
        return [outcome for chunk in results for outcome in chunk]

    def _decide(
        self, outcome: Carried | DecodeError, digest: bytes, peer: str | None, now_ms: int
    ) -> Admitted:
        verdict = self._admission.decide(outcome, digest, peer, self._state, now_ms)
        carried = outcome if isinstance(outcome, Carried) else None
        if verdict.kind != "accept" or carried is None:
            return Admitted(verdict, carried)
        try:
            self._mempool.add(carried, now_ms)
        except MempoolFull:
            self._admission.forget(carried)
            return Admitted(make_verdict("queue-full", carried.transaction.id), carried)
        return Admitted(verdict, carried)


def examine_all(network: bytes, items: Sequence[bytes]) -> list[Carried | DecodeError]:
    """`wire.transaction.examine` for each of `items`; called in worker threads."""
    results: list[Carried | DecodeError] = []
    for item in items:
        try:
            results.append(transaction_wire.examine(item, network))
        except DecodeError as error:
            results.append(error)
    return results
