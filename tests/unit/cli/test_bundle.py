"""A bundle that can't be written leaves nothing behind, and nothing that was there is touched."""

import errno
import os
import tarfile
from pathlib import Path

import pytest

from p2pcity.cli.bundle import PART_BYTES_MAX, Bundle
from p2pcity.errors import ConfigError, Unavailable


def test_no_half_of_a_bundle_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def addfile(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tarfile.TarFile, "addfile", addfile)
    file = tmp_path / "bundle.tar.gz"
    with pytest.raises(ConfigError, match="No space left") as caught:
        Bundle().write(file)
    assert "Name another file" in caught.value.remedy
    assert not file.exists()
    file.write_bytes(b"somebody's")
    with pytest.raises(ConfigError, match="File exists"):
        Bundle().write(file)
    assert file.read_bytes() == b"somebody's"


def test_parts_are_bounded_and_what_is_missing_is_named() -> None:
    bundle = Bundle()

    def gone() -> bytes:
        raise Unavailable("nobody answers")

    bundle.add("log.txt", lambda: b"a" * PART_BYTES_MAX + b"the end")
    bundle.add("status.json", gone)
    assert len(bundle.parts["log.txt"]) == PART_BYTES_MAX
    assert bundle.parts["log.txt"].endswith(b"the end")
    assert bundle.missing == {"status.json": "nobody answers"}
