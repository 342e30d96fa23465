"""The door: what a driver may rely on."""

from random import Random

import pytest

from p2pcity.errors import LocalError, NotLeader, ProposalDropped, Unavailable
from p2pcity.raft import Configuration, RaftConfig, RawNode
from p2pcity.wire.raft import Append, AppendAnswer, Entry, HardState, Heartbeat
from tests.raft.cluster import Cluster
from tests.raft.disk import Disk

MIB = 2**20


def test_ready_comes_once_and_advance_belongs_to_it() -> None:
    cluster = Cluster(voters=1)
    node = cluster.members["1"].up
    node.tick()
    assert node.has_ready()
    ready = node.ready()
    assert not node.has_ready()
    with pytest.raises(AssertionError):
        node.ready()
    node.advance(ready)
    with pytest.raises(AssertionError):
        node.advance(ready)


def test_work_goes_on_while_a_ready_is_saved() -> None:
    cluster = Cluster(voters=1)
    node, disk = cluster.members["1"].up, cluster.members["1"].disk
    node.tick()
    first = node.ready()
    assert node.propose(b"x") == (1, 2)
    disk.save(first.hard_state, first.entries, first.must_sync)
    node.advance(first)
    second = node.ready()
    assert second.entries == (Entry(1, 2, b"x"),)
    assert second.committed_entries == (Entry(1, 1, b""),)


def test_entries_replaced_while_they_are_saved_are_saved_again() -> None:
    cluster = Cluster(voters=3)
    node, disk = cluster.members["1"].up, cluster.members["1"].disk
    node.step("2", Append(1, 0, 0, 0, (Entry(1, 1, b"a"), Entry(1, 2, b"b"))))
    first = node.ready()
    node.step("3", Append(2, 1, 1, 2, (Entry(2, 2, b"c"),)))
    disk.save(first.hard_state, first.entries, first.must_sync)
    node.advance(first)
    second = node.ready()
    assert second.entries == (Entry(2, 2, b"c"),)  # the first one is on disk already
    assert second.committed_entries == (Entry(1, 1, b"a"),)
    disk.save(second.hard_state, second.entries, second.must_sync)
    node.advance(second)
    assert disk.terms() == [1, 2]
    assert [entry.payload for entry in node.ready().committed_entries] == [b"c"]


def test_a_commit_index_alone_needs_no_sync() -> None:
    cluster = Cluster(voters=3)
    cluster.elect("1")
    node = cluster.members["2"].up
    node.step("1", Append(1, 1, 1, 1, (Entry(1, 2, b"x"),)))
    cluster.pump("2")
    node.step("1", Heartbeat(1, 2))
    ready = node.ready()
    assert ready.hard_state is not None
    assert ready.hard_state.commit == 2
    assert not ready.must_sync


def test_a_restart_goes_on_after_what_was_applied() -> None:
    disk = Disk()
    disk.preset([1] * 10)
    node = RawNode(RaftConfig(id="a"), disk, Configuration(("a",)), Random(1), applied=4)
    node.tick()
    ready = node.ready()
    disk.save(ready.hard_state, ready.entries, ready.must_sync)
    node.advance(ready)
    indexes = []
    while node.has_ready():
        ready = node.ready()
        indexes += [entry.index for entry in ready.committed_entries]
        node.advance(ready)
    assert indexes == [5, 6, 7, 8, 9, 10, 11]


def test_a_long_log_is_handed_out_in_portions() -> None:
    disk = Disk()
    entries = tuple(Entry(1, index, b"x" * MIB) for index in range(1, 11))
    disk.save(None, entries, True)
    disk.hard_state = HardState(1, None, 10)
    node = RawNode(RaftConfig(id="a"), disk, Configuration(("a", "b")), Random(1))
    ready = node.ready()
    assert [entry.index for entry in ready.committed_entries] == [1, 2, 3, 4]
    node.advance(ready)
    assert not node.has_ready()
    node.applied(2)
    assert not node.has_ready()  # a portion makes room when all of it is applied
    node.applied(4)
    assert [entry.index for entry in node.ready().committed_entries] == [5, 6, 7, 8]


def test_too_much_uncommitted_is_dropped_and_room_comes_back() -> None:
    cluster = Cluster(voters=3, uncommitted_bytes_max=100)
    cluster.elect("1")
    node = cluster.members["1"].up
    node.propose(b"x" * 500)  # one always fits
    with pytest.raises(ProposalDropped):
        node.propose(b"x")
    cluster.settle()
    node.propose(b"x" * 60)
    node.propose(b"x" * 40)
    with pytest.raises(ProposalDropped):
        node.propose(b"x")
    assert node.status().uncommitted_bytes == 100
    cluster.settle()
    assert node.status().uncommitted_bytes == 0


def test_a_follower_is_never_sent_more_than_the_window() -> None:
    cluster = Cluster(voters=3)
    cluster.elect("1")
    node = cluster.members["1"].up
    for _ in range(8):
        node.propose(b"x" * MIB)
    cluster.pump("1")
    for peer in ("2", "3"):
        appends = [m for _, to, m in cluster.queue if to == peer and isinstance(m, Append)]
        assert [len(append.entries) for append in appends] == [1, 1]
        assert node.status().progress[peer].in_flight_bytes == 2 * MIB
    cluster.settle()
    assert len(cluster.members["3"].applied) == 9


