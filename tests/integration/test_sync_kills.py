"""SIGKILL at every sync of a workload: the first, the second, ... until it has no more.

A victim of a network of three is started, killed in front of its Nth sync while clients submit,
and started again, with N + 1. After each death its log is held against what the leader was told
that it has, and after each start its ledger against what the clients were told.
"""

import itertools
import os
import statistics
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from signal import Signals
from typing import Any, Final, Literal

import pytest

from p2pcity.api.client import ApiProblem, Client, Params, Unreachable
from p2pcity.ledger.segment_recovery import Recovered, recover
from tests.integration.process_case import (
    CBOR,
    DEADLINE_S,
    Acknowledgement,
    Author,
    ask,
    running_network,
    verify,
    wait_leader,
    wait_until,
)
from tests.integration.strace import Strace, needs_strace
from tests.integration.warm_nodes import WarmStart, is_gone, wait_serving

pytestmark = [pytest.mark.integration, needs_strace]

VICTIM: Final = "node3"
COMMITS: Final = 200
RESTART_S: Final = 5.0
LIVES_A_NETWORK: Final = 40
_WAIT_MS: Final = 2_000
_ANSWER_S: Final = 10.0
Role = Literal["leader", "follower"]


@dataclass
class Course:
    """What became of a run of lives and deaths."""

    kills: int = 0
    acknowledged: int = 0
    restart_s: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.kills} kills, {self.acknowledged} acknowledged, 0 lost; start to ready: "
            f"p50 {statistics.median(self.restart_s):.2f} s, max {max(self.restart_s):.2f} s"
        )


class Lives:
    """A network of three, one node of which is killed again and again."""

    def __init__(self, tmp_path: Path, stack: ExitStack, warm: WarmStart, course: Course) -> None:
        survivors = ["node1", "node2"]
        self.network = stack.enter_context(running_network(tmp_path, start=survivors))
        self.survivors = survivors
        self.node = self.network.node(VICTIM)
        self.told: list[Acknowledgement] = []
        self._author = Author(self.network)
        self._warm = warm
        self._course = course
        self._report = tmp_path / "strace"
        self._clients = {node.name: self._open(stack, node.name) for node in self.network.nodes}
        wait_leader(self.network, survivors)

    def _open(self, stack: ExitStack, name: str) -> Client:
        client = self.network.client(name, _ANSWER_S)
        stack.callback(client.close)
        return client

    def start(self) -> int:
        """Start the victim until it is ready, which must not take long."""
        begin_s = time.monotonic()
        pid = self._warm.start(self.node, "tests.integration.small_files")
        assert wait_serving(self.node, pid, DEADLINE_S), self.node.last_lines(3)
        self._course.restart_s.append(time.monotonic() - begin_s)
        return pid

    def lead(self) -> None:
        """Let the victim lead."""
        peer = ask(self.network, VICTIM, "/v1/status")["node"]["peer"]

        def is_leader() -> bool:
            leader = self.network.leader()
            if leader not in (None, VICTIM):
                try:
                    self._clients[leader].post("/v1/admin/transfer", params={"to": peer})
                except (Unreachable, ApiProblem):
                    return False
            return leader == VICTIM

        wait_until(is_leader, f"{VICTIM} leads")

    def live(self, role: Role, calls: str, number: int, commits: int) -> bool:
        """One life, ended in front of the sync of that number; False when there was none."""
        pid = self.start()
        self._check_ledger()
        if role == "leader":
            self.lead()
        fault = f"signal=KILL:when={number}"
        begin = len(self.told)
        with Strace(pid, self._report, calls, fault):
            while len(self.told) < begin + commits and not is_gone(pid):
                self._submit((VICTIM, *self.survivors))
            is_killed = is_gone(pid)
        if not is_killed:
            os.kill(pid, Signals.SIGKILL)
        assert self._warm.wait(pid) == -Signals.SIGKILL
        self._course.kills += is_killed
        self._check_log()
        # The others go on without it, or the life was the last.
        self._submit(self.survivors)
        self._course.acknowledged += len(self.told) - begin
        return is_killed

    def _submit(self, names: Sequence[str]) -> None:
        """Submit one transaction, to the first first, until somebody says that it is committed."""
        carried = self._author.sign()
        params: Params = {"wait": "committed", "timeout_ms": _WAIT_MS}
        until_s = time.monotonic() + DEADLINE_S
        for name in itertools.cycle(names):
            assert time.monotonic() < until_s, "nobody commits"
            try:
                answer = self._clients[name].post("/v1/transactions", carried.data, CBOR, params)
            except (Unreachable, ApiProblem):
                continue
            if answer["status"] == "committed":
                place = answer["height"], answer["leaf_index"]
                self.told.append(Acknowledgement(answer["id"], *place, time.monotonic(), name))
                return

    def _check_log(self) -> None:
        """The victim's log holds what it had acknowledged to the leader."""
        found = recover(self.node.config.node.data_dir / "log")
        for name in self.survivors:
            answer = ask(self.network, name, "/v1/raft")
            assert answer is not None
            self._check_match(found, answer)

    def _check_match(self, found: Recovered, raft: dict[str, Any]) -> None:
        assert found.hard_state.term <= raft["term"] or raft["role"] != "leader"
        if raft["role"] != "leader":
            return
        [row] = [row for row in raft["nodes"] if row["name"].endswith(f"/{VICTIM}")]
        assert found.index.last_index >= row["match_index"], (found.report(), row)

    def _check_ledger(self) -> None:
        """The victim's ledger has what was told since it last started."""
        if not self.told:
            return
        client = self._clients[VICTIM]
        head = max(told.height for told in self.told)
        wait_until(
            lambda: client.get_json("/v1/status")["ledger"]["height"] >= head,
            f"{VICTIM} has height {head}",
        )
        for told in self.told[-COMMITS - 1 :]:
            found = client.get_json(f"/v1/transactions/{told.id}", {"consistency": "local"})
            place = found["status"], found["height"], found["leaf_index"]
            assert place == ("committed", told.height, told.leaf_index)

    def finish(self) -> None:
        """Hold the ledgers of all nodes against everything that was told."""
        pid = self.start()
        verify(self.network, self.told)
        os.kill(pid, Signals.SIGTERM)
        assert self._warm.wait(pid) == 0


