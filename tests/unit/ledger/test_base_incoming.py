"""A base that others give: what was fetched stays, and its way into place survives any kill."""

import random
import shutil
from pathlib import Path

import pytest

from p2pcity.errors import CorruptionError
from p2pcity.ledger.base_incoming import Incoming, install
from p2pcity.ledger.base_store import BaseStore, StoredBase, read_head
from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.wire.base import RECORD_BYTES
from p2pcity.wire.limits import BASE_INTERVAL_BLOCKS
from p2pcity.wire.raft import Entry, HardState
from tests.disk_steps import Killed, watch
from tests.integration.power_loss import Disk
from tests.pruned_case import INCARNATION, SEGMENT_BYTES, Opened, make_chain, make_directory
from tests.segment_case import flip

BEHIND = 100
TERM, VOTE = 7, "who-it-voted-for"


@pytest.fixture(scope="module")
def giver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A node that pruned twice; `old-head` is the head of the base before."""
    directory = tmp_path_factory.mktemp("giver")
    make_directory(directory)
    opened = Opened.open(directory)
    (directory / "old-head").write_bytes(opened.prune().stored.data)
    opened.prune()
    opened.close()
    return directory


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A node that stopped early; entries that nobody committed stand at the end of its log."""
    chain, _ = make_chain()
    directory = tmp_path_factory.mktemp("behind")
    SegmentLog.create(directory / "log", INCARNATION)
    log = SegmentLog.open(directory / "log", segment_bytes_max=SEGMENT_BYTES)
    log.bind_network(chain.genesis.network)
    entries = [Entry(1, index, data or b"") for index, data in chain.pairs()[:BEHIND]]
    log.save(HardState(1, None, BEHIND), entries, True)
    log.close()
    Opened.open(directory).close()
    log = SegmentLog.open(directory / "log")
    log.save(HardState(TERM, VOTE, BEHIND), [Entry(TERM, BEHIND + 1, b"")], True)
    log.close()
    return directory


def fetch(incoming: Incoming, base: StoredBase, intervals: int = 1000) -> None:
    """Take what is missing of `base`, up to so many intervals."""
    assert incoming.head is not None
    for number in range(incoming.intervals, min(incoming.head.intervals, intervals)):
        before, after = base.head.mark(number), base.head.mark(number + 1)
        incoming.add(base.read_records(before.records, after.records - before.records))


def give(directory: Path, giver: Path) -> None:
    """Bring the giver's base into `directory`, ready to be installed."""
    store = BaseStore.open(giver / "base")
    assert store.stored is not None
    incoming = Incoming(directory / "base" / "incoming", None)
    incoming.begin(store.stored.stored.data)
    fetch(incoming, store.stored)
    incoming.finish()
    store.close()


def check_begun_anew(directory: Path) -> None:
    """The node stands where the base ends, with its vote, and goes on from there."""
    chain, made = make_chain()
    opened = Opened.open(directory)
    head = opened.bases.head
    assert head is not None
    assert head.height == 2 * BASE_INTERVAL_BLOCKS
    log = opened.log
    assert (log.first_index, log.last_index) == (head.index + 1, head.index)
    assert log.term(head.index) == head.term
    assert log.hard_state == HardState(TERM, VOTE, head.index)
    assert log.network == chain.genesis.network
    assert log.incarnation == INCARNATION
    assert opened.views.has_transaction(made[0].transaction.id)
    assert len(list((directory / "log").glob("*.segment"))) == 1
    for index, data in chain.pairs(head.index + 1):
        log.save(HardState(TERM, VOTE, index), [Entry(1, index, data or b"")], True)
    opened.catch_up()
    assert opened.views.head == chain.blocks[-1].hash
    opened.close()
    opened = Opened.open(directory)
    assert opened.log.last_index == chain.last_index
    opened.close()


def test_what_was_fetched_survives_restarts_and_a_newer_base(giver: Path, tmp_path: Path) -> None:
    store = BaseStore.open(giver / "base")
    assert store.stored is not None
    place = tmp_path / "base" / "incoming"
    incoming = Incoming(place, None)
    assert (incoming.head, incoming.count, incoming.digest) == (None, 0, None)
    incoming.begin((giver / "old-head").read_bytes())
    fetch(incoming, store.stored)
    assert incoming.is_complete
    incoming.close()
    again = Incoming(place, None)
    assert again.is_complete
    again.begin(store.stored.stored.data)
    assert again.intervals == 1
    assert again.count == store.stored.head.mark(1).records
    fetch(again, store.stored)
    assert again.digest == store.stored.stored.digest
    again.close()
    # What went bad meanwhile is fetched again, from its interval on.
    flip(place / "records", 8 * RECORD_BYTES * (again.count - 1))
    again = Incoming(place, None)
    assert again.intervals == 1
    # A head that went bad is asked for again; records are kept.
    again.close()
    flip(place / "head", 8 * 200)
    again = Incoming(place, None)
    assert (again.head, again.intervals) == (None, 0)
    again.begin(store.stored.stored.data)
    assert again.intervals == 1
    again.close()
    store.close()