def test_proposals_between_readies_share_an_append() -> None:
    cluster = Cluster(voters=3)
    cluster.elect("1")
    for number in range(5):
        cluster.members["1"].up.propose(bytes([number]))
    cluster.pump("1")
    assert [len(m.entries) for _, _, m in cluster.queue if isinstance(m, Append)] == [5, 5]


def test_who_does_not_lead_says_who_does() -> None:
    cluster = Cluster(voters=3, learners=1)
    node = cluster.members["2"].up
    with pytest.raises(NotLeader) as caught:
        node.propose(b"x")
    assert caught.value.leader is None
    with pytest.raises(NotLeader):
        node.read_index(b"r")
    cluster.elect("1")
    with pytest.raises(NotLeader) as caught:
        node.propose(b"x")
    assert caught.value.leader == "1"
    with pytest.raises(NotLeader):
        node.transfer_leader("2")
    with pytest.raises(LocalError):
        cluster.members["1"].up.transfer_leader("4")


def test_reads_are_bounded() -> None:
    cluster = Cluster(voters=3, reads_max=2)
    cluster.elect("1")
    for name in ("1", "2"):
        node = cluster.members[name].up
        node.read_index(b"a")
        node.read_index(b"b")
        with pytest.raises(Unavailable):
            node.read_index(b"c")
        cluster.settle()
        assert len(cluster.members[name].reads) == 2


def test_reads_that_came_together_share_heartbeats() -> None:
    cluster = Cluster(voters=3)
    cluster.elect("1")
    node = cluster.members["1"].up
    for number in range(10):
        node.read_index(bytes([number]))
    cluster.pump("1")
    beats = [m.round for _, _, m in cluster.queue if isinstance(m, Heartbeat)]
    assert beats == [10, 10]
    cluster.settle()
    assert len(cluster.members["1"].reads) == 10


def test_status_shows_the_peers() -> None:
    cluster = Cluster(voters=3, learners=1)
    cluster.elect("1")
    cluster.partition([["1", "2", "4"], ["3"]])
    for _ in range(12):
        cluster.tick(["1"])
    status = cluster.members["1"].up.status()
    assert list(status.progress) == ["1", "2", "3", "4"]
    assert [peer.recent_active for peer in status.progress.values()] == [True, True, False, True]
    assert status.progress["3"].contact_ticks == 12
    assert status.progress["4"].is_learner
    assert status.has_quorum
    assert cluster.members["2"].up.status().has_quorum
    assert cluster.members["2"].up.status().progress == {}


@pytest.mark.parametrize("index", [2**63, 2**64 - 1])
def test_numbers_beyond_reason_from_followers(index: int) -> None:
    cluster = Cluster(voters=3)
    cluster.elect("1")
    node = cluster.members["1"].up
    node.step("2", AppendAnswer(1, index))
    node.step("2", AppendAnswer(1, index, True, index, index))
    node.step("2", AppendAnswer(1, 0, True, index, 0))
    cluster.settle()
    cluster.propose("1", b"x")
    assert cluster.members["2"].up.status().commit == 2


def test_a_learner_with_an_older_log_is_begun_with_anew() -> None:
    """An old backup of a learner: without this it would reject for ever."""
    cluster = Cluster(voters=1, learners=1)
    cluster.elect("1")
    node = cluster.members["1"].up
    for _ in range(5):
        node.propose(b"x")
    cluster.settle()
    last = node.last_index
    assert node.status().progress["2"].match == last
    node.report_log("2", last)
    assert node.status().progress["2"].match == last
    node.report_log("2", 2)
    assert node.status().progress["2"].match == 0
    probe = _next_append(node)
    assert (probe.previous_index, len(probe.entries)) == (last - 1, 1)
    # It has two entries, and says so; the leader goes on from there.
    node.step("2", AppendAnswer(node.term, probe.previous_index, True, 2, node.term))
    assert _next_append(node).previous_index == 2


def test_a_voter_with_an_older_log_is_not_helped() -> None:
    cluster = Cluster(voters=3)
    cluster.elect("1")
    cluster.settle()
    node = cluster.members["1"].up
    match = node.status().progress["2"].match
    assert match > 0
    node.report_log("2", 0)
    node.report_log("9", 0)
    assert node.status().progress["2"].match == match


def _next_append(node: RawNode) -> Append:
    """The one append that the node sends now."""
    ready = node.ready()
    node.advance(ready)
    [message] = [message for _, message in ready.messages if isinstance(message, Append)]
    return message


def test_a_base_tells_what_is_committed_where_the_log_has_it() -> None:
    disk = Disk()
    disk.preset([1, 1, 2])
    disk.hard_state = HardState(2, None, 1)
    node = RawNode(RaftConfig(id="1"), disk, Configuration(voters=("1", "2", "3")), Random(1))
    # Another entry there, or none: only the base itself can help.
    assert not node.learn_commit(3, 1)
    assert not node.learn_commit(4, 2)
    assert node.commit == 1
    assert node.learn_commit(3, 2)
    assert node.commit == 3
    assert node.learn_commit(2, 1)
    assert node.commit == 3
