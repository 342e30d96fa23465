"""The file of promises: read as it was written, and never trusted when it is not."""

from pathlib import Path

import pytest

from p2pcity.errors import DecodeError
from p2pcity.ledger import promises_file
from p2pcity.wire.promise import Promise

PROMISES = (Promise("a", bytes(16), 5, 2), Promise("b", bytes([1]) * 16, 0, 7))


def test_it_is_read_as_written(tmp_path: Path) -> None:
    path = tmp_path / "promises"
    assert promises_file.read(path) == ()
    promises_file.write(path, PROMISES)
    assert promises_file.read(path) == PROMISES
    promises_file.write(path, PROMISES[:1])
    assert promises_file.read(path) == PROMISES[:1]
    assert [item.name for item in tmp_path.iterdir()] == ["promises"]


def test_every_damage_is_found(tmp_path: Path) -> None:
    path = tmp_path / "promises"
    promises_file.write(path, PROMISES)
    good = path.read_bytes()
    for at in range(len(good)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :])
        with pytest.raises(DecodeError):
            promises_file.read(path)
        path.write_bytes(good[:at])
        with pytest.raises(DecodeError):
            promises_file.read(path)
    path.write_bytes(bytes(100_000))
    with pytest.raises(DecodeError):
        promises_file.read(path)


def test_what_can_not_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match="can't be read"):
        promises_file.read(tmp_path)
