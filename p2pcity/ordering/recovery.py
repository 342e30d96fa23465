"""How one node goes on alone when a quorum is gone for ever: what it has, and what it writes.

Pure: the log is read by whoever calls. The block that is made here ends what was before: it
carries a `recover` change, which begins the next epoch with this node as the only voter, and it
is committed by being written, since the node that writes it is all that is left.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from p2pcity.city.membership import State, decode_members
from p2pcity.crypto import keys
from p2pcity.errors import ChangeRefused, ConfigError, DecodeError, DivergedError
from p2pcity.ordering.apply import Tip, check_rules
from p2pcity.ordering.members import apply_bytes
from p2pcity.wire import block as block_wire
from p2pcity.wire import change as change_wire
from p2pcity.wire.base import BaseHead
from p2pcity.wire.block import Block
from p2pcity.wire.change import Recover
from p2pcity.wire.genesis import Genesis
from p2pcity.wire.raft import Entry, HardState

_BATCH_BYTES_MAX: Final = 8 * 1024 * 1024


class ReadableLog(Protocol):
    """What is read of the raft log of a node that does not run."""

    @property
    def last_index(self) -> int:
        """The newest entry's index."""

    @property
    def hard_state(self) -> HardState:
        """Term, vote and commit index."""

    def entries(self, low: int, high: int, bytes_max: int, /) -> list[Entry]:
        """Entries from `low` to below `high`: at least one."""


@dataclass(frozen=True, slots=True)
class Survey:
    """Where a log stands: the ledger up to its end, and how much of that is surely committed.

    `tip` and `state` are those after the last entry, `height_committed` the height at the commit
    index. `kept_transactions` are those in blocks beyond it, `rules` the rules in force.
    """

    last_index: int
    last_term: int
    hard_state: HardState
    height_committed: int
    kept_transactions: int
    tip: Tip
    state: State
    rules: int

    @property
    def committed(self) -> int:
        """The newest index that is surely committed."""
        return min(self.hard_state.commit, self.last_index)

    @property
    def kept_entries(self) -> int:
        """How many entries are not known to be committed."""
        return self.last_index - self.committed


def survey(genesis: Genesis, raft_log: ReadableLog, base: BaseHead | None = None) -> Survey:
    """Walk the whole log, which goes on from `base` where blocks were pruned.

    Raises DivergedError when its blocks do not follow one another, RulesTooOldError.
    """
    tip, state = Tip.from_genesis(genesis), State.from_genesis(genesis)
    commit = min(raft_log.hard_state.commit, raft_log.last_index)
    height_committed = kept = last_term = 0
    index = 1
    if base is not None:
        tip, state = Tip(base.height, base.hash, base.time_ms), _city(base, genesis)
        height_committed, last_term, index = base.height, base.term, base.index + 1
    while index <= raft_log.last_index:
        for entry in raft_log.entries(index, raft_log.last_index + 1, _BATCH_BYTES_MAX):
            if entry.payload:
                block = _decoded(entry)
                tip, state = _followed(tip, state, block, entry.index)
                if entry.index > commit:
                    kept += len(block.transactions)
            if entry.index == commit:
                height_committed = tip.height
            last_term = entry.term
            index = entry.index + 1
    return Survey(
        raft_log.last_index,
        last_term,
        raft_log.hard_state,
        height_committed,
        kept,
        tip,
        state,
        genesis.rules,
    )


def check_recoverable(found: Survey, key: bytes, incarnation: bytes) -> None:
    """Refuse a node that the city does not know, or that decides alone already: ConfigError."""
    known = found.state.nodes.get(key)
    if known is None or known.incarnation != incarnation:
        raise ConfigError(
            "the city does not know this node with this log",
            remedy="Recover on another node: one that was a member when the quorum was lost.",
        )
    sets = found.state.sets
    # Its own recovery that is not known to be committed is made again: that does.
    if sets.voters == (key,) and not sets.voters_outgoing and not found.kept_entries:
        raise ConfigError(
            "this node decides alone already: there is no quorum to be recovered",
            remedy="Start it with `p2pcity run`.",
        )


def begin_epoch(
    found: Survey, key: bytes, incarnation: bytes, now_ms: int
) -> tuple[Entry, HardState]:
    """Make the entry that begins the next epoch, and the hard state that commits it.

    `now_ms` is the wall clock, Unix ms. Raises what `check_recoverable` does.
    """
    check_recoverable(found, key, incarnation)
    block = block_wire.make(
        height=found.tip.height + 1,
        parent=found.tip.hash,
        time_ms=max(now_ms, found.tip.time_ms),
        carried=[],
        epoch=found.state.epoch,
        voters=found.state.voters_digest,
        rules=found.rules,
        change=change_wire.encode(Recover(key, incarnation)),
    )
    term = max(found.hard_state.term, found.last_term) + 1
    entry = Entry(term, found.last_index + 1, block.data)
    return entry, HardState(term, keys.peer_id(key), entry.index)


def others(found: Survey, key: bytes) -> Sequence[str]:
    """Member and name of everybody else in the registry: whoever is left out."""
    nodes = found.state.nodes.values()
    return [f"{node.member}/{node.name}" for node in nodes if node.key != key]


def _city(base: BaseHead, genesis: Genesis) -> State:
    try:
        return decode_members(base.city, genesis)
    except DecodeError as error:
        raise DivergedError(
            f"the city in the base can't be read: {error}", remedy="Recover on another node."
        ) from error


def _decoded(entry: Entry) -> Block:
    try:
        return block_wire.decode(entry.payload)
    except DecodeError as error:
        raise DivergedError(
            f"the entry {entry.index} is no block: {error}", remedy="Recover on another node."
        ) from error


def _followed(tip: Tip, state: State, block: Block, index: int) -> tuple[Tip, State]:
    header = block.header
    follows = header.height == tip.height + 1 and header.parent == tip.hash
    if not follows or header.time_ms < tip.time_ms or header.epoch != state.epoch:
        raise DivergedError(
            f"the block of entry {index} does not follow the one before",
            remedy="Recover on another node, and keep this data directory for the investigation.",
        )
    check_rules(header)
    if block.change is not None:
        # A change that is refused has no effect, on any node.
        with suppress(ChangeRefused):
            state = apply_bytes(state, block.change)
    return Tip(header.height, block.hash, header.time_ms), state
