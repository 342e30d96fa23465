"""Whatever bytes come, `decode` raises nothing but DecodeError, and what it takes is canonical."""

import math

import cbor2
from hypothesis import example, given, settings
from hypothesis import strategies as st

from p2pcity.crypto.keys import PrivateKey
from p2pcity.errors import DecodeError
from p2pcity.wire import cbor, cose

_SIGNED = cose.sign(PrivateKey.from_seed(bytes(32)), "application/p2pcity-card+cbor", b"payload")

_NUMBERS = st.one_of(
    st.integers(-(2**64), 2**64 - 1), st.floats(allow_nan=False, allow_infinity=False)
)
_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), _NUMBERS, _TEXT, st.binary(max_size=300)),
    lambda inner: st.one_of(
        st.lists(inner), st.dictionaries(st.one_of(_TEXT, st.integers(-(2**64), 2**64 - 1)), inner)
    ),
    max_leaves=40,
)
# Bytes that look like CBOR: heads drawn from the interesting ones, then anything.
_HEADS = st.sampled_from(
    [
        bytes((major << 5 | info,))
        for major in range(8)
        for info in (0, 1, 2, 23, 24, 25, 27, 28, 31)
    ]
)
_CBOR_LIKE = st.lists(st.one_of(_HEADS, st.binary(max_size=9)), max_size=60).map(b"".join)


def _is_canonical(data: bytes) -> bool:
    """Decode; True when taken, having checked that our writer gives the same bytes back."""
    try:
        value = cbor.decode(data)
    except DecodeError:
        return False
    assert cbor.encode(value) == data
    assert cbor2.loads(data) == value
    return True


@given(st.binary(max_size=200))
@example(b"\x9b" + b"\xff" * 8)
@example(b"\x81" * 100_000)
def test_any_bytes(data: bytes) -> None:
    _is_canonical(data)


@given(_CBOR_LIKE)
def test_bytes_that_look_like_cbor(data: bytes) -> None:
    _is_canonical(data)


@given(_VALUES)
def test_round_trip(value: object) -> None:
    try:
        data = cbor.encode(value)
    except cbor.EncodeError:  # deeper than 16
        return
    decoded = cbor.decode(data)
    assert decoded == value
    assert cbor.encode(decoded) == data


@given(_VALUES, st.data())
def test_a_mutation_is_refused_or_canonical(value: object, data: st.DataObject) -> None:
    try:
        encoded = bytearray(cbor.encode(value))
    except cbor.EncodeError:
        return
    place = data.draw(st.integers(0, len(encoded) - 1))
    encoded[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    _is_canonical(bytes(encoded))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_has_one_encoding(value: float) -> None:
    encoded = cbor.encode(value)
    forms = [cbor2.dumps(value)] + [
        head + packed
        for head, packed in ((b"\xfa", _pack(value, 4)), (b"\xf9", _pack(value, 2)))
        if packed
    ]
    taken = [form for form in forms if _is_canonical(form)]
    assert taken == ([encoded] if encoded[0] >= 0xF9 else [])
    assert cbor.decode(encoded) == value


def _pack(value: float, width: int) -> bytes:
    """The float in a narrower form when that keeps it, else nothing."""
    head, size = (b"\xfa", 4) if width == 4 else (b"\xf9", 2)
    content = cbor2.dumps(value, canonical=True)
    if content[:1] == head and len(content) == size + 1:
        return content[1:]
    return b""


@given(st.one_of(st.binary(max_size=300), _CBOR_LIKE.map(lambda data: b"\xd2" + data)))
@settings(max_examples=200)
def test_cose_raises_nothing_else(data: bytes) -> None:
    try:
        signed = cose.decode(data)
    except DecodeError:
        return
    assert isinstance(cose.is_valid(signed), bool)


@given(st.integers(0, len(_SIGNED) - 1), st.binary(max_size=4), st.integers(0, 4))
def test_a_mutated_cose_is_refused_or_not_valid(place: int, new: bytes, gone: int) -> None:
    broken = _SIGNED[:place] + new + _SIGNED[place + gone :]
    try:
        signed = cose.decode(broken)
    except DecodeError:
        return
    assert cose.is_valid(signed) is (broken == _SIGNED)
    assert math.prod((len(signed.kid), len(signed.signature))) == 32 * 64
