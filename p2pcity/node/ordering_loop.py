"""Turns the raw node: ticks, messages in, saves to the segment log, messages out, proposals."""

import random
from collections.abc import Callable, Sequence
from typing import Literal

import structlog
import trio

from p2pcity.errors import DecodeError
from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.ledger.writer import WriterThread
from p2pcity.mempool.mempool import Mempool
from p2pcity.ordering.proposer import Parent, Proposer
from p2pcity.ordering.pump import Pump, Save
from p2pcity.raft.config import RaftConfig
from p2pcity.raft.configuration import Configuration
from p2pcity.raft.raw_node import RawNode
from p2pcity.raft.reads import ReadState
from p2pcity.wire import raft as raft_wire
from p2pcity.wire.raft import Append, Entry, Message

_logger = structlog.get_logger("p2pcity.node.ordering")

Lane = Literal["control", "bulk"]
Send = Callable[[str, Lane, bytes], bool]


class OrderingLoop:
    """The raw node and everything that turns it, on one trio task."""

    def __init__(
        self,
        *,
        config: RaftConfig,
        configuration: Configuration,
        tick_s: float,
        raft_log: SegmentLog,
        writer: WriterThread,
        mempool: Mempool,
        voters: bytes,
        epoch: int,
        rules: int,
        tip: Callable[[], Parent],
        applied_index: Callable[[], int],
        now_ms: Callable[[], int],
        send: Send,
        on_committed: Callable[[Sequence[Entry]], None],
        on_reads: Callable[[Sequence[ReadState], Sequence[bytes]], None],
        on_leader: Callable[[], None],
        rng: random.Random,
    ) -> None:
        self.raw_node = RawNode(config, raft_log, configuration, rng, applied=applied_index())
        self.proposer = Proposer(
            self.raw_node,
            mempool,
            voters=voters,
            epoch=epoch,
            rules=rules,
            tip=tip,
            applied_index=applied_index,
        )
        self._pump = Pump(self.raw_node, send=self._send, apply=on_committed, answer_reads=on_reads)
        self._raft_log = raft_log
        self._writer = writer
        self._tick_s = tick_s
        self._now_ms = now_ms
        self._on_leader = on_leader
        self._transport_send = send
        self._work = trio.Event()
        self._seen_leader: tuple[int, str | None] = (0, None)
        self._leader_moved = trio.Event()
        self.turns = 0
        self.last_tick_s = trio.current_time()
        self.leader_changes = 0

    def wake(self) -> None:
        """Say that there may be work: a message, a proposal, an applied block."""
        self._work.set()

    @property
    def leader(self) -> str | None:
        """The peer id of the leader this node knows of."""
        return self.raw_node.leader

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
            self.proposer.propose(self._now_ms())
            save = self._pump.begin()
            # Before the break: a leader that steps down for lack of a quorum has nothing to save.
            self._note_leader()
            if save is None:
                break
            await self._persist(save)
            self._pump.finish(save)
            self.turns += 1

    async def _persist(self, save: Save) -> None:
        if save.is_empty:
            # Nothing to wait for, but other tasks get their turn.
            await trio.lowlevel.checkpoint()
            return
        await self._writer.run(self._raft_log.save, save.hard_state, save.entries, save.must_sync)

    async def _tick(self) -> None:
        # One tick a turn, however long the process was stopped: a burst of ticks after a pause
        # would start an election that the clock of the others does not call for.
        while True:
            await trio.sleep(self._tick_s)
            self.last_tick_s = trio.current_time()
            self.raw_node.tick()
            self.wake()

    def _send(self, receiver: str, message: Message) -> None:
        data = raft_wire.encode(message)
        # Appends share one lane, so that they keep their order; megabytes of them must not delay
        # a heartbeat, so the rest has a lane of its own.
        lane: Lane = "bulk" if isinstance(message, Append) else "control"
        if not self._transport_send(receiver, lane, data) and lane == "bulk":
            self.raw_node.report_unreachable(receiver)

    def _note_leader(self) -> None:
        seen = (self.raw_node.term, self.raw_node.leader)
        if seen != self._seen_leader:
            if seen[1] is not None and seen[1] != self._seen_leader[1]:
                self.leader_changes += 1
                self._on_leader()
            self._seen_leader = seen
            self._leader_moved.set()
            self._leader_moved = trio.Event()
            _logger.info("role", role=self.raw_node.role.value, term=seen[0], leader=seen[1])
