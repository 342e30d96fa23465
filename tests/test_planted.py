"""The test of the tests: bugs that were planted on purpose are found, and nothing else is.

Stories find theirs at once. Seeds of the simulator find the others within the number that
`planted*.py` states; the quick ones in `make test`, the rest in `make test-long`.
"""

import re
from collections.abc import Iterator

import pytest

from p2pcity.errors import P2PCityError
from tests.planted import PLANTED
from tests.planted_case import STORIES
from tests.raft.script import run_story
from tests.sim.run import run_seed
from tests.virtual.door import Gone

_FOUND = re.compile(r"(Violation|AssertionError|[A-Za-z]*Error): ")
QUICK_SEEDS = 3
"""Bugs found within so many seeds are looked for in every run."""

BY_STORY = [name for name, bug in PLANTED.items() if bug.story]
BY_SEEDS = [
    pytest.param(name, marks=() if bug.seeds <= QUICK_SEEDS and not bug.story else pytest.mark.long)
    for name, bug in PLANTED.items()
    if bug.seeds
]


def test_there_are_bugs() -> None:
    """Each has somebody who finds it, and enough of them are looked for in every run."""
    assert len(PLANTED) >= 30
    assert all(bug.story or bug.seeds or bug.scene for bug in PLANTED.values())
    quick = {name for name, bug in PLANTED.items() if bug.story or bug.seeds == QUICK_SEEDS}
    assert len(quick) * 3 >= len(PLANTED)


@pytest.mark.parametrize("name", BY_STORY)
def test_a_story_finds_it(name: str) -> None:
    """The story ends otherwise, or what must always hold did not; without the bug all is well."""
    bug = PLANTED[name]
    told = (STORIES / f"{bug.story}.txt").read_text(encoding="utf-8")
    assert run_story(told) == told
    with bug.plant():
        try:
            now = run_story(told)
        except (AssertionError, P2PCityError) as error:
            now = str(error)
    assert now != told
    assert run_story(told) == told


@pytest.mark.parametrize("name", BY_SEEDS)
def test_seeds_find_it(name: str) -> None:
    """One of the stated number of seeds fails, and holds without the bug."""
    bug = PLANTED[name]
    assert bug.seeds is not None
    kinds = bug.kinds or None
    for seed in range(bug.seeds):
        with bug.plant():
            failure = run_seed(seed, kinds=kinds).failure
        if failure:
            # What breaks in the harness is a traceback, and finds nothing.
            assert _FOUND.match(failure), failure
            failure = run_seed(seed, kinds=kinds).failure
            assert not failure, f"seed {seed} fails without the bug"
            return
    pytest.fail(f"none of {bug.seeds} seeds found it")


@pytest.mark.parametrize("name", [name for name, bug in PLANTED.items() if bug.scene])
def test_a_scenario_of_whole_nodes_finds_it(name: str) -> None:
    """It fails by what must always hold, or by what it asks; without the bug it is a test."""
    bug = PLANTED[name]
    assert bug.scene is not None
    with bug.plant(), pytest.raises((AssertionError, BaseExceptionGroup)) as caught:
        bug.scene()
    # What breaks in the harness is another error, and finds nothing.
    assert {type(error) for error in _leaves(caught.value)} <= {AssertionError, Gone}


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error
