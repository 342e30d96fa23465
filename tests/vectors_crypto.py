"""The vectors of digests, signature verdicts and peer ids.

The signatures are those on which Ed25519 libraries disagree; libsodium's verdict is the rule.
`cases()` gives the files under protocol/vectors, `check()` judges one of them with our code.
"""

import hashlib
from typing import Any, Final

import pytest

from p2pcity.crypto.digest import digest
from p2pcity.crypto.keys import PrivateKey, peer_id, public_key, verify
from p2pcity.errors import DecodeError

_SEED: Final = bytes(range(32))
_KEY: Final = PrivateKey.from_seed(_SEED)
_MESSAGE: Final = b"p2pcity"
_ORDER: Final = 2**252 + 27742317777372353535851937790883648493  # of the base point, RFC 8032
_IDENTITY: Final = (1).to_bytes(32, "little")  # the neutral point: y = 1
_BASE: Final = bytes.fromhex("58" + "66" * 31)


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _scalar() -> int:
    """The secret scalar behind the key (RFC 8032 section 5.1.5)."""
    clamped = _number(hashlib.sha512(_SEED).digest()[:32])
    return clamped & ((1 << 254) - 8) | 1 << 254


def _verdicts() -> dict[str, tuple[str, bytes, bytes, bool]]:
    """Name -> comment, public key, signature, verdict; all over the same message."""
    right = _KEY.sign(_MESSAGE)
    raised = (_number(right[32:]) + _ORDER).to_bytes(32, "little")
    challenge = _number(hashlib.sha512(_IDENTITY + _KEY.public + _MESSAGE).digest())
    small_r = _IDENTITY + (challenge * _scalar() % _ORDER).to_bytes(32, "little")
    flipped = right[:-1] + bytes((right[-1] ^ 0x80,))
    # With the neutral point as key the equation holds for S = 1, R = the base point: for
    # every message, so that whoever holds such a "key" has signed everything.
    small_key = _BASE + _IDENTITY
    not_reduced = (2**255 - 19 + 1).to_bytes(32, "little")
    return {
        "right": ("RFC 8032", _KEY.public, right, True),
        "s-not-reduced": ("S + the group's order", _KEY.public, right[:32] + raised, False),
        "s-high-bit": ("the highest bit of S", _KEY.public, flipped, False),
        "r-small-order": ("R is the neutral point, equation holds", _KEY.public, small_r, False),
        "key-small-order": ("the key is the neutral point", _IDENTITY, small_key, False),
        "key-not-reduced": ("the same point, y + p", not_reduced, small_key, False),
        "key-not-a-point": ("y = 2 is on no point", (2).to_bytes(32, "little"), right, False),
        "key-short": ("31 bytes", _KEY.public[:31], right, False),
        "key-long": ("33 bytes", _KEY.public + b"\x00", right, False),
        "signature-short": ("63 bytes", _KEY.public, right[:63], False),
        "signature-long": ("65 bytes", _KEY.public, right + b"\x00", False),
    }


def _peer_ids() -> dict[str, tuple[str, str, bool]]:
    """Name -> comment, text, whether it is the peer id of the key."""
    right = peer_id(_KEY.public)
    return {
        "right": ("identity multihash of the protobuf key", right, True),
        "space": ("no space around it", right + " ", False),
        "truncated": ("a character missing", right[:-1], False),
        "not-base58": ("0 is no base58 digit", right[:-1] + "0", False),
        "rsa": (
            "an RSA key's id is a hash", "QmaeANgBs1DTSxWSrPPtobgQuxW8XTfsS4ydbK4rCHzqxG", False,
        ),
        "secp256k1": (
            "another key type", "16Uiu2HAmLhLvBoYaoZfaMUKuibM6ac163GwKY74c5kiSLg5KvLpY", False,
        ),
        "cid": (
            "the CIDv1 form is not used",
            "bafzbeie5745rpv2m6tjyuugywy4d5ewrqgqqhfnf445he3omzpjbx5xqxe", False,
        ),
        "empty": ("no text", "", False),
    }  # fmt: skip


def _case(name: str, spec: str, comment: str, is_valid: bool, **given: Any) -> dict[str, Any]:
    return {
        "id": f"crypto-{name}",
        "spec": f"00-conventions.md#{spec}",
        "comment": comment,
        "flags": [spec],
        "input": given,
        "intermediates": {},
        "expected": "valid" if is_valid else "invalid",
        "reason": None if is_valid else ("signature" if spec == "signatures" else "malformed"),
    }


def cases() -> dict[str, dict[str, Any]]:
    """Every file of this area: its path below protocol/vectors, and what it holds."""
    files = {}
    for domain in ("p2pcity/block/1", "p2pcity/voters/1", "p2pcity/event-name/1"):
        name = "digest-" + domain.split("/")[1]
        comment = "SHA-256(length of domain || domain || data)"
        case = _case(name, "digests", comment, True, domain=domain, data=_MESSAGE.hex())
        hashed = bytes((len(domain),)) + domain.encode() + _MESSAGE
        case["intermediates"] = {
            "hashed": hashed.hex(),
            "digest": hashlib.sha256(hashed).hexdigest(),
        }
        files[f"crypto/valid/{name}.json"] = case
    for short, (comment, key, signature, is_valid) in _verdicts().items():
        name, folder = f"signature-{short}", "valid" if is_valid else "invalid"
        files[f"crypto/{folder}/{name}.json"] = _case(
            name, "signatures", comment, is_valid,
            public=key.hex(), message=_MESSAGE.hex(), signature=signature.hex(),
        )  # fmt: skip
    for short, (comment, text, is_valid) in _peer_ids().items():
        name, folder = f"peer-id-{short}", "valid" if is_valid else "invalid"
        case = _case(name, "peer-ids", comment, is_valid, peer_id=text)
        if is_valid:
            case["intermediates"] = {"public": _KEY.public.hex()}
        files[f"crypto/{folder}/{name}.json"] = case
    return files


def check(case: dict[str, Any]) -> None:
    """Judge one case with our code."""
    given, found = case["input"], case["intermediates"]
    is_valid = case["expected"] == "valid"
    if "domain" in given:
        assert digest(given["domain"], bytes.fromhex(given["data"])).hex() == found["digest"]
    elif "signature" in given:
        parts = (bytes.fromhex(given[part]) for part in ("public", "message", "signature"))
        assert verify(*parts) is is_valid
    elif is_valid:
        assert public_key(given["peer_id"]).hex() == found["public"]
        assert peer_id(bytes.fromhex(found["public"])) == given["peer_id"]
    else:
        with pytest.raises(DecodeError):
            public_key(given["peer_id"])
