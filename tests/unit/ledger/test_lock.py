"""The lock of a data directory."""

import os
from pathlib import Path

import pytest

from p2pcity.errors import ConfigError, LockedError
from p2pcity.ledger.lock import DataLock


@pytest.mark.scenario("A9", tier="U")
def test_the_second_holder_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    with DataLock(tmp_path, "peer-a"):
        for peer in ("peer-a", "peer-b"):
            with pytest.raises(LockedError) as caught:
                DataLock(tmp_path, peer).acquire()
            assert caught.value.exit_code == 12
            assert str(os.getpid()) in str(caught.value)
            assert "peer-a" in str(caught.value)


def test_a_released_lock_can_be_taken_again_by_the_same_peer_only(tmp_path: Path) -> None:
    lock = DataLock(tmp_path, "peer-a")
    lock.acquire()
    lock.release()
    lock.release()
    lock.acquire()
    lock.release()
    with pytest.raises(ConfigError, match="peer-a"):
        DataLock(tmp_path, "peer-b").acquire()
    (tmp_path / "lock").unlink()
    with DataLock(tmp_path, "peer-b"):
        pass


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff" * 10, b'{"pid": "x", "peer": 1}'])
def test_a_lock_file_that_says_nothing_is_no_obstacle(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lock").write_bytes(content)
    with DataLock(tmp_path, "peer-a"):
        assert b'"peer-a"' in (tmp_path / "lock").read_bytes()


def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        DataLock(tmp_path, "peer-a").acquire()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    with DataLock(tmp_path, "peer-a"):
        pass


def test_a_missing_directory_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        DataLock(tmp_path / "none", "peer-a").acquire()
    assert caught.value.remedy
