"""The power goes at any moment of a real run: what the disks hold then still has everything.

The writes of three nodes under load are recorded by strace, and their disks rebuilt as they may
be at a moment: all of them at once, each with a part of what was not synced yet.
"""

import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Final

import pytest

from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.cli.testnet.making import GENESIS_FILE
from p2pcity.errors import CorruptionError
from p2pcity.ledger.outbox import Outbox
from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.ledger.segment_recovery import recover
from p2pcity.ledger.views_store import ViewsStore
from p2pcity.wire import block, genesis
from p2pcity.wire.genesis import Genesis
from tests.integration import recording
from tests.integration.power_loss import Call, Disk
from tests.integration.process_case import (
    DEADLINE_S,
    Acknowledgement,
    Author,
    running_network,
    submit,
    verify,
    wait_leader,
)
from tests.integration.strace import Strace, needs_strace
from tests.integration.warm_nodes import WarmStart, wait_serving
from tests.segment_case import ALL, flip

pytestmark = [pytest.mark.integration, needs_strace]

COMMITS: Final = 90
MOMENTS: Final = 110
LONG_MOMENTS: Final = 1_000
_SECOND_LOSS: Final = 5
"""One start of so many loses its power too, while it mends."""


@dataclass
class Past:
    """What was written, and what clients were told meanwhile and when."""

    network: LocalNetwork
    genesis: Genesis
    first: dict[str, Path] = field(default_factory=dict)
    calls: dict[str, list[Call]] = field(default_factory=dict)
    committed: list[tuple[float, bytes, Acknowledgement]] = field(default_factory=list)
    accepted: list[tuple[float, str, bytes, bytes]] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return [node.name for node in self.network.nodes]

    def data(self, name: str) -> Path:
        return self.network.node(name).config.node.data_dir


def send(past: Past) -> None:
    """Send transactions to all nodes in turn; every fourth is only accepted."""
    author, choice = Author(past.network), random.Random(3)
    for number in range(COMMITS):
        carried = author.sign(data="y" * choice.choice((10, 200, 3_000)))
        name = past.names[number % 3]
        wait = "accepted" if number % 4 == 3 else "committed"
        answer = submit(past.network, name, carried.data, wait)
        told_s = time.time()
        if wait == "accepted":
            past.accepted.append((told_s, name, carried.transaction.id, carried.data))
            continue
        assert answer["status"] == "committed"
        told = Acknowledgement(
            answer["id"], answer["height"], answer["leaf_index"], time.monotonic(), name
        )
        past.committed.append((told_s, carried.data, told))


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Past]:
    tmp_path = tmp_path_factory.mktemp("power")
    with ExitStack() as stack:
        warm = stack.enter_context(WarmStart())
        network = stack.enter_context(running_network(tmp_path, start=()))
        past = Past(network, genesis.decode((network.directory / GENESIS_FILE).read_bytes()))
        pids = {}
        reports = {name: tmp_path / f"{name}.strace" for name in past.names}
        with ExitStack() as traces:
            for name in past.names:
                past.first[name] = Path(shutil.copytree(past.data(name), tmp_path / name))
                node = network.node(name)
                pids[name] = warm.start(node, "tests.integration.small_files", held=True)
                traces.enter_context(
                    Strace(pids[name], reports[name], recording.CALLS, options=recording.OPTIONS)
                )
            for name, pid in pids.items():
                assert wait_serving(network.node(name), pid, DEADLINE_S)
            wait_leader(network)
            send(past)
        for name, report in reports.items():
            past.calls[name] = list(recording.read_calls(report, past.data(name)))
        warm.kill()
        yield past


@dataclass
class Opened:
    """What a start found on a disk."""

    term: int
    last_index: int
    blocks: list[block.Block]
    ended: set[bytes]
    pending: set[bytes]

    @property
    def transactions(self) -> set[bytes]:
        return {data for item in self.blocks for data in item.transactions}


def write(image: dict[str, bytes], directory: Path) -> None:
    """Put a disk's files there."""
    shutil.rmtree(directory, ignore_errors=True)
    (directory / "log").mkdir(parents=True)
    for name, content in image.items():
        (directory / name).write_bytes(content)


