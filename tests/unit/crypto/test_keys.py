import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448

from p2pcity.crypto.keys import PrivateKey, peer_id, public_key, verify
from p2pcity.errors import ConfigError, DecodeError
from tests import vectors_crypto

_CASES = vectors_crypto.cases()


@pytest.mark.parametrize("path", _CASES)
def test_own_vectors(path: str) -> None:
    vectors_crypto.check(_CASES[path])


def test_wycheproof_agrees_on_all_151(shared_vectors: Path) -> None:
    suite = json.loads((shared_vectors / "wycheproof/ed25519_test.json").read_text())
    verdicts = []
    for group in suite["testGroups"]:
        key = bytes.fromhex(group["publicKey"]["pk"])
        for case in group["tests"]:
            verdict = verify(key, bytes.fromhex(case["msg"]), bytes.fromhex(case["sig"]))
            assert verdict is (case["result"] == "valid"), case["tcId"]
            verdicts.append(verdict)
    assert (len(verdicts), sum(verdicts)) == (151, 88)


def test_speccheck_is_libsodiums_row(shared_vectors: Path) -> None:
    cases = json.loads((shared_vectors / "ed25519-speccheck/cases.json").read_text())
    row = ""
    for case in cases:
        parts = (bytes.fromhex(case[part]) for part in ("pub_key", "message", "signature"))
        row += "V" if verify(*parts) else "X"
    assert row == "XXXVXXXXXXXX"


def test_peer_ids_of_libp2p(shared_vectors: Path) -> None:
    keys = json.loads((shared_vectors / "libp2p-peer-ids/keys.json").read_text())["keys"]
    public = [key for key in keys if key["kind"] == "public"]
    ed25519 = [key for key in public if key["key_type"] == "ED25519"]
    assert len(ed25519) == 1
    for key in ed25519:
        raw = bytes.fromhex(key["protobuf_hex"])[4:]
        assert peer_id(raw) == key["peer_id_b58_computed_here"]
        assert public_key(peer_id(raw)) == raw
    for key in public:
        if key not in ed25519:
            with pytest.raises(DecodeError):
                public_key(key["peer_id_b58_computed_here"])


def test_libp2ps_private_key_has_the_public_key_beside_it(shared_vectors: Path) -> None:
    keys = json.loads((shared_vectors / "libp2p-peer-ids/keys.json").read_text())["keys"]
    (private,) = (k for k in keys if k["key_type"] == "ED25519" and k["kind"] == "private")
    data = bytes.fromhex(private["protobuf_hex"])[4:]
    assert PrivateKey.from_seed(data[:32]).public == data[32:]


def test_sign_and_verify() -> None:
    key = PrivateKey.generate()
    signature = key.sign(b"permit 4711")
    assert len(signature) == 64
    assert verify(key.public, b"permit 4711", signature)
    assert not verify(key.public, b"permit 4712", signature)
    assert not verify(PrivateKey.generate().public, b"permit 4711", signature)


def test_generated_keys_differ() -> None:
    assert PrivateKey.generate().seed != PrivateKey.generate().seed


@pytest.mark.parametrize("passphrase", [None, b"", b"correct horse"])
def test_pem_round_trip(passphrase: bytes | None) -> None:
    key = PrivateKey.generate()
    pem = key.to_pem(passphrase)
    assert pem.startswith(b"-----BEGIN " + (b"ENCRYPTED " if passphrase else b"") + b"PRIVATE KEY")
    assert PrivateKey.from_pem(pem, passphrase or None).seed == key.seed


def _other_pem(key: Any) -> bytes:
    pem: bytes = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return pem


@pytest.mark.parametrize(
    ("pem", "passphrase"),
    [
        (b"", None),
        (b"no key at all", None),
        (b"-----BEGIN PRIVATE KEY-----\nMA==\n-----END PRIVATE KEY-----\n", None),
        (PrivateKey.from_seed(bytes(32)).to_pem(b"right"), b"wrong"),
        (PrivateKey.from_seed(bytes(32)).to_pem(b"right"), None),
        (PrivateKey.from_seed(bytes(32)).to_pem(b"right"), b""),
        (PrivateKey.from_seed(bytes(32)).to_pem(), b"not needed"),
        (_other_pem(ec.generate_private_key(ec.SECP256R1())), None),
        (_other_pem(ed448.Ed448PrivateKey.generate()), None),
    ],
)
def test_a_pem_that_is_not_ours_names_a_remedy(pem: bytes, passphrase: bytes | None) -> None:
    with pytest.raises(ConfigError) as caught:
        PrivateKey.from_pem(pem, passphrase)
    assert caught.value.remedy


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_seed_has_32_bytes(size: int) -> None:
    with pytest.raises(ConfigError):
        PrivateKey.from_seed(bytes(size))


def test_a_private_key_shows_its_seed_to_nobody() -> None:
    key = PrivateKey.generate()
    for text in (repr(key), str(key), f"{[key]}"):
        assert key.seed.hex() not in text
        assert repr(key.seed) not in text
        assert peer_id(key.public) in text
    with pytest.raises(TypeError):
        pickle.dumps(key)
    with pytest.raises(TypeError):
        copy.copy(key)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_peer_id_is_made_of_32_bytes(size: int) -> None:
    with pytest.raises(DecodeError):
        peer_id(bytes(size))


@pytest.mark.parametrize(
    "text", ["1" * 52, "é" * 52, "\ud800" * 52, " " * 52, "z" * 52, "z" * 10**6]
)
def test_hostile_peer_ids(text: str) -> None:
    with pytest.raises(DecodeError):
        public_key(text)
