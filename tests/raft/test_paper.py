"""One test per sentence of "In Search of an Understandable Consensus Algorithm" (extended
version) and of Ongaro's dissertation ("thesis"), with the section where the sentence stands.
"""

import pytest

from p2pcity.raft import Role
from p2pcity.wire.raft import (
    Append,
    AppendAnswer,
    Entry,
    HardState,
    Heartbeat,
    Message,
    TimeoutNow,
    VoteAnswer,
    VoteRequest,
)
from tests.raft.cluster import Cluster


def _answers(cluster: Cluster, name: str, sender: str, message: Message) -> list[Message]:
    """What one node says to `sender` after one message."""
    cluster.queue.clear()
    cluster.members[name].up.step(sender, message)
    while cluster.pump(name):
        pass
    said = [answer for _, to, answer in cluster.queue if to == sender]
    cluster.queue.clear()
    return said


def test_5_1_a_newer_term_is_taken_over() -> None:
    """If one server's current term is smaller than the other's, it updates to the larger."""
    cluster = Cluster(voters=3)
    cluster.members["1"].up.step("2", Heartbeat(7, 0))
    assert cluster.members["1"].up.status().term == 7


def test_5_1_a_leader_of_an_old_term_steps_down() -> None:
    """If a candidate or leader discovers that its term is out of date, it reverts to follower."""
    cluster = Cluster(voters=3)
    cluster.elect("1")
    cluster.members["1"].up.step("2", Heartbeat(9, 0))
    assert cluster.members["1"].up.status().role is Role.FOLLOWER


def test_5_1_a_request_with_a_stale_term_is_refused() -> None:
    """If a server receives a request with a stale term number, it rejects the request."""
    cluster = Cluster(voters=3)
    cluster.members["1"].up.step("2", Heartbeat(7, 0))
    append = Append(6, 0, 0, 1, (Entry(6, 1, b"x"),))
    answers = _answers(cluster, "1", "3", append)
    assert [answer.term for answer in answers] == [7]
    assert cluster.members["1"].up.status().last_index == 0
    assert _answers(cluster, "1", "3", VoteRequest(6, 9, 9)) == [VoteAnswer(7, False)]


def test_5_2_servers_start_as_followers() -> None:
    """When servers start up, they begin as followers."""
    cluster = Cluster(voters=3)
    assert {m.up.status().role for m in cluster.members.values()} == {Role.FOLLOWER}


def test_5_2_a_leader_sends_periodic_heartbeats() -> None:
    """Leaders send periodic heartbeats to all followers to maintain their authority."""
    cluster = Cluster(voters=3)
    cluster.elect("1")
    cluster.members["1"].up.tick()
    cluster.pump("1")
    assert [to for _, to, message in cluster.queue if isinstance(message, Heartbeat)] == ["2", "3"]


def test_5_2_silence_begins_an_election() -> None:
    """If a follower receives no communication over the election timeout, it begins an election."""
    cluster = Cluster(voters=3)
    for _ in range(20):
        cluster.members["1"].up.tick()
    assert cluster.members["1"].up.status().role is Role.PRE_CANDIDATE


def test_5_2_a_candidate_votes_for_itself_in_a_new_term() -> None:
    """It increments its current term, votes for itself and asks each of the other servers."""
    cluster = Cluster(voters=3)
    cluster.elect("2")
    node = cluster.members["1"].up
    node.step("2", TimeoutNow(1))
    status = node.status()
    assert (status.role, status.term, status.vote) == (Role.CANDIDATE, 2, "1")
    cluster.pump("1")
    requests = [(to, m.term) for _, to, m in cluster.queue if isinstance(m, VoteRequest)]
    assert requests == [("2", 2), ("3", 2)]