class Images:
    """Opens disks; counts how they were."""

    def __init__(self, past: Past, directory: Path, seed: int) -> None:
        self.past = past
        self.directory = directory
        self.choice = random.Random(seed)
        self.seen: Counter[str] = Counter()
        self._decoded: dict[bytes, block.Block] = {}

    def open(self, name: str) -> Opened:
        """Open all stores of the disk in `directory`; none may refuse."""
        self.seen["opened"] += 1
        # Without the mending of what went bad: there is nothing to be mended.
        recover(self.directory / "log")
        log = SegmentLog.open(self.directory / "log")
        self.seen["cut"] += log.recovery is not None
        self.seen["files"] += log.statistics().files
        outbox = Outbox.open(self.directory / "outbox.db")
        views = ViewsStore.open(
            self.directory / "views.db", genesis=self.past.genesis, raft_log=log
        )
        self.seen["views made anew"] += views.recovery is not None
        try:
            assert views.applied_index <= log.last_index, "applied entries are lost"
            entries = log.entries(1, log.last_index + 1, ALL) if log.last_index else []
            ids = [id_ for _, acceptor, id_, _ in self.past.accepted if acceptor == name]
            states = {id_: outbox.state(id_) for id_ in ids}
            return Opened(
                log.term(log.last_index),
                log.last_index,
                [self._decode(entry.payload) for entry in entries if entry.payload],
                {id_ for id_, state in states.items() if state and state.state != "pending"},
                {id_ for id_, state in states.items() if state and state.state == "pending"},
            )
        finally:
            views.close()
            outbox.close()
            log.close()

    def _decode(self, payload: bytes) -> block.Block:
        if payload not in self._decoded:
            self._decoded[payload] = block.decode(payload)
        return self._decoded[payload]

    def lose_power_again(self) -> None:
        """Open the log, and let the power go somewhere in the middle of it."""
        self.seen["lost power twice"] += 1
        disk = Disk.of(self.directory)
        calls: list[Call] = []
        with recording.recorded(self.directory, calls):
            SegmentLog.open(self.directory / "log").close()
        for call in calls[: self.choice.randint(0, len(calls))]:
            disk.apply(call)
        write(disk.image(self.choice), self.directory)

    def damage(self) -> None:
        """A bit that goes bad below the last sync mark is no torn tail: the log is refused."""
        found = recover(self.directory / "log")
        # The last mark itself has no mark above it, and holds nothing but itself.
        below = [(path, path.stat().st_size) for path in found.paths.values()]
        below[-1] = below[-1][0], found.last_mark_offset
        path, size = self.choice.choice(below)
        if not size:
            return
        bit = self.choice.randrange(8 * size)
        self.seen["damaged"] += 1
        flip(path, bit)
        with pytest.raises(CorruptionError):
            recover(self.directory / "log")
        flip(path, bit)


def check_moment(images: Images, disks: dict[str, Disk], at_s: float) -> None:
    """The power of all goes: any two know all that was acknowledged, each what it accepted."""
    past = images.past
    found: dict[str, Opened] = {}
    for name, disk in disks.items():
        write(disk.image(images.choice), images.directory)
        images.damage()
        if images.choice.randrange(_SECOND_LOSS) == 0:
            images.lose_power_again()
        found[name] = images.open(name)
    told = {data for told_s, data, _ in past.committed if told_s < at_s}
    for one, other in combinations(found.values(), 2):
        # Raft elects nobody else of these two.
        heir = max(one, other, key=lambda item: (item.term, item.last_index))
        missing = told - heir.transactions
        assert not missing, f"{len(missing)} of {len(told)} acknowledged ones are lost"
    for told_s, name, id_, _ in past.accepted:
        if told_s < at_s:
            assert id_ in found[name].pending | found[name].ended, "an accepted one is lost"


def check_moments(
    past: Past, directory: Path, moments: int, seed: int, *, lies: str | None = None
) -> Images:
    """Check that many moments; the disk says of files that begin with `lies` they were synced."""
    images = Images(past, directory, seed)
    disks = {name: Disk.of(path) for name, path in past.first.items()}
    order = sorted(
        ((call.at_s, name, call) for name, calls in past.calls.items() for call in calls),
        key=lambda item: item[0],
    )
    steps = set(images.choice.sample(range(len(order)), min(moments, len(order))))
    for number, (at_s, name, call) in enumerate(order):
        if number in steps:
            check_moment(images, disks, at_s)
        if lies is None or call.kind != "end_sync" or not call.path.startswith(lies):
            disks[name].apply(call)
    print(f"of {len(order)} calls {len(steps)} moments: {dict(images.seen)}")
    return images


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """Where disks are rebuilt: in memory where that can be, since they are synced again."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path / "image"
        return
    place = memory / f"p2pcity-{os.getpid()}"
    yield place
    shutil.rmtree(place, ignore_errors=True)


@pytest.mark.scenario("A3", "A4", tier="P")
def test_the_power_of_all_three_goes(past: Past, directory: Path) -> None:
    images = check_moments(past, directory, MOMENTS, seed=1)
    assert images.seen["opened"] >= 3 * MOMENTS
    assert min(images.seen[what] for what in ("cut", "damaged", "lost power twice")) > 10


@pytest.mark.long
@pytest.mark.scenario("A3", "A4", tier="P")
def test_the_power_goes_a_thousand_times(past: Past, directory: Path) -> None:
    images = check_moments(past, directory, LONG_MOMENTS, seed=2)
    assert images.seen["opened"] >= 2_000


@pytest.mark.parametrize("lies", ["log/", "outbox.db-wal"])
def test_a_disk_that_did_not_sync_is_noticed(past: Past, directory: Path, lies: str) -> None:
    """The test of the test: it would notice a sync too few."""
    with pytest.raises((AssertionError, CorruptionError)) as noticed:
        check_moments(past, directory, MOMENTS, seed=3, lies=lies)
    # What was acknowledged is missing, or the log itself says which record is not whole.
    is_refused = isinstance(noticed.value, CorruptionError)
    assert is_refused or "lost" in str(noticed.value), noticed.value


@pytest.mark.scenario("A3", tier="P")
def test_the_nodes_go_on_after_it(past: Past) -> None:
    """Three disks as they may be after the last acknowledgement, and a network that starts."""
    choice = random.Random(4)
    end_s = max(told_s for told_s, *_ in past.committed)
    for name, path in past.first.items():
        disk = Disk.of(path)
        for call in past.calls[name]:
            if call.at_s < end_s:
                disk.apply(call)
        write(disk.image(choice), past.data(name))
    past.network.start()
    past.network.wait_ready()
    verify(past.network, [told for _, _, told in past.committed])
