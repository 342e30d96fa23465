"""The simulator's checkers, and what only whole nodes do: sign events for programs."""

from p2pcity.errors import DecodeError
from p2pcity.ordering.apply import AppliedBlock
from p2pcity.wire import transaction as transaction_wire
from p2pcity.wire.transaction import Carried
from tests.sim.checkers import Checkers, Violation, Watched
from tests.sim.city import Sample


class NodeCheckers(Checkers):
    """Remembers what was seen, and fails at the first contradiction."""

    def __init__(self, network: bytes, signers: frozenset[bytes]) -> None:
        """`signers` are the public keys of the nodes' own authors."""
        super().__init__(network)
        self._signers = signers

    @property
    def ids(self) -> dict[bytes, int]:
        """The height of each transaction on the ledger."""
        return self._height_of

    def applied(self, node: Watched, done: AppliedBlock) -> None:
        """I2, I3, I7: a node applied a block."""
        if done.height == len(self.chain) + 1:
            for item in done.transactions:
                if item.carried is not None and item.outcome == "applied":
                    self._take_signed(item.carried)
        super().applied(node, done)

    def _take_signed(self, carried: Carried) -> None:
        """I7: what a node signed stands for itself; its signature is looked at once more."""
        if carried.transaction.author not in self._signers:
            return
        try:
            found = transaction_wire.examine(carried.data, self._network)
        except DecodeError as error:
            raise Violation(f"I7 a node's own transaction is bad: {error}") from error
        transaction = found.transaction
        names = tuple(
            (transaction.author, event.source, event.id)
            for event in found.decoded_events()
            if event is not None
        )
        sample = Sample(carried.data, transaction.id, True, transaction.expires_ms, names)
        self.submitted(sample)
