"""One node's machine: its directory, its lives, its clock, its threads, and its clients' door.

A kill is exact: from that instant nothing the node does reaches a wire, a client or the
directory, which is copied as it stands; what its tasks still do until they are cancelled stays
in a memory that nobody looks at. A pause holds all tasks of the node back, as SIGSTOP does.
"""

import shutil
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import trio

from p2pcity.city.membership import State
from p2pcity.errors import LedgerError, P2PCityError, SyncFailedError, Unavailable
from p2pcity.node.assembly import Parts
from p2pcity.node.base_fetch import BaseComplete
from p2pcity.node.config import Config
from p2pcity.node.identity import Identity
from p2pcity.node.log_repair import LogRepair
from p2pcity.node.node import catch_up, hand_over, start
from p2pcity.node.opening import Stores, open_stores
from p2pcity.node.service import NodeService
from p2pcity.ordering.apply import AppliedBlock
from p2pcity.ordering.members import Members
from p2pcity.ordering.pump import Pump, Save
from p2pcity.raft.configuration import Configuration
from p2pcity.raft.quorum import VoteResult
from p2pcity.raft.raw_node import RawNode
from p2pcity.wire import change as change_wire
from p2pcity.wire import raft as raft_wire
from p2pcity.wire.block import peek_change
from p2pcity.wire.change import LeaveJoint
from tests.sim.checkers import Watched
from tests.virtual.clockwork import PROCESS, let_run
from tests.virtual.door import Door, Gone
from tests.virtual.durable import Durable
from tests.virtual.network import VirtualNetwork
from tests.virtual.threads import VirtualWriter, run_in_thread

if TYPE_CHECKING:
    from tests.virtual.cluster import Cluster

ResultT = TypeVar("ResultT")
_FAREWELL_S: Final = 5.0
_ALL: Final = 1 << 40


class WatchedParts(Parts):
    """The node's parts, with somebody who looks on when the city changes."""

    host: "Host"

    def _on_members(self) -> None:
        super()._on_members()
        self.host.city_changed()


