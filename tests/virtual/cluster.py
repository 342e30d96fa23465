"""All nodes of a seed, the wires between them and the checkers over them."""

from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Final

import trio

from p2pcity.api.service import StoredBlock
from p2pcity.crypto.keys import PrivateKey
from p2pcity.errors import Pruned
from p2pcity.ledger.data_directory import initialise
from p2pcity.ledger.segment_log import SEGMENT_BYTES_MAX
from p2pcity.node.config import Config, LedgerSection, NetSection, NodeSection, RaftSection
from p2pcity.node.identity import Identity
from p2pcity.node.service import NodeService
from p2pcity.wire.genesis import GenesisAuthor, Member
from tests.sim.checkers import check
from tests.sim.city import SPARES_MAX, City
from tests.virtual.checkers import NodeCheckers
from tests.virtual.host import Host
from tests.virtual.wires import Wires
from tests.virtual.world import World

POLL_S: Final = 0.05


class CityWithObservers(City):
    """The simulator's city, whose last nodes observe; every node signs as an author of its own.

    `spares` of its nodes are not in the genesis: they may join later.
    """

    def __init__(self, orderers: int, observers: int, spares: int = 0) -> None:
        assert spares <= SPARES_MAX
        self.observers = observers
        self.authors = [
            PrivateKey.from_seed(b"author %02d" % n + b"." * 23)
            for n in range(orderers + observers + spares)
        ]
        super().__init__(orderers + observers)

    def _member(self) -> Member:
        member = super()._member()
        split = len(member.nodes) - self.observers
        observers = tuple(replace(node, role="observer") for node in member.nodes[split:])
        authors = tuple(
            GenesisAuthor(key.public, f"node {n}", ("*",), "works")
            for n, key in enumerate(self.authors)
        )
        return replace(
            member, nodes=member.nodes[:split] + observers, authors=member.authors + authors
        )


@cache
def city(orderers: int, observers: int, spares: int = 0) -> CityWithObservers:
    """The city of so many nodes, one a process: its transactions are signed once."""
    return CityWithObservers(orderers, observers, spares)


