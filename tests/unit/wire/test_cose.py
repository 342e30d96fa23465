import json
from pathlib import Path
from typing import Any

import cbor2
import pytest

from p2pcity.crypto.keys import PrivateKey, verify
from p2pcity.errors import DecodeError
from p2pcity.wire import cose
from p2pcity.wire.cose import signature_structure
from tests import vectors_cose

_CASES = vectors_cose.cases()
_TYPE = "application/p2pcity-card+cbor"


@pytest.mark.parametrize("path", _CASES)
def test_own_vectors(path: str) -> None:
    vectors_cose.check(_CASES[path])


def test_sign_decode_verify() -> None:
    key = PrivateKey.generate()
    data = cose.sign(key, _TYPE, b"payload")
    signed = cose.decode(data, _TYPE)
    assert (signed.content_type, signed.kid, signed.payload) == (_TYPE, key.public, b"payload")
    assert signed.to_be_signed == signature_structure(signed.protected, b"payload")
    assert signed.to_be_signed == cbor2.dumps(["Signature1", signed.protected, b"", b"payload"])
    assert cose.is_valid(signed)
    assert cose.decode(data, None) == cose.decode(data) == signed


def test_every_bit_matters() -> None:
    """No bit of a COSE_Sign1 can be flipped without being noticed."""
    data = cose.sign(PrivateKey.from_seed(bytes(32)), _TYPE, b"payload")
    for place in range(len(data) * 8):
        broken = bytearray(data)
        broken[place // 8] ^= 1 << place % 8
        try:
            signed = cose.decode(bytes(broken), _TYPE)
        except DecodeError:
            continue
        assert not cose.is_valid(signed), place


@pytest.mark.parametrize("data", [None, 18, "d2", bytearray(b"\xd2"), [b"", {}, b"", b""]])
def test_what_is_not_bytes_is_malformed_too(data: Any) -> None:
    with pytest.raises(DecodeError):
        cose.decode(data)


def _examples(folder: Path, *patterns: str) -> list[tuple[str, dict[str, Any]]]:
    root = folder / "cose-examples"
    paths = [path for pattern in patterns for path in sorted(root.glob(pattern))]
    return [(path.stem, json.loads(path.read_text())) for path in paths]


def _read_leniently(data: bytes) -> tuple[int | None, list[Any]]:
    """Tag and items of any COSE message: the working group's examples are not our profile."""
    value = cbor2.loads(data)
    if isinstance(value, cbor2.CBORTag):
        return value.tag, list(value.value)
    return None, list(value)


def test_sig_structures_of_all_sign1_examples(shared_vectors: Path) -> None:
    """RFC 9052 section 4.4 against the examples' own intermediates."""
    examples = _examples(
        shared_vectors, "sign1-tests/*.json", "eddsa-examples/*.json", "RFC8152/*C_2_1.json"
    )
    # What these signed is not what they carry: that is how they fail, so there it must differ.
    signed_otherwise = {
        "sign-fail-02",
        "sign-fail-03",
        "sign-fail-04",
        "sign-fail-06",
        "sign-fail-07",
    }
    checked = 0
    for name, example in examples:
        given = example["input"].get("sign0")
        if given is None:
            continue
        _, items = _read_leniently(bytes.fromhex(example["output"]["cbor"]))
        # RFC 9052: an empty map of protected headers is signed as h''.
        protected = b"" if items[0] == b"\xa0" else items[0]
        external = bytes.fromhex(given.get("external", ""))
        built = signature_structure(protected, items[2], external)
        expected = bytes.fromhex(example["intermediates"]["ToBeSign_hex"])
        assert (built == expected) is (name not in signed_otherwise), name
        checked += 1
    assert checked == 12


def test_eddsa_signatures_of_the_examples(shared_vectors: Path) -> None:
    examples = dict(_examples(shared_vectors, "eddsa-examples/*.json"))
    assert len(examples) == 4
    verdicts = {}
    for name, example in examples.items():
        tag, items = _read_leniently(bytes.fromhex(example["output"]["cbor"]))
        if tag == 18:
            key = example["input"]["sign0"]["key"]
            structure, signature = signature_structure(items[0], items[2]), items[3]
        else:  # COSE_Sign: each signer signs for itself
            (signer,) = items[3]
            key = example["input"]["sign"]["signers"][0]["key"]
            structure = bytes.fromhex(example["intermediates"]["signers"][0]["ToBeSign_hex"])
            assert cbor2.loads(structure) == ["Signature", items[0], signer[0], b"", items[2]]
            signature = signer[2]
        verdicts[name] = verify(bytes.fromhex(key["x_hex"]), structure, signature)
    # Two are Ed25519, two are Ed448, which no key of ours can be.
    assert verdicts == {
        "eddsa-01": True,
        "eddsa-sig-01": True,
        "eddsa-02": False,
        "eddsa-sig-02": False,
    }


def test_tags_of_the_sign1_examples(shared_vectors: Path) -> None:
    """Right tag or not is told by the first byte; all are refused, for none is our profile."""
    tags = {}
    for name, example in _examples(shared_vectors, "sign1-tests/*.json"):
        data = bytes.fromhex(example["output"]["cbor"])
        tags[name], _ = _read_leniently(data)
        with pytest.raises(DecodeError) as caught:
            cose.decode(data)
        assert ("tag 18 is missing" in str(caught.value)) is (tags[name] != 18)
    assert len(tags) == 9
    assert {name for name, tag in tags.items() if tag != 18} == {"sign-fail-01", "sign-pass-03"}
