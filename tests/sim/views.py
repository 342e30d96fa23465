"""What a simulated node shows of its ledger: the real applier over indexes in memory.

Like `views.db` it is behind the log after a crash: everything above the newest checkpoint may
be gone, and is applied again from the log.
"""

from p2pcity.city.membership import State
from p2pcity.ordering.apply import AppliedBlock, Applier, Lookup, Tip
from p2pcity.wire.block import Block
from p2pcity.wire.genesis import Genesis


class Views:
    """Applied blocks with the ids and event names they hold (`ordering.apply.KnownIndex`)."""

    def __init__(self, genesis: Genesis) -> None:
        self._genesis_tip = Tip.from_genesis(genesis)
        self._genesis_state = State.from_genesis(genesis)
        self._applier = Applier(genesis.network, self._genesis_state, self._genesis_tip)
        self.applied_index = 0
        self.blocks: list[AppliedBlock] = []
        self._height_of: dict[bytes, int] = {}
        self._names: dict[bytes, int] = {}

    @property
    def tip(self) -> Tip:
        """Where the ledger stands here."""
        return self._applier.tip

    @property
    def state(self) -> State:
        """The city after the newest block here."""
        return self._applier.state

    def height_of(self, id_: bytes) -> int | None:
        """The height of an applied transaction."""
        return self._height_of.get(id_)

    def has_transaction(self, id: bytes, /) -> bool:
        """Whether a transaction with this id was applied."""
        return id in self._height_of

    def has_event(self, name_key: bytes, /) -> bool:
        """Whether an event of this name stands in an applied transaction."""
        return name_key in self._names

    def apply(self, index: int, block: Block, lookup: Lookup) -> AppliedBlock:
        """Apply the block of the next entry that has one."""
        done = self._applier.apply(index, block, self, lookup)
        for item in done.transactions:
            if item.outcome == "applied" and item.carried is not None:
                self._height_of[item.carried.transaction.id] = done.height
                for position, name in enumerate(item.names):
                    if name is not None and position not in item.duplicate_events:
                        self._names[name] = done.height
        self.blocks.append(done)
        return done

    def roll_back(self, index: int) -> None:
        """Forget everything that was applied above the Raft index `index`."""
        self.applied_index = min(self.applied_index, index)
        while self.blocks and self.blocks[-1].index > index:
            done = self.blocks.pop()
            for item in done.transactions:
                if item.outcome == "applied" and item.carried is not None:
                    del self._height_of[item.carried.transaction.id]
                    for position, name in enumerate(item.names):
                        if name is not None and position not in item.duplicate_events:
                            del self._names[name]
        if self.blocks:
            self._applier.restore(self.blocks[-1].tip, self.blocks[-1].state)
        else:
            self._applier.restore(self._genesis_tip, self._genesis_state)
