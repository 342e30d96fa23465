"""A network of three, one node of which is struck down again and again: the victim.

After each death its log is held against what the leader was told that it has, and after each
start its ledger against what the clients were told.
"""

import itertools
import os
import statistics
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from signal import Signals
from typing import Any, Final, Literal

from p2pcity.api.client import ApiProblem, Client, Params, Unreachable
from p2pcity.crypto.keys import PrivateKey, peer_id
from p2pcity.ledger import records
from p2pcity.ledger.segment_found import Recovered
from p2pcity.ledger.segment_recovery import recover
from tests.integration.process_case import (
    CBOR,
    DEADLINE_S,
    Acknowledgement,
    Author,
    ask,
    read_ledger,
    running_network,
    verify,
    wait_leader,
    wait_until,
)
from tests.integration.strace import Strace
from tests.integration.warm_nodes import WarmStart, is_gone, wait_serving

VICTIM: Final = "node3"
SURVIVORS: Final = ("node1", "node2")
COMMITS: Final = 200
EVERY_SYNC: Final = range(1, COMMITS + 1)
"""A workload of 200 commits ends at its first sync, then at its second, ... then at its last."""
KILLED: Final = -int(Signals.SIGKILL)
SYNC_FAILED: Final = 11
_SMALL_FILES: Final = "tests.integration.small_files"
_LIVES_A_NETWORK: Final = 40
_WAIT_MS: Final = 2_000
_ANSWER_S: Final = 10.0
_TRACED: Final = 4
Role = Literal["leader", "follower", "acceptor"]
"""What the victim is: an acceptor is a follower that clients do not wait for."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What strace does to which system calls, and how the process ends by it.

    `text` is completed with the number of the call that is struck; with `paths` only calls on
    these files of the data directory count. `is_each_commit` says that each commit makes one:
    then the victim is traced, which makes it slow, for the last few commits alone.
    """

    calls: str
    text: str
    exit_code: int
    paths: tuple[str, ...] = ()
    is_each_commit: bool = False

    def untraced(self, number: int) -> int:
        """How many commits pass before the call of that number is near."""
        return max(0, number - 1 - number % _TRACED) if self.is_each_commit else 0

    def __str__(self) -> str:
        """The calls and the files."""
        return " ".join((self.calls, *self.paths))


def synced_index(log: Recovered) -> int:
    """The index up to which the log says that it was synced."""
    buffer = log.paths[log.sequence].read_bytes()
    offset = log.last_mark_offset
    if offset == 0:
        # A new file: everything in those before it was synced.
        return records.parse_file_header(buffer)[1].index
    previous = buffer[offset - records.CHECKSUM_BYTES : offset]
    return records.parse_record(buffer, offset, previous).index


@dataclass
class Course:
    """What became of a run of lives and deaths."""

    struck: int = 0
    acknowledged: int = 0
    restart_s: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        """The figures, for a line of the test's output."""
        return (
            f"struck {self.struck} times, {self.acknowledged} acknowledged, 0 lost; from start to "
            f"ready p50 {statistics.median(self.restart_s):.2f} s, max {max(self.restart_s):.2f} s"
        )