@pytest.mark.parametrize(
    ("voters", "granted", "refused", "role"),
    [
        (3, "", "", Role.CANDIDATE),
        (3, "2", "", Role.LEADER),
        (3, "3", "2", Role.LEADER),
        (3, "", "23", Role.FOLLOWER),
        (5, "2", "", Role.CANDIDATE),
        (5, "23", "", Role.LEADER),
        (5, "2", "34", Role.CANDIDATE),
        (5, "2", "345", Role.FOLLOWER),
        (7, "234", "", Role.LEADER),
        (7, "23", "4567", Role.FOLLOWER),
    ],
)
def test_5_2_a_majority_of_votes_wins(voters: int, granted: str, refused: str, role: Role) -> None:
    """A candidate wins if it receives votes from a majority of the servers for the same term."""
    cluster = Cluster(voters=voters)
    cluster.elect("2")
    node = cluster.members["1"].up
    node.step("2", TimeoutNow(1))
    for name in granted:
        node.step(name, VoteAnswer(2, True))
    for name in refused:
        node.step(name, VoteAnswer(2, False))
    assert node.status().role is role


def test_5_2_a_vote_counts_once() -> None:
    """The same voter's second answer adds nothing."""
    cluster = Cluster(voters=5)
    cluster.elect("2")
    node = cluster.members["1"].up
    node.step("2", TimeoutNow(1))
    for _ in range(3):
        node.step("3", VoteAnswer(2, True))
    assert node.status().role is Role.CANDIDATE


def test_5_2_one_vote_a_term_first_come_first_served() -> None:
    """Each server will vote for at most one candidate in a given term."""
    cluster = Cluster(voters=3)
    assert _answers(cluster, "1", "2", VoteRequest(3, 0, 0)) == [VoteAnswer(3, True)]
    assert _answers(cluster, "1", "3", VoteRequest(3, 0, 0)) == [VoteAnswer(3, False)]
    assert _answers(cluster, "1", "2", VoteRequest(3, 0, 0)) == [VoteAnswer(3, True)]


def test_5_2_a_candidate_yields_to_the_leader_of_its_term() -> None:
    """If the leader's term is at least as large as the candidate's, it returns to follower."""
    cluster = Cluster(voters=3)
    cluster.elect("2")
    node = cluster.members["1"].up
    node.step("2", TimeoutNow(1))
    node.step("3", Heartbeat(2, 0))
    status = node.status()
    assert (status.role, status.leader, status.vote) == (Role.FOLLOWER, "3", "1")


def test_5_2_timeouts_are_random_and_within_bounds() -> None:
    """Election timeouts are chosen randomly from a fixed interval."""
    seen = {}
    for seed in range(200):
        node = Cluster(voters=3, seed=str(seed)).members["1"].up
        ticks = 0
        while node.status().role is Role.FOLLOWER:
            node.tick()
            ticks += 1
        seen[ticks] = True
    assert sorted(seen) == list(range(10, 20))


def test_5_3_an_entry_is_committed_once_a_majority_has_it() -> None:
    """A log entry is committed once the leader has replicated it on a majority of the servers."""
    cluster = Cluster(voters=5)
    cluster.elect("1")
    cluster.partition([["1", "2"], ["3", "4", "5"]])
    cluster.propose("1", b"x")
    assert cluster.members["1"].up.status().commit == 1
    cluster.partition([["1", "2", "3"], ["4", "5"]])
    cluster.ticks(3)
    assert cluster.members["1"].up.status().commit == 2


def test_5_3_a_commit_takes_the_earlier_entries_along() -> None:
    """This also commits all preceding entries, including those of previous leaders."""
    cluster = Cluster(voters=3)
    for name in ("1", "2"):
        cluster.members[name].disk.preset([1, 1, 2])
        cluster.start(name)
    cluster.elect("1")
    assert [entry.term for entry in cluster.members["3"].applied] == [1, 1, 2, 3]


def test_5_3_entries_are_applied_in_order_on_all() -> None:
    """Each state machine executes the same commands in the same order."""
    cluster = Cluster(voters=3, learners=1)
    cluster.elect("1")
    for number in range(20):
        cluster.propose("1", bytes([number]))
    logs = [[entry.payload for entry in m.applied] for m in cluster.members.values()]
    assert logs == [[b"", *(bytes([number]) for number in range(20))]] * 4