def kill_at(
    tmp_path: Path, role: Role, calls: str, numbers: Iterable[int], commits: int = COMMITS
) -> Course:
    """Kill the victim at these syncs, and stop behind the first that the workload does not have."""
    course, pending = Course(), iter(numbers)
    with WarmStart() as warm:
        for part in itertools.count():
            batch = list(itertools.islice(pending, LIVES_A_NETWORK))
            if not batch:
                break
            directory = tmp_path / str(part)
            directory.mkdir()
            with ExitStack() as stack:
                lives = Lives(directory, stack, warm, course)
                has_more = all(lives.live(role, calls, number, commits) for number in batch)
                lives.finish()
            if not has_more:
                break
    print(f"{role}, {calls}: {course}")
    assert max(course.restart_s) < RESTART_S
    return course


@pytest.mark.parametrize("role", ["leader", "follower"])
@pytest.mark.scenario("A1", tier="P")
def test_killed_at_some_syncs(tmp_path: Path, role: Role) -> None:
    numbers = (1, 2, 3, 20, 51)
    course = kill_at(tmp_path, role, "fdatasync", numbers, commits=60)
    assert course.kills == len(numbers)


@pytest.mark.long
@pytest.mark.parametrize("role", ["leader", "follower"])
@pytest.mark.scenario("A1", tier="P")
def test_killed_at_every_sync_of_200_commits(tmp_path: Path, role: Role) -> None:
    course = kill_at(tmp_path, role, "fdatasync", itertools.count(1))
    assert course.kills >= COMMITS


@pytest.mark.long
@pytest.mark.parametrize("role", ["leader", "follower"])
@pytest.mark.scenario("A1", tier="P")
def test_killed_at_every_new_file_of_200_commits(tmp_path: Path, role: Role) -> None:
    """The directory is synced with fsync, everything else with fdatasync."""
    assert kill_at(tmp_path, role, "fsync", itertools.count(1)).kills > 3
