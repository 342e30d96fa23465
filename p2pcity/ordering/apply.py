"""What a committed block does to the ledger: the rules that every node follows alike.

The order of the rules for each carried transaction, the first that fails naming its outcome
(protocol/06-block.md, "Apply"):

1. `invalid`: its bytes, network, events, root or signature are wrong (no state can mend that)
2. `expired`: it expires before the block's time
3. `duplicate`: its id is on the ledger already, or earlier in this block
4. `unauthorised`: its author is not known, or may not use one of its event types
5. `applied`: it becomes the next leaf of the tree

Only applied transactions count from there on: a dropped one leaves no leaf, no event, and its
id stays free. An event of an applied transaction whose name (author, source, id) is taken is a
duplicate: ordered and provable, in no view.

A block's change of voters is one more leaf, behind the transactions, and is in force from the
next block on; one that does not fit the city changes nothing (`ordering.members`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from p2pcity.city.membership import State
from p2pcity.crypto.digest import sha256
from p2pcity.crypto.merkle import Frontier, leaf_hash
from p2pcity.errors import ChangeRefused, DecodeError, DivergedError, RulesTooOldError
from p2pcity.ordering.members import apply_bytes
from p2pcity.wire import transaction as transaction_wire
from p2pcity.wire.block import Block, Header
from p2pcity.wire.event import name_key
from p2pcity.wire.genesis import Genesis, is_type_allowed
from p2pcity.wire.limits import RULES_VERSION
from p2pcity.wire.transaction import Carried

Outcome = Literal["applied", "duplicate", "expired", "unauthorised", "invalid"]
Examined = Carried | DecodeError
Lookup = Callable[[bytes], Examined | None]
"""Gives what is already known of a carried transaction by the SHA-256 of its bytes.

A Carried must have passed `transaction.examine`; a DecodeError is why it did not; None means
that nobody looked yet.
"""

_DIVERGED_REMEDY: Final = (
    "Stop this node, keep its data directory for the investigation, and join again with a new one."
)
_NO_EVENTS: Final[frozenset[int]] = frozenset()


class KnownIndex(Protocol):
    """What stands on the ledger below the block that is being applied."""

    def has_transaction(self, id: bytes, /) -> bool:
        """Whether a transaction with this id was applied."""

    def has_event(self, name_key: bytes, /) -> bool:
        """Whether an event of this name stands in an applied transaction."""


@dataclass(frozen=True, slots=True)
class Tip:
    """Where the ledger stands: the newest block and the tree up to it.

    At height 0 `hash` is the network id. `time_ms` is the block's time in Unix milliseconds.
    """

    height: int
    hash: bytes
    time_ms: int
    frontier: Frontier = field(default_factory=Frontier)

    @classmethod
    def from_genesis(cls, genesis: Genesis) -> "Tip":
        """Return the tip of a ledger without blocks."""
        return cls(0, genesis.network, genesis.time_ms)


@dataclass(frozen=True, slots=True)
class AppliedTransaction:
    """What became of one carried transaction of a block.

    `carried` is None when the bytes could not even be decoded. `reason` says why an invalid one
    is (a DecodeError's reason). `leaf_index` and `names` (one per event, None for a withheld
    one) belong to applied ones; `duplicate_events` are the positions of events to leave out.
    """

    carried: Carried | None
    outcome: Outcome
    leaf_index: int | None = None
    duplicate_events: frozenset[int] = _NO_EVENTS
    names: tuple[bytes | None, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class AppliedBlock:
    """A block with what became of each of its transactions; `index` is its Raft index.

    `state` is the city afterwards; `change_refusal` says why the block's change did nothing.
    """

    index: int
    block: Block
    transactions: tuple[AppliedTransaction, ...]
    tip: Tip
    state: State
    change_refusal: str = ""

    @property
    def height(self) -> int:
        """The block's height."""
        return self.block.header.height

    @property
    def frontier(self) -> Frontier:
        """The tree after this block."""
        return self.tip.frontier


def examine_unseen(
    block: Block, lookup: Lookup, network: bytes
) -> dict[bytes, Carried | DecodeError]:
    """Examine the block's transactions that `lookup` does not know; the outcomes by digest.

    Pure and safe in any thread: this is where signatures are verified, before `Applier.apply`.
    """
    unseen: dict[bytes, Carried | DecodeError] = {}
    for data in block.transactions:
        digest = sha256(data)
        if digest not in unseen and lookup(digest) is None:
            unseen[digest] = examine(data, network)
    return unseen


def examine(data: bytes, network: bytes) -> Carried | DecodeError:
    """Return the examined transaction in `data`, or why it is invalid, instead of raising it."""
    try:
        return transaction_wire.examine(data, network)
    except DecodeError as error:
        return error


