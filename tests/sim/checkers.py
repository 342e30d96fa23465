"""What must hold after every step (faults.md 2.2): one `Checkers` sees all nodes of a seed.

I1 an acknowledged transaction keeps its height and hash, I2 no id twice, I3 no fork, I4 one
leader a term, I5 reads are linearizable (sweep over heights), I6 a client's reads never go
back, I7 only valid transactions, byte for byte as submitted; and nothing that a node says
(a vote, an append answer, a commit) is beyond what its disk, or a quorum's disks, would keep.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, Protocol

from p2pcity.city.membership import State, encode_city
from p2pcity.crypto import merkle
from p2pcity.crypto.digest import sha256
from p2pcity.ordering.apply import AppliedBlock
from p2pcity.ordering.members import Members
from p2pcity.ordering.promises import Promises
from p2pcity.raft.raw_node import RawNode
from p2pcity.wire.block import Block
from p2pcity.wire.limits import CLOCK_AHEAD_MS_MAX
from p2pcity.wire.raft import AppendAnswer, HardState, Message, VoteAnswer, VoteRequest
from tests.sim.city import Sample

if TYPE_CHECKING:
    from tests.sim.node import Node

_CLOCK_SLACK_MS: Final = 20
"""Right clocks may be 10 ms off, and whole milliseconds are compared."""


Identity = tuple[int, bytes]
"""Who votes: a node's number and its incarnation."""


class Kept(Protocol):
    """What a node's disk would keep."""

    @property
    def hard_state(self) -> HardState:
        """The term, the vote and the commit index on it."""

    @property
    def last_index(self) -> int:
        """Where the log on it ends."""

    def term(self, index: int) -> int | None:
        """The term of an entry, None when it is not there."""


class Watched(Protocol):
    """A node as the checkers see it, in the event heap or on virtual time.

    `identity` says which log it is; `..._seen` is what the checkers saw of this life.
    """

    name: str
    incarnation: bytes
    commit_seen: int
    settled_seen: int
    state_seen: State | None

    @property
    def key(self) -> bytes:
        """The node's public key."""

    @property
    def identity(self) -> Identity:
        """Its number and its incarnation."""

    @property
    def durable(self) -> Kept:
        """What its disk would keep."""

    @property
    def lost(self) -> Mapping[bytes, Kept]:
        """What earlier logs of it kept when their disk was taken away, by incarnation."""

    @property
    def is_leader(self) -> bool:
        """Whether it runs and takes itself for the leader."""

    @property
    def raw_node(self) -> RawNode:
        """The core of its present life."""

    @property
    def members(self) -> Members:
        """The city's nodes as its log has them."""

    def is_known_log(self, other: "Watched") -> bool:
        """Whether the registry that is in force here, or was until now, counts on this log."""

    def is_quorum(self, keepers: Mapping[str, bool]) -> bool:
        """Whether those marked True are a quorum here, or were until this turn."""


class Violation(AssertionError):
    """Something that must always hold did not."""


def check(condition: bool, what: str) -> None:
    """Raise Violation unless `condition`."""
    if not condition:
        raise Violation(what)


def _check_state(one: State, other: State, where: str) -> None:
    """The same city; a node that started again has its keys in another order."""
    is_same = one is other or one == other or encode_city(one) == encode_city(other)
    check(is_same, f"{where} is not the one of others")


