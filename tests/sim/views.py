"""What a simulated node shows of its ledger: the real applier over indexes in memory.

Like `views.db` it is behind the log after a crash: everything above the newest checkpoint may
be gone, and is applied again from the log. Where blocks were pruned it begins from the base.
"""

from collections.abc import Iterable

from p2pcity.city.membership import State, decode_members, encode_city
from p2pcity.ledger.base_store import StoredBase
from p2pcity.ordering.apply import AppliedBlock, Applier, Lookup, Tip
from p2pcity.ordering.taken import records_of
from p2pcity.wire import base as base_wire
from p2pcity.wire import limits
from p2pcity.wire.base import NO_CHAIN, RECORD_BYTES, BaseHead, Mark, next_chain
from p2pcity.wire.block import Block
from p2pcity.wire.genesis import Genesis


class Views:
    """Applied blocks with the ids and event names they hold (`ordering.apply.KnownIndex`).

    `blocks` are those above the height `pruned`; `heads` the bases that could be pruned to.
    """

    def __init__(self, genesis: Genesis) -> None:
        self._genesis = genesis
        self._applier = Applier(genesis.network, *self._beginning())
        self.applied_index = 0
        self.blocks: list[AppliedBlock] = []
        self.pruned = 0
        self.heads: dict[int, bytes] = {}
        self._base: StoredBase | None = None
        self._height_of: dict[bytes, int] = {}
        self._names: dict[bytes, int] = {}

    def _beginning(self) -> tuple[State, Tip]:
        return State.from_genesis(self._genesis), Tip.from_genesis(self._genesis)

    @property
    def tip(self) -> Tip:
        """Where the ledger stands here."""
        return self._applier.tip

    @property
    def state(self) -> State:
        """The city after the newest block here."""
        return self._applier.state

    @property
    def heights(self) -> dict[bytes, int]:
        """The height of every applied transaction, pruned ones too, by id."""
        return self._height_of

    def hash_at(self, height: int) -> bytes:
        """The hash of a block; empty when it was pruned."""
        return self.blocks[height - 1 - self.pruned].block.hash if height > self.pruned else b""

    def height_of(self, id_: bytes) -> int | None:
        """The height of an applied transaction."""
        return self._height_of.get(id_)

    def has_transaction(self, id: bytes, /) -> bool:
        """Whether a transaction with this id was applied."""
        return id in self._height_of

    def has_event(self, name_key: bytes, /) -> bool:
        """Whether an event of this name stands in an applied transaction."""
        return name_key in self._names

    def base_digest(self, height: int) -> bytes | None:
        """The digest of the base at a height, None where there is none, or it is not known."""
        head = self.heads.get(height)
        return None if head is None else base_wire.digest_head(head)

    def apply(self, index: int, term: int, block: Block, lookup: Lookup) -> AppliedBlock:
        """Apply the block of the next entry that has one."""
        done = self._applier.apply(index, block, self, lookup)
        for item in done.transactions:
            if item.outcome == "applied" and item.carried is not None:
                self._height_of[item.carried.transaction.id] = done.height
                for position, name in enumerate(item.names):
                    if name is not None and position not in item.duplicate_events:
                        self._names[name] = done.height
        self.blocks.append(done)
        if done.height % limits.BASE_INTERVAL_BLOCKS == 0:
            self.heads[done.height] = self._make_head(done, term)
        return done

    def _make_head(self, done: AppliedBlock, term: int) -> bytes:
        """The base at this block, on top of the one an interval before."""
        interval = self.blocks[-limits.BASE_INTERVAL_BLOCKS :]
        assert interval[0].height == done.height + 1 - limits.BASE_INTERVAL_BLOCKS
        below = self.heads.get(interval[0].height - 1)
        before = None if below is None else base_wire.decode_head(below)
        marks, mark, events, dropped = b"", Mark(NO_CHAIN, 0), 0, 0
        if before is not None:
            marks, mark = before.marks, before.mark(before.intervals)
            events, dropped = before.events, before.dropped
        for block in interval:
            records = records_of(block)
            mark = Mark(
                next_chain(mark.chain, records), mark.records + len(records) // RECORD_BYTES
            )
            events += sum(
                name is not None and position not in item.duplicate_events
                for item in block.transactions
                for position, name in enumerate(item.names)
            )
            dropped += sum(item.outcome != "applied" for item in block.transactions)
        head = BaseHead(
            network=self._genesis.network,
            height=done.height,
            hash=done.block.hash,
            time_ms=done.tip.time_ms,
            index=done.index,
            term=term,
            frontier=done.frontier,
            city=encode_city(done.state),
            events=events,
            dropped=dropped,
            marks=marks + base_wire.encode_mark(mark),
        )
        return base_wire.encode_head(head)

    def records_above(self, height: int) -> Iterable[bytes]:
        """The records of each block of the interval behind `height`."""
        first = height - self.pruned
        return map(records_of, self.blocks[first : first + limits.BASE_INTERVAL_BLOCKS])

    def prune(self, base: StoredBase) -> None:
        """Forget the blocks at and below a base that is in force; what they took stays taken."""
        del self.blocks[: base.height - self.pruned]
        self.pruned = base.height
        self._base = base

    def begin_from(self, base: StoredBase) -> None:
        """Begin anew from a base: what the blocks below it took is in its records alone."""
        head = base.head
        self._height_of, self._names = {}, {}
        for piece in base.pieces():
            for number in range(len(piece) // RECORD_BYTES):
                record = base_wire.read_record(piece, number)
                (self._names if record.is_event else self._height_of)[record.key] = record.height
        self.blocks, self.heads = [], {head.height: base.stored.data}
        self.pruned, self._base, self.applied_index = head.height, base, head.index
        tip = Tip(head.height, head.hash, head.time_ms, head.frontier)
        self._applier.restore(tip, decode_members(head.city, self._genesis))

    def roll_back(self, index: int) -> None:
        """Forget everything that was applied above the Raft index `index`."""
        if self._base is not None and index < self._base.head.index:
            self.begin_from(self._base)
            return
        self.applied_index = min(self.applied_index, index)
        while self.blocks and self.blocks[-1].index > index:
            done = self.blocks.pop()
            self.heads.pop(done.height, None)
            for item in done.transactions:
                if item.outcome == "applied" and item.carried is not None:
                    del self._height_of[item.carried.transaction.id]
                    for position, name in enumerate(item.names):
                        if name is not None and position not in item.duplicate_events:
                            del self._names[name]
        if self.blocks:
            self._applier.restore(self.blocks[-1].tip, self.blocks[-1].state)
        elif self._base is not None:
            head = self._base.head
            tip = Tip(head.height, head.hash, head.time_ms, head.frontier)
            self._applier.restore(tip, decode_members(head.city, self._genesis))
        else:
            state, tip = self._beginning()
            self._applier.restore(tip, state)
