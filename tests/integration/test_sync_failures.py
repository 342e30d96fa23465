"""A sync that fails with EIO: each of a workload in turn, and each of a start.

Nothing is acknowledged after it, the process stops by itself, and its next start is in order.
"""

import itertools
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.integration.lives import (
    COMMITS,
    EVERY_SYNC,
    SYNC_FAILED,
    Course,
    Fault,
    Lives,
    Role,
    strike_at,
)
from tests.integration.strace import needs_strace
from tests.integration.warm_nodes import WarmStart

pytestmark = [pytest.mark.integration, needs_strace]

DATA: Final = Fault("fdatasync", "error=EIO", SYNC_FAILED, is_each_commit=True)
NAMES: Final = Fault("fsync", "error=EIO", SYNC_FAILED)
OUTBOX: Final = Fault("fdatasync", "error=EIO", SYNC_FAILED, ("outbox.db", "outbox.db-wal"))
VIEWS: Final = Fault("fdatasync", "error=EIO", SYNC_FAILED, ("views.db", "views.db-wal"))
WRITES: Final = Fault("pwrite64", "error=EIO", SYNC_FAILED)
_SOME: Final = (1, 2, 11)
both_roles = pytest.mark.parametrize("role", ["leader", "follower"])


@pytest.mark.parametrize(
    ("role", "fault"),
    [
        ("leader", DATA),
        pytest.param("follower", NAMES, marks=pytest.mark.long),
        pytest.param("acceptor", OUTBOX, marks=pytest.mark.long),
        pytest.param("follower", VIEWS, marks=pytest.mark.long),
    ],
    ids=str,
)
@pytest.mark.scenario("A11", tier="P")
def test_some_syncs_fail(tmp_path: Path, role: Role, fault: Fault) -> None:
    numbers = _SOME if fault in (DATA, OUTBOX) else (1,)
    assert strike_at(tmp_path, role, fault, numbers, commits=60).struck == len(numbers)


@pytest.mark.parametrize("calls", ["fdatasync", pytest.param("fsync", marks=pytest.mark.long)])
@pytest.mark.scenario("A11", tier="P")
def test_each_sync_of_a_start_fails(tmp_path: Path, calls: str) -> None:
    course = Course()
    fault = Fault(calls, "error=EIO", SYNC_FAILED)
    with WarmStart() as warm, ExitStack() as stack:
        lives = Lives(tmp_path, stack, warm, course)
        for number in itertools.count(1):
            if not lives.start_struck(fault, number):
                break
        lives.live("follower", DATA, 5, 10)
        lives.finish()
    print(f"{calls}: {course}")
    assert course.struck >= 2


@pytest.mark.long
@both_roles
@pytest.mark.scenario("A11", tier="P")
def test_every_sync_of_the_log_fails(tmp_path: Path, role: Role) -> None:
    assert strike_at(tmp_path, role, DATA, EVERY_SYNC).struck == COMMITS


@pytest.mark.long
@both_roles
@pytest.mark.scenario("A11", tier="P")
def test_every_sync_of_the_directory_fails(tmp_path: Path, role: Role) -> None:
    assert strike_at(tmp_path, role, NAMES).struck > 3


@pytest.mark.long
@pytest.mark.parametrize(("role", "fault"), [("acceptor", OUTBOX), ("follower", VIEWS)], ids=str)
@pytest.mark.scenario("A11", tier="P")
def test_every_sync_of_a_database_fails(tmp_path: Path, role: Role, fault: Fault) -> None:
    assert strike_at(tmp_path, role, fault, commits=60).struck > 3


@pytest.mark.long
@both_roles
@pytest.mark.scenario("A11", tier="P")
def test_some_writes_fail(tmp_path: Path, role: Role) -> None:
    numbers = (1, 2, 3, 5, 8, 13, 21, 34)
    assert strike_at(tmp_path, role, WRITES, numbers).struck == len(numbers)