class Applier:
    """Applies blocks one after the other; holds the tip and nothing else that changes.

    Whoever stores the result in a transaction that may fail keeps `tip` and `state` before and
    gives them back with `restore`.
    """

    def __init__(self, network: bytes, state: State, tip: Tip) -> None:
        self._network = network
        self._tip = tip
        self._state = state
        self._voters = state.voters_digest

    @property
    def tip(self) -> Tip:
        """Where the ledger stands after the last block that was applied."""
        return self._tip

    @property
    def state(self) -> State:
        """The city after the last block that was applied."""
        return self._state

    def restore(self, tip: Tip, state: State) -> None:
        """Go back to an earlier tip and state: what was applied since could not be stored."""
        self._tip = tip
        self._take(state)

    def _take(self, state: State) -> None:
        if state is not self._state:
            self._state = state
            self._voters = state.voters_digest

    def apply(self, index: int, block: Block, known: KnownIndex, lookup: Lookup) -> AppliedBlock:
        """Apply the block of the Raft index `index` on top of the tip.

        `known` answers for the ledger below this block; `lookup` for what was examined before
        (the rest is examined here). Raises DivergedError when the block does not follow the
        tip, RulesTooOldError when it needs rules that this release does not know; then nothing
        changed.
        """
        self._check_follows(block)
        seen_ids: set[bytes] = set()
        seen_names: set[bytes] = set()
        leaves: list[bytes] = []
        applied: list[AppliedTransaction] = []
        size = self._tip.frontier.size
        for data in block.transactions:
            examined = lookup(sha256(data))
            if examined is None:
                examined = examine(data, self._network)
            if isinstance(examined, DecodeError):
                applied.append(_invalid(data, examined))
                continue
            outcome = self._judge(examined, block.header.time_ms, seen_ids, known)
            if outcome != "applied":
                applied.append(AppliedTransaction(examined, outcome))
                continue
            names, duplicates = _name_events(examined, seen_names, known)
            seen_ids.add(examined.transaction.id)
            applied.append(
                AppliedTransaction(examined, outcome, size + len(leaves), duplicates, names)
            )
            leaves.append(examined.leaf)
        refusal = ""
        if block.change is not None:
            leaves.append(leaf_hash(block.change))
            refusal = self._apply_change(block.change)
        header = block.header
        frontier = self._tip.frontier.extend(leaves)
        self._tip = Tip(header.height, block.hash, header.time_ms, frontier)
        return AppliedBlock(index, block, tuple(applied), self._tip, self._state, refusal)

    def _apply_change(self, change: bytes) -> str:
        """Put the change into effect; return why it has none."""
        try:
            self._take(apply_bytes(self._state, change))
        except ChangeRefused as error:
            return str(error)
        return ""

    def _check_follows(self, block: Block) -> None:
        header, tip = block.header, self._tip
        where = f"the block at height {header.height}"
        if header.height != tip.height + 1:
            raise DivergedError(
                f"{where} came on top of height {tip.height}", remedy=_DIVERGED_REMEDY
            )
        if header.parent != tip.hash:
            raise DivergedError(
                f"{where} names the parent {header.parent.hex()}, here it is {tip.hash.hex()}",
                remedy=_DIVERGED_REMEDY,
            )
        if header.time_ms < tip.time_ms:
            raise DivergedError(f"{where} is older than its parent", remedy=_DIVERGED_REMEDY)
        check_rules(header)
        if header.epoch != self._state.epoch:
            raise DivergedError(
                f"{where} is of epoch {header.epoch}, here it is {self._state.epoch}",
                remedy=_DIVERGED_REMEDY,
            )
        if header.voters != self._voters:
            raise DivergedError(
                f"{where} names the voters {header.voters.hex()}, here they are "
                f"{self._voters.hex()}",
                remedy=_DIVERGED_REMEDY,
            )

    def _judge(
        self, carried: Carried, block_time_ms: int, seen_ids: set[bytes], known: KnownIndex
    ) -> Outcome:
        transaction = carried.transaction
        if transaction.expires_ms < block_time_ms:
            return "expired"
        if transaction.id in seen_ids or known.has_transaction(transaction.id):
            return "duplicate"
        types = self._state.author_types(transaction.author)
        if types is None:
            return "unauthorised"
        used = {event.type for event in carried.decoded_events() if event is not None}
        if not all(is_type_allowed(types, item) for item in used):
            return "unauthorised"
        return "applied"


def check_rules(header: Header) -> None:
    """Raise RulesTooOldError for a block under rules that this release does not know."""
    if not 1 <= header.rules <= RULES_VERSION:
        raise RulesTooOldError(
            f"the block at height {header.height} is under rules {header.rules}, this release "
            f"knows 1 to {RULES_VERSION}",
            remedy="Install the newest release, then start the node again.",
        )


def _invalid(data: bytes, error: DecodeError) -> AppliedTransaction:
    try:
        carried = transaction_wire.decode_carried(data)
    except DecodeError:
        carried = None
    return AppliedTransaction(carried, "invalid", reason=error.reason)


def _name_events(
    carried: Carried, seen_names: set[bytes], known: KnownIndex
) -> tuple[tuple[bytes | None, ...], frozenset[int]]:
    """Return the events' name keys and the positions of those whose name is taken."""
    author = carried.transaction.author
    names: list[bytes | None] = []
    duplicates: list[int] = []
    for position, event in enumerate(carried.decoded_events()):
        if event is None:
            names.append(None)
            continue
        name = name_key(author, event.source, event.id)
        names.append(name)
        if name in seen_names or known.has_event(name):
            duplicates.append(position)
        else:
            seen_names.add(name)
    return tuple(names), frozenset(duplicates) if duplicates else _NO_EVENTS
