"""A network of three processes under load, and what must hold of it afterwards.

Every wait has a deadline and waits for a condition. A load keeps a history of what clients
were told; `verify` holds it against the ledger of every node.
"""

import json
import os
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from signal import Signals
from types import TracebackType
from typing import Any, Final, Self

from p2pcity.api.client import ApiProblem, Client, Params, Unreachable
from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.crypto.keys import PrivateKey
from p2pcity.wire import transaction
from p2pcity.wire.event import Event
from p2pcity.wire.transaction import Carried
from tests.integration.warm_nodes import launch_warm

AUTHOR: Final = "load"
ELECTION_S: Final = 0.5
"""Election time-out of the preset `local`, which these networks have."""
DEADLINE_S: Final = 60.0
"""For everything that a network of three does on a busy machine in a second or two."""
_POLL_S: Final = 0.02
_CLIENT_S: Final = 8.0
_WAIT_MS: Final = 1_000
_AVOIDED_S: Final = 2.0
_HOUR_MS: Final = 3_600_000
_LOG_LINES: Final = 15
CBOR: Final = "application/cbor"


@contextmanager
def running_network(
    tmp_path: Path,
    *,
    start: Collection[str] | None = None,
    is_told_to_stop: bool = False,
    exit_code: int | None = None,
    raft_preset: str = "local",
    errors: Collection[str] = (),
) -> Iterator[LocalNetwork]:
    """Make a network of three under `tmp_path`, start it (or the nodes in `start`), end it.

    At the end no node may have written of a bug; when the test fails, the end of each node's
    log is printed. `is_told_to_stop` ends it with SIGTERM, which takes 2 s: a leader that has
    nobody left to hand over to waits so long. Nodes may say that they stopped with `exit_code`,
    and log the events in `errors` as errors.
    """
    network = LocalNetwork.create(
        tmp_path / "net", nodes=3, orderers=3, authors=(AUTHOR,), raft_preset=raft_preset
    )
    with kept_running(network, start, is_told_to_stop, exit_code, errors):
        yield network


@contextmanager
def kept_running(
    network: LocalNetwork,
    start: Collection[str] | None = None,
    is_told_to_stop: bool = False,
    exit_code: int | None = None,
    errors: Collection[str] = (),
) -> Iterator[None]:
    """Start a network that was made, and end it, as `running_network` says."""
    for node in network.nodes:
        node.launch = launch_warm
    try:
        if start is None:
            network.start()
            network.wait_ready(deadline_s=DEADLINE_S)
        elif start:
            network.start(start)
        yield
        if is_told_to_stop:
            running = [node for node in network.nodes if node.pid is not None]
            assert network.stop() == []
            assert {node.name: node.exit_code for node in running if node.exit_code} == {}
        assert_no_bugs(network, exit_code, errors)
    except BaseException:  # shown, then raised on
        for node in network.nodes:
            print(f"--- {node.name} (exit code {node.exit_code})")
            print("\n".join(node.last_lines(_LOG_LINES)))
        raise
    finally:
        network.stop(deadline_s=0)
        for node in network.nodes:
            if node.socket.parent != node.directory:
                shutil.rmtree(node.socket.parent, ignore_errors=True)


def assert_no_bugs(
    network: LocalNetwork, exit_code: int | None = None, errors: Collection[str] = ()
) -> None:
    """No traceback in any log, and no error but an end that is due and the events in `errors`."""
    for node in network.nodes:
        if not node.log_file.exists():
            continue
        for line in node.log_file.read_text(encoding="utf-8", errors="replace").splitlines():
            assert "Traceback" not in line, f"{node.name}: {line}"
            try:
                fields = json.loads(line)
            except ValueError:
                continue
            if not isinstance(fields, dict) or fields.get("event") in errors:
                continue
            if fields.get("exit_code", 0) != exit_code:
                assert fields.get("level") not in ("error", "critical"), f"{node.name}: {line}"


def log_lines(network: LocalNetwork, name: str) -> list[dict[str, Any]]:
    """What a node wrote to its log as JSON; a line that is not whole yet is none."""
    lines = network.node(name).log_file.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines if line.startswith("{")]