def test_its_own_records_need_not_be_fetched(giver: Path, tmp_path: Path) -> None:
    directory = tmp_path / "node"
    make_directory(directory)
    opened = Opened.open(directory)
    own = opened.prune()
    store = BaseStore.open(giver / "base")
    assert store.stored is not None
    incoming = Incoming(directory / "base" / "incoming", own)
    incoming.begin(store.stored.stored.data)
    assert incoming.intervals == 1
    fetch(incoming, store.stored)
    incoming.finish()
    opened.close()
    store.close()
    # It has all of it in its log: nothing begins anew, the log is only shorter.
    opened = Opened.open(directory)
    assert opened.views.height == make_chain()[0].blocks[-1].header.height
    assert opened.bases.base.height == 2 * BASE_INTERVAL_BLOCKS
    assert opened.bases.start.index + 1 == opened.log.first_index
    while opened.views.prune():
        pass
    opened.close()


def test_an_older_base_is_not_installed(giver: Path, behind: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(giver, tmp_path / "node")
    store = BaseStore.open(giver / "base")
    assert store.stored is not None
    incoming = Incoming(directory / "base" / "incoming", None)
    incoming.begin((giver / "old-head").read_bytes())
    fetch(incoming, store.stored)
    incoming.finish()
    store.close()
    assert not install(directory / "base")
    found = read_head(directory / "base" / "head")
    assert found is not None
    assert found.head.height == 2 * BASE_INTERVAL_BLOCKS
    assert not (directory / "base" / "incoming").exists()


@pytest.mark.scenario("D10", "A2", tier="U")
def test_a_kill_at_any_step_of_an_installation_is_survived(
    giver: Path, behind: Path, tmp_path: Path
) -> None:
    """SIGKILL before each call that changes the disk, from the rename to the new log."""
    number = 0
    while True:
        number += 1
        directory = shutil.copytree(behind, tmp_path / str(number))
        give(directory, giver)
        try:
            with watch(directory, number):
                Opened.open(directory).drop()
        except Killed:
            check_begun_anew(directory)
            shutil.rmtree(directory)
        else:
            break
    check_begun_anew(directory)
    assert number > 20


@pytest.mark.scenario("D10", "A3", tier="U")
def test_a_loss_of_power_at_any_step_of_an_installation_is_survived(
    giver: Path, behind: Path, tmp_path: Path
) -> None:
    """From the first record that is fetched: the log as it was, or a new one behind the base."""
    directory = shutil.copytree(behind, tmp_path / "node")
    disk = Disk.of(directory)
    with watch(directory) as steps:
        give(directory, giver)
        Opened.open(directory).drop()
    choice = random.Random(3)
    seen = set()
    for call in steps.calls:
        disk.apply(call)
        image = tmp_path / "image"
        for path, data in disk.image(choice).items():
            if not path.startswith("views.db"):
                (image / path).parent.mkdir(parents=True, exist_ok=True)
                (image / path).write_bytes(data)
        install(image / "base")
        bases = BaseStore.open(image / "base")
        log = SegmentLog.open(image / "log", start=bases.start, may_begin_anew=bases.is_given)
        head = bases.head
        last, commit = (BEHIND + 1, BEHIND) if head is None else (head.index, head.index)
        assert log.last_index == last
        assert log.hard_state == HardState(TERM, VOTE, commit)
        seen.add(head is None)
        log.close()
        bases.close()
        shutil.rmtree(image)
    assert seen == {True, False}


def test_a_log_may_begin_anew_only_behind_a_base_that_others_gave(
    giver: Path, behind: Path, tmp_path: Path
) -> None:
    directory = shutil.copytree(behind, tmp_path / "node")
    shutil.copytree(giver / "base", directory / "base")
    with pytest.raises(CorruptionError, match="where the base ends"):
        Opened.open(directory)
