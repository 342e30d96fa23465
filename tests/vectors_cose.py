"""The vectors of COSE_Sign1: the one shape that is allowed, every other, and wrong signatures.

`cases()` gives the files under protocol/vectors, `check()` judges one of them with our code.
"""

from typing import Any, Final

import pytest

from p2pcity.crypto.keys import PrivateKey
from p2pcity.errors import DecodeError
from p2pcity.wire import cbor, cose

SPEC: Final = "00-conventions.md#cose_sign1"
_SEED: Final = bytes(range(32))
_TYPE: Final = "application/p2pcity-transaction+cbor"
_PAYLOAD: Final = cbor.encode({"count": 1})
_KEY: Final = PrivateKey.from_seed(_SEED)
_HEADER: Final = {1: -8, 3: _TYPE, 4: _KEY.public}


def _message(
    header: object = _HEADER,
    *,
    protected: bytes | None = None,
    unprotected: object = None,
    payload: object = _PAYLOAD,
    tag: bytes = b"\xd2",
    more: tuple[object, ...] = (),
) -> bytes:
    """A COSE_Sign1 with a right signature over whatever its parts are."""
    protected = cbor.encode(header) if protected is None else protected
    signed = cose.signature_structure(protected, payload if isinstance(payload, bytes) else b"")
    items = [protected, {} if unprotected is None else unprotected, payload, _KEY.sign(signed)]
    return tag + cbor.encode([*items, *more])


def _malformed() -> dict[str, tuple[str, bytes]]:
    whole = cose.sign(_KEY, _TYPE, _PAYLOAD)
    kid = _KEY.public
    long_header = cbor.encode(_HEADER)
    unsorted = b"\xa3" + b"\x03" + cbor.encode(_TYPE) + b"\x01\x27" + b"\x04" + cbor.encode(kid)
    return {
        "empty": ("no bytes", b""),
        "tag-missing": ("tag 18 stands in front", whole[1:]),
        "tag-98": ("COSE_Sign is another tag", b"\xd8\x62" + whole[1:]),
        "tag-long": ("tag 18 in its shortest form", b"\xd8\x12" + whole[1:]),
        "tag-twice": ("tag 18 once", b"\xd2" + whole),
        "tag-cwt": ("no CWT tag around it", b"\xd8\x3d" + whole),
        "trailing-byte": ("nothing follows", whole + b"\x00"),
        "truncated": ("the last byte is missing", whole[:-1]),
        "array-long-head": ("deterministic CBOR", b"\xd2\x98\x04" + whole[2:]),
        "array-indefinite": ("deterministic CBOR", b"\xd2\x9f" + whole[2:] + b"\xff"),
        "items-three": ("four items", b"\xd2" + cbor.encode([long_header, {}, _PAYLOAD])),
        "items-five": ("four items", _message(more=(0,))),
        "not-an-array": ("an array", b"\xd2" + cbor.encode({})),
        "protected-map": ("protected is a byte string", b"\xd2" + cbor.encode(
            [_HEADER, {}, _PAYLOAD, bytes(64)])),
        "protected-empty": ("all three parameters", _message(protected=b"")),
        "protected-empty-map": ("all three parameters", _message({})),
        "protected-array": ("protected holds a map", _message([])),
        "protected-unsorted": ("deterministic CBOR", _message(protected=unsorted)),
        "protected-trailing": ("deterministic CBOR", _message(protected=long_header + b"\x00")),
        "protected-unknown": ("no other parameter", _message({**_HEADER, 2: [1]})),
        "alg-missing": ("alg", _message({3: _TYPE, 4: kid})),
        "alg-minus-19": ("alg is -8", _message({**_HEADER, 1: -19})),
        "alg-es256": ("alg is -8", _message({**_HEADER, 1: -7})),
        "alg-text": ("alg is the integer -8", _message({**_HEADER, 1: "EdDSA"})),
        "content-type-missing": ("content type", _message({1: -8, 4: kid})),
        "content-type-integer": ("content type is text", _message({**_HEADER, 3: 60})),
        "content-type-other": ("the content type that is expected here", _message(
            {**_HEADER, 3: "application/p2pcity-card+cbor"})),
        "kid-missing": ("kid", _message({1: -8, 3: _TYPE})),
        "kid-text": ("kid is bytes", _message({**_HEADER, 4: "k" * 32})),
        "kid-short": ("kid has 32 bytes", _message({**_HEADER, 4: kid[:31]})),
        "kid-long": ("kid has 32 bytes", _message({**_HEADER, 4: kid + b"\x00"})),
        "unprotected-kid": ("unprotected is empty", _message(unprotected={4: kid})),
        "unprotected-array": ("unprotected is a map", _message(unprotected=[])),
        "payload-detached": ("the payload is there", b"\xd2" + cbor.encode(
            [long_header, {}, None, bytes(64)])),
        "payload-text": ("the payload is bytes", _message(payload="text")),
        "signature-short": ("64 bytes", b"\xd2" + cbor.encode(
            [long_header, {}, _PAYLOAD, bytes(63)])),
        "signature-long": ("64 bytes", b"\xd2" + cbor.encode(
            [long_header, {}, _PAYLOAD, bytes(65)])),
    }  # fmt: skip


