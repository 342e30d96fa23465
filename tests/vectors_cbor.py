"""The vectors of deterministic CBOR: what is inside the profile, and every way to be outside.

`cases()` gives the files under protocol/vectors, `check()` judges one of them with our code.
"""

from typing import Any, Final

import pytest

from p2pcity.errors import DecodeError
from p2pcity.wire import cbor

SPEC: Final = "00-conventions.md#deterministic-cbor"

# name, bytes in hex, diagnostic notation (RFC 8949 section 8)
_VALID: Final = [
    ("integer-0", "00", "0"),
    ("integer-23", "17", "23"),
    ("integer-24", "1818", "24"),
    ("integer-255", "18ff", "255"),
    ("integer-256", "190100", "256"),
    ("integer-65536", "1a00010000", "65536"),
    ("integer-2-32", "1b0000000100000000", "4294967296"),
    ("integer-greatest", "1b" + "ff" * 8, "18446744073709551615"),
    ("integer-minus-1", "20", "-1"),
    ("integer-minus-25", "3818", "-25"),
    ("integer-least", "3b" + "ff" * 8, "-18446744073709551616"),
    ("bytes-empty", "40", "h''"),
    ("bytes-24", "5818" + "ab" * 24, "h'" + "ab" * 24 + "'"),
    ("text-empty", "60", '""'),
    ("text-astral", "64f0908591", '"\U00010151"'),
    ("text-with-nul", "6100", '"\\u0000"'),
    ("array-empty", "80", "[]"),
    ("array-24", "9818" + "00" * 24, "[" + ", ".join("0" * 24) + "]"),
    ("map-empty", "a0", "{}"),
    ("map-order-integers-before-text", "a2011820206161", '{1: 32, -1: "a"}'),
    ("map-order-bytewise", "a31903e80020016161f6", '{1000: 0, -1: 1, "a": null}'),
    ("map-order-short-text-first", "a261620062616101", '{"b": 0, "aa": 1}'),
    ("false", "f4", "false"),
    ("true", "f5", "true"),
    ("null", "f6", "null"),
    ("float-half", "f93e00", "1.5"),
    ("float-half-subnormal", "f90001", "5.960464477539063e-8"),
    ("float-single", "fa3fc00001", "1.5000001192092896"),
    ("float-double", "fb3ff199999999999a", "1.1"),
    ("float-beyond-integers", "fa5f800000", "18446744073709551616.0"),
    ("float-beyond-negative-integers", "fadf800001", "-18446746272732807168.0"),
    ("float-double-large", "fb7e37e43c8800759c", "1.0e+300"),
    ("depth-16", "81" * 15 + "80", "[" * 16 + "]" * 16),
]