def longest_commit_gap_s(network: LocalNetwork, begin_s: float, end_s: float) -> float:
    """The longest time in which no node applied a new block, between two times of time.time()."""
    first: dict[int, float] = {}
    for node in network.nodes:
        for line in log_lines(network, node.name):
            if line["event"] == "block":
                at_s = datetime.fromisoformat(line["time"]).timestamp()
                first[line["height"]] = min(at_s, first.get(line["height"], at_s))
    times = sorted(at_s for at_s in first.values() if begin_s <= at_s <= end_s)
    return max(late - early for early, late in pairwise([begin_s, *times, end_s]))


def wait_until(
    is_so: Callable[[], bool], what: str, *, deadline_s: float = DEADLINE_S, poll_s: float = _POLL_S
) -> float:
    """Wait until `is_so()`; returns how long that took, fails with `what` at the deadline."""
    begin_s = time.monotonic()
    while not is_so():
        waited_s = time.monotonic() - begin_s
        assert waited_s < deadline_s, f"not within {deadline_s} s: {what}"
        time.sleep(poll_s)
    return time.monotonic() - begin_s


def ask(network: LocalNetwork, name: str, path: str, **params: str | int) -> Any:
    """GET from one node; None when it does not answer or refuses."""
    with network.client(name) as client:
        try:
            return client.get_json(path, params)
        except (Unreachable, ApiProblem):
            return None


def ask_patiently(network: LocalNetwork, name: str, path: str, **params: str | int) -> Any:
    """GET from a node that runs: what it refuses during an election is asked for again."""
    found: list[Any] = []

    def is_told() -> bool:
        network.node(name).check_alive()
        found[:] = [ask(network, name, path, **params)]
        return found[0] is not None

    wait_until(is_told, f"{name} answers {path}")
    return found[0]


def wait_serving(network: LocalNetwork, name: str) -> None:
    """Wait until a node answers at all, with a leader or without."""
    ask_patiently(network, name, "/livez")


def wait_leader(
    network: LocalNetwork, among: Collection[str] | None = None, *, deadline_s: float = DEADLINE_S
) -> str:
    """The node that leads by its own word and that of a majority of those asked."""
    names = [node.name for node in network.nodes] if among is None else list(among)
    found: list[str] = []

    def has_leader() -> bool:
        answers = [(name, ask(network, name, "/v1/status")) for name in names]
        rafts = {name: answer["raft"] for name, answer in answers if answer is not None}
        if not rafts:
            return False
        name, newest = max(rafts.items(), key=lambda item: (item[1]["term"], item[1]["role"]))
        for name, newest in rafts.items():
            known = [
                raft
                for raft in rafts.values()
                if (raft["term"], raft["leader"]) == (newest["term"], newest["leader"])
            ]
            if newest["role"] == "leader" and len(known) * 2 > len(network.nodes):
                found.append(name)
                return True
        return False

    wait_until(has_leader, f"one of {names} leads", deadline_s=deadline_s)
    return found[0]


def others(network: LocalNetwork, name: str) -> list[str]:
    """All nodes but one."""
    return [node.name for node in network.nodes if node.name != name]


def freeze(network: LocalNetwork, name: str) -> None:
    """SIGSTOP a node, and wait until the kernel says that it stands still."""
    node = network.node(name)
    pid = node.pid
    assert pid is not None, f"{name} does not run"
    network.kill(name, Signals.SIGSTOP)
    stat = Path(f"/proc/{pid}/stat")
    wait_until(
        lambda: stat.read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "T",
        f"{name} is stopped",
    )


def thaw(network: LocalNetwork, name: str) -> None:
    """SIGCONT a node."""
    network.kill(name, Signals.SIGCONT)


def set_keys(network: LocalNetwork, name: str, **sections: dict[str, int]) -> None:
    """Add sections to a node's configuration; it must not have them yet."""
    file = network.node(name).config_file
    text = file.read_text(encoding="utf-8")
    for section, keys in sections.items():
        assert f"[{section}]" not in text, section
        text += f"\n[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())
    file.write_text(text, encoding="utf-8")


