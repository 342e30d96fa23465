"""etcd's tables for majorities and joint majorities, run as they are against our arithmetic.

The tables are not part of this project: they are read from `../shared/vectors` or from
TESTS_VECTORS, and the tests skip when they are not there.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from p2pcity.raft import quorum

ROOT: Final = Path(__file__).resolve().parent.parent.parent
VECTORS: Final = Path(os.environ.get("TESTS_VECTORS") or ROOT.parent / "shared" / "vectors")
TABLES: Final = VECTORS / "etcd-raft-testdata" / "quorum" / "testdata"
FILES: Final = ("joint_commit", "joint_vote", "majority_commit", "majority_vote")
VOTES: Final = {"y": True, "n": False}
RESULTS: Final = {
    "VotePending": quorum.VoteResult.PENDING,
    "VoteWon": quorum.VoteResult.WON,
    "VoteLost": quorum.VoteResult.LOST,
}


@dataclass(frozen=True)
class Case:
    """One question of a table: two sets of voters, a value for each voter, and the answer.

    `outgoing` is None where the table asks about a single majority.
    """

    place: str
    command: str
    incoming: tuple[str, ...]
    outgoing: tuple[str, ...] | None
    values: tuple[str, ...]
    answer: str

    def by_voter(self) -> dict[str, str]:
        """The given values in the order in which the sets first name the voters."""
        voters = dict.fromkeys((*self.incoming, *(self.outgoing or ())))
        assert len(voters) == len(self.values), self.place
        return dict(zip(voters, self.values, strict=True))


def read_cases(name: str) -> Iterator[Case]:
    """Read a table: a command with arguments, `----`, and a picture whose last word counts."""
    path = next(iter(TABLES.parent.rglob(f"{name}.txt")))
    lines = path.read_text(encoding="utf-8").splitlines()
    question = ""
    at = 0
    while at < len(lines):
        line = lines[at].strip()
        at += 1
        if line == "----":
            answer = []
            while at < len(lines) and lines[at].strip():
                answer.append(lines[at].strip())
                at += 1
            yield _case(f"{name}:{at}", question, answer[-1])
        elif line and not line.startswith("#"):
            question = line


def _case(place: str, question: str, answer: str) -> Case:
    given = {
        key: tuple(item for item in re.split(r"[,\s]+", values) if item)
        for key, values in re.findall(r"(\w+)=\(([^)]*)\)", question)
    }
    outgoing = given.get("cfgj")
    if "cfgj=zero" in question:
        outgoing = ()
    values = given.get("idx") or given.get("votes") or ()
    return Case(place, question.split()[0], given.get("cfg", ()), outgoing, values, answer)


def answer_to(case: Case) -> str:
    """What our arithmetic says, in the table's words."""
    given = case.by_voter()
    if case.command == "vote":
        votes = {voter: VOTES[value] for voter, value in given.items() if value != "_"}
        if case.outgoing is None:
            result = quorum.vote(case.incoming, votes)
        else:
            result = quorum.joint_vote(case.incoming, case.outgoing, votes)
        return next(word for word, meaning in RESULTS.items() if meaning is result)
    assert case.command == "committed", case.place
    indexes = {voter: int(value) for voter, value in given.items() if value != "_"}
    if case.outgoing is None:
        index = quorum.committed(case.incoming, indexes)
    else:
        index = quorum.joint_committed(case.incoming, case.outgoing, indexes)
    return "∞" if index == quorum.UNBOUNDED else str(index)


@pytest.mark.skipif(not TABLES.is_dir(), reason=f"etcd's tables are not in {VECTORS}")
def test_every_table_is_run() -> None:
    assert sorted(path.stem for path in TABLES.iterdir()) == sorted(FILES)


@pytest.mark.skipif(not TABLES.parent.is_dir(), reason=f"etcd's tables are not in {VECTORS}")
@pytest.mark.parametrize("name", FILES)
def test_table_of_etcd(name: str) -> None:
    """Every case of the table has the answer that etcd gives."""
    cases = list(read_cases(name))
    assert len(cases) >= 10, "a table was read"
    for case in cases:
        said = re.search(r"(Vote\w+|\d+|∞)$", case.answer)
        assert said is not None, f"{case.place}: {case.answer!r}"
        assert answer_to(case) == said[1], case.place
