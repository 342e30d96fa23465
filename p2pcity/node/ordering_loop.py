"""Turns the raw node: ticks, messages in, saves to the segment log, messages out, proposals."""

import random
from collections.abc import Callable, Sequence
from typing import Literal

import structlog
import trio

from p2pcity.errors import DecodeError
from p2pcity.ledger.durations import Durations
from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.ledger.writer import WriterThread
from p2pcity.mempool.mempool import Mempool
from p2pcity.node.moments import Moments
from p2pcity.ordering.clock_rule import ClockRule
from p2pcity.ordering.clocks import Clocks
from p2pcity.ordering.members import Members, is_heard
from p2pcity.ordering.proposer import Parent, Proposer
from p2pcity.ordering.pump import Pump, Save
from p2pcity.ordering.steward import Steward
from p2pcity.raft.config import RaftConfig
from p2pcity.raft.raw_node import RawNode
from p2pcity.raft.reads import ReadState
from p2pcity.wire import raft as raft_wire
from p2pcity.wire.block import Block
from p2pcity.wire.raft import Append, Entry, Message

_logger = structlog.get_logger("p2pcity.node.ordering")

Lane = Literal["control", "bulk"]
Send = Callable[[str, Lane, bytes], bool]
# A disk that stands still for so many election time-outs: the core is left alone until it answers.
_DEAF_ELECTIONS = 10
_LEARNER_TICKS = 4
_COMMIT_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class OrderingLoop:
    """The raw node and everything that turns it, on one trio task."""

    def __init__(
        self,
        *,
        config: RaftConfig,
        members: Members,
        has_same_log: Callable[[str], bool],
        promotion_ticks: int,
        tick_s: float,
        raft_log: SegmentLog,
        writer: WriterThread,
        mempool: Mempool,
        rules: int,
        tip: Callable[[], Parent],
        applied_index: Callable[[], int],
        now_ms: Callable[[], int],
        send: Send,
        on_committed: Callable[[Sequence[Entry]], None],
        on_reads: Callable[[Sequence[ReadState], Sequence[bytes]], None],
        on_leader: Callable[[], None],
        on_members: Callable[[], None],
        on_message: Callable[[str, Message], None],
        is_barred: Callable[[], bool],
        rng: random.Random,
        moments: Moments,
    ) -> None:
        self.raw_node = RawNode(
            config, raft_log, members.configuration, rng, applied=applied_index()
        )
        self.clock_rule = ClockRule(self.raw_node, config.id, Clocks(_steady_clock_ms))
        self.proposer = Proposer(
            self.raw_node,
            mempool,
            members,
            rules=rules,
            tip=tip,
            applied_index=applied_index,
            is_clock_right=self.clock_rule.may_propose,
        )
        self.steward = Steward(
            self.raw_node, members, self.proposer, promotion_ticks=promotion_ticks
        )
        self._pump = Pump(
            self.raw_node,
            members,
            send=self._send,
            apply=self._committed,
            answer_reads=on_reads,
            changed=on_members,
        )
        self._has_same_log = has_same_log
        self._raft_log = raft_log
        self._writer = writer
        self._own_id, self._tick_s = config.id, tick_s
        self._election_s = config.election_ticks * tick_s
        self._save_began_s: float | None = None
        self._is_hang_told = False
        self._now_ms = now_ms
        self._on_committed = on_committed
        self._on_leader = on_leader
        self._on_message = on_message
        self._is_barred = is_barred
        self._moments = moments
        self._transport_send = send
        self._work, self._leader_moved = trio.Event(), trio.Event()
        self._seen_leader: tuple[int, str | None] = (0, None)
        self.turns = self.leader_changes = 0
        self.last_tick_s = trio.current_time()
        # When each block that is not committed yet was proposed here: as many as may be in flight.
        self._proposed_s: dict[int, float] = {}
        self.commit_durations = Durations(_COMMIT_BOUNDS_S)

    def wake(self) -> None:
        """Say that there may be work: a message, a proposal, an applied block."""
        self._work.set()

    @property
    def leader(self) -> str | None:
        """The peer id of the leader this node knows of."""
        return self.raw_node.leader

    @property
    def hang_s(self) -> float:
        """How long the disk has kept the present save waiting, in s; 0 below an election time-out.

        Meanwhile this node sends nothing, no heartbeat either: as a leader it loses its followers,
        as any node it votes for nobody and acknowledges nothing.
        """
        if self._save_began_s is None:
            return 0.0
        lasts_s = trio.current_time() - self._save_began_s
        return lasts_s if lasts_s > self._election_s else 0.0

    @property
    def _is_deaf(self) -> bool:
        # What the core would say waits for the disk: without an end to it, it would pile up.
        # And one that broke its promises must make no new ones.
        return self.hang_s > _DEAF_ELECTIONS * self._election_s or self._is_barred()

    @property
    def _may_lead(self) -> bool:
        # One that is being removed leads until that is committed.
        return self.raw_node.is_leader or self.raw_node.configuration.is_voter(self._own_id)

    async def wait_leader(self, peer: str) -> None:
        """Return when `peer` leads, as far as this node knows."""
        while self.raw_node.leader != peer:
            await self._leader_moved.wait()

    def receive(self, sender: str, data: bytes) -> bool:
        """Take a Raft message from the stream of `sender`; False when it is to blame for it."""
        try:
            message = raft_wire.decode(data)
        except DecodeError as error:
            if error.reason == "unknown-message":
                # A later release says more than this one understands.
                return True
            _logger.warning("raft_message_malformed", peer=sender, reason=error.reason)
            return False
        if not self._is_deaf and is_heard(message, has_same_log=self._has_same_log(sender)):
            self._on_message(sender, message)
            self.clock_rule.take(sender, message)
            self.raw_node.step(sender, message)
            self.wake()
        return True

    async def run(self) -> None:
        """Turn for as long as the node runs."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tick)
            while True:
                await self._work.wait()
                self._work = trio.Event()
                await self._turn()

    async def _turn(self) -> None:
        while True:
            now_ms = self._now_ms()
            self.steward.act(now_ms)
            self._note_proposed(self.proposer.propose(now_ms))
            save = self._pump.begin()
            # Before the break: a leader that steps down for lack of a quorum has nothing to save.
            self._note_leader()
            if save is None:
                break
            await self._persist(save)
            self._pump.finish(save)
            self.turns += 1

    def _note_proposed(self, proposed: Sequence[tuple[int, Block]]) -> None:
        for index, block in proposed:
            self._proposed_s[index] = trio.current_time()
            self._moments.note(
                "proposed",
                self.proposer.ids_in_flight(index),
                term=self.raw_node.term,
                index=index,
                height=block.header.height,
            )

    def _committed(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            proposed_s = self._proposed_s.pop(entry.index, None)
            if proposed_s is not None:
                self.commit_durations.add(trio.current_time() - proposed_s)
        self._moments.committed(entries[0].index, entries[-1].index)
        self._on_committed(entries)

    async def _persist(self, save: Save) -> None:
        if save.is_empty:
            # Nothing to wait for, but other tasks get their turn.
            await trio.lowlevel.checkpoint()
            return
        self._save_began_s = trio.current_time()
        try:
            await self._writer.run(
                self._raft_log.save, save.hard_state, save.entries, save.must_sync
            )
        finally:
            self._note_save_end()

    def _note_save_end(self) -> None:
        assert self._save_began_s is not None, "a save that ends has begun"
        if self._is_hang_told:
            lasted_ms = round((trio.current_time() - self._save_began_s) * 1000)
            _logger.warning("disk_answers", duration_ms=lasted_ms)
        self._save_began_s, self._is_hang_told = None, False

    async def _tick(self) -> None:
        # One tick a turn, however long the process was stopped: a burst of ticks after a pause
        # would start an election that the clock of the others does not call for. Who does not
        # vote starts none, and need not wake up as often.
        while True:
            ticks = 1 if self._may_lead else _LEARNER_TICKS
            await trio.sleep(ticks * self._tick_s)
            self.last_tick_s = trio.current_time()
            if self.hang_s and not self._is_hang_told:
                self._is_hang_told = True
                _logger.warning("disk_hangs", reason="a write to the segment log does not end")
            if not self._is_deaf:
                for _ in range(ticks):
                    self.raw_node.tick()
                    self.steward.tick()
                self._keep_clock_rule()
                self.wake()

    def _send(self, receiver: str, message: Message) -> None:
        data = raft_wire.encode(self.clock_rule.stamp(message, self._now_ms()))
        # Appends share one lane, so that they keep their order; megabytes of them must not delay
        # a heartbeat, so the rest has a lane of its own.
        lane: Lane = "bulk" if isinstance(message, Append) else "control"
        if not self._transport_send(receiver, lane, data) and lane == "bulk":
            self.raw_node.report_unreachable(receiver)

    def _keep_clock_rule(self) -> None:
        voter = self.clock_rule.turn(self._now_ms())
        if voter is not None:
            reasons = self.clock_rule.alarms(self._now_ms())
            _logger.error("clock_not_right", handed_to=voter, reason="; ".join(reasons))

    def _note_leader(self) -> None:
        seen = (self.raw_node.term, self.raw_node.leader)
        if seen != self._seen_leader:
            if seen[1] is not None and seen[1] != self._seen_leader[1]:
                self.leader_changes += 1
                self._on_leader()
            if not self.raw_node.is_leader:
                # What it proposed may be replaced by other entries.
                self._proposed_s.clear()
            self._seen_leader = seen
            self._leader_moved.set()
            self._leader_moved = trio.Event()
            _logger.info("role", role=self.raw_node.role.value, term=seen[0], leader=seen[1])


def _steady_clock_ms() -> int:
    return round(trio.current_time() * 1000)
