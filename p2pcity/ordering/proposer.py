"""What the leader proposes, and when: blocks from the mempool, four in flight, no timer.

An idle city commits at once because nothing is in flight; a busy one batches by itself,
because transactions gather in the mempool while four blocks are under way. A change of voters
has a block of its own, on top of whatever is in flight.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from p2pcity.city.membership import State
from p2pcity.errors import ChangeRefused, NotLeader, ProposalDropped
from p2pcity.mempool.mempool import Mempool
from p2pcity.ordering.members import Members, apply_change
from p2pcity.raft.raw_node import RawNode
from p2pcity.wire import block as block_wire
from p2pcity.wire import change as change_wire
from p2pcity.wire.block import OVERHEAD_BYTES_MAX, Block
from p2pcity.wire.change import Change
from p2pcity.wire.limits import BLOCK_BYTES_MAX, BLOCKS_IN_FLIGHT_MAX
from p2pcity.wire.transaction import Carried


@dataclass(frozen=True, slots=True)
class Parent:
    """The block that the next one stands on: its height, hash and time (Unix ms)."""

    height: int
    hash: bytes
    time_ms: int


class Proposer:
    """Makes blocks for as long as this node leads.

    It begins a term only when everything in its log is applied that stands before the own-term
    first entry, which is empty: from there on the ledger's head is the tip, and no transaction
    that an earlier leader ordered can be chosen a second time. After a hand-over that is so at
    once, and the first block travels with the first entry.
    """

    def __init__(
        self,
        raw_node: RawNode,
        mempool: Mempool,
        members: Members,
        *,
        rules: int,
        tip: Callable[[], Parent],
        applied_index: Callable[[], int],
        is_clock_right: Callable[[int], bool],
    ) -> None:
        self._raw_node = raw_node
        self._mempool = mempool
        self._members = members
        self._rules = rules
        self._ledger_tip = tip
        self._applied_index = applied_index
        self._is_clock_right = is_clock_right
        self._term = 0
        self._starts_at: int | None = None
        self._tip: Parent | None = None
        # The city after the newest block that was proposed, and its voters' digest.
        self._state: State | None = None
        self._voters = b""
        self._change_index = 0
        self._in_flight: dict[int, frozenset[bytes]] = {}
        self._in_flight_ids: set[bytes] = set()
        # How many blocks this node proposed, changes included, and what was in them.
        self.blocks_proposed = 0
        self.transactions_proposed = 0

    @property
    def blocks_in_flight(self) -> int:
        """How many proposed blocks are not yet applied here."""
        return len(self._in_flight)

    @property
    def is_changing(self) -> bool:
        """Whether a change that this leader proposed is not yet applied here."""
        return self._change_index in self._in_flight

    def ids_in_flight(self, index: int) -> frozenset[bytes]:
        """The transactions of the block that was proposed as `index` and is not yet applied."""
        return self._in_flight.get(index, frozenset())

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
        if not (self._is_ready() and len(self._mempool) and self._is_clock_right(now_ms)):
            return proposed
        while len(self._in_flight) < BLOCKS_IN_FLIGHT_MAX:
            made = self._propose_one(now_ms)
            if made is None:
                break
            proposed.append(made)
        return proposed

    def propose_change(self, change: Change, now_ms: int) -> tuple[int, Block]:
        """Propose a block with nothing but `change`; its Raft index, and the block.

        A leader whose clock is not right gives it its parent's time: who orders must be changed
        also then.

        Raises NotLeader, ProposalDropped, and ChangeRefused when the change does not fit the
        city, an earlier one is not in effect yet, or this leader has only just begun.
        """
        if not self._is_ready():
            if not self._raw_node.is_leader:
                raise NotLeader("only the leader proposes", leader=self._raw_node.leader)
            raise ChangeRefused(
                "this leader has only just begun its term", remedy="Ask again in a moment."
            )
        assert self._state is not None
        after = apply_change(self._state, change)
        time_ms = now_ms if self._is_clock_right(now_ms) else 0
        block = self._make(time_ms, (), change_wire.encode(change))
        _, index = self._raw_node.propose(block.data, is_change=True)
        self._note_proposed(index, block, frozenset())
        self._change_index = index
        self._take(after)
        return index, block

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
            if self._applied_index() < self._starts_at - 1:
                return False
            self._tip = self._ledger_tip()
            # Everything in the log is in effect: what was applied, and nothing that is not.
            self._take(self._members.state)
        return True

    def _take(self, state: State) -> None:
        self._state = state
        self._voters = state.voters_digest

    def _propose_one(self, now_ms: int) -> tuple[int, Block] | None:
        chosen = self._mempool.select(BLOCK_BYTES_MAX - OVERHEAD_BYTES_MAX, self._in_flight_ids)
        if not chosen:
            return None
        block = self._make(now_ms, chosen)
        try:
            _, index = self._raw_node.propose(block.data)
        except (NotLeader, ProposalDropped):
            return None
        self._note_proposed(index, block, frozenset(item.transaction.id for item in chosen))
        return index, block

    def _make(self, now_ms: int, chosen: Sequence[Carried], change: bytes | None = None) -> Block:
        assert self._tip is not None
        assert self._state is not None
        return block_wire.make(
            height=self._tip.height + 1,
            parent=self._tip.hash,
            time_ms=max(now_ms, self._tip.time_ms),
            carried=chosen,
            epoch=self._state.epoch,
            voters=self._voters,
            rules=self._rules,
            change=change,
        )

    def _note_proposed(self, index: int, block: Block, ids: frozenset[bytes]) -> None:
        self.blocks_proposed += 1
        self.transactions_proposed += len(ids)
        self._in_flight[index] = ids
        self._in_flight_ids |= ids
        self._tip = Parent(block.header.height, block.hash, block.header.time_ms)

    def _forget(self) -> None:
        self._term = 0
        self._starts_at = None
        self._tip = None
        self._state = None
        self._change_index = 0
        self._in_flight.clear()
        self._in_flight_ids.clear()
