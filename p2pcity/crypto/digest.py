"""SHA-256, plain and with a domain in front."""

import hashlib
from functools import lru_cache
from typing import Final

DIGEST_BYTES: Final = 32
_DOMAIN_BYTES_MAX: Final = 255


def sha256(data: bytes) -> bytes:
    """Return the 32 bytes of SHA-256 over `data` (FIPS 180-4)."""
    return hashlib.sha256(data).digest()


@lru_cache(maxsize=64)
def _prefix(domain: str) -> bytes:
    # Domains are constants of this project, so a bad one is a bug, not a peer's doing.
    assert domain.isascii(), domain
    assert 0 < len(domain) <= _DOMAIN_BYTES_MAX, domain
    return bytes([len(domain)]) + domain.encode("ascii")


def digest(domain: str, data: bytes) -> bytes:
    """Return SHA-256 over `data` in a domain of its own.

    The hashed bytes are `length of domain (1 byte) || domain (ASCII) || data`, so no two
    domains can ever hash the same bytes. `domain` is one of the strings in
    protocol/registry.md, 1 to 255 ASCII characters.
    """
    return hashlib.sha256(_prefix(domain) + data).digest()
