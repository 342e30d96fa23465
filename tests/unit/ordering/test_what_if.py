"""what-if against brute force: every change of 3 and 5 voters, every set of nodes that are up."""

from collections.abc import Collection, Iterator
from itertools import combinations

import pytest

from p2pcity.errors import ChangeRefused
from p2pcity.ordering.steward import has_answered
from p2pcity.ordering.what_if import judge, tolerated
from p2pcity.raft.changes import Operation, Step, enter_joint, leave_joint
from p2pcity.raft.configuration import Configuration
from tests.raft.cluster import Cluster

NAMES = ("a", "b", "c", "d", "e", "f", "g")


def subsets(names: Collection[str]) -> Iterator[frozenset[str]]:
    for size in range(len(names) + 1):
        yield from (frozenset(some) for some in combinations(names, size))


def can_order(voters: Collection[str], up: Collection[str]) -> bool:
    return 2 * sum(name in up for name in voters) > len(voters)


def survives_any_failure(voters: Collection[str], up: frozenset[str]) -> bool:
    return can_order(voters, up) and all(
        can_order(voters, up - {name}) for name in voters if name in up
    )


def changes(voters: tuple[str, ...], others: tuple[str, ...]) -> Iterator[tuple[Step, ...]]:
    single = [Step(Operation.REMOVE, name) for name in voters]
    single += [Step(Operation.LEARNER, name) for name in voters]
    single += [Step(Operation.VOTER, name) for name in others]
    yield from ((step,) for step in single)
    yield from ((one, two) for one, two in combinations(single, 2) if one.node != two.node)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_what_if_says_what_brute_force_finds(count: int) -> None:
    voters, others = NAMES[:count], NAMES[count : count + 2]
    before = Configuration(voters, learners=others)
    verdicts = set()
    for steps in changes(voters, others):
        try:
            joint = enter_joint(before, steps)
        except ChangeRefused:
            continue
        after = leave_joint(joint)
        for up in subsets((*voters, *others)):
            for lagging in subsets(others):
                ready = up - lagging
                there = frozenset(name for name in up if name in voters or name in ready)
                orders = can_order(voters, there) and can_order(after.voters, there)
                loses_last = survives_any_failure(voters, there) and not survives_any_failure(
                    after.voters, there
                )
                found = judge(before, after, up, ready)
                assert found.is_safe is (orders and not loses_last), (steps, up, ready)
                assert tolerated(joint, there) == min(found.tolerates_before, found.tolerates_after)
                verdicts.add(found.is_safe)
    assert verdicts == {True, False}


@pytest.mark.parametrize(
    ("voters", "up", "after", "is_safe", "says"),
    [
        ("abc", "abc", "ab", False, "no failure is tolerated any more, now it is 1"),
        ("abc", "ab", "ab", True, "2 of 2 voters are there and caught up afterwards"),
        ("abc", "ab", "bc", False, "not even the end of this change"),
        ("abc", "a", "a", False, "no change can be ordered"),
        ("abc", "abcd", "abcd", True, "tolerates 1 more failure, now 1"),
        ("abcde", "abcde", "abc", True, "tolerates 1 more failure, now 2"),
        ("abcde", "abc", "abcd", True, "tolerates 0 more failures, now 0"),
        ("a", "ab", "ab", True, "tolerates 0 more failures, now 0"),
        ("abc", "abcdef", "def", True, "tolerates 1 more failure, now 1"),
        ("abc", "abcde", "def", False, "no failure is tolerated any more"),
        ("abc", "ab", "abc", True, "the voters stay as they are"),
    ],
)
def test_the_reason_is_told(voters: str, up: str, after: str, is_safe: bool, says: str) -> None:
    found = judge(Configuration(tuple(voters)), Configuration(tuple(after)), up, up)
    assert (found.is_safe, says in found.reason) == (is_safe, True), found.reason


def test_a_new_leader_counts_only_who_answered_it() -> None:
    """Of five voters two die; the heir's grace for check-quorum must not make them count."""
    cluster = Cluster(5)
    cluster.elect("1")
    cluster.settle()
    for name in ("1", "5"):
        cluster.crash(name)
    while not cluster.leaders():
        cluster.tick()
    [leader] = cluster.leaders()
    progress = cluster.members[leader].up.status().progress
    others = [known for name, known in progress.items() if name != leader]
    assert all(known.recent_active for known in others)
    cluster.settle()
    progress = cluster.members[leader].up.status().progress
    up = [name for name in progress if name == leader or has_answered(progress[name])]
    assert sorted(up) == ["2", "3", "4"]
    voters = tuple("12345")
    gone = next(name for name in "234" if name != leader)
    after = tuple(name for name in voters if name != gone)
    assert not judge(Configuration(voters), Configuration(after), up, up).is_safe
