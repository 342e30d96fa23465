"""The core's one door: what goes in, and the Ready that comes out."""

from collections.abc import Sequence
from random import Random

from p2pcity.raft import election, follower, reading, replication, step, transfer
from p2pcity.raft.config import RaftConfig
from p2pcity.raft.configuration import Configuration
from p2pcity.raft.log_storage import LogStorage
from p2pcity.raft.raft import Raft, Role
from p2pcity.raft.ready import Ready
from p2pcity.raft.status import RaftStatus, take_status
from p2pcity.wire.raft import Entry, HardState, Message, NodeId


class RawNode:
    """One node's Raft, without clock, socket, disk or threads.

    The driver calls `tick` at a fixed pace, `step` for each message, and whenever `has_ready`
    takes a `ready`, does what it says, and calls `advance`. `tick`, `step`, `propose` and the
    rest may be called in between; a second `ready` may not. `applied` is the index that apply
    finished before the start: `committed_entries` go on after it.

    Raises CorruptionError when storage ends before `applied`.
    """

    def __init__(
        self,
        config: RaftConfig,
        storage: LogStorage,
        configuration: Configuration,
        random: Random,
        *,
        applied: int = 0,
    ) -> None:
        self._raft = Raft(config, storage, configuration, random, applied=applied)
        self._hard_state = storage.hard_state
        self._outstanding: Ready | None = None

    @property
    def role(self) -> Role:
        """What this node is now."""
        return self._raft.role

    @property
    def is_leader(self) -> bool:
        """Whether this node leads, as far as it knows."""
        return self._raft.role is Role.LEADER

    @property
    def term(self) -> int:
        """The current term."""
        return self._raft.term

    @property
    def leader(self) -> NodeId | None:
        """Who leads this term, as far as this node knows."""
        return self._raft.leader

    @property
    def last_index(self) -> int:
        """The index of the newest entry, saved or not."""
        return self._raft.raft_log.last_index

    @property
    def commit(self) -> int:
        """The newest index that is known to be committed."""
        return self._raft.raft_log.commit

    @property
    def unsaved_bytes(self) -> int:
        """Payload bytes of the entries that are not on disk yet."""
        return self._raft.raft_log.unstable_bytes

    @property
    def sync_target(self) -> int:
        """Up to where the leader wants committed entries to be fetched from others; 0: nothing."""
        target = self._raft.sync_target
        return target if target > self._raft.raft_log.commit else 0

    def adopt(self, term: int, entries: Sequence[Entry]) -> bool:
        """Take entries from `commit` + 1 on that another voter knows, in `term`, to be committed.

        They go through the next Ready like the leader's: saved, acknowledged, applied. Returns
        False, and takes nothing, when they don't fit or no leader of this term is known.
        """
        return follower.adopt(self._raft, term, entries)

    def learn_commit(self, index: int, term: int) -> bool:
        """Take over that the entry (`index`, `term`) is committed, as a base says that all know.

        False, and nothing changes, when the log has another entry there or none.
        """
        return election.learn_commit(self._raft, index, term)

    def tick(self) -> None:
        """Let one tick pass."""
        step.tick(self._raft)

    def step(self, sender: NodeId, message: Message) -> None:
        """Take a message; `sender` is who the transport says it is. Raises nothing."""
        step.step(self._raft, sender, message)

    def campaign(self) -> None:
        """Try to become the leader now; does nothing on a leader and on a learner."""
        election.campaign(self._raft)

    @property
    def configuration(self) -> Configuration:
        """Who votes and who follows, as far as is in effect here."""
        return self._raft.configuration

    def propose(self, payload: bytes, *, is_change: bool = False) -> tuple[int, int]:
        """Append an entry; returns its (term, index), which it keeps if it is ever committed.

        `is_change` says that it changes the configuration: one of these at a time. Raises
        NotLeader, ProposalDropped or ChangeRefused.
        """
        return replication.propose(self._raft, payload, is_change=is_change)

    def configure(self, configuration: Configuration) -> None:
        """Put the configuration into effect that a handed-out entry brings.

        Called between the `ready` that hands the entry out and its `advance`, in the order of
        the entries.
        """
        assert self._outstanding is not None, "a change comes with a Ready"
        replication.configure(self._raft, configuration)

    def transfer_leader(self, to: NodeId) -> None:
        """Hand leadership to another voter; raises NotLeader, or LocalError for a learner."""
        transfer.transfer_leader(self._raft, to)

    def read_index(self, context: bytes) -> None:
        """Ask for an index at which a read is current; see `Ready.read_states`.

        Works on followers and learners too. Raises NotLeader when no leader is known, and
        Unavailable when too many reads are under way.
        """
        reading.read_index(self._raft, context)

    def report_unreachable(self, peer: NodeId) -> None:
        """Say that messages to this peer were lost or its connection broke."""
        replication.note_unreachable(self._raft, peer)
        election.note_unreachable(self._raft, peer)

    def report_log(self, peer: NodeId, last_index: int) -> None:
        """Say where a peer's log ends, by its own word on a new connection."""
        replication.note_lost_log(self._raft, peer, last_index)

    def has_ready(self) -> bool:
        """Whether there is anything to do; False while a Ready is being worked on."""
        if self._outstanding is not None:
            return False
        raft = self._raft
        replication.flush(raft)
        return bool(
            raft.messages
            or raft.read_states
            or raft.reads_dropped
            or raft.hard_state != self._hard_state
            or raft.raft_log.has_unstable
            or (
                raft.raft_log.is_apply_due
                and raft.raft_log.has_apply_room(raft.config.apply_bytes_max)
            )
        )

    def ready(self) -> Ready:
        """Take what is to be done now."""
        assert self._outstanding is None, "advance comes before the next ready"
        raft = self._raft
        replication.flush(raft)
        hard_state: HardState | None = raft.hard_state
        entries = raft.raft_log.take_unstable()
        must_sync = bool(entries) or (raft.term, raft.vote) != (
            self._hard_state.term,
            self._hard_state.vote,
        )
        if hard_state == self._hard_state:
            hard_state = None
        ready = Ready(
            hard_state=hard_state,
            entries=entries,
            messages=tuple(raft.messages),
            committed_entries=tuple(raft.raft_log.take_committed(raft.config.apply_bytes_max)),
            snapshot=None,
            read_states=tuple(raft.read_states),
            reads_dropped=tuple(raft.reads_dropped),
            must_sync=must_sync,
            leader=raft.leader,
            role=raft.role,
        )
        self._hard_state = raft.hard_state
        raft.messages.clear()
        raft.read_states.clear()
        raft.reads_dropped.clear()
        self._outstanding = ready
        return ready

    def advance(self, ready: Ready) -> None:
        """Say that `ready`'s entries and hard state are saved, and synced if it said so."""
        assert ready is self._outstanding, "advance belongs to the last ready"
        self._outstanding = None
        if ready.committed_entries:
            self._raft.settled_index = ready.committed_entries[-1].index
            election.continue_hand_over(self._raft)
        if ready.entries:
            self._raft.raft_log.mark_stable(ready.entries[-1].index)
            replication.note_stable(self._raft)

    def applied(self, index: int) -> None:
        """Say that apply finished everything up to `index`; room for more is made by it."""
        self._raft.raft_log.mark_applied(index)

    def status(self) -> RaftStatus:
        """A picture of everything, for operators and tests."""
        return take_status(self._raft)
