"""Random networks, disks and crashes, by seed; first faults (safety), then peace (liveness).

A failure names its seed: `replay(seed)` runs it again, step by step the same.
"""

from collections.abc import Callable
from random import Random

import pytest

from p2pcity.errors import LedgerError, LocalError
from p2pcity.raft import Ready, quorum
from p2pcity.raft.raft import Raft
from p2pcity.wire.raft import Message
from tests.raft.checkers import Checkers
from tests.raft.cluster import Cluster, Member, changed
from tests.raft.disk import Disk

SEEDS = 200
FAULTY_TICKS = 220
PEACE_TICKS = 160


class Storm:
    """A cluster under random faults; each seed switches some kinds of fault off (swarm)."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.cluster = Cluster(
            voters=self.random.choice([3, 3, 5]),
            learners=self.random.choice([0, 1]),
            seed=str(seed),
            append_bytes_max=self.random.choice([8, 64, 2**20]),
            in_flight_messages_max=self.random.choice([2, 256]),
            tail_bytes_max=self.random.choice([0, 64, 2**20]),
            apply_bytes_max=self.random.choice([16, 2**22]),
            far_entries_max=self.random.choice([3, 4096]),
        )
        for _ in range(self.random.choice([0, 2])):
            self.cluster.join(str(len(self.cluster.members) + 1))
        self.names = list(self.cluster.members)
        self.loss, self.duplication, self.delay, self.crashes, self.cuts, self.slow_disk = (
            self.random.choice([0.0, limit * self.random.random()])
            for limit in (0.3, 0.3, 4.0, 0.02, 0.05, 0.95)
        )
        self.tick = 0
        self.network: dict[int, list[tuple[str, str, Message]]] = {}
        self.saving: dict[str, Ready] = {}
        self.prunes = self.random.choice([0.0, 0.1 * self.random.random()])
        names = (
            "lost",
            "doubled",
            "crashed",
            "cut",
            "torn",
            "changed",
            "pruned",
            "helped",
            "adopted",
        )
        self.faults = dict.fromkeys(names, 0)
        self.proposed = 0

    def run(self) -> None:
        """Both phases."""
        for _ in range(FAULTY_TICKS):
            self._break_something()
            self._ask_something()
            self._turn()
        self._make_peace()

    def _turn(self) -> None:
        self.tick += 1
        for name in self.names:
            node = self.cluster.members[name].node
            if node is not None and self.random.random() < 0.95:
                node.tick()
                self._work(name)
                self._fetch(self.cluster.members[name])
        # A message may be answered within the tick, so that an election fits a time-out.
        for _ in range(4):
            for sender, to, message in self.network.pop(self.tick, []):
                node = self.cluster.members[to].node
                if node is not None and (sender, to) not in self.cluster.cut:
                    node.step(sender, message)
                    self._work(to)
        late = self.network.pop(self.tick, [])
        self.network[self.tick + 1] = late + self.network.get(self.tick + 1, [])
        self.cluster.checkers.compare_logs([m.disk for m in self.cluster.members.values()])

    def _work(self, name: str) -> None:
        """Do what a node wants done; its disk may take longer than that."""
        member = self.cluster.members[name]
        while True:
            saving = self.saving.get(name)
            if saving is not None:
                if self.random.random() < self.slow_disk:
                    return
                self._finish(member, saving)
            if not member.up.has_ready():
                break
            ready = self.saving[name] = member.up.ready()
            if ready.must_sync and self.random.random() < self.crashes:
                self._crash(member)
                return
        self.cluster.checkers.see_node(member.up, member.disk)

    def _finish(self, member: Member, ready: Ready) -> None:
        del self.saving[member.name]
        member.disk.save(ready.hard_state, ready.entries, ready.must_sync)
        for to, message in ready.messages:
            self._send(member.name, to, message)
        for entry in ready.committed_entries:
            assert entry.index == len(member.applied) + 1
            member.applied.append(entry)
            self.cluster.checkers.see_applied(member.name, entry)
            self.cluster.configure(member, entry)
        for read in ready.read_states:
            self.cluster.checkers.end_read(read.context, read.index)
        member.up.advance(ready)
        member.up.applied(len(member.applied))
        self.cluster.leave_joint(member)

    def _send(self, sender: str, to: str, message: Message) -> None:
        if self.random.random() < self.loss or (sender, to) in self.cluster.cut:
            self.faults["lost"] += 1
            return
        copies = 1 + (self.random.random() < self.duplication)
        self.faults["doubled"] += copies - 1
        for _ in range(copies):
            at = self.tick + int(self.random.expovariate(1.0) * self.delay)
            self.network.setdefault(at, []).append((sender, to, message))

    def _break_something(self) -> None:
        for name in self.names:
            member = self.cluster.members[name]
            if member.node is None:
                if self.random.random() < 0.1:
                    self.cluster.start(name)
            elif self.random.random() < self.crashes:
                self._crash(member)
        if self.random.random() < self.cuts:
            self.faults["cut"] += 1
            self._cut()
        if self.random.random() < self.prunes:
            self._prune(self.cluster.members[self.random.choice(self.names)])
        if self.random.random() < 0.1:
            self._help(self.cluster.members[self.random.choice(self.names)])

    def _prune(self, member: Member) -> None:
        """Drop the beginning of a log, as far as it is applied there."""
        low = member.disk.first_index
        high = min(len(member.applied), member.disk.hard_state.commit)
        if low <= high and member.name not in self.saving:
            self.faults["pruned"] += 1
            member.disk.prune(self.random.randint(low, high))

    def _help(self, member: Member) -> None:
        """A node that lacks what another one pruned gets its log, in place of its own."""
        others = [self.cluster.members[name] for name in self.names if name != member.name]
        pruned = [one for one in others if one.disk.first_index > member.disk.last_index + 1]
        if not pruned:
            return
        self.faults["helped"] += 1
        if member.node is not None:
            self._crash(member)
        other = self.random.choice(pruned)
        if member.disk.last_index <= other.disk.hard_state.commit:
            self.cluster.fetch(member.name, other.name)
        self.cluster.start(member.name)

    def _crash(self, member: Member) -> None:
        self.faults["crashed"] += 1
        saving = self.saving.pop(member.name, None)
        if saving is not None and saving.must_sync:
            self.faults["torn"] += 1
            member.disk.crash_in_save(saving.hard_state, saving.entries, self.random)
        member.node = None
        member.disk.crash(self.random)
        # Views are behind the log, and go on where they were synced last, never below its base.
        base = member.disk.first_index - 1
        del member.applied[self.random.randint(base, len(member.applied)) :]

    def _cut(self) -> None:
        kind = self.random.randrange(3)
        groups: list[list[str]] = [[], []]
        for name in self.names:
            groups[self.random.randrange(2)].append(name)
        if kind == 0:
            self.cluster.cut = {}
        elif kind == 1:
            self.cluster.partition(groups)
        else:  # one direction only
            one, other = self.random.sample(self.names, 2)
            self.cluster.cut[(one, other)] = True

    def _fetch(self, member: Member) -> None:
        """Take some of what another node has and knows to be committed, if the leader says so."""
        if member.node is None or not member.node.sync_target:
            return
        other = self.cluster.members[self.random.choice(self.names)].disk
        first, last = member.node.commit + 1, other.hard_state.commit
        if other.first_index <= first <= last:
            entries = other.entries(first, self.random.randint(first, last) + 1, 2**20)
            self.faults["adopted"] += member.node.adopt(other.hard_state.term, entries)
            self._work(member.name)

    def _ask_something(self) -> None:
        member = self.cluster.members[self.random.choice(self.names)]
        if member.node is None:
            return
        what = self.random.random()
        try:
            if what < 0.4:
                member.node.propose(f"{self.tick}".encode() * self.random.randint(1, 8))
                self.proposed += 1
            elif what < 0.6:
                # Some contexts come again on purpose: a retry must not get an old answer.
                context = b"%s/%d" % (member.name.encode(), self.random.randrange(5))
                saving = self.saving.get(member.name)
                if saving is not None and context in {r.context for r in saving.read_states}:
                    return  # answered already, as the driver will notice in a moment
                self.cluster.checkers.begin_read(context)
                member.node.read_index(context)
            elif what < 0.63:
                member.node.transfer_leader(self.random.choice(self.names))
            elif what < 0.7:
                member.node.report_unreachable(self.random.choice(self.names))
            elif what < 0.71:
                member.node.campaign()
            elif what < 0.75:
                self._change(member)
        except LocalError:
            pass
        self._work(member.name)

    def _change(self, member: Member) -> None:
        names = self.random.sample(self.names, self.random.randint(1, min(4, len(self.names))))
        steps = " ".join(self.random.choice("vvvlrr") + name for name in names)
        payload = f"change {steps}".encode()
        if member.up.is_leader and changed(member.configuration, payload) is not None:
            member.up.propose(payload, is_change=True)
            self.faults["changed"] += 1

    def _make_peace(self) -> None:
        self.cluster.cut = {}
        self.loss = self.duplication = self.delay = self.slow_disk = self.crashes = 0.0
        for name in self.names:
            if self.cluster.members[name].node is None:
                self.cluster.start(name)
        done = term = 0
        for _ in range(PEACE_TICKS):
            for name in self.names:
                self._help(self.cluster.members[name])
            self._turn()
            leaders = self.cluster.leaders()
            if len(leaders) == 1:
                leader = self.cluster.members[leaders[0]].up
                try:
                    # Once a term: a leader whose removal takes effect leaves its last ones behind.
                    if leader.term != term:
                        done, term = leader.propose(b"peace")[1], leader.term
                except LocalError:
                    continue
            if done and len(leaders) == 1 and self._is_agreed(leaders[0], done):
                return
        raise AssertionError("no agreement in peace")

    def _is_agreed(self, leader: str, index: int) -> bool:
        """Whether no change is under way, and every member of the leader's view is up to date."""
        now = self.cluster.members[leader].up.configuration
        members = (self.cluster.members[name] for name in now.members)
        return not now.is_joint and all(len(member.applied) >= index for member in members)


