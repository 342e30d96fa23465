"""A recovery that is killed at any step leaves the old state or the new one."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from p2pcity.errors import ConfigError
from p2pcity.ledger import recovery_marker
from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.wire.raft import Entry, HardState

pytestmark = pytest.mark.scenario("D13", tier="U")
OLD = HardState(3, "x", 2)
NEW = HardState(4, "me", 4)
ENTRY = Entry(4, 4, b"the next epoch")
CALLS = ("pwrite", "write", "fsync", "fdatasync", "replace", "rename", "unlink")


class KilledError(BaseException):
    """The process is gone."""


def _make(directory: Path) -> None:
    SegmentLog.create(directory / "log", b"i" * 16)
    log = SegmentLog.open(directory / "log")
    log.save(OLD, [Entry(1, 1), Entry(3, 2, b"b"), Entry(3, 3, b"c")], True)
    log.close()


def _recover(directory: Path) -> None:
    log = SegmentLog.open(directory / "log")
    recovery_marker.write(directory / "recover", log, ENTRY, NEW)
    log.close()


def _state(directory: Path) -> tuple[HardState, int]:
    """What the next start finds, and that it stays so at the one after it."""
    found = []
    for _ in range(2):
        log = SegmentLog.open(directory / "log")
        recovery_marker.finish(directory / "recover", log)
        assert not (directory / "recover").exists()
        found.append((log.hard_state, log.last_index))
        log.close()
    assert found[0] == found[1]
    return found[0]


class Killer:
    """Kills at the `number`-th call: before it, after it, or in the middle of a write."""

    def __init__(self, number: int, how: str) -> None:
        self.number = number
        self.how = how
        self.calls = 0

    def wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            self.calls += 1
            if self.calls != self.number:
                return real(*arguments, **more)
            if self.how == "after":
                real(*arguments, **more)
            elif self.how == "middle" and name == "pwrite":
                descriptor, data, offset = arguments
                real(descriptor, bytes(data)[: len(data) // 2], offset)
            raise KilledError

        return call


def _kill(monkeypatch: pytest.MonkeyPatch, directory: Path, number: int, how: str) -> bool:
    """Recover and be killed; False when there was no such call."""
    killer = Killer(number, how)
    with monkeypatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, killer.wrap(name, getattr(os, name)))
        with suppress(KilledError):
            _recover(directory)
            return False
    return True


@pytest.mark.parametrize("how", ["before", "middle", "after"])
def test_killed_at_every_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    seen: list[tuple[HardState, int]] = []
    for number, directory in _directories(tmp_path):
        _make(directory)
        if not _kill(monkeypatch, directory, number, how):
            break
        seen.append(_state(directory))
    assert set(seen) == {(OLD, 3), (NEW, 4)}
    assert seen == sorted(seen, key=lambda state: state[1]), "once new, always new"
    assert len(seen) >= 6


def _directories(path: Path) -> Iterator[tuple[int, Path]]:
    for number in range(1, 100):
        directory = path / str(number)
        directory.mkdir()
        yield number, directory


def test_every_torn_write_is_the_old_state_or_the_new_one(tmp_path: Path) -> None:
    """The group in the log cut at each byte, as power fails, with the marker in place."""
    _make(tmp_path)
    [segment] = (tmp_path / "log").iterdir()
    before = segment.read_bytes()
    log = SegmentLog.open(tmp_path / "log")
    marker = tmp_path / "recover"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recovery_marker, "_remove", lambda path: None)
        recovery_marker.write(marker, log, ENTRY, NEW)
    log.close()
    named, after = marker.read_bytes(), segment.read_bytes()
    seen = []
    for size in range(len(before), len(after) + 1):
        segment.write_bytes(after[:size])
        marker.write_bytes(named)
        seen.append(_state(tmp_path))
    assert set(seen) == {(OLD, 3), (NEW, 4)}
    assert seen == sorted(seen, key=lambda state: state[1])


def test_without_a_marker_nothing_happens(tmp_path: Path) -> None:
    _make(tmp_path)
    log = SegmentLog.open(tmp_path / "log")
    assert not recovery_marker.finish(tmp_path / "recover", log)
    assert (log.hard_state, log.last_index) == (OLD, 3)
    log.close()


def test_a_damaged_marker_is_said(tmp_path: Path) -> None:
    _make(tmp_path)
    log = SegmentLog.open(tmp_path / "log")
    marker = tmp_path / "recover"
    for data in (b"", b"rubbish", bytes(5000)):
        marker.write_bytes(data)
        with pytest.raises(ConfigError, match="is damaged"):
            recovery_marker.finish(marker, log)
    log.close()
