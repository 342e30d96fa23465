"""A change of format: what is older is taken over, what is newer is left alone.

`format_two` is the next release. The files on which it is killed go on with it, and, until it has
begun a file of its own, with this one.
"""

import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from p2pcity.errors import ConfigError, CorruptionError
from p2pcity.ledger import base_store, records
from p2pcity.ledger.outbox import Outbox
from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.ledger.segment_recovery import recover
from p2pcity.ledger.segment_repair import Mender
from p2pcity.wire import cbor
from p2pcity.wire.raft import Entry, HardState
from tests import format_two
from tests.disk_steps import Killed, watch
from tests.integration.power_loss import Disk
from tests.segment_case import ALL, NETWORK, create, flip, make_entry

OLD, NEW = 5, 8
"""The last entry that each release writes."""


@contextmanager
def next_release() -> Iterator[None]:
    """This process is of the next release in the block."""
    with pytest.MonkeyPatch.context() as patched:
        format_two.install_log(patched.setattr)
        format_two.install_outbox(patched.setattr)
        yield


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A log that this release wrote, with a torn end."""
    directory = tmp_path / "disk" / "log"
    log = create(directory)
    log.bind_network(NETWORK)
    for index in range(1, OLD + 1):
        log.save(HardState(2, "node", index - 1), [make_entry(index)], True)
    log.close()
    with max(directory.glob("*.segment")).open("ab") as file:
        file.write(b"torn")
    return directory


def go_on(directory: Path) -> None:
    """What the next release does: it opens the log, and writes."""
    log = SegmentLog.open(directory)
    for index in range(log.last_index + 1, NEW + 1):
        log.save(HardState(2, "node", index - 1), [make_entry(index)], True)
    log.close()


def read(directory: Path) -> list[Entry]:
    """Open the log and return its entries; it is bound and its vote is there as ever."""
    log = SegmentLog.open(directory)
    assert (log.network, log.hard_state.vote) == (NETWORK, "node")
    entries = log.entries(1, log.last_index + 1, ALL)
    log.close()
    return entries


def formats(directory: Path) -> list[int]:
    """The format of each file."""
    return [
        records.parse_file_header(path.read_bytes())[0].version
        for path in sorted(directory.glob("*.segment"))
    ]


def entries_to(last: int) -> list[Entry]:
    return [make_entry(index) for index in range(1, last + 1)]


def check_old(directory: Path, scratch: Path) -> bool:
    """This release goes on with the log, or says who can; whether it does."""
    copy = Path(shutil.copytree(directory, scratch / "old"))
    try:
        if set(formats(copy)) == {1}:
            assert read(copy) == entries_to(OLD)
            return True
        with pytest.raises(ConfigError, match="has format 2, this release knows 1 to 1") as caught:
            SegmentLog.open(copy, mender=Mender(NETWORK))
        assert "Install the release that wrote" in caught.value.remedy
        assert formats(copy) == formats(directory)
        return False
    finally:
        shutil.rmtree(copy)


def check_new(directory: Path, first: Path) -> None:
    """The next release has all entries and goes on; no byte of the older file is another."""
    with next_release():
        found = read(directory)
        assert found == entries_to(len(found))
        assert len(found) >= OLD
        go_on(directory)
        assert read(directory) == entries_to(NEW)
    assert formats(directory) == [1, 2]
    old, now = (min(path.glob("*.segment")).read_bytes() for path in (first, directory))
    # Behind it a mark may stand, which says that all is synced; the torn end is cut.
    assert now.startswith(old[: -len(b"torn")])


@pytest.mark.scenario("D12", tier="U")
def test_a_log_is_taken_over_without_rewriting_it(written: Path, tmp_path: Path) -> None:
    first = Path(shutil.copytree(written, tmp_path / "first"))
    assert check_old(written, tmp_path)
    with next_release():
        go_on(written)
        # A header that went bad is made again in the format that it had.
        flip(min(written.glob("*.segment")), 8 * 20)
        flip(min(written.glob("*.segment")), 8 * 30)
        SegmentLog.open(written, mender=Mender(NETWORK)).close()
    check_new(written, first)
    assert not check_old(written, tmp_path)


@pytest.mark.scenario("D12", tier="U")
@pytest.mark.parametrize("has_power", [True, False])
def test_the_change_of_a_log_is_killed_at_every_step(
    written: Path, tmp_path: Path, has_power: bool
) -> None:
    """Before each call that changes the disk: the old log or the new one, nothing between."""
    choice, number, olds = random.Random(1), 0, 0
    while True:
        number += 1
        home = tmp_path / str(number)
        directory = Path(shutil.copytree(written, home / "log"))
        disk = Disk.of(home)
        with next_release(), watch(home, number) as steps:
            try:
                go_on(directory)
            except Killed:
                is_over = False
            else:
                is_over = True
        if is_over:
            break
        if not has_power:
            for call in steps.calls:
                disk.apply(call)
            image = disk.image(choice)
            shutil.rmtree(directory)
            directory.mkdir()
            for name, content in image.items():
                (home / name).write_bytes(content)
        olds += check_old(directory, tmp_path)
        check_new(directory, written)
        shutil.rmtree(home)
    assert 0 < olds < number - 1
    print(f"{number - 1} kills, after {olds} of which the older release goes on")


def test_a_file_in_an_older_format_behind_a_newer_one_is_no_log(written: Path) -> None:
    with next_release():
        go_on(written)
    newest = max(written.glob("*.segment"))
    header, record = records.parse_file_header(newest.read_bytes())
    older = records.encode_file_header(
        header._replace(
            version=1, sequence=3, first_index=NEW + 1, previous=recover_next(written).checksum
        )
    )
    (written / f"{3:016x}-{NEW + 1:016x}.segment").write_bytes(older)
    with next_release(), pytest.raises(CorruptionError, match="does not continue"):
        recover(written)
    assert record.kind == records.Kind.FILE


def recover_next(directory: Path) -> "records.Record":
    """The last record of a log of the next release."""
    with next_release():
        found = recover(directory)
        buffer = found.paths[found.sequence].read_bytes()
        offset = found.last_mark_offset
        previous = buffer[offset - records.CHECKSUM_BYTES : offset]
        return records.parse_record(buffer, offset, previous)


# -- the outbox --------------------------------------------------------------------------------


@pytest.mark.scenario("D12", tier="U")
def test_an_outbox_is_brought_to_the_next_format_and_this_one_refuses_it(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    box = Outbox.open(path)
    box.add([(bytes([number]) * 32, 2**40, b"carried %d" % number) for number in range(9)])
    box.settle([bytes(32)], "committed")
    before = box.pending(), box.state(bytes(32))
    box.close()
    with next_release():
        # Looked at alone, it stays what it was.
        assert Outbox.count(path) is None
    assert Outbox.count(path) == (8, 8 * 9, 1)
    with next_release():
        for _ in range(2):
            box = Outbox.open(path)
            assert (box.pending(), box.state(bytes(32))) == before
            box.close()
        assert Outbox.count(path) == (8, 8 * 9, 1)
    for look in (Outbox.open, Outbox.count):
        with pytest.raises(ConfigError, match="has format 2, this release knows 1 to 1"):
            look(path)


# -- the base ----------------------------------------------------------------------------------


def test_a_base_in_a_newer_format_is_left_alone(tmp_path: Path) -> None:
    head = tmp_path / "head"
    head.write_bytes(cbor.encode([2, b"whatever comes", b"then"]))
    with pytest.raises(ConfigError, match="has format 2, this release knows 1 to 1"):
        base_store.BaseStore.open(tmp_path)
    head.write_bytes(cbor.encode([b"head", 0, b"checksum"]))
    with pytest.raises(CorruptionError):
        base_store.BaseStore.open(tmp_path)