@pytest.mark.parametrize(
    ("previous_index", "previous_term", "is_rejected"),
    [(0, 0, False), (1, 1, False), (2, 2, False), (2, 1, True), (3, 2, True), (3, 3, True)],
)
def test_5_3_the_previous_entry_must_match(
    previous_index: int, previous_term: int, is_rejected: bool
) -> None:
    """If the follower does not find an entry with the same index and term, it refuses."""
    cluster = Cluster(voters=3)
    cluster.members["1"].disk.preset([1, 2])
    cluster.start("1")
    answers = _answers(cluster, "1", "2", Append(3, previous_index, previous_term, 0))
    assert len(answers) == 1
    answer = answers[0]
    assert isinstance(answer, AppendAnswer)
    assert (answer.is_rejected, answer.index) == (is_rejected, previous_index)


@pytest.mark.parametrize(
    ("previous", "terms", "expected"),
    [
        ((2, 2), [3], [1, 2, 3]),
        ((1, 1), [3, 4], [1, 3, 4]),
        ((0, 0), [1], [1, 2]),
        ((0, 0), [3], [3]),
        ((1, 1), [2], [1, 2]),
        ((2, 2), [], [1, 2]),
    ],
)
def test_5_3_conflicting_entries_go_and_only_those(
    previous: tuple[int, int], terms: list[int], expected: list[int]
) -> None:
    """If an existing entry conflicts with a new one, delete it and all that follow it."""
    cluster = Cluster(voters=3)
    cluster.members["1"].disk.preset([1, 2])
    cluster.start("1")
    entries = tuple(Entry(term, previous[0] + 1 + i) for i, term in enumerate(terms))
    _answers(cluster, "1", "2", Append(4, *previous, 0, entries))
    assert cluster.members["1"].disk.terms() == expected


@pytest.mark.parametrize(
    ("commit", "entries", "expected"), [(1, 0, 1), (2, 0, 2), (9, 0, 2), (3, 1, 3), (9, 1, 3)]
)
def test_5_3_commit_is_the_minimum(commit: int, entries: int, expected: int) -> None:
    """Set commitIndex = min(leaderCommit, index of last new entry)."""
    cluster = Cluster(voters=3)
    cluster.members["1"].disk.preset([1, 1])
    cluster.start("1")
    new = (Entry(1, 3, b"x"),) * entries
    _answers(cluster, "1", "2", Append(1, 2, 1, commit, new))
    assert cluster.members["1"].up.status().commit == expected


def test_5_3_a_follower_commits_no_further_than_the_entries_checked() -> None:
    """A longer tail of the follower's own is not covered by an append that ends before it."""
    cluster = Cluster(voters=3)
    cluster.members["1"].disk.preset([1, 1, 1, 1])
    cluster.start("1")
    _answers(cluster, "1", "2", Append(2, 1, 1, 4, (Entry(1, 2, b"2@1"),)))
    assert cluster.members["1"].up.status().commit == 2


def test_5_4_1_votes_go_to_logs_that_are_as_good() -> None:
    """The voter denies its vote if its own log is more up-to-date than the candidate's."""
    for last, granted in [((2, 2), True), ((1, 3), True), ((1, 2), False), ((9, 1), False)]:
        cluster = Cluster(voters=3)
        cluster.members["1"].disk.preset([1, 2])
        cluster.start("1")
        assert _answers(cluster, "1", "2", VoteRequest(5, *last)) == [VoteAnswer(5, granted)]


def test_5_4_2_only_own_entries_are_committed_by_counting() -> None:
    """Only entries from the leader's current term are committed by counting replicas."""
    cluster = Cluster(voters=3)
    for member in cluster.members.values():
        member.disk.preset([1, 1])
        cluster.start(member.name)
    node = cluster.members["1"].up
    node.step("2", TimeoutNow(0))
    cluster.members["1"].up.campaign()
    node.step("2", VoteAnswer(2, True, is_pre=True))
    node.step("2", VoteAnswer(2, True))
    cluster.pump("1")
    node.step("2", AppendAnswer(2, 2))
    assert node.status().commit == 0
    node.step("2", AppendAnswer(2, 3))
    assert node.status().commit == 3


