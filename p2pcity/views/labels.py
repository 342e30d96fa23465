"""32-bit labels that stand for types, sources, subjects and authors in the events view.

A label takes 4 bytes where a text takes 30, and needs no dictionary that a failed commit would
have to take back. Two texts may share a label: whoever reads compares the event itself.
"""

import hashlib
from functools import lru_cache


@lru_cache(maxsize=16_384)
def text_label(text: str) -> int:
    """Return the label of a text: the first 4 bytes of BLAKE2b as a signed integer."""
    return bytes_label(text.encode())


@lru_cache(maxsize=1_024)
def key_label(key: bytes) -> int:
    """Return the label of an author's public key."""
    return bytes_label(key)


def bytes_label(data: bytes) -> int:
    """Return the label of bytes, not remembered."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=4).digest(), "big", signed=True)


def prefix64(hash_: bytes) -> int:
    """Return the first 8 bytes of a hash as a signed integer, SQLite's widest."""
    return int.from_bytes(hash_[:8], "big", signed=True)
