"""What the leader proposes, and when: blocks from the mempool, four in flight, no timer.

An idle city commits at once because nothing is in flight; a busy one batches by itself,
because transactions gather in the mempool while four blocks are under way.
"""

from collections.abc import Callable
from dataclasses import dataclass

from p2pcity.errors import NotLeader, ProposalDropped
from p2pcity.mempool.mempool import Mempool
from p2pcity.raft.raw_node import RawNode
from p2pcity.wire import block as block_wire
from p2pcity.wire.block import OVERHEAD_BYTES_MAX, Block
from p2pcity.wire.limits import BLOCK_BYTES_MAX, BLOCKS_IN_FLIGHT_MAX


@dataclass(frozen=True, slots=True)
class Parent:
    """The block that the next one stands on: its height, hash and time (Unix ms)."""

    height: int
    hash: bytes
    time_ms: int


class Proposer:
    """Makes blocks for as long as this node leads.

    It begins a term only when everything in its log is applied (the own-term first entry
    included): from there on the ledger's head is the tip, and no transaction that an earlier
    leader ordered can be chosen a second time.
    """

    def __init__(
        self,
        raw_node: RawNode,
        mempool: Mempool,
        *,
        voters: bytes,
        epoch: int,
        rules: int,
        tip: Callable[[], Parent],
        applied_index: Callable[[], int],
        is_clock_right: Callable[[int], bool],
    ) -> None:
        self._raw_node = raw_node
        self._mempool = mempool
        self._voters = voters
        self._epoch = epoch
        self._rules = rules
        self._ledger_tip = tip
        self._applied_index = applied_index
        self._is_clock_right = is_clock_right
        self._term = 0
        self._starts_at: int | None = None
        self._tip: Parent | None = None
        self._in_flight: dict[int, frozenset[bytes]] = {}
        self._in_flight_ids: set[bytes] = set()

    @property
    def blocks_in_flight(self) -> int:
        """How many proposed blocks are not yet applied here."""
        return len(self._in_flight)

    def applied(self, index: int) -> None:
        """Say that everything up to the Raft index `index` is applied here."""
        done = [entry for entry in self._in_flight if entry <= index]
        for entry in done:
            self._in_flight_ids -= self._in_flight.pop(entry)

    def propose(self, now_ms: int) -> list[tuple[int, Block]]:
        """Propose as many blocks as may be in flight; the (index, block) pairs proposed.

        `now_ms` is the wall clock in Unix ms; a block's time is never below its parent's. Nothing
        is proposed while `is_clock_right` says no of it.
        """
        proposed: list[tuple[int, Block]] = []
        if not self._is_ready() or not self._is_clock_right(now_ms):
            return proposed
        while len(self._in_flight) < BLOCKS_IN_FLIGHT_MAX:
            made = self._propose_one(now_ms)
            if made is None:
                break
            proposed.append(made)
        return proposed

    def _is_ready(self) -> bool:
        if not self._raw_node.is_leader:
            self._forget()
            return False
        if self._raw_node.term != self._term:
            self._forget()
            self._term = self._raw_node.term
            self._starts_at = self._raw_node.last_index
        if self._tip is None:
            assert self._starts_at is not None
            if self._applied_index() < self._starts_at:
                return False
            self._tip = self._ledger_tip()
        return True

    def _propose_one(self, now_ms: int) -> tuple[int, Block] | None:
        assert self._tip is not None
        chosen = self._mempool.select(BLOCK_BYTES_MAX - OVERHEAD_BYTES_MAX, self._in_flight_ids)
        if not chosen:
            return None
        block = block_wire.make(
            height=self._tip.height + 1,
            parent=self._tip.hash,
            time_ms=max(now_ms, self._tip.time_ms),
            carried=chosen,
            epoch=self._epoch,
            voters=self._voters,
            rules=self._rules,
        )
        try:
            _, index = self._raw_node.propose(block.data)
        except (NotLeader, ProposalDropped):
            return None
        ids = frozenset(carried.transaction.id for carried in chosen)
        self._in_flight[index] = ids
        self._in_flight_ids |= ids
        self._tip = Parent(block.header.height, block.hash, block.header.time_ms)
        return index, block

    def _forget(self) -> None:
        self._term = 0
        self._starts_at = None
        self._tip = None
        self._in_flight.clear()
        self._in_flight_ids.clear()
