"""What admission asks of this node's ledger and mempool."""

from dataclasses import dataclass

from p2pcity.city.membership import State
from p2pcity.mempool.mempool import Mempool
from p2pcity.node.opening import Stores


@dataclass(frozen=True, slots=True)
class StateOfNode:
    """What admission asks of the ledger and the mempool (`admission.StateView`)."""

    stores: Stores
    state: State
    mempool: Mempool

    @property
    def head_time_ms(self) -> int:
        """The time of the newest applied block."""
        return self.stores.views.head_time_ms

    def author_types(self, key: bytes) -> tuple[str, ...] | None:
        """The event types that the author may write."""
        return self.state.author_types(key)

    def is_known(self, id: bytes) -> bool:
        """Whether the transaction waits here or stands on the ledger."""
        return id in self.mempool or self.stores.probe.has_transaction(id)
