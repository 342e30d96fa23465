"""COSE_Sign1 (RFC 9052) in the one shape that p2pcity signs with.

    18([protected: bstr, {}, payload: bstr, signature: bstr .size 64])
    protected = {1: -8, 3: content type (text), 4: kid (the signer's 32-byte public key)}

All of it is deterministic CBOR. Alg -8 is EdDSA; the key is always Ed25519. The unprotected
map is empty, the payload is never detached, external_aad is empty.
"""

from dataclasses import dataclass
from typing import Final

from p2pcity.crypto.keys import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, PrivateKey, verify
from p2pcity.errors import DecodeError
from p2pcity.wire import cbor

ALGORITHM_EDDSA: Final = -8
_TAG: Final = b"\xd2"  # tag 18, COSE_Sign1
_ALGORITHM, _CONTENT_TYPE, _KID = 1, 3, 4  # labels, RFC 9052 section 3.1
_BYTE_STRING: Final = 2
_SIGNATURE_CONTEXT: Final = b"\x84\x6aSignature1"


@dataclass(frozen=True, slots=True)
class Signed:
    """A decoded COSE_Sign1; its form is checked, its signature is not (see `is_valid`)."""

    protected: bytes
    """The protected header's bytes as they were received."""
    content_type: str
    kid: bytes
    """The signer's 32-byte Ed25519 public key."""
    payload: bytes
    signature: bytes
    to_be_signed: bytes
    """The Sig_structure: what the signature is over, and what ids are hashed from."""


def signature_structure(protected: bytes, payload: bytes, external_aad: bytes = b"") -> bytes:
    """Return the bytes that a COSE_Sign1 signature is over (RFC 9052 section 4.4).

    `["Signature1", protected, external_aad, payload]` as deterministic CBOR.
    """
    return b"".join(
        (
            _SIGNATURE_CONTEXT,
            cbor.head(_BYTE_STRING, len(protected)),
            protected,
            cbor.head(_BYTE_STRING, len(external_aad)),
            external_aad,
            cbor.head(_BYTE_STRING, len(payload)),
            payload,
        )
    )


def sign(key: PrivateKey, content_type: str, payload: bytes) -> bytes:
    """Return the COSE_Sign1 bytes, tag included, of `payload` signed with `key`."""
    protected = cbor.encode(
        {_ALGORITHM: ALGORITHM_EDDSA, _CONTENT_TYPE: content_type, _KID: key.public}
    )
    signature = key.sign(signature_structure(protected, payload))
    return _TAG + cbor.encode([protected, {}, payload, signature])


def decode(data: bytes, content_type: str | None = None) -> Signed:
    """Read COSE_Sign1 bytes strictly; the signature is not verified.

    `content_type` is the one that the reader expects; None takes any. Raises DecodeError for
    everything that `sign` cannot have made.
    """
    if not isinstance(data, bytes) or data[:1] != _TAG:
        raise DecodeError("not a COSE_Sign1: tag 18 is missing")
    match cbor.decode(data[1:]):
        case [bytes(protected), {**unprotected}, bytes(payload), bytes(signature)]:
            pass
        case _:
            raise DecodeError("not a COSE_Sign1: not four items of the right types")
    if unprotected:
        raise DecodeError("the unprotected header is not empty")
    if len(signature) != SIGNATURE_BYTES:
        raise DecodeError(f"a signature has {SIGNATURE_BYTES} bytes, not {len(signature)}")
    found_type, kid = _decode_protected(protected)
    if content_type is not None and found_type != content_type:
        raise DecodeError(f"the content type is not {content_type}")
    to_be_signed = signature_structure(protected, payload)
    return Signed(protected, found_type, kid, payload, signature, to_be_signed)


def _decode_protected(protected: bytes) -> tuple[str, bytes]:
    """Read the protected header: content type and kid."""
    header = cbor.decode(protected)
    if not isinstance(header, dict) or header.keys() != {_ALGORITHM, _CONTENT_TYPE, _KID}:
        raise DecodeError("the protected header has not exactly alg, content type and kid")
    content_type, kid = header[_CONTENT_TYPE], header[_KID]
    if header[_ALGORITHM] != ALGORITHM_EDDSA:
        raise DecodeError("alg is not EdDSA (-8)")
    if not isinstance(content_type, str):
        raise DecodeError("the content type is not text")
    if not isinstance(kid, bytes) or len(kid) != PUBLIC_KEY_BYTES:
        raise DecodeError(f"kid is not a public key of {PUBLIC_KEY_BYTES} bytes")
    return content_type, kid


def is_valid(signed: Signed) -> bool:
    """Say whether the signature is the kid's over the Sig_structure; thread-safe."""
    return verify(signed.kid, signed.to_be_signed, signed.signature)
