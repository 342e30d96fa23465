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
    Ready,
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
        self.is_slow = False
        self.saving: Ready | None = None

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
        self.paused: dict[str, list[tuple[str, str, Message]]] = {}
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

    def fetch(self, name: str, peer: str) -> None:
        """Give a node that is down the base and the committed entries of another one's disk."""
        member, other = self.members[name], self.members[peer]
        assert member.node is None, "only a node that is down is given another log"
        member.disk.take_over(other.disk)
        base = other.disk.first_index - 1
        if base > len(member.applied):
            member.applied = other.applied[:base]

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
        member.node = member.saving = None
        self.paused.pop(name, None)
        member.disk.crash(None)

    def pause(self, name: str) -> None:
        """Stop a node as SIGSTOP does: it does nothing, and what is sent to it waits."""
        self.paused[name] = []

    def resume(self, name: str) -> None:
        """Let a paused node go on; what waited for it comes first."""
        self.queue.extendleft(reversed(self.paused.pop(name)))

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
        """Do what one node wants done, a slow disk's sync excepted; whether that was anything."""
        member = self.members[name]
        if member.node is None or name in self.paused or not member.node.has_ready():
            return False
        ready = member.node.ready()
        if member.is_slow and ready.must_sync:
            member.saving = ready
        else:
            self._finish(member, ready)
        return True

    def sync(self, name: str) -> None:
        """Let the save that a slow disk is at come to its end."""
        member = self.members[name]
        assert member.saving is not None, f"{name} saves nothing"
        ready, member.saving = member.saving, None
        self._finish(member, ready)

    def _finish(self, member: Member, ready: Ready) -> None:
        member.disk.save(ready.hard_state, ready.entries, ready.must_sync)
        for to, message in ready.messages:
            self.queue.append((member.name, to, message))
        for entry in ready.committed_entries:
            assert entry.index == len(member.applied) + 1
            member.applied.append(entry)
            self.checkers.see_applied(member.name, entry)
            self.configure(member, entry)
        member.reads += ready.read_states
        member.reads_dropped += ready.reads_dropped
        member.up.advance(ready)
        member.up.applied(len(member.applied))
        self.checkers.see_node(member.up, member.disk)
        self.leave_joint(member)

    def deliver_one(self, receiver: str | None = None) -> bool:
        """Deliver the oldest message (to this receiver), or lose it on a cut link."""
        found = next((one for one in self.queue if receiver in (None, one[1])), None)
        if found is None:
            return False
        self.queue.remove(found)
        sender, to, message = found
        if to in self.paused:
            self.paused[to].append((sender, to, message))
            return True
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

    def tick(self, names: list[str] | None = None, *, is_held: bool = False) -> None:
        """One tick for these nodes or all, then settle, unless messages are held back."""
        for name in names or self.members:
            node = self.members[name].node
            if node is not None and name not in self.paused:
                node.tick()
        if not is_held:
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
