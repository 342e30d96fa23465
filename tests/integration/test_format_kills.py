"""A node whose next release has other formats is killed at every sync of its first start.

The next release is this one with `format_two` in it. After each death this release either goes on
with the directory or says which one it takes, and the next one goes on in any case.
"""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from signal import SIGTERM
from typing import Any, Final

import pytest

from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.ledger.outbox import Outbox
from p2pcity.ledger.records import parse_file_header
from tests import format_two
from tests.integration.lives import KILLED
from tests.integration.process_case import (
    AUTHOR,
    DEADLINE_S,
    Author,
    ask,
    assert_no_bugs,
    log_lines,
    submit,
    wait_until,
)
from tests.integration.strace import Strace, needs_strace
from tests.integration.warm_nodes import WarmStart, is_gone, wait_serving

pytestmark = [pytest.mark.integration, needs_strace]

NAME: Final = "node1"
NEXT: Final = "tests.format_two"
COMMITS: Final = 8
PENDING: Final = 4
REFUSED: Final = 2
LOG, NAMES = ("fdatasync", ()), ("fsync", ())
OUTBOX = ("fdatasync", ("outbox.db", "outbox.db-wal"))
VIEWS = ("fdatasync", ("views.db", "views.db-wal"))
Calls = tuple[str, tuple[str, ...]]


class Directory:
    """A node that orders alone, and its data directory as this release left it."""

    def __init__(self, tmp_path: Path, warm: WarmStart) -> None:
        self.network = LocalNetwork.create(tmp_path / "net", nodes=1, orderers=1, authors=(AUTHOR,))
        self.node = self.network.node(NAME)
        self.data = self.node.config.node.data_dir
        self._warm = warm
        self._report = tmp_path / "strace"
        self._kept = tmp_path / "kept"
        author = Author(self.network)
        pid = self.start()
        self.told = [
            submit(self.network, NAME, author.sign().data, "committed") for _ in range(COMMITS)
        ]
        self.stop(pid)
        # What it accepted and had no time to order.
        waiting = [author.sign() for _ in range(PENDING)]
        box = Outbox.open(self.data / "outbox.db")
        box.add([(c.transaction.id, c.transaction.expires_ms, c.data) for c in waiting])
        box.close()
        self.accepted = [carried.transaction.id.hex() for carried in waiting]
        shutil.copytree(self.data, self._kept)

    def reset(self) -> None:
        """Begin again with what this release left."""
        shutil.rmtree(self.data)
        shutil.copytree(self._kept, self.data)

    @contextmanager
    def copied(self) -> Iterator[None]:
        """Undo what the block does to the directory."""
        aside = self.data.with_name("aside")
        shutil.copytree(self.data, aside)
        yield
        shutil.rmtree(self.data)
        aside.rename(self.data)

    def start(self, plugin: str = "") -> int:
        pid = self._warm.start(self.node, plugin)
        assert wait_serving(self.node, pid, DEADLINE_S), self.node.last_lines(3)
        return pid

    def stop(self, pid: int) -> None:
        os.kill(pid, SIGTERM)
        assert self._warm.wait(pid) == 0, self.node.last_lines(3)

    def strike(self, calls: Calls, number: int) -> bool:
        """Let the next release die at the call of that number; False when it had no such."""
        name, files = calls
        pid = self._warm.start(self.node, NEXT, held=True)
        paths = [self.data / file for file in files]
        fault = f"signal=KILL:when={number}"
        with Strace(pid, self._report, name, fault, paths=paths):
            if wait_serving(self.node, pid, DEADLINE_S):
                os.kill(pid, SIGTERM)
            # Traced to its end: a signal that comes while the tracer goes may get lost.
            wait_until(lambda: is_gone(pid), "it ends")
        return self._warm.wait(pid) == KILLED

    def check_next(self) -> None:
        """The next release goes on, and has everything."""
        pid = self.start(NEXT)
        for told in self.told:
            found = self.ask(told["id"])
            place = found["status"], found["height"], found["leaf_index"]
            assert place == ("committed", told["height"], told["leaf_index"])
        for id_ in self.accepted:
            wait_until(partial(self.is_committed, id_), f"{id_} is ordered")
        self.stop(pid)

    def is_committed(self, id_: str) -> bool:
        return bool(self.ask(id_)["status"] == "committed")

    def ask(self, id_: str) -> Any:
        return ask(self.network, NAME, f"/v1/transactions/{id_}", consistency="local")

    def check_present(self) -> bool:
        """This release goes on, or refuses with what to do; whether it goes on."""
        with self.copied():
            pid = self._warm.start(self.node)
            if wait_serving(self.node, pid, DEADLINE_S):
                assert all(self.is_committed(told["id"]) for told in self.told)
                self.stop(pid)
                return True
            assert self._warm.wait(pid) == REFUSED
        last = log_lines(self.network, NAME)[-1]
        assert (last["event"], last["exit_code"]) == ("stopped", REFUSED)
        assert "has format 2, this release knows 1 to 1" in last["reason"]
        assert "Install the release that wrote" in last["remedy"]
        return False

    def formats(self) -> list[int]:
        """The format of each file of the log."""
        files = sorted((self.data / "log").glob("*.segment"))
        return [parse_file_header(file.read_bytes())[0].version for file in files]


def strike_at(tmp_path: Path, calls: Calls, numbers: Iterable[int]) -> tuple[int, int]:
    """Strike at these calls, until a start has no such; how often, and how often too early."""
    struck = went_on = 0
    with WarmStart() as warm:
        directory = Directory(tmp_path, warm)
        for number in numbers:
            directory.reset()
            if not directory.strike(calls, number):
                break
            struck += 1
            is_begun = directory.formats() != [1]
            goes_on = directory.check_present()
            assert goes_on != is_begun
            went_on += goes_on
            directory.check_next()
            assert directory.formats() == [1, format_two.LOG]
            assert not directory.check_present()
        assert_no_bugs(directory.network, REFUSED)
    print(f"{calls}: struck {struck} times, this release went on after {went_on}")
    return struck, went_on


@pytest.mark.parametrize("calls", [LOG, NAMES], ids=["data", "names"])
@pytest.mark.scenario("D12", tier="P")
def test_killed_at_the_syncs_around_the_change(tmp_path: Path, calls: Calls) -> None:
    struck, went_on = strike_at(tmp_path, calls, (2, 3))
    assert struck == 2
    assert went_on


@pytest.mark.long
@pytest.mark.parametrize(
    "calls", [LOG, NAMES, OUTBOX, VIEWS], ids=["data", "names", "outbox", "views"]
)
@pytest.mark.scenario("D12", tier="P")
def test_killed_at_every_sync(tmp_path: Path, calls: Calls) -> None:
    struck, went_on = strike_at(tmp_path, calls, count(1))
    assert struck > 2
    assert bool(went_on) == (calls in (LOG, NAMES))
