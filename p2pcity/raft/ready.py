"""What the core wants done, and in which order."""

from dataclasses import dataclass

from p2pcity.raft.raft import Role
from p2pcity.raft.reads import ReadState
from p2pcity.wire.raft import Entry, HardState, Message, NodeId


@dataclass(frozen=True, slots=True)
class Ready:
    """Work for the driver. In this order:

    1. Save `entries`, then `hard_state`; sync before going on if `must_sync`.
    2. Send `messages`. Those to one peer keep their order; all appends to one peer share one
       lane. Losing messages is allowed, sending before step 1 is done is not.
    3. Apply `committed_entries`; tell the readers of `read_states` and `reads_dropped`.
    4. `RawNode.advance`, at any time after step 1; `RawNode.applied` as apply goes on.
    """

    hard_state: HardState | None
    """To be saved after `entries`; None when it did not change."""

    entries: tuple[Entry, ...]
    """To be saved; whatever storage has at the first one's index and above goes away."""

    messages: tuple[tuple[NodeId, Message], ...]
    """To be sent to these peers once the above is on disk."""

    committed_entries: tuple[Entry, ...]
    """To be applied, in order, each exactly once; all of them were on disk before this Ready."""

    snapshot: None
    """Nothing: a peer behind the oldest entry is served by sync."""

    read_states: tuple[ReadState, ...]
    """Reads that are current once their index is applied."""

    reads_dropped: tuple[bytes, ...]
    """Contexts of reads that lost their leader: ask again, or wait for the deadline."""

    must_sync: bool
    """Whether step 1 ends with a sync: entries, the term or the vote are new."""

    leader: NodeId | None
    """Who leads, as far as this node knows."""

    role: Role
    """What this node is now."""