class Host:
    """A node of a seed, running or not."""

    def __init__(
        self, cluster: "Cluster", number: int, config: Config, identity: Identity, root: Path
    ) -> None:
        self.cluster = cluster
        self.world = cluster.world
        self.wires = cluster.wires
        self.number = number
        self.config = config
        self.papers = identity
        self.name = identity.peer_id
        self.incarnation = cluster.city.incarnations[number]
        self.lost: dict[bytes, Durable] = {}
        # For the checkers: which log this is, and what they saw of this life.
        self.identity = (number, self.incarnation)
        self.commit_seen = self.settled_seen = -1
        self.state_seen: State | None = None
        self._before: tuple[Configuration, State] | None = None
        self.life = 0
        self.is_up = False
        self.is_paused = False
        self.is_dead = True
        self.held: list[trio.lowlevel.Task] = []
        self.shields: dict[trio.CancelScope, None] = {}
        self.wall_offset_ms = 0
        self.slow_s: dict[str, float] = {}
        self.failing: dict[str, Callable[[], P2PCityError]] = {}
        self.kill_in_steps = 0
        self.kill_at = ""
        self.kill_during = ""
        self.ended = trio.Event()
        self.ended.set()
        self.stopped_by: LedgerError | None = None
        self._begins_anew = self.is_stopping = False
        self._durable: Durable | None = None
        self._root = root
        self._directory = root / "0"
        self._random = self.world.random(f"host {number}")
        self._scope = trio.CancelScope()
        self._opened: list[Any] = []
        self.door = Door(self)
        self._parts: WatchedParts | None = None
        self._network: VirtualNetwork | None = None

    def __str__(self) -> str:
        return f"n{self.number}"

    @property
    def directory(self) -> Path:
        """Its data directory as it is now."""
        return self._directory

    @property
    def parts(self) -> WatchedParts:
        """The parts of the present life."""
        assert self._parts is not None
        return self._parts

    @property
    def has_disk(self) -> bool:
        """Whether it ran before, so that there is a log."""
        return self._durable is not None

    @property
    def durable(self) -> Durable:
        """What its disk keeps, running or not."""
        assert self._durable is not None
        return self._durable

    @property
    def raw_node(self) -> RawNode:
        """The Raft core of the present life."""
        return self.parts.ordering.raw_node

    @property
    def is_leader(self) -> bool:
        """Whether it runs and takes itself for the leader."""
        return self.is_up and self.raw_node.is_leader

    @property
    def height(self) -> int:
        """The height that its clients are shown."""
        return self.parts.service.head().height

    @property
    def members(self) -> Members:
        """The city's nodes as this node's log has them."""
        return self.parts.members

    @property
    def key(self) -> bytes:
        """Its public key."""
        return self.papers.key.public

    def is_known_log(self, other: Watched) -> bool:
        """Whether the registry that is in force here, or was until now, counts on this log."""
        states = (self.members.state, self._before[1]) if self._before else (self.members.state,)
        known = [state.nodes[other.key].incarnation for state in states if other.key in state.nodes]
        return other.incarnation in known

    def is_quorum(self, keepers: Mapping[str, bool]) -> bool:
        """Whether those marked True are a quorum here, or were until this turn."""
        found = [self.raw_node.configuration]
        if self._before is not None:
            found.append(self._before[0])
        for configuration in found:
            votes = {name: keepers.get(name, False) for name in configuration.members}
            if configuration.vote(votes) is VoteResult.WON:
                return True
        return False

    def now_ms(self) -> int:
        """What this machine's wall clock shows."""
        return self.world.wall_ms + self.wall_offset_ms

    # -- what its threads meet (`threads.Machine`) -------------------------------------------

    def work_time(self, thread: str) -> float:
        """Nothing, or some milliseconds, or what a slow disk takes."""
        slow_s = self.slow_s.get(thread, 0.0)
        if self._random.random() < 0.4:
            return slow_s
        return slow_s + self._random.expovariate(1 / self.cluster.work_s)

    def point(self, name: str) -> None:
        """A point at which somebody may want it killed, or its disk to fail."""
        if self.is_dead:
            return
        if name == self.kill_at and (
            not self.kill_during or self.kill_during == self._step_of_change()
        ):
            self.kill_at = self.kill_during = ""
            self.kill()
            return
        fail = self.failing.get(name)
        if fail is not None:
            self.world.struck[f"failed {name}"] += 1
            raise fail()

    def _step_of_change(self) -> str:
        """How far a change of voters is here: `join`, `joint` or `leave`; empty without one."""
        if self._parts is None:
            return ""
        raft_log = self.raw_node._raft.raft_log
        after, end = self.raw_node._raft.settled_index + 1, raft_log.last_index + 1
        found = [
            change_wire.decode(data)
            for entry in (raft_log.entries(after, end, _ALL) if after < end else ())
            if entry.payload and (data := peek_change(entry.payload)) is not None
        ]
        if any(isinstance(change, LeaveJoint) for change in found):
            return "leave"
        if self.members.state.sets.voters_outgoing:
            return "joint"
        return "join" if found else ""

    def forgive(self) -> None:
        """Nobody wants it killed any more."""
        self.kill_in_steps, self.kill_at, self.kill_during = 0, "", ""

    def opened(self, thing: object) -> None:
        """Remember what a killed node leaves open; look at blocks that its views have now."""
        if isinstance(thing, list):
            for block in thing:
                if isinstance(block, AppliedBlock):
                    self.applied(block)
        elif hasattr(thing, "close"):
            self._opened.append(thing)

    def step(self) -> None:
        """One of its tasks is about to run."""
        if self.kill_in_steps:
            self.kill_in_steps -= 1
            if not self.kill_in_steps:
                try:
                    self.kill()
                except Exception as error:  # noqa: BLE001 - trio would only log it
                    self.world.violate(error)

    # -- what the checkers see ---------------------------------------------------------------

    def sends(self, peer: str, data: bytes) -> None:
        """It sends a Raft message."""
        message = raft_wire.decode(data)
        kind = type(message).__name__
        receiver = self.cluster.by_name[peer]
        self.world.note("send", self, receiver, kind, message.term)
        self.point(f"before send {kind}")
        if not self.is_dead:
            self.cluster.checkers.sent(self, receiver, message)

    def watch_turns(self, pump: Pump) -> None:
        """Look on after each turn of the pump, and around each change of the configuration."""
        finish, raw_node = pump.finish, pump._raw_node
        configure = raw_node.configure

        def finish_watched(save: Save) -> None:
            finish(save)
            self.turned()

        def configure_watched(configuration: Configuration) -> None:
            self.point("before configure")
            configure(configuration)
            self.point("after configure")

        pump.finish = finish_watched  # type: ignore[method-assign]  # for a look
        raw_node.configure = configure_watched  # type: ignore[method-assign]  # to kill it there

    def turned(self) -> None:
        """It made a turn."""
        if not self.is_dead:
            self.cluster.checkers.turned(self, self.cluster.with_disk())
            self._before = (self.raw_node.configuration, self.members.state)

    def applied(self, block: AppliedBlock) -> None:
        """It applied a block."""
        if not self.is_dead:
            self.world.note("applied", self, block.height, block.block.hash.hex()[:12])
            self.cluster.checkers.applied(self, block)

    def city_changed(self) -> None:
        """A change of voters took effect here: its network looks at who may connect.

        At once, and again when those who left had their time to hear of it.
        """
        network = self._network
        if network is not None:
            for delay_s in (self._random.random(), _FAREWELL_S + self._random.random()):
                self.world.after(delay_s, network.review)

    # -- lives -------------------------------------------------------------------------------

    async def run(self) -> None:
        """One life, from the start to whatever ends it; the cluster's nursery has it.

        A node that has fetched a base begins again by itself (`node.main`).
        """
        self.is_stopping = False
        await self._run_once()
        while self._begins_anew and not self.is_stopping:
            self.ended = trio.Event()
            await self._run_once()

    async def _run_once(self) -> None:
        PROCESS.set(self)
        self._begins_anew = False
        self.life += 1
        self.is_dead = False
        self.forgive()
        self.stopped_by = None
        self._scope = trio.CancelScope()
        self.world.note("start", self, self.life)
        try:
            with self._scope:
                await self._live()
        except* P2PCityError as group:
            if not self.is_dead:
                self._note_end(group)
        except* Exception as group:  # noqa: BLE001
            # Whatever it is, a node that is alive must not fail with it.
            if not self.is_dead:
                self.world.violate(group)
        finally:
            self._bury()

    def _note_end(self, group: BaseExceptionGroup[P2PCityError]) -> None:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, BaseComplete):
            self.world.struck["base fetched"] += 1
            self.world.note("begins anew", self)
            self._begins_anew = True
            return
        if isinstance(error, SyncFailedError) and self.failing:
            self.stopped_by = error
            self.world.note("stopped", self, type(error).__name__)
            return
        self.world.violate(group)

    async def _live(self) -> None:
        stores = await open_stores(
            self._directory,
            genesis=self.papers.genesis,
            peer_id=self.name,
            repair=LogRepair(
                self.config,
                self.papers,
                now_ms=self.now_ms,
                make_network=cast(Any, self._make_network),
            ).run,
            make_writer=cast(Any, partial(VirtualWriter, self)),
            clock=trio.current_time,
            segment_bytes_max=self.config.ledger.segment_bytes_max,
        )
        try:
            await self._take_part(stores)
        finally:
            self.is_up = False
            if not self.is_dead:
                with trio.CancelScope(shield=True) as shield:
                    self.shields[shield] = None
                    await stores.close()
                self.shields.pop(shield, None)

    async def _take_part(self, stores: Stores) -> None:
        self._durable = Durable(stores.raft_log)
        node = replace(self.config.node, data_dir=self._directory)
        parts = WatchedParts(
            replace(self.config, node=node),
            self.papers,
            stores,
            self.now_ms,
            make_network=cast(Any, self._make_network),
            run_in_thread=partial(run_in_thread, self),
            random_bytes=self.world.random(f"life {self.number}.{self.life}").randbytes,
        )
        parts.host = self
        self._opened += [stores.reader, stores.probe, stores.lock]
        await catch_up(parts)
        parts.join()
        self._parts = parts
        self.commit_seen = self.settled_seen = -1
        self.state_seen = None
        self._before = None
        self.watch_turns(parts.ordering._pump)
        async with trio.open_nursery() as nursery:
            await start(parts, nursery)
            if self.is_dead:
                return
            self.is_up = True
            self.world.note("ready", self, parts.service.head().height)
            await self.door.receive(nursery, parts.service)

    def _make_network(self, *arguments: Any, **named: Any) -> VirtualNetwork:
        self._network = VirtualNetwork(self, *arguments, **named)
        return self._network

    def _bury(self) -> None:
        """What is left to do once all tasks of a life are gone."""
        for thing in reversed(self._opened):
            # In order after a stop; after a kill, on files that nobody looks at any more.
            close = getattr(thing, "release", None) or thing.close
            with suppress(Exception):
                close()
        self._opened.clear()
        self.door.close()
        self.is_up = False
        self._parts = self._network = None
        if self.is_dead:
            shutil.rmtree(self._root / str(self.life - 1), ignore_errors=True)
        else:
            self._next_directory(is_copy=False)
        self.is_dead = True
        self.world.note("ended", self, self.life)
        self.ended.set()

    def _next_directory(self, *, is_copy: bool) -> None:
        new = self._root / str(self.life)
        if is_copy:
            # The kernel has what was written; SQLite makes its -shm anew.
            shutil.copytree(self._directory, new, ignore=shutil.ignore_patterns("*-shm"))
        else:
            self._directory.rename(new)
        self._directory = new

    def kill(self, *, is_silent: bool = False) -> None:
        """SIGKILL at this very instant; `is_silent`: nobody hears of it."""
        if self.is_dead:
            return
        self.world.note("kill", self, self.life)
        self.resume()
        self._next_directory(is_copy=True)
        self.is_dead = True
        self.is_up = False
        network = self._network
        if network is not None:
            network.is_silent = is_silent
            self.wires.leave(network)
            for end in network.ends:
                end.connection.broken(end)
        self.door.close()
        for shield in self.shields:
            shield.shield = False
        self._scope.cancel()

    async def stop(self) -> None:
        """SIGTERM: leadership is handed over, then all is closed in order."""
        self.is_stopping = True
        if self.is_up:
            self.world.note("stop", self, self.life)
            with suppress(Gone):
                await self.ask(lambda _: hand_over(self.parts), 5.0)
        self._scope.cancel()
        await self.ended.wait()

    def pause(self) -> None:
        """SIGSTOP."""
        self.is_paused = True

    def resume(self) -> None:
        """SIGCONT."""
        if self.is_paused:
            self.is_paused = False
            let_run(self.held)
            self.wires.look_around()

    async def ask(
        self, call: Callable[[NodeService], Awaitable[ResultT]], timeout_s: float
    ) -> ResultT:
        """Ask the node as a client; raises Gone without an answer, or what the node answers."""
        return await self.door.ask(call, timeout_s)


def disk_failed() -> P2PCityError:
    """What a write says when the disk refuses."""
    return SyncFailedError("the disk failed", remedy="Check the disk.")


def disk_full() -> P2PCityError:
    """What SQLite says when the disk is full."""
    return Unavailable("the disk is full", remedy="Make room.")
