"""etcd's tables for changes of the configuration, run as they are against our arithmetic."""

from collections.abc import Iterator
from typing import Final

import pytest

from p2pcity.errors import ChangeRefused
from p2pcity.raft import changes
from p2pcity.raft.changes import Operation, Step
from p2pcity.raft.configuration import Configuration
from tests.raft.test_etcd_quorum import VECTORS

TABLES: Final = VECTORS / "etcd-raft-testdata" / "confchange" / "testdata"
OPERATIONS: Final = {"v": Operation.VOTER, "l": Operation.LEARNER, "r": Operation.REMOVE}
REFUSALS: Final = {
    "config is already joint": "under way already",
    "can't apply simple config change in joint config": "under way already",
    "can't make a zero-voter config joint": "no voters to change",
    "can't leave a non-joint config": "no change of voters is under way",
    "removed all voters": "nobody would vote",
    "more than one voter changed without entering joint config": "more than one voter",
}
NAMES: Final = (
    "joint_autoleave",
    "joint_idempotency",
    "joint_learners_next",
    "joint_safety",
    "simple_idempotency",
    "simple_promote_demote",
    "simple_safety",
    "update",
    "zero",
)


def read_cases(name: str) -> Iterator[tuple[str, list[Step], list[str]]]:
    """Read a table: (command, steps, lines of the answer); `autoleave` is always on here."""
    text = (TABLES / f"{name}.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for block in "\n".join(lines).strip().split("\n\n"):
        question, _, answer = block.strip().partition("\n----\n")
        command, *rest = question.split("\n")
        steps = [
            Step(OPERATIONS[word[0]], word[1:])
            for word in " ".join(rest).split()
            # An update changes no membership, and node 0 stands for nobody.
            if word[0] != "u" and word[1:] != "0"
        ]
        yield command.split()[0], steps, answer.split("\n")


def applied(configuration: Configuration, command: str, steps: list[Step]) -> Configuration:
    """What our functions make of one command."""
    if command == "enter-joint":
        return changes.enter_joint(configuration, steps)
    if command == "leave-joint":
        return changes.leave_joint(configuration)
    assert command == "simple"
    return changes.simple(configuration, steps)


def picture(configuration: Configuration, since: dict[str, int]) -> list[str]:
    """The configuration in the table's words; `since` says when each member was first one."""

    def names(members: tuple[str, ...]) -> str:
        return f"({' '.join(sorted(members, key=int))})"

    line = f"voters={names(configuration.voters)}"
    if configuration.is_joint:
        line += f"&&{names(configuration.voters_outgoing)}"
    if configuration.learners:
        line += f" learners={names(configuration.learners)}"
    if configuration.learners_next:
        line += f" learners_next={names(configuration.learners_next)}"
    members = sorted(configuration.members, key=int)
    return [line] + [
        f"{name}: StateProbe match=0 next={since[name]}"
        + (" learner" if name in configuration.learners else "")
        for name in members
    ]


@pytest.mark.skipif(not TABLES.is_dir(), reason=f"etcd's tables are not in {VECTORS}")
def test_every_table_is_run() -> None:
    assert sorted(path.stem for path in TABLES.iterdir()) == sorted(NAMES)


@pytest.mark.skipif(not TABLES.is_dir(), reason=f"etcd's tables are not in {VECTORS}")
@pytest.mark.parametrize("name", NAMES)
def test_table_of_etcd(name: str) -> None:
    """Every command of the table gives the configuration, or the refusal, that etcd gives."""
    configuration = Configuration(())
    since: dict[str, int] = {}
    count = 0
    for number, (command, steps, answer) in enumerate(read_cases(name)):
        count += 1
        place = f"{name}, command {number + 1}"
        if answer[0] in REFUSALS:
            with pytest.raises(ChangeRefused, match=REFUSALS[answer[0]]):
                applied(configuration, command, steps)
            continue
        configuration = applied(configuration, command, steps)
        since = {name: since.get(name, max(number, 1)) for name in configuration.members}
        said = [line.removesuffix(" autoleave") for line in answer]
        assert picture(configuration, since) == said, place
    assert count
