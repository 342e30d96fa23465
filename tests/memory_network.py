"""Whole nodes in one process: `net.Network`'s interface over wires in memory, cut and lossy.

Disks, threads and signatures are real, and so is the clock: the nodes' writer threads do not
stand still for a mock clock. Every wait of a test is for a condition, with a deadline.
"""

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import trio

from p2pcity.api.service import Answer
from p2pcity.crypto import keys
from p2pcity.crypto.keys import PrivateKey
from p2pcity.errors import P2PCityError, RemoteError, Unavailable
from p2pcity.ledger.data_directory import initialise
from p2pcity.net.config import NetConfig
from p2pcity.net.network import Handlers
from p2pcity.net.peers import PeerInfo
from p2pcity.node.assembly import Parts
from p2pcity.node.base_fetch import BaseComplete
from p2pcity.node.config import Config, LedgerSection, NodeSection, RaftSection
from p2pcity.node.identity import Identity
from p2pcity.node.log_repair import LogRepair
from p2pcity.node.node import catch_up, start
from p2pcity.node.opening import open_stores
from p2pcity.wire import genesis as genesis_wire
from p2pcity.wire import transaction as transaction_wire
from p2pcity.wire.event import Event
from p2pcity.wire.genesis import Genesis, GenesisAuthor, GenesisNode, Member, Role
from p2pcity.wire.hello import Hello
from p2pcity.wire.transaction import Carried

START_MS: Final = 1_780_000_000_000
DEADLINE_S: Final = 60.0
_QUEUE_MAX: Final = 10_000
_POLL_S: Final = 0.01


class Wires:
    """Who reaches whom, and what gets lost. `lost` has kinds: raft, gossip, or a protocol."""

    def __init__(self, seed: int = 1) -> None:
        self._rng = random.Random(seed)
        self.networks: dict[str, MemoryNetwork] = {}
        self.lost: dict[str, float] = {}
        self.lost_count: dict[str, int] = {}
        self._cut: set[frozenset[str]] = set()

    def reaches(self, one: str, other: str) -> bool:
        return other in self.networks and frozenset((one, other)) not in self._cut

    def loses(self, kind: str) -> bool:
        if self._rng.random() >= self.lost.get(kind, 0.0):
            return False
        self.lost_count[kind] = self.lost_count.get(kind, 0) + 1
        return True

    def cut_off(self, peer: str, from_peers: Collection[str] | None = None) -> None:
        """Cut `peer` off, from all by default."""
        for other in list(self.networks) if from_peers is None else from_peers:
            if other != peer and self.reaches(peer, other):
                self._cut.add(frozenset((peer, other)))
                self._tell(peer, other, is_up=False)

    def heal(self) -> None:
        cut, self._cut = self._cut, set()
        for one, other in (sorted(pair) for pair in cut):
            if one in self.networks and other in self.networks:
                self._tell(one, other, is_up=True)

    def join(self, network: "MemoryNetwork") -> None:
        self.networks[network.own] = network
        for other in self.networks:
            if other != network.own and self.reaches(network.own, other):
                self._tell(network.own, other, is_up=True)

    def leave(self, network: "MemoryNetwork") -> None:
        del self.networks[network.own]
        for other in self.networks.values():
            if frozenset((network.own, other.own)) not in self._cut:
                other.handlers.on_peer(network.own, False)

    def _tell(self, one: str, other: str, *, is_up: bool) -> None:
        self.networks[one].handlers.on_peer(other, is_up)
        self.networks[other].handlers.on_peer(one, is_up)


