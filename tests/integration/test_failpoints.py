"""Killed before and after each step that matters: a save, an answer, an apply, a checkpoint."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.integration.failpoints import STEPS, WHENS
from tests.integration.lives import Course, Lives, Role
from tests.integration.warm_nodes import WarmStart

pytestmark = pytest.mark.integration

SOME: Final = (
    ("follower", "after", "save of term and vote", 1),
    ("follower", "before", "answer to entries", 9),
    ("leader", "after", "save of entries", 7),
    ("leader", "before", "apply", 5),
    ("leader", "after", "checkpoint", 3),
)
COUNTS: Final = (1, 4)


def check(tmp_path: Path, lives: Sequence[tuple[Role, str, str, int]]) -> None:
    course, missed = Course(), []
    with WarmStart() as warm, ExitStack() as stack:
        case = Lives(tmp_path, stack, warm, course)
        for role, when, name, count in lives:
            if not case.live_until(role, when, name, count):
                missed.append(f"{role}: {when} {name} {count}")
        case.finish()
    print(f"{course}; not met: {missed}")
    assert not missed


@pytest.mark.scenario("A2", tier="P")
def test_killed_at_some_steps(tmp_path: Path) -> None:
    check(tmp_path, SOME)


@pytest.mark.long
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("role", ["leader", "follower"])
@pytest.mark.scenario("A2", tier="P")
def test_killed_at_every_step(tmp_path: Path, role: Role, count: int) -> None:
    lives = [(role, when, name, count) for name in STEPS for when in WHENS]
    check(tmp_path, lives)
