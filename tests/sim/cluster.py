"""All nodes of a seed with the network between them and the checkers over them."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from random import Random

from p2pcity.mempool.mempool import MempoolConfig
from p2pcity.ordering.apply import AppliedBlock
from p2pcity.wire.block import Block
from p2pcity.wire.raft import (
    Append,
    AppendAnswer,
    Behind,
    CommitNotice,
    Entry,
    Heartbeat,
    HeartbeatAnswer,
    Message,
    ReadAnswer,
    ReadRequest,
    TimeoutNow,
    VoteAnswer,
    VoteRequest,
)
from tests.sim import city as city_module
from tests.sim.base_fetching import BaseFetch
from tests.sim.checkers import Checkers, Violation, check
from tests.sim.network import SimulatedNetwork
from tests.sim.node import Node, Settings
from tests.sim.operator import Operator
from tests.sim.world import SECOND, START_MS, World

_ALL = 1 << 40
_KINDS = (
    VoteRequest,
    VoteAnswer,
    Append,
    AppendAnswer,
    Heartbeat,
    HeartbeatAnswer,
    CommitNotice,
    Behind,
    TimeoutNow,
    ReadRequest,
    ReadAnswer,
)


def draw_settings(random: Random) -> Settings:
    """What a seed draws for its nodes: long and short ticks, small and large bounds."""
    tick = random.choice((100, 150, 200, 250)) * SECOND // 1000
    append_bytes_max = random.choice((1, 600, 4096, 1 << 20))
    settings = Settings(
        tick=tick,
        raft={
            "heartbeat_ticks": random.choice((1, 2)),
            "election_ticks": random.choice((5, 6, 8)),
            "retry_ticks": random.choice((2, 4)),
            "append_bytes_max": append_bytes_max,
            "in_flight_messages_max": random.choice((2, 16, 256)),
            "in_flight_bytes_max": max(append_bytes_max, random.choice((8192, 1 << 21))),
            "uncommitted_bytes_max": random.choice((4096, 1 << 24)),
            "apply_bytes_max": random.choice((1, 4096, 1 << 22)),
            "tail_bytes_max": random.choice((0, 2000, 1 << 23)),
        },
        mempool=MempoolConfig(
            bytes_max=random.choice((20_000, 1 << 26)),
            decoded_bytes_max=random.choice((0, 1 << 23)),
            admissions_max=random.choice((32, 1 << 17)),
        ),
        cache_bytes_max=random.choice((0, 4000, 1 << 24, 1 << 24)),
        segment_bytes_max=random.choice((4096, 20_000, 1 << 26)),
        sync_time=random.choice((300, 3000, 20_000)),
        apply_time=random.choice((200, 2000, 30_000)),
        report_age_ms_max=random.choice((10_000, 60_000, 600_000)),
        promotion_ticks=random.choice((2, 10, 30)),
    )
    if not settings.raft["tail_bytes_max"]:
        # What is not in a leader's memory is soon far behind.
        return replace(settings, raft={**settings.raft, "far_entries_max": 4})
    return settings


class Cluster:
    """The nodes of one seed, by number; `size` is how many a scenario needs."""

    def __init__(self, world: World, size: int | None = None) -> None:
        self.world = world
        self.random = world.random("cluster")
        drawn = self.random.choice((3, 3, 3, 4, 5, 5, 6, 7))
        size = size or drawn
        self.city = city_module.city(size)
        self.settings = draw_settings(self.random)
        self.checkers = Checkers(self.city.genesis.network)
        latency = self.random.choice((100, 1000, 10_000))
        self.network = SimulatedNetwork(world, size, len(self.city.names), latency)
        self.number_of = {name: number for number, name in enumerate(self.city.names)}
        self.nodes = [Node(self, number, self.settings) for number in range(size)]
        self.by_name = {node.name: node for node in self.nodes}
        self.operator = Operator(self)
        self.has_changes = False
        self.keeper: Node | None = None
        # Each question about bases has a number that no other has, in whichever life.
        self.questions = count(1)

    @property
    def election_time(self) -> int:
        """The longest election time-out, in microseconds."""
        return self.settings.raft["election_ticks"] * 2 * self.settings.tick

    @property
    def now_ms(self) -> int:
        """The true time, Unix ms."""
        return START_MS + self.world.now // 1000

    @property
    def minority(self) -> int:
        """How many nodes may be lost."""
        return (len(self.nodes) - 1) // 2

    @property
    def is_pruned(self) -> bool:
        """Whether anybody drops, or dropped, old blocks."""
        return any(node.keep_blocks for node in self.nodes)

    def keep_all(self) -> None:
        """One node keeps all blocks, its log and its vote.

        Who knows too few of today's voters can't take a base (protocol/07-base.md, "Fetching").
        """
        self.keeper = self.nodes[0]

    def start(self) -> None:
        """Start all nodes for the first time."""
        for node in self.nodes:
            check(node.start(), f"{node} does not start: {node.refusals}")

    def install(self) -> Node | None:
        """One more node with a log of its own, which no city knows yet; None when all are there."""
        number = len(self.nodes)
        if number == len(self.city.names):
            return None
        node = Node(self, number, self.settings)
        self.nodes.append(node)
        self.by_name[node.name] = node
        self.network.size = len(self.nodes)
        return node

    def deliver(self, sender: int, incarnation: bytes, receiver: int, message: Message) -> None:
        """A Raft message arrives, over a connection of the sender's life; lost when nobody listens.

        `incarnation` is the one that the sender said hello with.
        """
        node = self.nodes[receiver]
        if not node.is_up:
            return
        kind = _KINDS.index(type(message))
        text = str(message)[:150] if self.world.is_traced else ""
        self.world.note("message", sender, receiver, kind, message.term, text=text)
        node.arrive(node.receive, self.city.names[sender], incarnation, message)

    def hand_over(self, receiver: int, deliver: Callable[[Node], None]) -> None:
        """Something of the gossip plane arrives."""
        node = self.nodes[receiver]
        if node.is_up:
            node.arrive(deliver, node)

    def hand_over_bases(self, receiver: int, deliver: Callable[[BaseFetch], None]) -> None:
        """A question about bases arrives, or an answer; also at a node that mends its log."""
        node = self.nodes[receiver]

        def take() -> None:
            if node.is_up:
                deliver(node.gossip.bases)
            elif node.mending is not None:
                deliver(node.mending.bases)

        node.arrive(take)

    def turned(self, node: Node) -> None:
        """A node has done what it could do now."""
        self.checkers.turned(node, self.by_name)

    def is_clock_trusted(self, node: Node) -> bool:
        """Whether a clock is right, and nobody can remember a report of it that was not."""
        return node.clock.was_right((self.settings.report_age_ms_max + 10_000) * 1000)

    def note_clocks(self) -> None:
        """Some clock was set: while a majority is wrong, nobody can tell what expired."""
        wrong = sum(not node.clock.is_right for node in self.nodes)
        # Who votes may change: then any wrong clock may come to be the majority.
        if wrong > (0 if self.has_changes else self.minority):
            self.checkers.is_time_lost = True

    def proposed(self, node: Node, block: Block) -> None:
        """A leader proposes a block."""
        configuration = node.raw_node.configuration
        is_right = True
        for voters in (configuration.voters, configuration.voters_outgoing):
            trusted = sum(self.is_clock_trusted(self.by_name[name]) for name in voters)
            is_right = is_right and (not voters or trusted > len(voters) // 2)
        self.checkers.proposed(node, block, is_majority_right=is_right, now_ms=self.now_ms)

    def applied(self, node: Node, done: AppliedBlock) -> None:
        """A node applied a block."""
        hash_ = int.from_bytes(done.block.hash[:7], "big")
        self.world.note("applied", node.number, done.height, hash_)
        self.checkers.applied(node, done)

    def leader(self) -> Node | None:
        """The node that takes itself for the leader, of the newest term."""
        leaders = [node for node in self.nodes if node.is_leader]
        return max(leaders, key=lambda node: node.raw_node.term, default=None)

    def members(self, leader: Node) -> list[Node]:
        """Everybody whom the leader's configuration names."""
        return [self.by_name[name] for name in leader.raw_node.configuration.members]

    def is_agreed(self) -> bool:
        """Whether all members run, follow one leader, and have applied the same."""
        leader = self.leader()
        if leader is None or leader.raw_node.configuration.is_joint:
            return False
        last = leader.raw_node.last_index
        return all(
            node.is_up
            and node.members.is_own_log
            and node.views.applied_index == last
            and node.raw_node.last_index == last
            and node.raw_node.leader == leader.name
            and not node.gossip.waiting
            for node in self.members(leader)
        )

    def compare_exports(self) -> None:
        """I13: every member's log, read from its disk, is the same, byte for byte.

        As far as each keeps it: what was pruned is in its base, and still known to be taken.
        """
        leader = self.leader()
        assert leader is not None, "there is peace"
        last = leader.log.last_index
        told: dict[int, Entry] = {}
        chain = self.checkers.chain
        for node in self.members(leader):
            check(node.log.last_index == last, f"I13 {node} ends elsewhere")
            for entry in _read(node, last):
                if told.setdefault(entry.index, entry) != entry:
                    raise Violation(f"I13 entry {entry.index} differs on {node}")
            check(
                node.views.tip.height == len(chain), f"I13 {node} ends at {node.views.tip.height}"
            )
            check(
                [done.block.hash for done in node.views.blocks]
                == [done.block.hash for done in chain[node.views.pruned :]],
                f"I13 {node} shows other blocks",
            )
            self.checkers.holds(node)
            bases = node.storage.bases
            if bases.head is not None:
                done = chain[bases.head.height - 1]
                check(
                    (bases.head.hash, bases.head.index, bases.head.frontier)
                    == (done.block.hash, done.index, done.frontier),
                    f"I13 {node} has another base at {bases.head.height}",
                )


def _read(node: Node, last: int) -> list[Entry]:
    entries: list[Entry] = []
    first = node.log.first_index
    while first + len(entries) <= last:
        entries += node.log.entries(first + len(entries), last + 1, _ALL)
    return entries
