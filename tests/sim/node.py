"""One simulated node: the code that a daemon runs, turned by the heap instead of by trio.

Core, pump, proposer, admission, mempool, applier and segment log are the real ones; what is
written here is the order in which the node's loops call them (`node/ordering_loop.py`,
`node/apply_loop.py`, `node/reads.py`), with a crash possible at every point in between.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from p2pcity.city.membership import State
from p2pcity.errors import (
    CorruptionError,
    LedgerError,
    NotLeader,
    SyncFailedError,
    Unavailable,
)
from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.ledger.segment_repair import Mender
from p2pcity.mempool.mempool import MempoolConfig
from p2pcity.ordering.clock_rule import ClockRule
from p2pcity.ordering.clocks import Clocks
from p2pcity.ordering.members import Members, is_heard
from p2pcity.ordering.proposer import Parent, Proposer
from p2pcity.ordering.pump import Pump, Save
from p2pcity.ordering.steward import Steward
from p2pcity.raft.config import RaftConfig
from p2pcity.raft.quorum import VoteResult
from p2pcity.raft.raw_node import RawNode
from p2pcity.raft.reads import ReadState
from p2pcity.wire import raft as raft_wire
from p2pcity.wire.limits import RULES_VERSION
from p2pcity.wire.raft import Append, Heartbeat, Message
from tests.sim.applying import Applying
from tests.sim.checkers import Watched, check
from tests.sim.clock import WallClock
from tests.sim.desk import Answer, Desk
from tests.sim.door import Door
from tests.sim.files import MemoryDisk, PowerLoss
from tests.sim.gossip import Gossip
from tests.sim.mending import Mending, gaps_of
from tests.sim.network import RAFT
from tests.sim.process import Process
from tests.sim.pruning import Pruning
from tests.sim.reads import Reads
from tests.sim.storage import Durable, Storage
from tests.sim.views import Views

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster

_CODEC_EVERY = 32


@dataclass(frozen=True, slots=True)
class Settings:
    """What a seed draws for all its nodes; times in microseconds."""

    tick: int
    raft: Mapping[str, int]
    mempool: MempoolConfig
    cache_bytes_max: int
    segment_bytes_max: int
    sync_time: int
    apply_time: int
    promotion_ticks: int
    report_age_ms_max: int


class Node(Process):
    """One node over its whole life: it starts, stops, crashes and starts again."""

    def __init__(self, cluster: "Cluster", number: int, settings: Settings) -> None:
        super().__init__(cluster.world, cluster.world.random(f"node {number}"))
        self.cluster = cluster
        self.number = number
        self.settings = settings
        self.name = cluster.city.names[number]
        self.incarnation = cluster.city.incarnations[number]
        self.storage = Storage(
            MemoryDisk(self.world.random(f"disk {number}")),
            self.incarnation,
            cache_bytes_max=settings.cache_bytes_max,
            segment_bytes_max=settings.segment_bytes_max,
        )
        self.views = Views(cluster.city.genesis)
        self.views_checkpoint = 0
        self.outbox: dict[bytes, bytes] = {}
        self.is_up = False
        self.is_corrupt = False
        self.mending: Mending | None = None
        self._dead_gaps: set[str] = set()
        self.was_wiped = False
        self.lost: dict[bytes, Durable] = {}
        self.clock = WallClock(self.world)
        self.clock_rate = 1000
        self.sync_delay = 0
        self.sync_delay_kind = ""
        self.sync_kind = ""
        self.is_pausing = False
        # Pruning: what the operator wants kept (0: all), and where a crash waits for this node.
        self.keep_blocks = 0
        self.dies_pruning: int | None = None
        self.answers_until_crash = 0
        self.refusals: list[str] = []
        self.saving: Save | None = None

    def __str__(self) -> str:
        return f"node {self.number}"

    @property
    def durable(self) -> Durable:
        """What this node's disk would keep."""
        return self.storage.durable

    @property
    def disk(self) -> MemoryDisk:
        """This node's disk."""
        return self.storage.disk

    @property
    def corrected_ms(self) -> int:
        """The time that expiry is judged by here, Unix ms (`Parts._corrected_ms`)."""
        return self.clock_rule.corrected_ms(self.clock.now_ms)

    @property
    def is_leader(self) -> bool:
        """Whether this node runs and takes itself for the leader."""
        return self.is_up and self.raw_node.is_leader

    @property
    def readable_log(self) -> SegmentLog | None:
        """The log that others may ask for entries; None while this node is down."""
        if self.is_up:
            return self.log
        return None if self.mending is None else self.mending.log

    @property
    def key(self) -> bytes:
        """This node's public key."""
        return self.cluster.city.keys[self.number].public

    @property
    def identity(self) -> tuple[int, bytes]:
        """Who this is: a node whose log is gone is somebody else."""
        return self.number, self.incarnation

    def is_known_log(self, other: Watched) -> bool:
        """Whether the registry that is in force here, or was until now, counts on this log."""
        registries = (self.members.state.nodes, self._before[1].nodes)
        known = [nodes[other.key].incarnation for nodes in registries if other.key in nodes]
        return other.incarnation in known

    def is_quorum(self, keepers: Mapping[str, bool]) -> bool:
        """Whether those marked True are a quorum here, or were until this turn."""
        for configuration in (self.raw_node.configuration, self._before[0]):
            votes = {name: keepers.get(name, False) for name in configuration.members}
            if configuration.vote(votes) is VoteResult.WON:
                return True
        return False

    # -- start and stop ----------------------------------------------------------------------

    def start(self) -> bool:
        """Start from the disk; False when the node refuses to (and says why in `refusals`)."""
        assert not self.is_up, f"{self} runs already"
        if self.mending is not None:
            return True
        self.life += 1
        self.drop_held()
        self.is_paused = False
        return self.reopen(Mender(self.cluster.city.genesis.network))

    def reopen(self, mender: Mender) -> bool:
        """Open the log with what is known of its damage; take part once it has no holes."""
        if self.mending is not None:
            self.mending.log.close()
        try:
            log = self.storage.open(self.incarnation, mender)
        except LedgerError as error:
            return self._refuse(error)
        gaps = gaps_of(log)
        if log.mended or not self._dead_gaps.issuperset(gaps):
            check(self.is_corrupt, f"{self} finds damage that nobody made: {log.gaps}")
        if log.holes:
            if self.mending is None:
                self.world.struck["corruption"] += 1
                self.mending = Mending(self, log)
            else:
                self.mending.take(log)
            return True
        if log.mended:
            self.world.struck["log repaired"] += 1
        if self.mending is not None:
            # What was replaced can't be made again and stays, though a saved index may hide it.
            gaps += gaps_of(self.mending.log)
        self.mending = None
        self.is_corrupt = self.is_corrupt and self.disk.is_stale
        self._dead_gaps.update(gaps)
        if log.recovery is not None:
            self.world.struck["torn tail"] += 1
        self._follow_base()
        check(self.views.applied_index <= log.last_index, f"{self} lost what it applied")
        self.cluster.checkers.started(self, log.last_index, log.hard_state.term)
        self.log = log
        try:
            self._take_part(log)
        except LedgerError as error:
            self.is_up = True
            self.fail(error)
        return self.is_up

    def _follow_base(self) -> None:
        """The views begin from the base where the log before it is gone."""
        base = self.storage.bases.stored
        if base is None:
            return
        if self.views.applied_index < base.head.index:
            self.world.struck["views from a base"] += 1
            self.views.begin_from(base)
            self.views_checkpoint = base.head.index
        elif self.views.pruned < base.height:
            self.views.prune(base)

    def begin_anew(self) -> None:
        """A base is on the disk that has to be moved into place: the node begins again."""
        self.stop()
        self.start()

    def _take_part(self, log: SegmentLog) -> None:
        city, settings = self.cluster.city, self.settings
        self.door = Door(city, self.views, settings.mempool)
        self.waiters: dict[bytes, list[Answer]] = {}
        self.applying = Applying(self)
        self._seen_leader: tuple[int, str | None] = (0, None)
        self._messages = 0
        self.is_up = True
        self.applying.catch_up(log.hard_state.commit)
        self.settled_seen = self.commit_seen = -1
        self.state_seen: State | None = None
        self.members = Members(self.views.state, city.keys[self.number].public, self.incarnation)
        self.raw_node = RawNode(
            RaftConfig(id=self.name, **settings.raft),
            log,
            self.members.configuration,
            self.world.random(f"raft {self.number} {self.life}"),
            applied=self.views.applied_index,
        )
        self._before = self.raw_node.configuration, self.members.state
        clocks = Clocks(
            lambda: self.world.now // 1000, report_age_ms_max=self.settings.report_age_ms_max
        )
        self.clock_rule = ClockRule(self.raw_node, self.name, clocks)
        self.proposer = Proposer(
            self.raw_node,
            self.door.mempool,
            self.members,
            rules=RULES_VERSION,
            tip=self._tip,
            applied_index=lambda: self.views.applied_index,
            is_clock_right=self.clock_rule.may_propose,
        )
        self.pump = Pump(
            self.raw_node,
            self.members,
            send=self._send,
            apply=self.applying.committed,
            answer_reads=self._answer_reads,
        )
        self.steward = Steward(
            self.raw_node, self.members, self.proposer, promotion_ticks=settings.promotion_ticks
        )
        self.saving = None
        self.reads = Reads(self)
        self.gossip = Gossip(self)
        self.pruning = Pruning(self)
        self.desk = Desk(self)
        self.gossip.offer_again(list(self.outbox.values()))
        self.after(self.random.randrange(settings.tick), self._tick)
        self.world.note("start", self.number, log.last_index)
        self.turn()

    def _refuse(self, error: LedgerError) -> bool:
        """A disk that can't be used: only injected faults may be the reason."""
        if isinstance(error, CorruptionError):
            check(self.is_corrupt, f"{self} finds corruption that nobody made: {error}")
            self.world.struck["corruption"] += 1
        else:
            self._count_disk(error)
        self.refusals.append(str(error))
        return False

    def _count_disk(self, error: LedgerError) -> None:
        check(isinstance(error, SyncFailedError), f"{self} stops: {error!r}")
        disk = self.disk
        check(bool(disk.syncs_failed or disk.writes_refused), f"{self} invents {error}")
        self.world.struck["sync error"] += disk.syncs_failed
        self.world.struck["disk full"] += disk.writes_refused
        disk.syncs_failed = disk.writes_refused = 0

    def count_full_disk(self) -> None:
        """The disk had no room for a base: that costs a try, and nothing else."""
        self.world.struck["disk full"] += self.disk.writes_refused
        self.disk.writes_refused = 0

    def fail(self, error: LedgerError) -> None:
        """The disk failed while the node ran: it stops at once, as a process exits."""
        if isinstance(error, CorruptionError):
            check(self.is_corrupt, f"{self} finds corruption that nobody made: {error}")
            self.world.struck["corruption"] += 1
        else:
            self._count_disk(error)
        self.crash()

    def crash(self) -> None:
        """The process ends, the machine goes on: what was written stays written."""
        if self.mending is not None:
            self.mending = None
            self.life += 1
        if not self.is_up:
            return
        save, self.saving = self.saving, None
        self.is_up = self.is_paused = self.is_pausing = False
        self.life += 1
        self.drop_held()
        self.world.note("stop", self.number)
        if save is not None and not save.is_empty:
            self._save_in_part(save)
        # Its thread is gone with the process; nothing that it holds reaches the disk any more.
        del self.log

    def _save_in_part(self, save: Save) -> None:
        """The writer thread was in the middle of a save: it got as far as it got."""
        self.disk.calls_left = self.random.randrange(4)
        with suppress(PowerLoss, SyncFailedError):
            self.storage.save(self.log, save.hard_state, save.entries, save.must_sync)
        self.disk.calls_left = None

    def lose_power(self) -> None:
        """The machine goes down: unsynced writes are lost or torn, the views fall back."""
        self.crash()
        lost = self.disk.lose_power()
        self.world.struck["power loss"] += 1
        if lost:
            self.world.struck["unsynced lost"] += 1
        self.views_checkpoint = min(self.views_checkpoint, self.views.applied_index)
        self.views.roll_back(self.random.randint(self.views_checkpoint, self.views.applied_index))

    def wipe(self) -> None:
        """A new disk with a new log: to the city this is somebody else."""
        self.crash()
        self.lost[self.incarnation] = self.durable
        self.disk.erase()
        self.incarnation = self.random.randbytes(16)
        self.storage.init(self.incarnation)
        self.lose_views()
        self.outbox.clear()
        self.was_wiped = True

    def lose_views(self) -> None:
        """They are made anew: from the log, and from the base where blocks were pruned."""
        self.views = Views(self.cluster.city.genesis)
        self.views_checkpoint = 0

    def stop(self) -> None:
        """As SIGTERM does: the log is closed in order."""
        if not self.is_up or self.saving is not None:
            self.crash()
            return
        log = self.log
        try:
            log.close()
        except SyncFailedError as error:
            self._count_disk(error)
        self.crash()

    # -- ordering ----------------------------------------------------------------------------

    def _tick(self) -> None:
        self.after(self.settings.tick * 1000 // self.clock_rate, self._tick)
        self.raw_node.tick()
        if self.clock_rule.turn(self.clock.now_ms) is not None:
            self.world.struck["clock hand-over"] += 1
        self.steward.tick()
        self.gossip.tick()
        self.pruning.tick()
        self.reads.tick()
        self.turn()

    def receive(self, sender: str, incarnation: bytes, message: Message) -> None:
        """Take a Raft message off the wire; `incarnation` is the sender's."""
        known = self.members.state.nodes.get(self.cluster.by_name[sender].key)
        has_same_log = known is not None and known.incarnation == incarnation
        if not is_heard(message, has_same_log=has_same_log):
            self.world.struck["wiped"] += 1
            return
        self.clock_rule.take(sender, message)
        self.raw_node.step(sender, message)
        self.turn()

    def turn(self) -> None:
        """`OrderingLoop._turn`, up to the next wait for the disk."""
        try:
            while self.is_up and self.saving is None:
                made = self.steward.act(self.clock.now_ms)
                proposed = [block for _, block in self.proposer.propose(self.clock.now_ms)]
                for block in proposed if made is None else [made, *proposed]:
                    self.cluster.proposed(self, block)
                save = self.pump.begin()
                self._note_leader()
                if save is None:
                    break
                if save.is_empty:
                    self.pump.finish(save)
                    continue
                self.saving = save
                self.after(self._sync_time(save), self._saved, save)
        except LedgerError as error:
            self.fail(error)
        if self.is_up:
            self.cluster.turned(self)
            self._before = self.raw_node.configuration, self.members.state

    def _sync_time(self, save: Save) -> int:
        if not save.must_sync:
            return 1
        time = self.settings.sync_time
        if self.sync_delay:
            self.world.struck[self.sync_delay_kind] += 1
            time += self.sync_delay
        return time + self.random.randrange(time)

    def _saved(self, save: Save) -> None:
        self.saving = None
        try:
            self.storage.save(self.log, save.hard_state, save.entries, save.must_sync)
            self.pump.finish(save)
        except LedgerError as error:
            self.fail(error)
            return
        self.turn()

    def _send(self, receiver: str, message: Message) -> None:
        cluster = self.cluster
        number = cluster.number_of.get(receiver)
        if number is None:
            return  # A log of this node's name that is gone.
        message = self.clock_rule.stamp(message, self.clock.now_ms)
        cluster.checkers.sent(self, cluster.nodes[number], message)
        self._messages += 1
        if self._messages % _CODEC_EVERY == 0:
            check(raft_wire.decode(raft_wire.encode(message)) == message, "the codec is not exact")
        lane = 1 if isinstance(message, Append) else 0
        own = self.incarnation
        is_sent = cluster.network.send(
            RAFT,
            lane,
            self.number,
            number,
            lambda: cluster.deliver(self.number, own, number, message),
        )
        if self.is_pausing and type(message) is Heartbeat:
            # Stopped with a round under way: its answers wait with whatever comes later.
            self.is_pausing = False
            self.world.after(0, self._pause_in, self.life)
        if not is_sent and lane:
            self.raw_node.report_unreachable(receiver)

    def _pause_in(self, life: int) -> None:
        if life == self.life:
            self.pause()

    def _note_leader(self) -> None:
        seen = (self.raw_node.term, self.raw_node.leader)
        if seen != self._seen_leader:
            if seen[1] is not None and seen[1] != self._seen_leader[1]:
                self.gossip.leader_changed()
            self._seen_leader = seen

    def _tip(self) -> Parent:
        tip = self.views.tip
        return Parent(tip.height, tip.hash, tip.time_ms)

    # -- reads -------------------------------------------------------------------------------

    def _answer_reads(self, states: Sequence[ReadState], dropped: Sequence[bytes]) -> None:
        self.reads.answer(states, dropped)

    def ask_read_index(self, context: bytes) -> bool:
        """Ask the core for a read index; False when there is nobody to ask."""
        try:
            self.raw_node.read_index(context)
        except (NotLeader, Unavailable):
            return False
        return True