class Author:
    """Signs transactions of the network's author; not safe between threads."""

    def __init__(self, network: LocalNetwork) -> None:
        self.key: PrivateKey = network.author_key(AUTHOR)
        self.network = network.network_id

    def sign(
        self,
        event_id: str | None = None,
        *,
        data: str = "y" * 200,
        expires_in_ms: int = _HOUR_MS,
        events: int = 1,
    ) -> Carried:
        """A transaction of `events` new events, or of the one with `event_id`."""
        made = [
            Event(
                salt=os.urandom(16),
                id=event_id or os.urandom(12).hex(),
                type="city.test",
                source="/load",
                data=data,
            )
            for _ in range(events)
        ]
        expires_ms = time.time_ns() // 1_000_000 + expires_in_ms
        return transaction.make(self.key, self.network, made, expires_ms, os.urandom(16))


def submit(
    network: LocalNetwork, name: str, data: bytes, wait: str, *, timeout_ms: int = 20_000
) -> Any:
    """POST one transaction to a node and return its answer; raises ApiProblem, Unreachable."""
    with network.client(name, timeout_ms / 1000 + 10) as client:
        return client.post("/v1/transactions", data, CBOR, {"wait": wait, "timeout_ms": timeout_ms})


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """What a client was told: committed there, at `at_s` of time.monotonic(), by `node`."""

    id: str
    height: int
    leaf_index: int
    at_s: float
    node: str


