"""SIGKILL at every sync of a workload."""

from pathlib import Path
from typing import Final

import pytest

from tests.integration.lives import COMMITS, EVERY_SYNC, KILLED, Fault, Role, strike_at
from tests.integration.strace import needs_strace

pytestmark = [pytest.mark.integration, needs_strace]

# The directory is synced with fsync (when a file is new), everything else with fdatasync.
DATA: Final = Fault("fdatasync", "signal=KILL", KILLED, is_each_commit=True)
NAMES: Final = Fault("fsync", "signal=KILL", KILLED)
OUTBOX: Final = Fault("fdatasync", "signal=KILL", KILLED, ("outbox.db", "outbox.db-wal"))
VIEWS: Final = Fault("fdatasync", "signal=KILL", KILLED, ("views.db", "views.db-wal"))
VIEWS_COMMITS: Final = 60
"""Traced from the first to the last: the views are synced now and then, not at each commit."""
both_roles = pytest.mark.parametrize("role", ["leader", "follower"])


@pytest.mark.parametrize("role", ["leader", pytest.param("follower", marks=pytest.mark.long)])
@pytest.mark.scenario("A1", tier="P")
def test_killed_at_some_syncs(tmp_path: Path, role: Role) -> None:
    numbers = (1, 2, 3, 20, 51)
    course = strike_at(tmp_path, role, DATA, numbers, commits=60)
    assert course.struck == len(numbers)


@pytest.mark.long
@both_roles
@pytest.mark.scenario("A1", tier="P")
def test_killed_at_every_sync_of_200_commits(tmp_path: Path, role: Role) -> None:
    assert strike_at(tmp_path, role, DATA, EVERY_SYNC).struck == COMMITS


@pytest.mark.long
@both_roles
@pytest.mark.scenario("A1", tier="P")
def test_killed_at_every_new_file_of_200_commits(tmp_path: Path, role: Role) -> None:
    assert strike_at(tmp_path, role, NAMES).struck > 3


@pytest.mark.long
@pytest.mark.scenario("A1", "A2", tier="P")
def test_killed_at_every_sync_of_what_it_accepts(tmp_path: Path) -> None:
    assert strike_at(tmp_path, "acceptor", OUTBOX, commits=50).struck >= 20


@pytest.mark.long
@pytest.mark.scenario("A1", "A2", tier="P")
def test_killed_at_every_sync_of_the_views(tmp_path: Path) -> None:
    assert strike_at(tmp_path, "follower", VIEWS, commits=VIEWS_COMMITS).struck > 3