class Checkers:
    """Remembers what was seen, and fails at the first contradiction."""

    def __init__(self, network: bytes) -> None:
        self.chain: list[AppliedBlock] = []
        self.acknowledged: dict[bytes, tuple[int, bytes]] = {}
        self.reads = 0
        self.session_reads = 0
        self.height_told = 0
        self.times_checked = 0
        self.promises = Promises()
        self.is_time_lost = False
        self.commit = 0
        self._network = network
        self._genuine: dict[bytes, Sample] = {}
        self._height_of: dict[bytes, int] = {}
        self._names: set[tuple[bytes, str, str]] = set()
        self.changes = 0
        self._leaders: dict[int, Identity] = {}
        self._votes: dict[tuple[Identity, int], str] = {}
        self._states: dict[int, State] = {}
        self._commit_term = 0
        self._commit_of: dict[int, int] = {}

    def submitted(self, sample: Sample) -> None:
        """A client sends this transaction for the first time."""
        if sample.is_valid:
            self._genuine[sha256(sample.data)] = sample

    def applied(self, node: Watched, done: AppliedBlock) -> None:
        """I2, I3, I7: a node applied a block."""
        height = done.height
        if height <= len(self.chain):
            known = self.chain[height - 1]
            check(known.block.hash == done.block.hash, f"I3 fork at height {height}, {node}")
            check(known.index == done.index, f"I3 height {height} at two indexes, {node}")
            check(known.tip == done.tip, f"I3 another tree at height {height}, {node}")
            for one, other in zip(known.transactions, done.transactions, strict=True):
                check(
                    (one.outcome, one.leaf_index, one.duplicate_events)
                    == (other.outcome, other.leaf_index, other.duplicate_events),
                    f"I3 outcomes differ at {height}, {node}",
                )
            _check_state(known.state, done.state, f"D4 the city at height {height}, {node}")
            return
        check(height == len(self.chain) + 1, f"{node} applied height {height} before its parent")
        parent = self.chain[-1].block.hash if self.chain else self._network
        check(done.block.header.parent == parent, f"I3 the chain is broken at height {height}")
        for item in done.transactions:
            if item.outcome != "applied":
                continue
            assert item.carried is not None
            id_ = item.carried.transaction.id
            check(id_ not in self._height_of, f"I2 {id_.hex()[:8]} twice: {height} and before")
            self._height_of[id_] = height
            sample = self._genuine.get(sha256(item.carried.data))
            check(sample is not None, f"I7 at height {height}: not as submitted, or not valid")
            assert sample is not None
            check(sample.id == id_, f"I7 at height {height}: the id is not the author's")
            check(sample.expires_ms >= done.block.header.time_ms, f"I7 expired at {height}")
            again = {at for at, name in enumerate(sample.names) if name in self._names}
            self._names.update(sample.names)
            check(again == item.duplicate_events, f"I2 event names at {height}: {again} again")
        self.chain.append(done)
        if done.block.change is not None:
            # A leader proposes no change that has no effect.
            check(not done.change_refusal, f"D4 at {height}: {done.change_refusal}")
            self.changes += 1

    def proposed(self, node: "Node", block: Block, *, is_majority_right: bool, now_ms: int) -> None:
        """B1: while a majority's clocks are right, no leader's wild clock gets into a block.

        `now_ms` is the true time. What an earlier block says may be ahead, never the clock's.
        """
        time_ms = block.header.time_ms
        if block.change is not None and time_ms != node.clock.now_ms:
            return  # A change may have its parent's time, whatever the clock says.
        check(time_ms >= node.clock.now_ms, f"B1 {node} proposes a time behind its own clock")
        if not is_majority_right:
            return
        self.times_checked += 1
        off_ms = node.clock.now_ms - now_ms
        check(
            abs(off_ms) <= CLOCK_AHEAD_MS_MAX + _CLOCK_SLACK_MS,
            f"B1 {node} proposes height {block.header.height}, its clock is {off_ms} ms off",
        )

    def started(self, node: Watched, last_index: int, term: int) -> None:
        """A8: whatever a crash took, nobody has less than it promised."""
        check(
            not self.promises.is_broken(node.name, node.incarnation, last_index, term),
            f"{node} starts at {last_index} in term {term}, it promised "
            f"{self.promises.of(node.name, node.incarnation)}",
        )

    def acknowledge(self, id_: bytes, height: int, hash_: bytes) -> None:
        """I1: a client is told `committed`, here and once more if it asks again.

        Without the hash, where the block was pruned meanwhile.
        """
        check(0 < height <= len(self.chain), f"I1 {id_.hex()[:8]} told at {height}, far ahead")
        hash_ = hash_ or self.chain[height - 1].block.hash
        told = self.acknowledged.setdefault(id_, (height, hash_))
        check(told == (height, hash_), f"I1 {id_.hex()[:8]} told at {told[0]} and at {height}")
        check(self._height_of.get(id_) == height, f"I1 {id_.hex()[:8]} is not at {height}")
        check(self.chain[height - 1].block.hash == hash_, f"I1 another block at {height}")
        self.height_told = max(self.height_told, height)

    def read(self, floor: int, height: int, hash_: bytes) -> None:
        """I5: a linearizable read returns; `floor` is `height_told` of when it was called."""
        check(height >= floor, f"I5 stale read: height {height}, {floor} was told before the call")
        self._check_told(height, hash_)
        self.reads += 1
        self.height_told = max(self.height_told, height)

    def read_session(self, floor: int, height: int, hash_: bytes) -> None:
        """I6: a local read that presented the height `floor` returns."""
        check(height >= floor, f"I6 a session went back from {floor} to {height}")
        self._check_told(height, hash_)
        self.session_reads += 1

    def _check_told(self, height: int, hash_: bytes) -> None:
        known = self.chain[height - 1].block.hash if height else self._network
        check(known == hash_, f"I3 a reader was told another block at {height}")

    def sent(self, node: Watched, receiver: Watched, message: Message) -> None:
        """Nothing leaves a node before what it rests on is on its disk; nobody votes twice."""
        self.promises.spoke(node.name, node.incarnation, message)
        durable = node.durable
        if isinstance(message, AppendAnswer):
            if not message.is_rejected:
                self._check_accepted(node, receiver, message)
        elif isinstance(message, VoteAnswer):
            if message.is_granted and not message.is_pre:
                # A term that is over already can't be voted in twice, whatever the disk says.
                check(
                    durable.hard_state.term > message.term
                    or (durable.hard_state.term, durable.hard_state.vote)
                    == (message.term, receiver.name),
                    f"{node} voted in term {message.term}, which its disk would not keep",
                )
                self._note_vote(node, message.term, receiver.name)
        elif isinstance(message, VoteRequest) and not message.is_pre:
            check(
                durable.hard_state.term > message.term
                or (durable.hard_state.term, durable.hard_state.vote) == (message.term, node.name),
                f"{node} campaigns in term {message.term}, which its disk would not keep",
            )
            self._note_vote(node, message.term, node.name)

    def holds(self, node: "Node") -> None:
        """I2, I13: what a node knows to be taken is what the ledger took, pruned or not."""
        check(node.views.heights == self._height_of, f"I13 {node} knows other transactions")

    def _check_accepted(self, node: Watched, leader: Watched, message: AppendAnswer) -> None:
        durable = node.durable
        if durable.hard_state.term > message.term:
            return  # A newer term's leader may have replaced it: then it was not committed.
        check(
            message.index <= durable.last_index,
            f"{node} answers for {message.index}, its disk ends at {durable.last_index}",
        )
        if leader.is_leader and leader.raw_node.term == message.term and message.index:
            term = leader.raw_node._raft.raft_log.term(message.index)
            check(
                # 0 where the base is all that it has: that was agreed on otherwise.
                term is None or durable.term(message.index) in (term, 0),
                f"{node} answers for {message.index} of term {durable.term(message.index)}, "
                f"the leader's is of {term}",
            )

    def _note_vote(self, node: Watched, term: int, candidate: str) -> None:
        known = self._votes.setdefault((node.identity, term), candidate)
        check(known == candidate, f"{node} votes twice in term {term}")

    def turned(self, node: Watched, nodes: Mapping[str, Watched]) -> None:
        """I4, and a commit index that a quorum's disks would keep; after each turn of a node."""
        raw_node = node.raw_node
        if raw_node.is_leader:
            term = raw_node.term
            known = self._leaders.get(term)
            if known is None:
                self._leaders[term] = node.identity
                self._check_complete(node)
            else:
                check(known == node.identity, f"I4 {known} and {node.identity} lead term {term}")
        self._check_configuration(node)
        raft_log = raw_node._raft.raft_log
        if raw_node.is_leader and raft_log.commit != node.commit_seen:
            node.commit_seen = raft_log.commit
            incarnations = {
                name: other.incarnation for name, other in nodes.items() if node.is_known_log(other)
            }
            self.promises.leads(raw_node.status(), incarnations)
        if raft_log.commit > self.commit:
            self.commit = raft_log.commit
            committed_term = raft_log.term(self.commit)
            assert committed_term is not None
            self._commit_term = committed_term
            self._commit_of[committed_term] = self.commit
            if raw_node.is_leader:
                # Raft section 5.4.2, figure 8: an older term's entry counts only with a newer one.
                check(
                    committed_term == raw_node.term,
                    f"{node} commits {self.commit} of term {committed_term} by counting",
                )
            if raw_node.is_leader:
                self._check_kept(node, nodes)

    def _check_kept(self, node: Watched, nodes: Mapping[str, Watched]) -> None:
        """What a leader commits is on a quorum's disks.

        One that was taken away after it had answered counts with what it kept: that is a failure
        like others, and what it had answered for is still with the rest of that quorum.
        """
        known = node.members.state.nodes
        keepers = {
            voter: kept.term(self.commit) == self._commit_term
            for voter, other in nodes.items()
            if (
                kept := other.durable
                if node.is_known_log(other)
                else other.lost.get(known[other.key].incarnation if other.key in known else b"")
            )
        }
        # The entry may be the last of the configuration before: then those voters count.
        check(
            node.is_quorum(keepers),
            f"{node} commits {self.commit}, which {sum(keepers.values())} disks would keep",
        )

    def _check_configuration(self, node: Watched) -> None:
        """D4: the same entry brings the same city everywhere, whole, and the core obeys it."""
        index = node.raw_node._raft.settled_index
        if index == node.settled_seen:
            return
        node.settled_seen = index
        state = node.members.state
        _check_state(self._states.setdefault(index, state), state, f"D4 {node} at {index}")
        if state is node.state_seen:
            return
        node.state_seen = state
        check(
            node.raw_node.configuration == node.members.configuration,
            f"D4 {node} orders by another configuration than its city's at {index}",
        )

    def _check_complete(self, node: Watched) -> None:
        """A new leader has everything that was committed in the terms before its own.

        It may learn that it won when a newer term has a leader already (seed 10650).
        """
        raft_log = node.raw_node._raft.raft_log
        for term, commit in self._commit_of.items():
            # What is below its first entry it has applied, and pruned.
            if term < node.raw_node.term and commit >= raft_log.first_index - 1:
                found = raft_log.term(commit)
                check(found == term, f"{node} leads without committed {commit} of term {term}")

    @property
    def leaders(self) -> int:
        """How many terms had a leader."""
        return len(self._leaders)

    def told_expired(self, ids: Iterable[bytes]) -> None:
        """What a client was told to be over never stands on the ledger (E4).

        Unless a majority's clocks were wrong: then nobody could tell the time.
        """
        if self.is_time_lost:
            return
        for id_ in ids:
            height = self._height_of.get(id_)
            check(height is None, f"{id_.hex()[:8]} was told expired and stands at {height}")

    def finished(self) -> None:
        """The whole chain once more, from its leaves."""
        leaves = []
        height_of: dict[bytes, int] = {}
        parent = self._network
        for height, done in enumerate(self.chain, 1):
            check(done.block.header.height == height, f"I3 height {height} is named otherwise")
            check(done.block.header.parent == parent, f"I3 the chain is broken at {height}")
            parent = done.block.hash
            for item in done.transactions:
                if item.outcome == "applied":
                    assert item.carried is not None
                    leaves.append(merkle.leaf_hash(item.carried.transaction.data))
                    check(item.carried.transaction.id not in height_of, f"I2 twice, at {height}")
                    height_of[item.carried.transaction.id] = height
            if done.block.change is not None:
                leaves.append(merkle.leaf_hash(done.block.change))
        if self.chain:
            check(self.chain[-1].tip.frontier.root == merkle.root(leaves), "I3 the root is wrong")
        for id_, (height, _) in self.acknowledged.items():
            check(height_of.get(id_) == height, f"I1 {id_.hex()[:8]} was told at {height}")
