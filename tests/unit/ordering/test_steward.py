"""What a leader changes by itself, in a city of whole ordering cores and perfect wires."""

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import pytest

from p2pcity.city.membership import State, VoterSets
from p2pcity.crypto.keys import peer_id
from p2pcity.mempool.mempool import Mempool
from p2pcity.node.config import RaftSection
from p2pcity.ordering.members import Members
from p2pcity.ordering.proposer import Parent, Proposer
from p2pcity.ordering.pump import Pump
from p2pcity.ordering.steward import TRAILS_MAX, Steward, has_caught_up
from p2pcity.raft.config import RaftConfig
from p2pcity.raft.progress import ProgressState
from p2pcity.raft.raw_node import RawNode
from p2pcity.raft.status import PeerStatus
from p2pcity.wire import block as block_wire
from p2pcity.wire import change as change_wire
from p2pcity.wire.block import Block
from p2pcity.wire.change import Change, ChangeVoters, NewNode, Step
from p2pcity.wire.raft import AppendAnswer, Entry, Message
from tests.change_cases import ADD, CITY, DESCRIBED, LEAVE, NEW, A, B, C
from tests.change_cases import OBSERVER as WATCHER
from tests.raft.disk import Disk

START = State.from_genesis(CITY)
ANEW = NewNode("Harbour", "anew", START.nodes[B].incarnation, ())
SEEN = PeerStatus(100, 101, ProgressState.REPLICATE, True, 0, 0, 0, True)
TICKS = 20
"""So long a learner must keep up here."""
NOW_MS = 2_000_000_000_000
PROMOTE = ChangeVoters((Step("voter", NEW),))