class Lives:
    """The network, the clients, and what they were told."""

    def __init__(self, tmp_path: Path, stack: ExitStack, warm: WarmStart, course: Course) -> None:
        # strace counts the calls of each thread alone: a write of the views may fail too, and wait.
        self.network = stack.enter_context(
            running_network(
                tmp_path, start=SURVIVORS, exit_code=SYNC_FAILED, errors=("apply_waits",)
            )
        )
        self.node = self.network.node(VICTIM)
        self.data = self.node.config.node.data_dir
        self.told: list[Acknowledgement] = []
        self.accepted: list[str] = []
        self._author = Author(self.network)
        self._warm = warm
        self._course = course
        self._report = tmp_path / "strace"
        self._clients = {node.name: self._open(stack, node.name) for node in self.network.nodes}
        wait_leader(self.network, SURVIVORS)

    def _open(self, stack: ExitStack, name: str) -> Client:
        client = self.network.client(name, _ANSWER_S)
        stack.callback(client.close)
        return client

    def start(self) -> int:
        """Start the victim until it is ready."""
        begin_s = time.monotonic()
        pid = self._warm.start(self.node, _SMALL_FILES)
        assert wait_serving(self.node, pid, DEADLINE_S), self.node.last_lines(3)
        self._course.restart_s.append(time.monotonic() - begin_s)
        return pid

    def lead(self, pid: int) -> None:
        """Let the victim lead, if it lives so long."""
        peer = peer_id(PrivateKey.from_pem(self.node.config.node.key.read_bytes()).public)

        def is_leader() -> bool:
            if is_gone(pid):
                return True
            leader = self.network.leader()
            if leader not in (None, VICTIM):
                try:
                    self._clients[leader].post("/v1/admin/transfer", params={"to": peer})
                except (Unreachable, ApiProblem):
                    return False
            return leader == VICTIM

        wait_until(is_leader, f"{VICTIM} leads")

    def live(self, role: Role, fault: Fault, number: int, commits: int) -> bool:
        """One life, ended by the fault at the call of that number; False when it had no such."""
        pid = self.start()
        self._check_ledger()
        if role == "leader":
            self.lead(pid)
        begin = len(self.told)
        untraced = fault.untraced(number)
        for _ in range(untraced):
            self._commit(role)
        text = f"{fault.text}:when={number - untraced}"
        paths = [self.data / name for name in fault.paths]
        with Strace(pid, self._report, fault.calls, text, paths=paths) as trace:
            for _ in range(commits - untraced):
                if is_gone(pid):
                    break
                self._commit(role)
            is_struck = trace.struck > 0 or is_gone(pid)
            if is_struck:
                wait_until(lambda: is_gone(pid), "the victim ends", poll_s=0.005)
        self._end(pid, fault.exit_code if is_struck else KILLED)
        self._course.struck += is_struck
        # The others go on without it.
        self._submit(SURVIVORS)
        self._course.acknowledged += len(self.told) - begin
        return is_struck

    def _commit(self, role: Role) -> None:
        """One step of the workload."""
        if role == "acceptor":
            self._accept()
        else:
            self._submit((VICTIM, *SURVIVORS))

    def live_until(self, role: Role, when: str, step: str, count: int) -> bool:
        """One life, ended before or after a step of `failpoints`; False when it lived on."""
        begin = len(self.told)
        arguments = (when, step, str(count))
        pid = self._warm.start(self.node, "tests.integration.failpoints", arguments)
        if wait_serving(self.node, pid, DEADLINE_S) and role == "leader":
            self.lead(pid)
        for number in range(COMMITS):
            if is_gone(pid):
                break
            if number % 8 == 7:
                self._move_leader()
            if number % 4 == 3:
                self._accept()
            self._submit((VICTIM, *SURVIVORS))
        is_struck = is_gone(pid)
        self._end(pid, KILLED)
        self._course.struck += is_struck
        self._submit(SURVIVORS)
        self._course.acknowledged += len(self.told) - begin
        pid = self.start()
        self._check_ledger()
        os.kill(pid, Signals.SIGKILL)
        self._end(pid, KILLED)
        return is_struck

    def _move_leader(self) -> None:
        """Let another one lead, if it can be: everybody votes."""
        leader = self.network.leader()
        if leader is not None:
            with suppress(Unreachable, ApiProblem):
                self._clients[leader].post("/v1/admin/transfer")

    def start_struck(self, fault: Fault, number: int) -> bool:
        """A life that is struck before the node is ready; False when it had no such call."""
        pid = self._warm.start(self.node, _SMALL_FILES, held=True)
        with Strace(pid, self._report, fault.calls, f"{fault.text}:when={number}"):
            is_serving = wait_serving(self.node, pid, DEADLINE_S)
        self._end(pid, KILLED if is_serving else fault.exit_code)
        self._course.struck += not is_serving
        return not is_serving

    def _end(self, pid: int, exit_code: int) -> None:
        """See the process end as it should, and hold its log against what others know of it."""
        if not is_gone(pid):
            os.kill(pid, Signals.SIGKILL)
        found = self._warm.wait(pid)
        assert found == exit_code, (found, self.node.last_lines(3))
        log = recover(self.data / "log")
        for name in SURVIVORS:
            answer = ask(self.network, name, "/v1/raft")
            assert answer is not None
            if answer["role"] == "leader":
                self._check_match(log, answer)

    def _check_match(self, log: Recovered, raft: dict[str, Any]) -> None:
        """What the victim acknowledged to the leader is in its log, and was synced by then."""
        [row] = [row for row in raft["nodes"] if row["name"].endswith(f"/{VICTIM}")]
        synced = synced_index(log)
        assert row["match_index"] <= synced <= log.index.last_index, (log.report(), row)

    def _accept(self) -> None:
        """Let the victim accept a transaction, if it can; its client goes away."""
        carried = self._author.sign()
        try:
            answer = self._clients[VICTIM].post(
                "/v1/transactions", carried.data, CBOR, {"wait": "accepted"}
            )
        except (Unreachable, ApiProblem):
            return
        self.accepted.append(answer["id"])

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
        """Hold the ledgers of all nodes against everything that was told and accepted."""
        pid = self.start()
        wait_until(
            lambda: self._clients[VICTIM].get_json("/v1/status")["outbox"]["pending"] == 0,
            f"what {VICTIM} accepted is committed",
        )
        ledger = verify(self.network, self.told)
        if self.accepted:
            places = read_ledger(self.network, VICTIM, ledger["height"])
            assert not [id_ for id_ in self.accepted if id_ not in places]
        os.kill(pid, Signals.SIGTERM)
        assert self._warm.wait(pid) == 0


def strike_at(
    tmp_path: Path,
    role: Role,
    fault: Fault,
    numbers: Iterable[int] | None = None,
    commits: int = COMMITS,
) -> Course:
    """Strike the victim at these calls (all), until the workload has no such.

    Each 40 have a network of their own.
    """
    course, pending = Course(), iter(itertools.count(1) if numbers is None else numbers)
    with WarmStart() as warm:
        for part in itertools.count():
            batch = list(itertools.islice(pending, _LIVES_A_NETWORK))
            if not batch:
                break
            directory = tmp_path / str(part)
            directory.mkdir()
            with ExitStack() as stack:
                lives = Lives(directory, stack, warm, course)
                has_more = all(lives.live(role, fault, number, commits) for number in batch)
                lives.finish()
            if not has_more:
                break
    print(f"{role}, {fault}: {course}")
    return course