def _wrongly_signed() -> dict[str, tuple[str, bytes]]:
    protected = cbor.encode(_HEADER)
    other = PrivateKey.from_seed(bytes(32))
    structure = cose.signature_structure(protected, _PAYLOAD)

    def carry(signature: bytes) -> bytes:
        return b"\xd2" + cbor.encode([protected, {}, _PAYLOAD, signature])

    right = _KEY.sign(structure)
    external = cose.signature_structure(protected, _PAYLOAD, b"\x01")
    return {
        "signature-bit": ("a bit flipped", carry(bytes((right[0] ^ 1,)) + right[1:])),
        "signature-zero": ("all zero", carry(bytes(64))),
        "signature-other-key": ("by a key that is not the kid", carry(other.sign(structure))),
        "signature-other-payload": ("over another payload", carry(
            _KEY.sign(cose.signature_structure(protected, b"")))),
        "signature-external-aad": ("external_aad is empty", carry(_KEY.sign(external))),
        "signature-payload-only": ("over the payload alone", carry(_KEY.sign(_PAYLOAD))),
        "signature-other-context": ("COSE_Sign's context", carry(
            _KEY.sign(structure.replace(b"\x6aSignature1", b"\x69Signature")))),
    }  # fmt: skip


def _case(name: str, comment: str, data: bytes) -> dict[str, Any]:
    return {
        "id": f"cose-{name}",
        "spec": SPEC,
        "comment": comment,
        "flags": [],
        "input": {"data": data.hex(), "content_type": _TYPE},
        "intermediates": {},
        "expected": "invalid",
        "reason": "malformed",
    }


def cases() -> dict[str, dict[str, Any]]:
    """Every file of this area: its path below protocol/vectors, and what it holds."""
    files = {}
    payloads = {"signed": _PAYLOAD, "payload-empty": b"", "payload-300": b"\x5a" * 300}
    for name, payload in payloads.items():
        data = cose.sign(_KEY, _TYPE, payload)
        signed = cose.decode(data, _TYPE)
        case = _case(name, f"a payload of {len(payload)} bytes", data)
        case |= {"expected": "valid", "reason": None}
        case["intermediates"] = {
            "seed": _SEED.hex(),
            "kid": signed.kid.hex(),
            "payload": payload.hex(),
            "protected": signed.protected.hex(),
            "signature": signed.signature.hex(),
            "to_be_signed": signed.to_be_signed.hex(),
        }
        files[f"cose/valid/{name}.json"] = case
    for name, (comment, data) in _malformed().items():
        files[f"cose/invalid/{name}.json"] = _case(name, comment, data)
    for name, (comment, data) in _wrongly_signed().items():
        case = _case(name, comment, data) | {"reason": "signature", "flags": ["signature"]}
        files[f"cose/invalid/{name}.json"] = case
    return files


def check(case: dict[str, Any]) -> None:
    """Judge one case with our code."""
    data, content_type = bytes.fromhex(case["input"]["data"]), case["input"]["content_type"]
    if case["reason"] == "malformed":
        with pytest.raises(DecodeError) as caught:
            cose.decode(data, content_type)
        assert caught.value.reason == "malformed"
        return
    signed = cose.decode(data, content_type)
    assert cose.is_valid(signed) is (case["expected"] == "valid")
    if case["expected"] == "valid":
        found = case["intermediates"]
        assert found["to_be_signed"] == signed.to_be_signed.hex()
        key = PrivateKey.from_seed(bytes.fromhex(found["seed"]))
        assert cose.sign(key, content_type, signed.payload) == data
