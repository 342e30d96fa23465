"""The layout of a data directory."""

import os
from pathlib import Path

import pytest

from p2pcity.errors import ConfigError
from p2pcity.ledger.data_directory import DataDirectory, initialise, open_directory
from p2pcity.ledger.segment_log import SegmentLog

INCARNATION = b"i" * 16


def test_init_makes_a_log_that_opens(tmp_path: Path) -> None:
    path = tmp_path / "a" / "data"
    made = initialise(path, INCARNATION)
    assert made == open_directory(path) == DataDirectory(path)
    assert made.has_log
    assert path.stat().st_mode & 0o077 == 0
    log = SegmentLog.open(made.log)
    assert log.incarnation == INCARNATION
    log.close()


def test_init_never_makes_a_log_anew(tmp_path: Path) -> None:
    initialise(tmp_path, INCARNATION)
    with pytest.raises(ConfigError) as caught:
        initialise(tmp_path, INCARNATION)
    assert caught.value.exit_code == 2
    assert caught.value.remedy


def test_run_without_a_log_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "empty" / "log").mkdir(parents=True)
    for path in (tmp_path / "none", tmp_path, tmp_path / "empty"):
        with pytest.raises(ConfigError) as caught:
            open_directory(path)
        assert "p2pcity init" in caught.value.remedy


def test_a_file_in_its_place_is_said(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"")
    for use in (open_directory, lambda p: initialise(p, INCARNATION)):
        with pytest.raises(ConfigError):
            use(path)


def test_missing_rights_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data"
    initialise(path, INCARNATION)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ConfigError, match="cannot be read and written") as caught:
        open_directory(path)
    assert "chown" in caught.value.remedy


def test_free_bytes_are_those_of_the_disk(tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    free = DataDirectory(tmp_path).free_bytes()
    assert 0 < free <= disk.f_blocks * disk.f_frsize
