"""Ed25519 keys, signatures and peer ids.

libsodium's verdict on a signature is the rule of the protocol (protocol/00-conventions.md):
it rejects small-order keys and points and S that is not reduced, which other libraries let
pass. `cryptography` only makes, stores and loads keys (PKCS #8).
"""

from functools import lru_cache
from typing import Final

import base58
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair
from nacl.exceptions import BadSignatureError

from p2pcity.errors import ConfigError, DecodeError

SEED_BYTES: Final = 32
PUBLIC_KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64

# Multihash "identity" of 36 bytes, then libp2p's protobuf PublicKey: type Ed25519 (field 1),
# data of 32 bytes (field 2). libp2p specification, peer-ids.
_PEER_ID_PREFIX: Final = bytes.fromhex("002408011220")
# 38 bytes in base58 are 52 characters; what is longer is not decoded at all.
_PEER_ID_CHARACTERS: Final = 52

_PEM_REMEDY: Final = (
    "Give the file that `p2pcity init` wrote (PKCS #8, Ed25519) and its passphrase if it has one."
)


class PrivateKey:
    """An Ed25519 private key that signs and never shows its seed."""

    __slots__ = ("_public", "_secret")

    def __init__(self, seed: bytes) -> None:
        """Take the 32-byte seed of RFC 8032; ConfigError for any other length."""
        if len(seed) != SEED_BYTES:
            raise ConfigError(
                f"an Ed25519 seed has {SEED_BYTES} bytes, not {len(seed)}", remedy=_PEM_REMEDY
            )
        # libsodium's secret key is seed || public key: signing need not derive it each time.
        self._public, self._secret = crypto_sign_seed_keypair(bytes(seed))

    @classmethod
    def generate(cls) -> "PrivateKey":
        """Return a new key from the operating system's randomness."""
        return cls(Ed25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def from_seed(cls, seed: bytes) -> "PrivateKey":
        """Return the key of a 32-byte seed; ConfigError for any other length."""
        return cls(seed)

    @classmethod
    def from_pem(cls, pem: bytes, passphrase: bytes | None = None) -> "PrivateKey":
        """Return the key in a PKCS #8 PEM file (RFC 5958, RFC 8410).

        Raises ConfigError for bytes that are no such key, a key that is not Ed25519, and a
        passphrase that is wrong, missing or given for a key without one.
        """
        try:
            key = serialization.load_pem_private_key(pem, passphrase)
        except TypeError as error:
            problem = "has no passphrase, and one was given" if passphrase else "needs a passphrase"
            raise ConfigError(f"the private key {problem}", remedy=_PEM_REMEDY) from error
        except (ValueError, UnsupportedAlgorithm) as error:
            problem = "not a PKCS #8 private key" + (", or a wrong passphrase" * bool(passphrase))
            raise ConfigError(problem, remedy=_PEM_REMEDY) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigError("the private key is not an Ed25519 key", remedy=_PEM_REMEDY)
        return cls(key.private_bytes_raw())

    def to_pem(self, passphrase: bytes | None = None) -> bytes:
        """Return the key as a PKCS #8 PEM file, encrypted when a passphrase is given.

        An empty passphrase counts as none.
        """
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if passphrase:
            encryption = serialization.BestAvailableEncryption(passphrase)
        return Ed25519PrivateKey.from_private_bytes(self.seed).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
        )

    @property
    def public(self) -> bytes:
        """The 32-byte public key."""
        return self._public

    @property
    def seed(self) -> bytes:
        """The 32-byte seed; whoever has it can sign."""
        return self._secret[:SEED_BYTES]

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature over `message` (RFC 8032, PureEdDSA)."""
        return crypto_sign(message, self._secret)[:SIGNATURE_BYTES]

    def __repr__(self) -> str:
        """Return a text with the peer id and without the seed."""
        return f"PrivateKey({peer_id(self._public)})"

    def __reduce__(self) -> str:
        """Refuse to be pickled or copied: a seed leaves only by `seed` and `to_pem`."""
        raise TypeError("a private key is not pickled")


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Say whether `signature` over `message` is valid for the 32-byte key `public`.

    The verdict is libsodium's. False for wrong lengths; never raises. Releases the GIL, so
    many signatures can be verified in threads at a time.
    """
    # libsodium reads 32 and 64 bytes whatever it is given: the lengths must be checked here.
    if len(public) != PUBLIC_KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        crypto_sign_open(signature + message, public)
    except BadSignatureError:
        return False
    return True


@lru_cache(maxsize=4096)
def peer_id(public: bytes) -> str:
    """Return the libp2p peer id of an Ed25519 public key: base58 text, "12D3Koo...".

    Raises DecodeError where `public` has not 32 bytes.
    """
    if len(public) != PUBLIC_KEY_BYTES:
        raise DecodeError(f"a public key has {PUBLIC_KEY_BYTES} bytes, not {len(public)}")
    return base58.b58encode(_PEER_ID_PREFIX + public).decode("ascii")


@lru_cache(maxsize=4096)
def public_key(peer_id: str) -> bytes:
    """Return the Ed25519 public key inside a peer id.

    Raises DecodeError for text that is not the base58 form of an Ed25519 peer id; ids of
    other key types hold a hash instead of the key and are refused too.
    """
    if len(peer_id) != _PEER_ID_CHARACTERS:
        raise DecodeError("not an Ed25519 peer id: wrong length")
    try:
        data = base58.b58decode(peer_id)
    except ValueError as error:
        raise DecodeError("not an Ed25519 peer id: not base58") from error
    if len(data) != len(_PEER_ID_PREFIX) + PUBLIC_KEY_BYTES or data[:6] != _PEER_ID_PREFIX:
        raise DecodeError("not an Ed25519 peer id: another key type")
    return data[6:]
