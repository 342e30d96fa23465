"""Majority arithmetic, by hand and by etcd's tables."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pcity.raft import quorum
from p2pcity.raft.configuration import Configuration
from p2pcity.raft.quorum import VoteResult


@pytest.mark.parametrize(
    ("voters", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4)]
)
def test_size(voters: int, needed: int) -> None:
    assert quorum.size(voters) == needed


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([5], 5),
        ([5, 3], 3),
        ([5, 3, 4], 4),
        ([9, 0, 0], 0),
        ([9, 9, 0], 9),
        ([1, 2, 3, 4], 2),
        ([1, 2, 3, 4, 5], 3),
        ([7, 7, 7, 1, 1, 1, 1], 1),
        ([7, 7, 7, 7, 1, 1, 1], 7),
    ],
)
def test_committed(values: list[int], expected: int) -> None:
    names = [str(number) for number in range(len(values))]
    assert quorum.committed(names, dict(zip(names, values, strict=True))) == expected


def test_committed_is_what_a_majority_has() -> None:
    for count in (1, 2, 3, 4, 5):
        names = [str(number) for number in range(count)]
        for values in itertools.product(range(3), repeat=count):
            index = quorum.committed(names, dict(zip(names, values, strict=True)))
            assert sum(value >= index for value in values) >= quorum.size(count)
            assert sum(value > index for value in values) < quorum.size(count)


def test_strangers_do_not_count() -> None:
    assert quorum.committed(("a", "b", "c"), {"a": 5, "x": 5, "y": 5}) == 0
    assert quorum.vote(("a", "b", "c"), {"a": True, "x": True}) is VoteResult.PENDING


@pytest.mark.parametrize(
    ("voters", "learners", "outgoing"),
    [
        (("a", "a"), (), ()),
        (("a",), ("a",), ()),
        (("a",), ("b", "b"), ()),
        (("a",), ("b",), ("b",)),
    ],
)
def test_configurations_that_are_none(
    voters: tuple[str, ...], learners: tuple[str, ...], outgoing: tuple[str, ...]
) -> None:
    with pytest.raises(AssertionError):
        Configuration(voters, learners, outgoing)


def test_a_joint_configuration_needs_both_majorities() -> None:
    joint = Configuration(("a", "b", "c"), ("l",), ("c", "d", "e"))
    assert joint.members == ("a", "b", "c", "d", "e", "l")
    assert joint.committed({"a": 9, "b": 9, "c": 9}) == 0
    assert joint.committed({"a": 9, "c": 9, "d": 5}) == 5
    assert joint.vote({"a": True, "b": True}) is VoteResult.PENDING
    assert joint.vote({"a": True, "b": True, "d": False, "e": False}) is VoteResult.LOST
    assert not joint.is_alone


def _etcd_cases(text: str) -> Iterator[tuple[str, dict[str, list[str]], str]]:
    """Yield (command, its lists, the last line of the answer)."""
    for match in re.finditer(r"^(committed|vote)(.*)\n----\n((?:.+\n?)+)", text, re.MULTILINE):
        lists = {
            key: [item.strip() for item in items.split(",")] if items else []
            for key, items in re.findall(r"(\w+)=\(([^)]*)\)", match[2])
        }
        yield match[1], lists, match[3].strip().split("\n")[-1]


@pytest.mark.parametrize("name", ["majority_commit", "majority_vote", "joint_commit", "joint_vote"])
def test_etcd_tables(shared_vectors: Path, name: str) -> None:
    folder = shared_vectors / "etcd-raft-testdata" / "quorum" / "testdata"
    text = (folder / f"{name}.txt").read_text(encoding="utf-8")
    count = 0
    for command, lists, answer in _etcd_cases(text):
        incoming, outgoing = lists.get("cfg", []), lists.get("cfgj", [])
        members = list(dict.fromkeys([*incoming, *outgoing]))
        count += 1
        if command == "committed":
            indexes = dict(zip(members, lists.get("idx", []), strict=True))
            values = {member: int(index) for member, index in indexes.items() if index != "_"}
            found = quorum.joint_committed(incoming, outgoing, values)
            expected = quorum.UNBOUNDED if answer.endswith("∞") else int(answer)
            assert found == expected, (name, lists)
        else:
            said = dict(zip(members, lists.get("votes", []), strict=True))
            votes = {member: vote == "y" for member, vote in said.items() if vote != "_"}
            result = quorum.joint_vote(incoming, outgoing, votes)
            assert f"Vote{result.value.capitalize()}" == answer, (name, lists)
    assert count > 8