class Cluster:
    """The nodes of one seed, by number."""

    def __init__(
        self,
        world: World,
        root: Path,
        *,
        orderers: int = 3,
        observers: int = 0,
        spares: int = 0,
        preset: str = "local",
        latency_s: float = 0.001,
        work_s: float = 0.001,
        promotion_ms: int = 10_000,
        has_peers_listed: bool = False,
        keep_blocks: int = 0,
        segment_bytes_max: int = SEGMENT_BYTES_MAX,
    ) -> None:
        """Make the nodes of the genesis; up to `spares` more are made by `install`.

        With `has_peers_listed` each of them has all others in `net.peers`.
        """
        self.world = world
        self.city = city(orderers, observers, spares)
        self.raft = RaftSection(preset=preset, promotion_ms=promotion_ms)
        self._ledger = LedgerSection(
            disk_free_bytes_min=0, keep_blocks=keep_blocks, segment_bytes_max=segment_bytes_max
        )
        self.work_s = work_s
        self.has_peers_listed = has_peers_listed
        self.names = self.city.names[: orderers + observers + spares]
        self.wires = Wires(world, self.names, latency_s)
        signers = frozenset(key.public for key in self.city.authors)
        self.checkers = NodeCheckers(self.city.genesis.network, signers)
        self._root = root
        self.hosts = [self._make_host(n) for n in range(orderers + observers)]
        self.by_name = {host.name: host for host in self.hosts}
        self.orderers = self.hosts[:orderers]
        self.nursery: trio.Nursery | None = None
        # Changes that somebody asked for and has no answer to yet.
        self.changes_open = 0

    def _make_host(self, number: int) -> Host:
        city = self.city
        directory = self._root / f"n{number}"
        directory.mkdir()
        node = city.genesis.nodes[number] if number < len(city.genesis.nodes) else None
        initialise(directory / "0", city.incarnations[number])
        config = Config(
            node=NodeSection(
                name=f"n{number}", role=node.role if node else "orderer", data_dir=directory
            ),
            net=NetSection(peers=self.peers_of(number) if self.has_peers_listed else ()),
            raft=self.raft,
            ledger=self._ledger,
        )
        key, author = city.keys[number], city.authors[number]
        identity = Identity(key, author, city.names[number], city.genesis, node)
        return Host(self, number, config, identity, directory)

    @property
    def is_changing(self) -> bool:
        """Whether nodes may come and go."""
        return len(self.names) > len(self.city.genesis.nodes)

    @property
    def is_pruning(self) -> bool:
        """Whether nodes keep few blocks."""
        return self._ledger.keep_blocks > 0

    def peers_of(self, number: int) -> tuple[str, ...]:
        """What `net.peers` of a node says that is to know all others."""
        others = [name for name in self.names if name != self.names[number]]
        return tuple(f"/ip4/127.0.0.1/tcp/4710/p2p/{name}" for name in others)

    def install(self) -> Host | None:
        """Make one of the spare nodes and start it; None when none is left."""
        number = len(self.hosts)
        if number == len(self.names):
            return None
        host = self._make_host(number)
        self.hosts.append(host)
        self.by_name[host.name] = host
        self.start(host)
        return host

    @property
    def election_s(self) -> float:
        """The longest election time-out."""
        return 2 * self.hosts[0].config.raft.times_ms[1] / 1000

    def with_disk(self) -> dict[str, Host]:
        """The nodes that ran once, by peer id."""
        return {name: host for name, host in self.by_name.items() if host.has_disk}

    def leader(self) -> Host | None:
        """The node that leads, of several the one of the highest term."""
        leaders = [host for host in self.hosts if host.is_leader]
        return max(leaders, key=lambda host: host.raw_node.term, default=None)

    # -- for those who arrange things ----------------------------------------------------------

    def start(self, *hosts: Host) -> None:
        """Start nodes, all by default; those that run or still end are left alone."""
        assert self.nursery is not None
        for host in hosts or self.hosts:
            if host.ended.is_set():
                host.ended = trio.Event()
                self.nursery.start_soon(host.run)

    async def wait_up(self, *hosts: Host) -> None:
        """Wait until nodes take part."""
        for host in hosts or self.hosts:
            while not host.is_up:  # noqa: ASYNC110 - many things of many nodes, no one event
                await trio.sleep(POLL_S)

    async def wait_leader(self, *among: Host) -> Host:
        """Wait until one of the nodes leads."""
        while True:
            for host in among or self.hosts:
                if host.is_leader:
                    return host
            await trio.sleep(POLL_S)

    async def wait_agreed(self) -> None:
        """Wait until all nodes run and show the same newest block."""
        while not self.is_agreed():  # noqa: ASYNC110 - likewise
            await trio.sleep(POLL_S)

    def is_agreed(self) -> bool:
        """Whether all nodes run, know one leader and have applied all that it has."""
        leader = self.leader()
        if leader is None or not all(host.is_up for host in self.hosts):
            return False
        last = leader.raw_node.last_index
        return all(
            host.parts.apply.applied_index == last and host.raw_node.leader == leader.name
            for host in self.hosts
        )

    async def compare_ledgers(self) -> None:
        """I13: every node shows every block alike, by its API."""
        chain = self.checkers.chain
        for host in self.hosts:
            check(host.height == len(chain), f"I13 {host} ends at {host.height}, not {len(chain)}")
            blocks = await host.ask(partial(_all_blocks, len(chain)), 60.0)
            first = host.parts.pruning.first_height
            check(None not in blocks[first - 1 :], f"I13 {host} lacks blocks from {first} on")
            for block, done in zip(blocks, chain, strict=True):
                if block is None:  # pruned here
                    continue
                check(block.data == done.block.data, f"I13 {host} shows another {done.height}")
                outcomes = [item.outcome for item in block.transactions]
                check(
                    outcomes == [item.outcome for item in done.transactions],
                    f"I13 {host} shows other outcomes at {done.height}",
                )


async def _all_blocks(height: int, service: NodeService) -> list[StoredBlock | None]:
    return [await _block(number, service) for number in range(1, height + 1)]


async def _block(height: int, service: NodeService) -> StoredBlock | None:
    try:
        return await service.block(height)
    except Pruned:
        return None