def test_5_5_repeated_requests_do_no_harm() -> None:
    """If a follower receives an AppendEntries that it has already, it ignores those entries."""
    cluster = Cluster(voters=3)
    append = Append(1, 0, 0, 0, (Entry(1, 1, b"a"), Entry(1, 2, b"b")))
    first = _answers(cluster, "1", "2", append)
    syncs = cluster.members["1"].disk.syncs
    assert _answers(cluster, "1", "2", append) == first
    older = Append(1, 0, 0, 0, (Entry(1, 1, b"a"),))
    assert _answers(cluster, "1", "2", older) == [AppendAnswer(1, 1)]
    assert cluster.members["1"].disk.terms() == [1, 1]
    assert cluster.members["1"].disk.syncs == syncs


def test_figure_2_term_vote_and_entries_are_on_disk_before_the_answer() -> None:
    """Persistent state is updated on stable storage before responding."""
    cluster = Cluster(voters=3)
    node = cluster.members["1"].up
    node.step("2", VoteRequest(4, 0, 0))
    ready = node.ready()
    assert ready.must_sync
    assert ready.hard_state == HardState(4, "2", 0)
    assert ready.messages == (("2", VoteAnswer(4, True)),)
    node.advance(ready)
    node.step("2", Append(4, 0, 0, 1, (Entry(4, 1, b"x"),)))
    ready = node.ready()
    assert ready.must_sync
    assert ready.entries == (Entry(4, 1, b"x"),)
    assert ready.committed_entries == ()
    assert ready.messages == (("2", AppendAnswer(4, 1)),)


def test_8_a_leader_begins_with_an_empty_entry() -> None:
    """Each leader commits a blank no-op entry into the log at the start of its term."""
    cluster = Cluster(voters=3)
    cluster.elect("1")
    assert cluster.members["2"].applied == [Entry(1, 1, b"")]


def test_thesis_3_10_the_transferee_campaigns_without_waiting() -> None:
    """TimeoutNow has the same effect as the target's election timer firing."""
    cluster = Cluster(voters=3)
    cluster.elect("1")
    cluster.members["1"].up.transfer_leader("2")
    cluster.settle()
    assert cluster.leaders() == ["2"]


def test_thesis_4_2_3_a_vote_request_within_the_timeout_is_not_heard() -> None:
    """It does not update its term or grant its vote while it hears from a current leader."""
    cluster = Cluster(voters=3)
    cluster.elect("1")
    assert _answers(cluster, "2", "3", VoteRequest(9, 9, 9)) == []
    assert cluster.members["2"].up.status().term == 1
    for _ in range(10):
        cluster.members["2"].up.tick()
    assert _answers(cluster, "2", "3", VoteRequest(9, 9, 9)) == [
        VoteAnswer(9, True, commit=1, commit_term=1)
    ]


def test_thesis_6_2_a_leader_without_answers_steps_down() -> None:
    """A leader steps down if an election timeout elapses without a round to a majority."""
    cluster = Cluster(voters=5)
    cluster.elect("1")
    cluster.partition([["1", "2"], ["3", "4", "5"]])
    for _ in range(10):
        assert cluster.leaders() == ["1"]
        cluster.tick(["1"])
    assert cluster.leaders() == []


def test_thesis_9_6_a_pre_vote_changes_nothing() -> None:
    """In Pre-Vote, a candidate only increments its term if it would win."""
    cluster = Cluster(voters=3)
    assert _answers(cluster, "1", "2", VoteRequest(1, 0, 0, is_pre=True)) == [
        VoteAnswer(1, True, is_pre=True)
    ]
    assert _answers(cluster, "1", "3", VoteRequest(1, 0, 0, is_pre=True)) == [
        VoteAnswer(1, True, is_pre=True)
    ]
    status = cluster.members["1"].up.status()
    assert (status.term, status.vote) == (0, None)