class MemoryNetwork:
    """One node's end of the wires: what `net.Network` is to the node."""

    def __init__(
        self,
        wires: Wires,
        config: NetConfig,
        key: PrivateKey,
        hello: Callable[[], Hello],
        allowed: Callable[[str], bool],
        known_addresses: object,
        handlers: Handlers,
    ) -> None:
        self._wires = wires
        self.own = keys.peer_id(key.public)
        self.hello = hello
        self.handlers = handlers
        self.penalised: list[str] = []
        self.on_answer: Callable[[bytes], None] = lambda data: None
        self._send, self._receive = trio.open_memory_channel[tuple[str, bytes]](_QUEUE_MAX)

    async def run(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        self._wires.join(self)
        task_status.started()
        try:
            async for sender, data in self._receive:
                if self._wires.reaches(self.own, sender):
                    assert self.handlers.on_raft(sender, data) is not False
        finally:
            self._wires.leave(self)

    def send(self, peer: str, lane: str, data: bytes) -> bool:
        if not self._wires.reaches(self.own, peer):
            return False
        if not self._wires.loses("raft"):
            self._wires.networks[peer]._send.send_nowait((self.own, data))
        return True

    async def request(self, peer: str, protocol: str, data: bytes, timeout_s: float) -> bytes:
        with trio.move_on_after(timeout_s):
            if not self._wires.reaches(self.own, peer):
                await trio.lowlevel.checkpoint()
                raise Unavailable(f"{peer} is not connected")
            if self._wires.loses(protocol):
                await trio.sleep_forever()
            try:
                answer = await self._wires.networks[peer].handlers.on_request(
                    self.own, protocol, data
                )
            except P2PCityError as error:
                raise RemoteError(f"{peer} refused: {error}") from error
            if self._wires.reaches(self.own, peer):
                self.on_answer(answer)
                return answer
        raise Unavailable(f"{peer} gave no {protocol} answer")

    async def publish(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        for peer, other in list(self._wires.networks.items()):
            reaches = peer != self.own and self._wires.reaches(self.own, peer)
            if reaches and not self._wires.loses("gossip"):
                assert await other.handlers.on_gossip(self.own, data)

    def penalise(self, peer: str) -> None:
        self.penalised.append(peer)

    def is_connected(self, peer: str) -> bool:
        return self._wires.reaches(self.own, peer)

    def addresses(self) -> tuple[str, ...]:
        """There is nothing to dial in memory."""
        return ()

    def statistics(self) -> dict[str, int]:
        return {"connected": len(self.peers())}

    def peers(self) -> tuple[PeerInfo, ...]:
        return tuple(
            PeerInfo(
                peer,
                "connected",
                is_connected=True,
                height=other.hello().height,
                incarnation=other.hello().incarnation,
                hello=other.hello(),
            )
            for peer, other in self._wires.networks.items()
            if peer != self.own and self._wires.reaches(self.own, peer)
        )


@dataclass
class WholeNode:
    """A node's parts, running or not; its data directory stays."""

    name: str
    key: PrivateKey
    config: Config
    identity: Identity
    wires: Wires
    now_ms: Callable[[], int]
    parts: Parts = field(init=False)
    lives: int = 0
    _scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    _ended: trio.Event = field(default_factory=trio.Event)

    @property
    def peer(self) -> str:
        return self.identity.peer_id

    async def run(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Live until it is stopped; it begins again when it has fetched a base."""
        self._scope, self._ended = trio.CancelScope(), trio.Event()
        try:
            with self._scope:
                while await self._is_fed_a_base(task_status):
                    task_status = trio.TASK_STATUS_IGNORED
        finally:
            self._ended.set()

    async def _is_fed_a_base(self, task_status: Any) -> bool:
        try:
            await self._live(task_status)
        except BaseExceptionGroup as group:
            if group.split(BaseComplete)[1] is not None:
                raise
            return True
        return False

    async def _live(self, task_status: Any) -> None:
        self.lives += 1
        stores = await open_stores(
            self.config.node.data_dir,
            genesis=self.identity.genesis,
            peer_id=self.peer,
            repair=LogRepair(
                self.config,
                self.identity,
                now_ms=self.now_ms,
                make_network=cast(Any, partial(MemoryNetwork, self.wires)),
            ).run,
        )
        try:
            self.parts = Parts(
                self.config,
                self.identity,
                stores,
                self.now_ms,
                make_network=cast(Any, partial(MemoryNetwork, self.wires)),
            )
            await catch_up(self.parts)
            self.parts.join()
            async with trio.open_nursery() as nursery:
                await start(self.parts, nursery)
                task_status.started()
        finally:
            with trio.CancelScope(shield=True):
                await stores.close()

    async def stop(self) -> None:
        """End it as a cancelled daemon ends, its disk in order."""
        self._scope.cancel()
        await self._ended.wait()

    async def submit(
        self, *carried: Carried, wait: Any = "committed", timeout_s: float = DEADLINE_S
    ) -> list[Answer]:
        return list(
            await self.parts.service.submit(
                [item.data for item in carried], wait, int(timeout_s * 1000)
            )
        )

    @property
    def height(self) -> int:
        return self.parts.service.head().height

    @property
    def is_leader(self) -> bool:
        return self.parts.ordering.raw_node.is_leader


class City:
    """Orderers and observers of one member, with one author."""

    def __init__(
        self,
        directory: Path,
        nursery: trio.Nursery,
        orderers: int = 3,
        observers: int = 0,
        keep_blocks: int = 0,
    ) -> None:
        self.nursery = nursery
        self._keep_blocks = keep_blocks
        self.wires = Wires()
        self.author = PrivateKey.from_seed(b"A" * 32)
        self._number = 0
        self._begin_s = trio.current_time()
        self.clock_offset_ms = 0
        # Of single nodes, by peer id; the one above moves all clocks.
        self.clock_offsets_ms: dict[str, int] = {}
        roles: list[Role] = ["orderer" for _ in range(orderers)]
        roles += ["observer" for _ in range(observers)]
        made = [
            (role, PrivateKey.from_seed(bytes([number + 1]) * 32))
            for number, role in enumerate(roles)
        ]
        self.genesis = _make_genesis(made, self.author)
        self.nodes = [
            self._make_node(directory / f"n{number}", role, key)
            for number, (role, key) in enumerate(made)
        ]

    def _make_node(self, directory: Path, role: str, key: PrivateKey) -> WholeNode:
        peer = keys.peer_id(key.public)
        nodes = {keys.peer_id(node.key): node for node in self.genesis.nodes}
        initialise(directory, nodes[peer].incarnation)
        config = Config(
            node=NodeSection(name=directory.name, role=role, data_dir=directory),
            raft=RaftSection(preset="local"),
            ledger=LedgerSection(disk_free_bytes_min=0, keep_blocks=self._keep_blocks),
        )
        identity = Identity(key, self.author, peer, self.genesis, nodes[peer])

        def now_ms() -> int:
            return self.now_ms() + self.clock_offsets_ms.get(peer, 0)

        return WholeNode(directory.name, key, config, identity, self.wires, now_ms)

    def now_ms(self) -> int:
        passed_ms = int((trio.current_time() - self._begin_s) * 1000)
        return START_MS + passed_ms + self.clock_offset_ms

    async def start(self, *nodes: WholeNode) -> None:
        for node in nodes or self.nodes:
            await self.nursery.start(node.run)

    def carried(self, *, size: int = 10, lives_ms: int = 3_600_000) -> Carried:
        """A new transaction of one event."""
        self._number += 1
        name = str(self._number)
        salt = self._number.to_bytes(16, "big")
        event = Event(salt=salt, id=name, type="t", source="urn:s", data="x" * size)
        expires_ms = self.now_ms() + lives_ms
        network = self.genesis.network
        return transaction_wire.make(self.author, network, [event], expires_ms, salt)

    async def wait_until(self, is_so: Callable[[], bool], what: str) -> None:
        with trio.move_on_after(DEADLINE_S):
            while not is_so():  # noqa: ASYNC110 - many things of many nodes, no one event
                await trio.sleep(_POLL_S)
            return
        raise AssertionError(f"not within {DEADLINE_S:g} s: {what}")

    async def wait_leader(self, among: Collection[WholeNode] | None = None) -> WholeNode:
        nodes = self.nodes if among is None else among

        def has_leader() -> bool:
            return any(node.is_leader for node in nodes)

        await self.wait_until(has_leader, "a leader")
        return next(node for node in nodes if node.is_leader)

    async def wait_same_head(self, *nodes: WholeNode) -> None:
        """Wait until the nodes (all by default) show the same newest block, above the genesis."""
        shown = nodes or tuple(self.nodes)

        def is_same() -> bool:
            heads = {node.parts.service.head() for node in shown}
            return len(heads) == 1 and heads.pop().height > 0

        await self.wait_until(is_same, "equal heads")

    async def wait_on_ledger(self, carried: Carried, *nodes: WholeNode) -> None:
        for node in nodes or self.nodes:
            probe, id_ = node.parts.stores.probe, carried.transaction.id
            await self.wait_until(partial(probe.has_transaction, id_), f"it is on {node.name}")


def _make_genesis(made: list[tuple[Role, PrivateKey]], author: PrivateKey) -> Genesis:
    member = Member(
        "works",
        tuple(
            GenesisNode(key.public, key.public[:16], role, (), "works", f"n{number}")
            for number, (role, key) in enumerate(made)
        ),
        (GenesisAuthor(author.public, "all", ("*",), "works"),),
    )
    return genesis_wire.make("memory", START_MS - 1000, b"g" * 16, [member])
