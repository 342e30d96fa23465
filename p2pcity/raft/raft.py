"""The state of one node's Raft, and the changes of role and term that all rules share.

The rules themselves live beside it: `election` (who leads), `follower` (what a follower does
with appends), `replication` (what the leader sends and commits), `reading` (read indexes),
`transfer` (handing leadership over) and `step` (which rule a message or a tick goes to).
All of it is pure: messages and results are collected here until `RawNode.ready` takes them.

      times out            would win             wins
    FOLLOWER --> PRE_CANDIDATE --> CANDIDATE --> LEADER
       ^______________|________________|___________|   higher term, leader heard, no quorum
"""

import enum
from collections import deque
from random import Random

from p2pcity.raft.config import RaftConfig
from p2pcity.raft.configuration import Configuration
from p2pcity.raft.log_storage import LogStorage
from p2pcity.raft.progress import Progress
from p2pcity.raft.raft_log import RaftLog
from p2pcity.raft.reads import AskedReads, LeaderReads, ReadState
from p2pcity.wire.raft import HardState, Message, NodeId


class Role(enum.StrEnum):
    """What a node is at the moment; a learner is always a follower."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class Raft:
    """Everything one node's Raft knows; the rule modules read and change it."""

    def __init__(
        self,
        config: RaftConfig,
        storage: LogStorage,
        configuration: Configuration,
        rng: Random,
        *,
        applied: int = 0,
    ) -> None:
        assert configuration.voters, "somebody votes"
        self.id = config.id
        self.config = config
        self.configuration = configuration
        self.raft_log = RaftLog(storage, applied=applied, tail_bytes_max=config.tail_bytes_max)
        self._rng = rng

        hard_state = storage.hard_state
        self.term = hard_state.term
        self.vote = hard_state.vote
        self.role = Role.FOLLOWER
        self.leader: NodeId | None = None

        self.ticks = 0
        self.election_elapsed = 0
        self.election_timeout = 0
        self.votes: dict[NodeId, bool] = {}

        self.progress: dict[NodeId, Progress] = {}
        self.heartbeat_elapsed = 0
        self.is_flush_due = False
        self.is_round_due = False
        self.uncommitted: deque[tuple[int, int]] = deque()
        self.uncommitted_bytes = 0
        self.lead_transferee: NodeId | None = None
        self.transfer_elapsed = 0
        self.settled_index = applied
        self.handed_over_tick: int | None = None
        self.change_index = 0
        self.leader_reads = LeaderReads()

        # A random start keeps answers to a life before a crash from fitting a read of this one.
        self.asked_reads = AskedReads(rng.getrandbits(62))
        self.sync_target = 0
        self.messages: list[tuple[NodeId, Message]] = []
        self.read_states: list[ReadState] = []
        self.reads_dropped: list[bytes] = []
        self.ignored: dict[str, int] = {}
        self.elections = 0
        self.elections_won = 0
        self._draw_election_timeout()

    @property
    def hard_state(self) -> HardState:
        """What must be on disk before anything said now may leave."""
        return HardState(self.term, self.vote, self.raft_log.commit)

    @property
    def is_voter(self) -> bool:
        """Whether this node may vote and campaign."""
        return self.configuration.is_voter(self.id)

    @property
    def peers(self) -> list[NodeId]:
        """Every other member."""
        return [name for name in self.configuration.members if name != self.id]

    @property
    def is_leader_alive(self) -> bool:
        """Whether a leader, or this node itself, led within the election time-out."""
        return self.leader is not None and self.election_elapsed < self.config.election_ticks

    @property
    def has_own_commit(self) -> bool:
        """Whether an entry of the current term is committed, so that commit is truly current."""
        return self.raft_log.term(self.raft_log.commit) == self.term

    @property
    def is_settled(self) -> bool:
        """Whether every change that is known to be committed is in effect here."""
        return self.settled_index >= self.raft_log.commit

    def send(self, to: NodeId, message: Message) -> None:
        """Queue a message; it may leave once the Ready that carries it is persisted."""
        self.messages.append((to, message))

    def ignore(self, reason: str) -> None:
        """Count a message that this node did nothing with."""
        self.ignored[reason] = self.ignored.get(reason, 0) + 1

    def active_voters(self) -> dict[NodeId, bool]:
        """Which voters this leader heard within the election time-out, itself included."""
        oldest = self.ticks - self.config.election_ticks
        return {
            name: name == self.id or progress.contact_tick > oldest
            for name, progress in self.progress.items()
        }

    def become_follower(self, term: int, leader: NodeId | None) -> None:
        """Follow `leader`, or nobody yet, in `term`."""
        self._enter(term, Role.FOLLOWER, leader)

    def become_pre_candidate(self) -> None:
        """Ask whether an election would be won; changes neither term nor vote."""
        assert self.role is not Role.LEADER, "a leader does not campaign"
        self._enter(self.term, Role.PRE_CANDIDATE, None)
        self.votes = {self.id: True}

    def become_candidate(self) -> None:
        """Begin a term of one's own, with one's own vote."""
        assert self.role is not Role.LEADER, "a leader does not campaign"
        self._enter(self.term + 1, Role.CANDIDATE, None)
        self.elections += 1
        self.vote = self.id
        self.votes = {self.id: True}

    def become_leader(self) -> None:
        """Lead the current term."""
        assert self.role is Role.CANDIDATE, "only a candidate is elected"
        self._enter(self.term, Role.LEADER, self.id)
        self.elections_won += 1
        last = self.raft_log.last_index
        # Whatever is not committed yet may be a change, and the own first entry comes next.
        self.change_index = last + 1
        self.progress = {
            name: Progress(match=0, next_index=last + 1, tick=self.ticks)
            for name in self.configuration.members
        }
        self.progress[self.id].match = self.raft_log.stable

    def _enter(self, term: int, role: Role, leader: NodeId | None) -> None:
        assert term >= self.term, "terms never fall"
        if term > self.term:
            self.term = term
            self.vote = None
        if leader != self.leader or role is not self.role:
            self.reads_dropped += self.leader_reads.local_contexts()
            self.reads_dropped += self.asked_reads.drop_all()
            self.leader_reads = LeaderReads()
            self.sync_target = 0
        self.role = role
        self.leader = leader
        self.votes = {}
        self.progress = {}
        self.heartbeat_elapsed = 0
        self.is_flush_due = False
        self.is_round_due = False
        self.uncommitted.clear()
        self.uncommitted_bytes = 0
        self.lead_transferee = None
        self.handed_over_tick = None
        self.election_elapsed = 0
        self._draw_election_timeout()

    def _draw_election_timeout(self) -> None:
        extra = self._rng.randrange(self.config.election_ticks)
        self.election_timeout = self.config.election_ticks + extra