class Core:
    """One node's ordering, turned by hand."""

    def __init__(self, town: "Town", key: bytes) -> None:
        self.name = peer_id(key)
        self.disk = Disk()
        self.height, self.head, self.applied = 0, CITY.network, 0
        known = START.nodes.get(key)
        self.members = Members(START, key, known.incarnation if known else DESCRIBED.incarnation)
        self.raw_node = RawNode(
            RaftConfig(id=self.name), self.disk, self.members.configuration, random.Random(key)
        )
        self.proposer = Proposer(
            self.raw_node,
            Mempool(),
            self.members,
            rules=1,
            tip=lambda: Parent(self.height, self.head, CITY.time_ms),
            applied_index=lambda: self.applied,
            is_clock_right=lambda _: True,
        )
        self.steward = Steward(self.raw_node, self.members, self.proposer, promotion_ticks=TICKS)
        self.pump = Pump(
            self.raw_node,
            self.members,
            send=lambda to, message: town.post.append((self.name, to, message)),
            apply=self._apply,
            answer_reads=lambda *_: None,
        )

    def _apply(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self.applied = entry.index
            if entry.payload:
                block = block_wire.decode(entry.payload)
                self.height, self.head = block.header.height, block.hash
        self.raw_node.applied(self.applied)
        self.proposer.applied(self.applied)

    def turn(self) -> None:
        """Everything that is ready."""
        while (save := self.pump.begin()) is not None:
            self.disk.save(save.hard_state, save.entries, save.must_sync)
            self.pump.finish(save)


class Town:
    """The cores of a city, the first of which leads.

    Nothing gets to or from those in `held`; messages of the kind `lost` are lost.
    """

    leader: Core

    def __init__(self, *changes: Change) -> None:
        self.post: deque[tuple[str, str, Message]] = deque()
        self.held: set[str] = set()
        self.lost: type[Message] | None = None
        self.cores = {peer_id(key): Core(self, key) for key in (A, B, C, NEW, WATCHER)}
        self.lead(A)
        for change in changes:
            self.make(change)

    def lead(self, key: bytes) -> None:
        """Let a node lead: elected at first, then by the leader's own will."""
        name = peer_id(key)
        if not hasattr(self, "leader"):
            self.cores[name].raw_node.campaign()
        else:
            self.leader.raw_node.transfer_leader(name)
        self.deliver()
        self.leader = self.cores[name]
        assert self.leader.raw_node.is_leader

    def deliver(self) -> None:
        """Until nothing is on its way, and nobody has anything to do."""
        while True:
            for core in self.cores.values():
                core.turn()
            if not self.post:
                return
            one, other, message = self.post.popleft()
            is_lost = self.lost is not None and isinstance(message, self.lost)
            if not is_lost and not {one, other} & self.held:
                self.cores[other].raw_node.step(one, message)

    def make(self, change: Change) -> None:
        """Have the leader order a change."""
        self.leader.proposer.propose_change(change, NOW_MS)
        self.deliver()

    def tick(self, count: int = 1) -> list[Change]:
        """Let time pass; what the leader's steward proposed meanwhile."""
        made = []
        for _ in range(count):
            for core in self.cores.values():
                core.raw_node.tick()
                core.steward.tick()
            self.deliver()
            made += self.act()
        return made

    def act(self) -> list[Change]:
        """What all stewards propose now: the leader's alone says anything."""
        made = []
        for core in self.cores.values():
            block = core.steward.act(NOW_MS)
            if block is not None:
                assert core is self.leader
                made.append(change_of(block))
            self.deliver()
        return made

    @property
    def sets(self) -> VoterSets:
        """The voter sets in force on the leader."""
        return self.leader.members.state.sets


def change_of(block: Block) -> Change:
    assert block.change is not None
    return change_wire.decode(block.change)


def test_an_added_learner_votes_once_it_kept_up_for_the_whole_time() -> None:
    town = Town(ADD)
    assert town.tick(TICKS - 1) == []
    assert town.sets.learners == (NEW,)
    assert town.tick() == [PROMOTE]
    assert town.act() == [LEAVE], "the joint state ends by itself, and at once"
    assert town.sets.voters == (A, B, C, NEW)
    assert town.tick(3 * TICKS) == []


def test_by_default_a_learner_waits_ten_seconds() -> None:
    assert RaftSection().promotion_ms == 10_000


def test_whoever_was_away_for_a_moment_starts_again() -> None:
    town = Town(ADD)
    town.tick(TICKS - 1)
    # It misses more than may be missing, and gets it only later.
    town.held.add(peer_id(NEW))
    for _ in range(TRAILS_MAX + 1):
        town.leader.raw_node.propose(b"")
        town.deliver()
    assert town.tick() == []
    town.held.clear()
    assert town.tick(TICKS - 1) == []
    assert PROMOTE in town.tick(TICKS)


def test_a_learner_that_answers_nothing_is_not_promoted() -> None:
    town = Town()
    town.held.add(peer_id(NEW))
    town.make(ADD)
    assert town.tick(5 * TICKS) == []
    assert town.sets.learners == (NEW,)


def test_the_next_leader_counts_anew() -> None:
    town = Town(ADD)
    town.tick(TICKS - 1)
    town.lead(B)
    assert town.tick(TICKS - 1) == []
    assert town.tick() == [PROMOTE]


def test_a_leader_again_does_not_go_on_where_it_stopped() -> None:
    town = Town(ADD)
    town.tick(TICKS - 1)
    old = town.leader
    town.lead(B)
    town.tick()
    town.lead(A)
    assert town.leader is old
    assert town.tick(TICKS - 1) == []
    assert town.tick() == [PROMOTE]


def test_whoever_was_demoted_waits_for_a_word() -> None:
    town = Town(ChangeVoters((Step("learner", C),)))
    assert town.act() == [LEAVE]
    assert C not in town.sets.voters
    assert town.tick(3 * TICKS) == []


def test_observers_are_never_promoted() -> None:
    town = Town(ChangeVoters((Step("observer", NEW, DESCRIBED),)))
    assert town.tick(3 * TICKS) == []
    assert set(town.sets.observers) == {WATCHER, NEW}


def test_a_joint_state_is_ended_once() -> None:
    town = Town()
    town.make(ChangeVoters((Step("remove", C),)))
    assert town.sets.voters_outgoing
    block = town.leader.steward.act(NOW_MS)
    assert block is not None
    assert change_of(block) == LEAVE
    # It is on its way: nothing more is due, neither now nor once it is in effect.
    assert town.leader.steward.act(NOW_MS) is None
    town.deliver()
    assert not town.sets.voters_outgoing
    assert town.tick(TICKS) == []


def test_a_joint_state_is_ended_by_whoever_leads_next() -> None:
    town = Town()
    town.make(ChangeVoters((Step("remove", C),)))
    town.lead(B)
    assert town.act() == [LEAVE]
    assert town.sets.voters == (A, B)


def test_nothing_is_proposed_while_a_change_is_on_its_way() -> None:
    town = Town(ADD)
    town.tick(TICKS - 1)
    town.leader.steward.tick()
    town.leader.proposer.propose_change(ChangeVoters((Step("remove", WATCHER),)), NOW_MS)
    assert town.leader.steward.act(NOW_MS) is None
    town.deliver()
    assert town.act() == [PROMOTE]


def test_a_leader_that_has_only_just_begun_waits() -> None:
    town = Town()
    town.make(ChangeVoters((Step("remove", C),)))
    # Its own first entry is not committed: it does not know yet what is in effect.
    town.lost = AppendAnswer
    town.lead(B)
    assert town.act() == []
    town.lost = None
    assert town.tick(10) == [LEAVE]


def test_followers_do_nothing() -> None:
    town = Town()
    town.make(ChangeVoters((Step("remove", C),)))
    assert all(
        core.steward.act(NOW_MS) is None for core in town.cores.values() if core is not town.leader
    )


def test_whoever_is_ready_at_one_time_is_promoted_in_one_change() -> None:
    # B was demoted; taken out and added again it waits to be promoted, as NEW does.
    town = Town(ChangeVoters((Step("remove", B),)))
    town.act()
    town.make(ChangeVoters((*ADD.steps, Step("learner", B, ANEW))))
    town.tick(TICKS - 1)
    [made] = town.tick()
    assert made == ChangeVoters((Step("voter", NEW), Step("voter", B)))


@pytest.mark.parametrize(
    ("known", "is_caught_up"),
    [
        (None, False),
        (SEEN, True),
        (replace(SEEN, match=100 - TRAILS_MAX), True),
        (replace(SEEN, match=100 - TRAILS_MAX - 1), False),
        (replace(SEEN, recent_active=False), False),
        (replace(SEEN, state=ProgressState.PROBE), False),
    ],
)
def test_who_has_caught_up(known: PeerStatus | None, is_caught_up: bool) -> None:
    assert has_caught_up(known, 100) is is_caught_up
