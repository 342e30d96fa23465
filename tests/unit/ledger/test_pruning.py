"""Pruning: the disk shrinks, nothing that counts is lost, and a kill at any step is survived."""

import errno
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from p2pcity.errors import ConfigError, CorruptionError, Pruned, SyncFailedError, Unavailable
from p2pcity.ledger.base_store import BaseDamaged, BaseStore
from p2pcity.ledger.check import check
from p2pcity.ledger.data_directory import DataDirectory
from p2pcity.ledger.rebuild import rebuild
from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.ledger.segment_repair import Mender
from p2pcity.ledger.views_store import ViewsStore
from p2pcity.ordering import recovery
from p2pcity.views.position import Position
from p2pcity.wire.base import (
    RECORD_BYTES,
    decode_head,
    encode_head,
    head_bytes_max,
    read_record,
)
from p2pcity.wire.event import name_key
from p2pcity.wire.limits import BASE_INTERVAL_BLOCKS
from p2pcity.wire.raft import Entry, HardState
from p2pcity.wire.transaction import Carried
from tests.chain_case import Chain
from tests.disk_steps import Killed, watch
from tests.integration.power_loss import Disk
from tests.pruned_case import (
    TERM,
    VOTE,
    Opened,
    log_bytes,
    make_chain,
    make_directory,
)
from tests.segment_case import flip
from tests.views_case import dump


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk that nothing was pruned on; not to be changed."""
    directory = tmp_path_factory.mktemp("made")
    make_directory(directory)
    return directory


@pytest.fixture
def directory(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "node")


@pytest.fixture
def opened(directory: Path) -> Iterator[Opened]:
    opened = Opened.open(directory)
    yield opened
    opened.close()


def check_all(opened: Opened) -> None:
    """What must be true after any start."""
    chain, made = make_chain()
    log, head = opened.log, opened.bases.head
    first = 1 if head is None else head.index + 1
    assert log.first_index == first
    assert log.last_index == chain.last_index
    assert (log.hard_state.term, log.hard_state.vote) == (TERM, VOTE)
    assert log.hard_state.commit == chain.last_index
    assert log.network == chain.genesis.network
    found = log.entries(first, log.last_index + 1, 1 << 40)
    assert [entry.payload for entry in found] == [data or b"" for _, data in chain.pairs(first)]
    assert opened.views.head == chain.blocks[-1].hash
    for item in (made[0], made[len(made) // 2], made[-1]):
        check_taken(opened, item)


def check_taken(opened: Opened, item: Carried) -> None:
    """Its id and the names of its events are on the ledger, for apply and for readers."""
    id_ = item.transaction.id
    assert opened.views.has_transaction(id_)
    record = opened.reader.transaction(id_)
    assert record is not None
    assert record.outcome == "applied"
    assert opened.reader.count_events(record.height, record.position) == 2
    for event in item.decoded_events():
        assert event is not None
        key = name_key(item.transaction.author, event.source, event.id)
        assert opened.views.has_event(key)
        assert opened.reader.has_event(key) == id_
        assert not opened.views.has_event(key[:8] + bytes(24))


def test_the_disk_shrinks_and_what_counts_stays(opened: Opened, directory: Path) -> None:
    before = log_bytes(directory)
    root = opened.views.frontier.root
    digest = opened.reader.base_digest(BASE_INTERVAL_BLOCKS)
    assert opened.prune().stored.digest == digest
    middle = log_bytes(directory)
    base = opened.prune()
    assert base.height == 2 * BASE_INTERVAL_BLOCKS
    assert log_bytes(directory) < middle < before
    assert log_bytes(directory) < before / 4
    assert opened.views.frontier.root == root
    check_all(opened)
    opened.close()
    again = Opened.open(directory)
    assert again.views.recovery is None
    assert again.views.meta.pruned == base.height
    check_all(again)
    again.close()


def test_what_was_pruned_is_asked_for(opened: Opened) -> None:
    _, made = make_chain()
    opened.prune()
    reader, first = opened.reader, BASE_INTERVAL_BLOCKS + 1
    for ask in (
        lambda: reader.block(1),
        lambda: reader.block_bytes(first - 1),
        lambda: reader.transaction_bytes(made[0].transaction.id),
        lambda: reader.events_after(Position(0, 0, 0), 10),
        lambda: reader.events_after(Position.before(first - 1), 10),
    ):
        with pytest.raises(Pruned) as caught:
            ask()
        assert caught.value.first_height == first
    assert reader.block(first) is not None
    page = reader.events_after(Position.before(first), 10)
    assert page.events[0].position.height >= first
    with pytest.raises(Pruned):
        opened.log.entries(1, 2, 1)


@pytest.mark.scenario("E2", tier="U")
def test_what_was_pruned_is_still_a_duplicate(opened: Opened) -> None:
    chain, made = make_chain()
    opened.prune()
    other = Chain(chain.genesis)
    other.blocks, other._payloads = list(chain.blocks), list(chain._payloads)
    taken = made[1].decoded_events()[0]
    assert taken is not None
    named_again = other.carried(other.event(id=taken.id, salt=b"x" * 16))
    other._payloads.append(other.make([made[0], named_again]).data)
    [done] = opened.views.apply_blocks(other.pairs(chain.last_index + 1))
    assert [item.outcome for item in done.transactions] == ["duplicate", "applied"]
    assert done.transactions[1].duplicate_events == {0}


def test_views_begun_from_the_base_are_the_same(opened: Opened, directory: Path) -> None:
    chain, _ = make_chain()
    opened.prune()
    meta = opened.views.meta
    expected = [opened.reader.base_digest(height) for height in (256, 512)]
    opened.reader.close()
    opened.views.close()
    before = [line for line in dump(directory / "views.db") if '"bases"' not in line]
    opened.views = rebuild(
        directory / "views.db", chain.genesis, opened.log, opened.log.last_index, bases=opened.bases
    )
    opened.reader = opened.views.open_reader()
    assert opened.views.meta == meta
    assert [opened.reader.base_digest(height) for height in (256, 512)] == expected
    check_all(opened)
    opened.views.checkpoint()
    assert [line for line in dump(directory / "views.db") if '"bases"' not in line] == before


@pytest.mark.parametrize("is_older", [True, False])
def test_views_that_the_log_cannot_mend_begin_from_the_base(
    directory: Path, tmp_path: Path, is_older: bool
) -> None:
    chain, _ = make_chain()
    old = tmp_path / "old.db"
    views = ViewsStore.open(old, genesis=chain.genesis, raft_log=chain)
    views.apply_blocks(chain.pairs()[:100])
    views.close()
    opened = Opened.open(directory)
    prune_twice(opened)
    opened.close()
    shutil.copy(old, directory / "views.db") if is_older else (directory / "views.db").unlink()
    opened = Opened.open(directory)
    assert (opened.views.recovery is not None) == is_older
    assert opened.views.meta.pruned == 2 * BASE_INTERVAL_BLOCKS
    check_all(opened)
    opened.close()


def test_offline_tools_go_on_from_the_base(opened: Opened, directory: Path, tmp_path: Path) -> None:
    chain, _ = make_chain()
    prune_twice(opened)
    base = opened.bases.head
    assert base is not None
    found = recovery.survey(chain.genesis, opened.log, base)
    assert found.tip.hash == chain.blocks[-1].hash
    assert found.state.voters_digest == chain.state.voters_digest
    opened.close()
    data = DataDirectory(directory)
    report = check(data, chain.genesis, tmp_path)
    assert report.is_sound, report.findings
    assert report.head == chain.blocks[-1].hash
    assert report.root == opened.views.frontier.root
    assert report.events == opened.views.meta.events
    assert f"height {base.height}" in " ".join(report.notes)
    # A record, the head, or a log that does not reach the base: each is found.
    for path, where in ((data.base / "records", 48 * 100), (data.base / "head", 300)):
        right = path.read_bytes()
        flip(path, 8 * where)
        (tmp_path / "views.db").unlink(missing_ok=True)
        [finding] = check(data, chain.genesis, tmp_path).findings
        assert "base" in finding.what
        assert "rejoin" in finding.remedy
        path.write_bytes(right)
    shutil.rmtree(data.log)
    SegmentLog.create(data.log, b"j" * 16)
    [finding] = check(data, chain.genesis, tmp_path).findings
    assert "where the base ends" in finding.what
    with pytest.raises(CorruptionError):
        Opened.open(directory)


def prune_twice(opened: Opened) -> None:
    opened.prune()
    opened.prune()


@pytest.mark.scenario("D10", "A2", tier="U")
def test_a_kill_at_any_step_of_pruning_is_survived(made: Path, tmp_path: Path) -> None:
    """SIGKILL before each call that changes the disk: the old base or the new one, no third."""
    heights, number = set[int](), 0
    while True:
        number += 1
        directory = shutil.copytree(made, tmp_path / str(number))
        opened = Opened.open(directory)
        try:
            with watch(directory, number):
                prune_twice(opened)
        except Killed:
            opened.drop()
        else:
            opened.close()
            break
        opened = Opened.open(directory)
        check_all(opened)
        heights.add(0 if opened.bases.head is None else opened.bases.head.height)
        if opened.bases.base.height < 2 * BASE_INTERVAL_BLOCKS:
            # What was interrupted is done again.
            opened.prune()
            check_all(opened)
        opened.close()
        shutil.rmtree(directory)
    assert heights == {0, BASE_INTERVAL_BLOCKS, 2 * BASE_INTERVAL_BLOCKS}
    assert number > 30


@pytest.mark.scenario("A10", "A11", tier="U")
@pytest.mark.parametrize("error", [errno.ENOSPC, pytest.param(errno.EIO, marks=pytest.mark.long)])
def test_a_disk_that_refuses_any_step_of_pruning_loses_nothing(
    made: Path, tmp_path: Path, error: int
) -> None:
    """A full disk costs a try while only the base is written; what is unsure stops the node."""
    ends, number = set[str](), 0
    while True:
        number += 1
        directory = shutil.copytree(made, tmp_path / str(number))
        opened = Opened.open(directory)
        try:
            with watch(directory, number, error):
                opened.prune()
        except Unavailable:
            ends.add("tried again")
            assert error == errno.ENOSPC
            check_all(opened)
            opened.prune()
            check_all(opened)
            opened.close()
        except (SyncFailedError, ConfigError):
            ends.add("stopped")
            opened.drop()
            opened = Opened.open(directory)
            check_all(opened)
            opened.close()
        else:
            opened.close()
            break
        shutil.rmtree(directory)
    assert ends == ({"tried again", "stopped"} if error == errno.ENOSPC else {"stopped"})


@pytest.mark.scenario("D10", "A3", tier="U")
def test_a_loss_of_power_at_any_step_of_pruning_is_survived(
    directory: Path, tmp_path: Path
) -> None:
    """Whatever the disk made of unsynced writes and names: base and log fit together."""
    chain, _ = make_chain()
    opened = Opened.open(directory)
    disk = Disk.of(directory)
    with watch(directory) as steps:
        prune_twice(opened)
    opened.close()
    choice = random.Random(7)
    for call in steps.calls:
        disk.apply(call)
        for name in ("one", "other"):
            image = tmp_path / name
            for path, data in disk.image(choice).items():
                if not path.startswith("views.db"):
                    (image / path).parent.mkdir(parents=True, exist_ok=True)
                    (image / path).write_bytes(data)
            bases = BaseStore.open(image / "base")
            log = SegmentLog.open(image / "log", start=bases.start)
            assert log.first_index == bases.start.index + 1
            assert log.last_index == chain.last_index
            assert (log.hard_state.term, log.hard_state.vote) == (TERM, VOTE)
            assert log.network == chain.genesis.network
            log.close()
            bases.close()
            shutil.rmtree(image)


@pytest.mark.scenario("A5", tier="U")
def test_a_flipped_bit_in_a_pruned_log_is_mended_or_refused(
    directory: Path, tmp_path: Path
) -> None:
    """Records of any kind, in files that begin below the base: never another content."""
    chain, _ = make_chain()
    opened = Opened.open(directory)
    prune_twice(opened)
    opened.close()
    start = opened.bases.start
    entries = {index: [Entry(1, index, data or b"")] for index, data in chain.pairs(1)}
    mender = Mender(chain.genesis.network, entries, {chain.last_index: 1})
    choice, ends = random.Random(11), Counter[str]()
    files = sorted((directory / "log").glob("*.segment"))
    for number in range(60):
        copy = shutil.copytree(directory / "log", tmp_path / str(number))
        path = copy / files[number % len(files)].name
        flip(path, choice.randrange(8 * path.stat().st_size))
        try:
            log = SegmentLog.open(copy, start=start, mender=mender)
        except CorruptionError:
            ends["refused"] += 1
            continue
        if log.holes:
            ends["holes"] += 1
            assert log.holes[0][0] > start.index
        else:
            ends["mended" if log.mended else "left"] += 1
            assert (log.first_index, log.last_index) == (start.index + 1, chain.last_index)
            assert log.hard_state == HardState(TERM, VOTE, chain.last_index)
            found = log.entries(log.first_index, log.last_index + 1, 1 << 40)
            assert [entry.payload for entry in found] == [
                data or b"" for _, data in chain.pairs(log.first_index)
            ]
        log.close()
        shutil.rmtree(copy)
    assert ends["mended"] > 30, ends


def test_a_flipped_bit_in_a_pruned_log_that_nobody_mends_yet_is_a_hole(directory: Path) -> None:
    """The log opens for those who ask others: it says what it lacks, above the base alone."""
    chain, _ = make_chain()
    opened = Opened.open(directory)
    prune_twice(opened)
    damaged = opened.log.first_index + 3
    place = opened.log._index.place(damaged)
    opened.close()
    start, mender = opened.bases.start, Mender(chain.genesis.network)
    [path] = (directory / "log").glob(f"{place.sequence:016x}-*.segment")
    flip(path, 8 * (place.offset + place.length // 2))
    log = SegmentLog.open(directory / "log", start=start, mender=mender)
    try:
        assert log.holes == ((damaged, damaged),)
        assert (log.first_index, log.last_index) == (start.index + 1, chain.last_index)
        for first, end in ((log.first_index, damaged), (damaged + 1, chain.last_index + 1)):
            found = [entry.payload for entry in log.entries(first, end, 1 << 40)]
            assert found == [data or b"" for _, data in chain.pairs(first)[: end - first]]
    finally:
        log.close()


@pytest.mark.parametrize("at", [0, 5, 8, 31, 32])
def test_a_record_that_is_damaged_while_it_runs_is_never_another_one(
    opened: Opened, directory: Path, at: int
) -> None:
    base = opened.prune()
    keys = [read_record(base.read_records(0, 2), number).key for number in (0, 1)]
    assert opened.views.has_transaction(keys[0])
    assert opened.views.has_event(keys[1])
    path = directory / "base" / "records"
    for number in (0, 1):
        flip(path, 8 * (number * RECORD_BYTES + at))
    with pytest.raises(BaseDamaged, match="the records behind height 0 are damaged"):
        opened.views.has_transaction(keys[0])
    with pytest.raises(BaseDamaged, match="the records behind height 0 are damaged"):
        opened.views.has_event(keys[1])


def test_a_head_above_its_limit_stops_pruning_and_nothing_else(
    opened: Opened, directory: Path
) -> None:
    data = opened.views.base_head(BASE_INTERVAL_BLOCKS)
    assert data is not None
    head = decode_head(data)
    large = encode_head(replace(head, city=bytes(head_bytes_max(head.height))))
    with pytest.raises(Unavailable, match="no base can be made") as refused:
        opened.bases.begin(large)
    assert "keep_blocks" in refused.value.remedy
    assert not (directory / "base").exists()
    assert opened.prune().height == BASE_INTERVAL_BLOCKS