class Load:
    """Clients that send one transaction after the other, each until it is acknowledged.

    A context manager. `targets` are the nodes that are asked, and may be changed at any time. A
    node that was gone, or had nothing committed in two election time-outs, is left alone for a
    while: it may have been taken out, and others are there.
    """

    def __init__(
        self,
        network: LocalNetwork,
        *,
        clients: int = 4,
        targets: Sequence[str] | None = None,
        pause_s: float = 0.01,
    ) -> None:
        self._network = network
        self.targets = [node.name for node in network.nodes] if targets is None else list(targets)
        self._pause_s = pause_s
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._failures: list[BaseException] = []
        self.acknowledged: dict[str, Acknowledgement] = {}
        self.refused: Counter[str] = Counter()
        self._threads = [
            threading.Thread(target=self._run, args=(Author(network), number), daemon=True)
            for number in range(clients)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the load; clients that wait for an answer get it first."""
        self._stop.set()
        for thread in self._threads:
            thread.join(_CLIENT_S + 10)
            assert not thread.is_alive(), "a client hangs"
        assert not self._failures, self._failures

    def _run(self, author: Author, number: int) -> None:
        clients: dict[str, Client] = {}
        avoided: dict[str, float] = {}
        choice = random.Random(number)
        try:
            while not self._stop.is_set():
                self._send(author.sign(), clients, avoided, choice)
                self._stop.wait(self._pause_s)
        except BaseException as failure:  # told to the test's thread
            self._failures.append(failure)
            raise
        finally:
            for client in clients.values():
                client.close()

    def _send(
        self,
        carried: Carried,
        clients: dict[str, Client],
        avoided: dict[str, float],
        choice: random.Random,
    ) -> None:
        params: Params = {"wait": "committed", "timeout_ms": _WAIT_MS}
        while not self._stop.is_set():
            targets, now_s = self.targets, time.monotonic()
            name = choice.choice([x for x in targets if avoided.get(x, 0) < now_s] or targets)
            client = clients.setdefault(name, self._network.client(name, _CLIENT_S))
            try:
                answer = client.post("/v1/transactions", carried.data, CBOR, params)
            except Unreachable:
                self.refused["unreachable"] += 1
            except ApiProblem as problem:
                self.refused[f"{problem.status} {problem.reason}"] += 1
            else:
                if answer["status"] == "committed":
                    self.note(answer, name)
                    return
                self.refused[str(answer["status"])] += 1
            avoided[name] = time.monotonic() + _AVOIDED_S
            self._stop.wait(0.05)

    def note(self, answer: Any, name: str) -> None:
        """Remember that `name` told a client what `answer` says."""
        told = Acknowledgement(
            answer["id"], answer["height"], answer["leaf_index"], time.monotonic(), name
        )
        with self._changed:
            self.acknowledged[told.id] = told
            self._changed.notify_all()

    @property
    def count(self) -> int:
        """How many transactions were acknowledged so far."""
        with self._changed:
            return len(self.acknowledged)

    def wait_more(self, count: int, *, deadline_s: float = DEADLINE_S) -> None:
        """Wait until `count` more transactions than now are acknowledged."""
        with self._changed:
            wanted = len(self.acknowledged) + count
            is_so = self._changed.wait_for(
                lambda: len(self.acknowledged) >= wanted or bool(self._failures), deadline_s
            )
        assert not self._failures, self._failures
        assert is_so, f"no {count} acknowledgements in {deadline_s} s; refused: {self.refused}"

    def since(self, begin_s: float) -> list[Acknowledgement]:
        """What was acknowledged since then, oldest first."""
        with self._changed:
            found = [told for told in self.acknowledged.values() if told.at_s >= begin_s]
        return sorted(found, key=lambda told: told.at_s)

    def longest_gap_s(self, begin_s: float, end_s: float) -> float:
        """The longest time without an acknowledgement between two points of time."""
        times = [told.at_s for told in self.since(begin_s) if told.at_s <= end_s]
        points = [begin_s, *times, end_s]
        return max(late - early for early, late in pairwise(points))

    def rate(self, begin_s: float, end_s: float) -> float:
        """Acknowledgements a second between two points of time."""
        return sum(told.at_s <= end_s for told in self.since(begin_s)) / (end_s - begin_s)


def wait_equal(
    network: LocalNetwork,
    names: Collection[str] | None = None,
    *,
    deadline_s: float = DEADLINE_S,
) -> dict[str, Any]:
    """Wait until all nodes (or those named) show one ledger and an empty mempool.

    Returns the ledger as `status` has it.
    """
    seen: list[Any] = []

    def is_equal() -> bool:
        found = [
            status for name, status in network.statuses().items() if names is None or name in names
        ]
        seen[:] = [None if status is None else status["ledger"] for status in found]
        return all(
            status is not None
            and status["ledger"] == seen[0]
            and status["mempool"]["transactions"] == 0
            and status["lag"]["blocks"] == 0
            for status in found
        )

    wait_until(is_equal, "all nodes have the same ledger", deadline_s=deadline_s, poll_s=0.1)
    ledger: dict[str, Any] = seen[0]
    return ledger


def read_ledger(network: LocalNetwork, name: str, height: int) -> dict[str, tuple[int, int]]:
    """Height and leaf index of each transaction on one node's ledger, each exactly once."""
    places: dict[str, tuple[int, int]] = {}
    leaves = 0
    parent = network.network_id.hex()
    with network.client(name) as client:
        for number in range(1, height + 1):
            block = client.get_json(f"/v1/blocks/{number}")
            assert (block["height"], block["parent"]) == (number, parent)
            parent = block["hash"]
            for item in block["transactions"]:
                if item["outcome"] != "applied":
                    continue
                assert item["id"] not in places, f"{item['id']} stands on the ledger twice"
                assert item["leaf_index"] == leaves
                leaves += 1
                places[item["id"]] = (number, item["leaf_index"])
            leaves += block["change"] is not None
            assert block["tree_size"] == leaves
    return places


def verify(
    network: LocalNetwork,
    acknowledged: Collection[Acknowledgement],
    names: Collection[str] | None = None,
) -> dict[str, Any]:
    """Everything acknowledged is on every node (or on those named), once, where it was told.

    Returns the ledger that all nodes agree on.
    """
    assert acknowledged, "the run was vacuous"
    ledger = wait_equal(network, names)
    for node in network.nodes:
        if names is not None and node.name not in names:
            continue
        places = read_ledger(network, node.name, ledger["height"])
        for told in acknowledged:
            where = places.get(told.id)
            assert where == (told.height, told.leaf_index), (
                f"{node.name} has {told.id} at {where}, {told.node} had said "
                f"{(told.height, told.leaf_index)}"
            )
    return ledger
