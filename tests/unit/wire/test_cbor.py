import json
import struct
from pathlib import Path
from typing import Any

import cbor2
import pytest

from p2pcity.errors import DecodeError, LocalError
from p2pcity.wire import cbor
from p2pcity.wire.cbor import EncodeError
from tests import vectors_cbor

_CASES = vectors_cbor.cases()


@pytest.mark.parametrize("path", _CASES)
def test_own_vectors(path: str) -> None:
    vectors_cbor.check(_CASES[path])


def _is_in_profile(item: dict[str, Any]) -> bool:
    """Say by the item's own description whether the profile has it (no use of our reader)."""
    data = bytes.fromhex(item["hex"])
    text = str(item.get("diagnostic", ""))
    is_odd = text in {"undefined", "NaN", "Infinity", "-Infinity"} or text.startswith("simple")
    is_tagged = data[0] >> 5 == 6
    is_indefinite = b"\xff" in data[-1:] and data[0] >> 5 in (2, 3, 4, 5)
    is_indefinite = is_indefinite or any(bit in item["hex"] for bit in ("9f02", "bf61", "9f04"))
    value = item.get("decoded")
    is_reducible = isinstance(value, float) and value.is_integer() and abs(value) < 2**64
    return not (is_odd or is_tagged or is_indefinite or is_reducible)


def test_rfc_8949_appendix_a(shared_vectors: Path) -> None:
    items = json.loads((shared_vectors / "cbor-appendix-a/appendix_a.json").read_text())
    inside = outside = 0
    for item in items:
        data = bytes.fromhex(item["hex"])
        if _is_in_profile(item):
            value = cbor.decode(data)
            assert value == item.get("decoded", cbor2.loads(data)), item
            assert cbor.encode(value) == data, item
            inside += 1
        else:
            with pytest.raises(DecodeError):
                cbor.decode(data)
            outside += 1
    assert (len(items), inside, outside) == (82, 44, 38)


def test_values_keep_their_types() -> None:
    value = {"a": [True, 1, 1.5, "1", b"1", None], 1: {}, -1: []}
    decoded = cbor.decode(cbor.encode(value))
    assert decoded == value
    assert isinstance(decoded, dict)
    items = decoded["a"]
    assert isinstance(items, list)
    assert [type(item) for item in items] == [bool, int, float, str, bytes, type(None)]


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (1.0, "01"),
        (-0.0, "00"),
        (-4.0, "23"),
        (100000.0, "1a000186a0"),
        (2.0**63, "1b8000000000000000"),
        (2.0**64 - 2048, "1bfffffffffffff800"),
        (-(2.0**64), "3bffffffffffffffff"),
        (2.0**64, "fa5f800000"),
        (1.5, "f93e00"),
        (1.1, "fb3ff199999999999a"),
        (5e-324, "fb0000000000000001"),
        ((1, 2), "820102"),
        ({"b": 1, "a": 2, 10: 3, -1: 4, 1000: 5}, "a50a031903e80520046161026162" + "01"),
        ({"aa": 1, "b": 2}, "a261620262616101"),
    ],
)
def test_one_encoding(value: object, data: str) -> None:
    assert cbor.encode(value).hex() == data
    assert cbor.decode(bytes.fromhex(data)) == (list(value) if value == (1, 2) else value)


_cycle: list[object] = []
_cycle.append(_cycle)


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        float("-inf"),
        2**64,
        -(2**64) - 1,
        "\ud800",
        {"\udfff": 1},
        {b"a": 1},
        {1.5: 1},
        {True: 1},
        {None: 1},
        {(1,): 1},
        {1, 2},
        object(),
        bytearray(b"a"),
        1j,
        cbor2.undefined,
        cbor2.CBORTag(18, []),
        _cycle,
    ],
)
def test_values_outside_the_profile_are_the_callers_fault(value: object) -> None:
    with pytest.raises(EncodeError) as caught:
        cbor.encode(value)
    assert isinstance(caught.value, LocalError)


def _nested(depth: int) -> list[object]:
    value: list[object] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def test_depth() -> None:
    assert cbor.decode(cbor.encode(_nested(16))) == _nested(16)
    with pytest.raises(EncodeError):
        cbor.encode(_nested(17))
    assert cbor.decode(cbor.encode(_nested(2)), depth_max=2) == _nested(2)
    with pytest.raises(DecodeError):
        cbor.decode(cbor.encode(_nested(3)), depth_max=2)
    with pytest.raises(DecodeError):
        cbor.decode(b"\x80", depth_max=0)
    assert cbor.decode(b"\x00", depth_max=0) == 0


def test_depth_counts_what_is_open_not_what_was() -> None:
    beside = cbor.encode([_nested(15)] * 20)
    assert cbor.decode(beside) == [_nested(15)] * 20


def test_size_is_checked_first() -> None:
    with pytest.raises(DecodeError) as caught:
        cbor.decode(b"\xff" * 11, size_max=10)
    assert caught.value.reason == "size"
    assert cbor.decode(b"\x49" + b"\xff" * 9, size_max=10) == b"\xff" * 9


@pytest.mark.parametrize("data", [None, 1, "00", bytearray(b"\x00"), memoryview(b"\x00"), [0]])
def test_what_is_not_bytes_is_malformed_too(data: Any) -> None:
    with pytest.raises(DecodeError):
        cbor.decode(data)


@pytest.mark.parametrize("first", range(256))
def test_every_initial_byte_with_every_kind_of_tail(first: int) -> None:
    """Our verdict equals a slow one: cbor2 reads it and our writer gives the same bytes back."""
    tails = [b"", b"\x00", b"\x17", b"\x18", b"\x61a", b"\xff", b"\x00" * 8, b"\xff" * 8]
    tails += [b"\x01" + b"\x00" * 7, b"a" * 23, b"\x40", b"\xf6", b"\x00\x00\x01\x00", b"\x01\x02"]
    for tail in tails:
        data = bytes((first,)) + tail
        try:
            value = cbor.decode(data)
        except DecodeError:
            assert not _is_read_and_written_back(data), data.hex()
        else:
            assert cbor.encode(value) == data
            assert _is_read_and_written_back(data), data.hex()


def _is_read_and_written_back(data: bytes) -> bool:
    try:
        return cbor.encode(cbor2.loads(data)) == data
    except (cbor2.CBORDecodeError, EncodeError, ValueError, TypeError, OverflowError, MemoryError):
        return False


def test_every_half_float() -> None:
    """All 65,536: an integral or not finite one is refused, each other has its one encoding."""
    for bits in range(1 << 16):
        data = b"\xf9" + bits.to_bytes(2)
        (value,) = struct.unpack(">e", data[1:])
        is_allowed = value - value == 0 and not value.is_integer()
        try:
            assert cbor.decode(data) == value
        except DecodeError:
            assert not is_allowed
        else:
            assert is_allowed
            assert cbor.encode(value) == data


def test_head() -> None:
    for argument in (0, 23, 24, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**64 - 1):
        assert cbor.head(0, argument) == cbor.encode(argument)
        assert cbor.head(1, argument) == cbor.encode(-1 - argument)
    assert cbor.head(6, 18) == b"\xd2"
    with pytest.raises(EncodeError):
        cbor.head(0, 2**64)