def replay(seed: int) -> Storm:
    """Run one seed."""
    storm = Storm(seed)
    try:
        storm.run()
    except AssertionError as error:
        error.add_note(f"seed {seed}, tick {storm.tick}")
        raise
    return storm


@pytest.mark.parametrize("first", range(0, SEEDS, 20))
def test_seeds(first: int) -> None:
    for seed in range(first, first + 20):
        replay(seed)


def test_the_storm_is_one() -> None:
    """The faults really happen, and work gets done in spite of them."""
    storms = [replay(seed) for seed in range(1000, 1030)]
    for fault in storms[0].faults:
        assert sum(storm.faults[fault] for storm in storms) > 3, fault
    assert sum(len(storm.cluster.checkers.committed) for storm in storms) > 300
    assert sum(storm.cluster.checkers.reads_confirmed for storm in storms) > 50
    assert sum(len(storm.cluster.checkers.leaders) for storm in storms) > 60


def test_a_seed_is_one_run() -> None:
    runs = [replay(7) for _ in range(2)]
    assert runs[0].cluster.checkers.committed == runs[1].cluster.checkers.committed
    assert runs[0].random.random() == runs[1].random.random()


def _plant_small_quorum(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(quorum, "size", lambda voters: voters // 2)


def _plant_unsynced_entries(patch: pytest.MonkeyPatch) -> None:
    real = Disk.save
    patch.setattr(Disk, "save", lambda disk, state, entries, _: real(disk, state, entries, False))


def _plant_blind_votes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("p2pcity.raft.raft_log.RaftLog.is_up_to_date", lambda *_: True)


def _plant_early_reads(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Raft, "has_own_commit", True)


@pytest.mark.parametrize(
    "plant",
    [
        _plant_small_quorum,
        _plant_unsynced_entries,
        _plant_blind_votes,
        pytest.param(_plant_early_reads, marks=pytest.mark.long),
    ],
)
def test_planted_bugs_are_found(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    for seed in range(400):
        try:
            replay(seed)
        except (AssertionError, LedgerError):
            return
    pytest.fail("no seed found it")


def test_checkers_say_no() -> None:
    one, other = Disk(), Disk()
    one.preset([1, 1, 2])
    other.preset([1, 2, 2])
    with pytest.raises(AssertionError):
        Checkers.compare_logs([one, other])
