"""Every story in testdata/ says what it said when somebody last understood it.

`REWRITE=1 pytest tests/raft/test_interaction.py` writes the answers anew; commit the
difference only if you can explain it.
"""

import os
from pathlib import Path

import pytest

from tests.raft.script import run_story
from tests.raft.test_etcd_quorum import VECTORS

STORIES = sorted((Path(__file__).parent / "testdata").glob("*.txt"))


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_story(path: Path) -> None:
    told = path.read_text(encoding="utf-8")
    assert "\n----\n" in told, "a story says something"
    now = run_story(told)
    if os.environ.get("REWRITE"):
        path.write_text(now, encoding="utf-8")
    else:
        assert now == told


def test_there_are_stories() -> None:
    assert len(STORIES) >= 90


def test_every_scenario_of_etcd_is_restated() -> None:
    """A story names the ones that it tells in its own way: `# etcd: NAME, NAME`."""
    named = {
        name
        for path in STORIES
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("# etcd: ")
        for name in line.removeprefix("# etcd: ").split(", ")
    }
    assert len(named) == 28
    theirs = VECTORS / "etcd-raft-testdata" / "testdata"
    if not theirs.is_dir():
        pytest.skip(f"etcd's scenarios are not in {VECTORS}")
    assert named == {path.stem for path in theirs.glob("*.txt")}