# name, bytes in hex, the rule that they break
_INVALID: Final = [
    ("empty", "", "there must be one item"),
    ("truncated-head", "19", "a head needs its argument"),
    ("truncated-argument", "1a0001", "a head needs its whole argument"),
    ("truncated-bytes", "4301", "a string needs its bytes"),
    ("truncated-text", "6361", "a string needs its bytes"),
    ("truncated-array", "8200", "an array needs its items"),
    ("truncated-map-value", "a101", "a key needs its value"),
    ("truncated-nested", "818181", "an array needs its items"),
    ("truncated-float", "fb3ff1999999", "a float needs its content"),
    ("trailing-byte", "0000", "nothing may follow the item"),
    ("trailing-item", "8000", "nothing may follow the item"),
    ("integer-not-shortest-1", "1817", "shortest form"),
    ("integer-not-shortest-2", "1900ff", "shortest form"),
    ("integer-not-shortest-4", "1a0000ffff", "shortest form"),
    ("integer-not-shortest-8", "1b00000000ffffffff", "shortest form"),
    ("integer-negative-not-shortest", "3817", "shortest form"),
    ("length-not-shortest-bytes", "580161", "shortest form"),
    ("length-not-shortest-text", "780161", "shortest form"),
    ("length-not-shortest-array", "980100", "shortest form"),
    ("length-not-shortest-map", "b8010000", "shortest form"),
    ("length-not-shortest-key", "a178016100", "shortest form, in keys too"),
    ("key-integer-not-shortest", "a1180100", "shortest form, in keys too"),
    ("reserved-28", "1c", "additional information 28 to 30 is reserved"),
    ("reserved-30", "9e", "additional information 28 to 30 is reserved"),
    ("indefinite-bytes", "5f4101ff", "definite lengths only"),
    ("indefinite-text", "7f6161ff", "definite lengths only"),
    ("indefinite-array", "9f00ff", "definite lengths only"),
    ("indefinite-map", "bf0000ff", "definite lengths only"),
    ("break-alone", "ff", "a break has nothing to end"),
    ("huge-length-bytes", "5b" + "ff" * 8, "a length must not exceed the bytes that are there"),
    ("huge-length-text", "7b7fffffffffffffff", "as before"),
    ("huge-length-array", "9b" + "ff" * 8, "more items than bytes"),
    ("huge-length-map", "bb8000000000000000", "more items than bytes"),
    ("map-half-filled", "a20000", "a map of two pairs needs four items"),
    ("key-duplicate-text", "a2616100616101", "no key twice"),
    ("key-duplicate-integer", "a201000101", "no key twice"),
    ("key-order-text", "a2616200616100", "keys sorted by their bytes"),
    ("key-order-integer", "a202000100", "keys sorted by their bytes"),
    ("key-order-text-before-integer", "a26161000100", "keys sorted by their bytes"),
    ("key-order-by-content", "a262616100616201", "keys sorted by their bytes, length first"),
    ("key-order-nested", "8201a16161a202000100", "in every map"),
    ("key-bytes", "a1416100", "keys are text or integers"),
    ("key-array", "a18000", "keys are text or integers"),
    ("key-map", "a1a000", "keys are text or integers"),
    ("key-bool", "a1f400", "keys are text or integers"),
    ("key-null", "a1f600", "keys are text or integers"),
    ("key-float", "a1f93e0000", "keys are text or integers"),
    ("tag-0", "c060", "no tags"),
    ("tag-18", "d280", "no tags; 18 stands in front of a COSE_Sign1 only"),
    ("tag-nested", "81c100", "no tags"),
    ("tag-self-described", "d9d9f700", "no tags"),
    ("bignum", "c249010000000000000000", "no bignum"),
    ("bignum-negative", "c349010000000000000000", "no bignum"),
    ("bignum-small", "c24101", "no bignum"),
    ("undefined", "f7", "no undefined"),
    ("simple-16", "f0", "no other simple values"),
    ("simple-32", "f820", "no other simple values"),
    ("simple-true-long", "f815", "no two-byte form of true"),
    ("float-nan", "f97e00", "floats are finite"),
    ("float-nan-payload", "f97e01", "floats are finite"),
    ("float-infinity", "f97c00", "floats are finite"),
    ("float-minus-infinity-double", "fbfff0000000000000", "floats are finite"),
    ("float-zero", "f90000", "an integer says 0"),
    ("float-minus-zero", "f98000", "-0.0 is written 0"),
    ("float-minus-zero-double", "fb8000000000000000", "-0.0 is written 0"),
    ("float-one", "f93c00", "an integer says 1"),
    ("float-integral-single", "fa47c35000", "an integer says 100000"),
    ("float-integral-double", "fb43efffffffffffff", "an integer says it, up to 2^64 - 1"),
    ("float-integral-least", "fadf800000", "an integer says it, down to -2^64"),
    ("float-single-fits-half", "fa3fc00000", "1.5 fits half precision"),
    ("float-double-fits-half", "fb3ff8000000000000", "1.5 fits half precision"),
    ("float-double-fits-single", "fb3ff8000020000000", "fits single precision"),
    ("float-double-large-fits-single", "fb43f0000000000000", "2^64 fits single precision"),
    ("utf8-lone-continuation", "6180", "text is UTF-8"),
    ("utf8-overlong", "62c080", "text is UTF-8"),
    ("utf8-surrogate", "63eda080", "text is UTF-8"),
    ("utf8-beyond-unicode", "64f4908080", "text is UTF-8"),
    ("utf8-truncated", "61c3", "text is UTF-8"),
    ("utf8-key", "a161ff00", "text is UTF-8, in keys too"),
    ("depth-17-arrays", "81" * 16 + "80", "16 containers inside one another at most"),
    ("depth-17-maps", "a100" * 16 + "a0", "16 containers inside one another at most"),
    ("depth-thousands", "81" * 5000, "16 containers inside one another at most"),
]


def _case(name: str, comment: str, data: bytes, diagnostic: str | None) -> dict[str, Any]:
    is_valid = diagnostic is not None
    return {
        "id": f"cbor-{name}",
        "spec": SPEC,
        "comment": comment,
        "flags": [],
        "input": {"data": data.hex()},
        "intermediates": {"diagnostic": diagnostic} if is_valid else {},
        "expected": "valid" if is_valid else "invalid",
        "reason": None if is_valid else "malformed",
    }


def _mutations(data: bytes) -> dict[str, bytes]:
    """One real item, broken in every systematic way."""
    cut = {f"mutation-truncated-{size}": data[:size] for size in range(1, len(data))}
    return {**cut, "mutation-trailing-byte": data + b"\x00"}


def cases() -> dict[str, dict[str, Any]]:
    """Every file of this area: its path below protocol/vectors, and what it holds."""
    files = {}
    whole = cbor.encode({"at": [133777000, 0.5], "id": "é", 7: b"\x00", -1: None})
    valid = [(name, bytes.fromhex(text), diagnostic) for name, text, diagnostic in _VALID]
    diagnostic = '{7: h\'00\', -1: null, "at": [133777000, 0.5], "id": "é"}'
    valid.append(("mutated-item", whole, diagnostic))
    for name, data, diagnostic in valid:
        case = _case(name, f"the one encoding of {diagnostic[:60]}", data, diagnostic)
        files[f"cbor/valid/{name}.json"] = case
    invalid = [(name, bytes.fromhex(text), rule) for name, text, rule in _INVALID]
    for name, data in _mutations(whole).items():
        invalid.append((name, data, "a mutation of mutated-item"))
    for name, data, rule in invalid:
        files[f"cbor/invalid/{name}.json"] = _case(name, rule, data, None)
    return files


def check(case: dict[str, Any]) -> None:
    """Judge one case with our reader and writer."""
    data = bytes.fromhex(case["input"]["data"])
    if case["expected"] == "valid":
        assert cbor.encode(cbor.decode(data)) == data
    else:
        with pytest.raises(DecodeError) as caught:
            cbor.decode(data)
        assert caught.value.reason == case["reason"]
