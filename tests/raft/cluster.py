"""Several cores, their disks and the network between them, in one plain loop."""

from collections import deque
from random import Random

from p2pcity.errors import ChangeRefused, ProposalDropped
from p2pcity.raft import (
    Configuration,
    Operation,
    RaftConfig,
    RawNode,
    ReadState,
    Step,
    enter_joint,
    leave_joint,
    simple,
)
from p2pcity.wire.raft import Entry, Message, decode, encode
from tests.raft.checkers import Checkers
from tests.raft.disk import Disk


class Member:
    """One node with its disk and with what it applied; `node` is None while it is down."""

    def __init__(self, name: str, configuration: Configuration) -> None:
        self.name = name
        self.configuration = configuration
        self.disk = Disk()
        self.node: RawNode | None = None
        self.applied: list[Entry] = []
        self.reads: list[ReadState] = []
        self.reads_dropped: list[bytes] = []
        self.starts = 0

    @property
    def up(self) -> RawNode:
        """The node; it must be running."""
        assert self.node is not None, f"{self.name} is down"
        return self.node


class Cluster:
    """Members by name; messages wait in one queue and go through the codec."""

    def __init__(self, voters: int, learners: int = 0, seed: str = "0", **settings: int) -> None:
        names = [str(number + 1) for number in range(voters + learners)]
        self.configuration = Configuration(tuple(names[:voters]), observers=tuple(names[voters:]))
        self.members = {name: Member(name, self.configuration) for name in names}
        self.has_auto_leave = True
        self.checkers = Checkers()
        self.queue: deque[tuple[str, str, Message]] = deque()
        self.cut: dict[tuple[str, str], bool] = {}
        self.trace: list[str] | None = None
        self._seed = seed
        self._settings = settings
        for name in names:
            self.start(name)

    def start(self, name: str) -> None:
        """Start or restart a node from its disk."""
        member = self.members[name]
        member.starts += 1
        member.configuration = self.configuration
        for entry in member.applied:
            try:
                after = changed(member.configuration, entry.payload)
            except ChangeRefused:
                continue
            member.configuration = after or member.configuration
        random = Random(f"{self._seed}/{name}/{member.starts}")
        config = RaftConfig(id=name, **self._settings)
        applied = len(member.applied)
        member.node = RawNode(config, member.disk, member.configuration, random, applied=applied)

    def join(self, name: str) -> None:
        """Start a new node, which knows the first configuration and is in none."""
        self.members[name] = Member(name, self.configuration)
        self.start(name)

    def configure(self, member: Member, entry: Entry) -> None:
        """Put a change into effect on a node; one that does not fit has no effect on any."""
        try:
            after = changed(member.configuration, entry.payload)
        except ChangeRefused:
            return
        if after is not None:
            member.configuration = after
            member.up.configure(after)

    def leave_joint(self, member: Member) -> None:
        """End a joint state, as soon as this node may, if it leads."""
        node = member.up
        if self.has_auto_leave and node.is_leader and node.configuration.is_joint:
            try:
                node.propose(b"leave", is_change=True)
            except (ChangeRefused, ProposalDropped):
                return

    def crash(self, name: str) -> None:
        """Stop a node; its disk forgets what was not synced."""
        member = self.members[name]
        member.node = None
        member.disk.crash(None)

    def partition(self, groups: list[list[str]]) -> None:
        """Let only nodes of one group hear one another."""
        group_of = {name: number for number, group in enumerate(groups) for name in group}
        self.cut = {
            (one, other): True
            for one in self.members
            for other in self.members
            if one != other and group_of.get(one, one) != group_of.get(other, other)
        }

    def pump(self, name: str) -> bool:
        """Do what one node wants done; returns whether that was anything."""
        member = self.members[name]
        if member.node is None or not member.node.has_ready():
            return False
        ready = member.node.ready()
        member.disk.save(ready.hard_state, ready.entries, ready.must_sync)
        for to, message in ready.messages:
            self.queue.append((name, to, message))
        for entry in ready.committed_entries:
            assert entry.index == len(member.applied) + 1
            member.applied.append(entry)
            self.checkers.see_applied(name, entry)
            self.configure(member, entry)
        member.reads += ready.read_states
        member.reads_dropped += ready.reads_dropped
        member.node.advance(ready)
        member.node.applied(len(member.applied))
        self.checkers.see_node(member.node, member.disk)
        self.leave_joint(member)
        return True

    def deliver_one(self) -> bool:
        """Deliver the oldest message, or lose it on a cut link."""
        if not self.queue:
            return False
        sender, to, message = self.queue.popleft()
        is_lost = (sender, to) in self.cut or self.members[to].node is None
        if self.trace is not None:
            self.trace.append(f"{sender}->{to} {describe(message)}{' lost' if is_lost else ''}")
        if not is_lost:
            assert decode(encode(message)) == message
            self.members[to].up.step(sender, message)
        return True

    def settle(self) -> None:
        """Pump and deliver until nothing moves."""
        for _ in range(100_000):
            pumped = [self.pump(name) for name in self.members]
            if not self.deliver_one() and not any(pumped):
                return
        raise AssertionError("the cluster does not come to rest")

    def tick(self, names: list[str] | None = None) -> None:
        """One tick for these nodes or all, then settle."""
        for name in names or self.members:
            node = self.members[name].node
            if node is not None:
                node.tick()
        self.settle()

    def ticks(self, count: int) -> None:
        """Several ticks for all nodes."""
        for _ in range(count):
            self.tick()

    def elect(self, name: str) -> None:
        """Make this node campaign and win."""
        self.members[name].up.campaign()
        self.settle()
        assert self.members[name].up.status().role == "leader"

    def propose(self, name: str, payload: bytes) -> None:
        """Propose and settle."""
        self.members[name].up.propose(payload)
        self.settle()

    def leaders(self) -> list[str]:
        """The nodes that take themselves for leaders."""
        return [
            name
            for name, member in self.members.items()
            if member.node is not None and member.node.status().role == "leader"
        ]


OPERATIONS = {
    "v": Operation.VOTER,
    "l": Operation.LEARNER,
    "o": Operation.OBSERVER,
    "r": Operation.REMOVE,
}


def changed(configuration: Configuration, payload: bytes) -> Configuration | None:
    """The configuration after an entry, None when the entry is no change.

    `change v4 l5 r1` is one; through a joint state whenever other nodes vote afterwards.
    """
    word, *rest = payload.decode().split() or [""]
    if word == "leave":
        return leave_joint(configuration)
    if word != "change":
        return None
    steps = [Step(OPERATIONS[item[0]], item[1:]) for item in rest]
    after = enter_joint(configuration, steps)
    if set(after.voters) == set(configuration.voters):
        return simple(configuration, steps)
    return after


def describe(message: Message) -> str:
    """One line about a message, short and stable."""
    parts = [type(message).__name__]
    for key in type(message).__slots__:
        value = getattr(message, key)
        if key == "entries":
            parts.append("[" + " ".join(f"{e.index}@{e.term}" for e in value) + "]")
        elif key == "number":
            continue  # random
        elif isinstance(value, bool):
            if value:
                parts.append(key)
        elif key == "term" or value:
            parts.append(f"{key}={value}")
    return " ".join(parts)
