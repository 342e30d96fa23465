"""The Merkle tree of RFC 9162 section 2.1: roots, proofs and a frontier that grows.

Pure functions over 32-byte SHA-256 hashes. A leaf hash is SHA-256(0x00 || data), a node
hash is SHA-256(0x01 || left || right). The functions that make proofs trust their caller;
the functions that verify trust nobody, return False on anything wrong and never raise.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Final

from p2pcity.errors import LocalError

_LEAF: Final = b"\x00"
_NODE: Final = b"\x01"
_HASH_BYTES: Final = 32
_sha256 = hashlib.sha256

EMPTY_ROOT: Final = _sha256(b"").digest()
"""The root of a tree without leaves: SHA-256 of nothing."""


def leaf_hash(data: bytes) -> bytes:
    """Return the leaf hash of `data`: SHA-256(0x00 || data)."""
    return _sha256(_LEAF + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node: SHA-256(0x01 || left || right)."""
    return _sha256(_NODE + left + right).digest()


def _parents(level: Sequence[bytes]) -> list[bytes]:
    """Return the level above: pairs hashed, an odd last node lifted as it is."""
    above = [
        _sha256(_NODE + left + right).digest()
        for left, right in zip(level[::2], level[1::2], strict=False)
    ]
    if len(level) & 1:
        above.append(level[-1])
    return above


def root(leaf_hashes: Sequence[bytes]) -> bytes:
    """Return the root over leaf hashes (RFC 9162 section 2.1.1, level by level).

    Lifting an odd last node level by level gives the same tree as the RFC's split at the
    largest power of two, with n - 1 hashes and no recursion.
    """
    if not leaf_hashes:
        return EMPTY_ROOT
    level = leaf_hashes
    while len(level) > 1:
        level = _parents(level)
    return level[0]


def inclusion_proof(leaf_hashes: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """Return the inclusion proof of the leaf at `index`, 0-based (RFC 9162 section 2.1.3.1).

    Raises LocalError where the tree has no such leaf.
    """
    if not 0 <= index < len(leaf_hashes):
        raise LocalError(f"no leaf {index} in a tree of {len(leaf_hashes)}")
    proof = []
    level = leaf_hashes
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            proof.append(level[sibling])
        level = _parents(level)
        index >>= 1
    return tuple(proof)


def consistency_proof(leaf_hashes: Sequence[bytes], size1: int) -> tuple[bytes, ...]:
    """Return the proof that the first `size1` leaves begin this tree (RFC 9162 section 2.1.4.1).

    Empty for the whole tree. Raises LocalError where `size1` is above the tree's size, and for
    0 where the tree is not empty: an empty tree proves nothing about a later one.
    """
    start, end = 0, len(leaf_hashes)
    if not min(1, end) <= size1 <= end:
        raise LocalError(f"no consistency proof from {size1} leaves to {end}")
    proof = []
    while size1 != end:
        middle = start + (1 << ((end - start - 1).bit_length() - 1))
        if size1 <= middle:
            proof.append(root(leaf_hashes[middle:end]))
            end = middle
        else:
            proof.append(root(leaf_hashes[start:middle]))
            start = middle
    if start > 0:  # the verifier holds the old root, which is this subtree only at the left edge
        proof.append(root(leaf_hashes[start:end]))
    return tuple(reversed(proof))


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> bool:
    """Say whether `leaf` (a leaf hash) stands at `index` of the tree of `size` leaves.

    RFC 9162 section 2.1.3.2. False for whatever is wrong, wrong lengths and negative numbers
    included.
    """
    if not 0 <= index < size or not _are_hashes(leaf, root, *proof):
        return False
    last = size - 1
    node = leaf
    for sibling in proof:
        if last == 0:
            return False
        if index & 1 or index == last:
            node = node_hash(sibling, node)
            while not index & 1 and index:
                index >>= 1
                last >>= 1
        else:
            node = node_hash(node, sibling)
        index >>= 1
        last >>= 1
    return last == 0 and node == root


def verify_consistency(
    size1: int, root1: bytes, size2: int, root2: bytes, proof: Sequence[bytes]
) -> bool:
    """Say whether the tree of `size2` leaves begins with the tree of `size1` leaves.

    RFC 9162 section 2.1.4.2, with the cases it leaves out: equal sizes need equal roots and
    an empty proof, and an empty tree is consistent with itself alone. False for whatever is
    wrong.
    """
    if size1 == 0:
        return size2 == 0 and root1 == root2 == EMPTY_ROOT and not proof
    return verify_subtree_consistency(0, size1, size2, root1, root2, proof)


def verify_subtree_consistency(
    start: int, end: int, size: int, subtree_root: bytes, root: bytes, proof: Sequence[bytes]
) -> bool:
    """Say whether leaves `start` to `end` (excluded) of the tree of `size` have `subtree_root`.

    RFC 9162's consistency proof, for subtrees that need not begin at leaf 0
    (draft-ietf-plants-merkle-tree-certs): `start` is a multiple of the smallest power of two
    that is not below `end - start`. An empty subtree is in every tree. False for whatever is
    wrong.
    """
    if not 0 <= start <= end <= size:
        return False
    if start == end:
        return subtree_root == EMPTY_ROOT and not proof
    if end - start == size:  # the whole tree: nothing is hashed, only compared
        return subtree_root == root and not proof
    if not _are_hashes(subtree_root, root, *proof):
        return False
    if start & ((1 << (end - start - 1).bit_length()) - 1):
        return False
    first, last, top = start, end - 1, size - 1
    while first != last and (last & 1 or last == top):
        first, last, top = first >> 1, last >> 1, top >> 1
    return _is_path(first, last, top, subtree_root, root, proof)


def _is_path(
    first: int, last: int, top: int, subtree_root: bytes, root: bytes, proof: Sequence[bytes]
) -> bool:
    """Walk a consistency proof from the node at (first, last, top) up to both roots."""
    rest = list(proof)
    if first == last:
        old = new = subtree_root
    elif rest:
        old = new = rest.pop(0)
    else:
        return False
    for sibling in rest:
        if top == 0:
            return False
        if last & 1 or last == top:
            if first < last:
                old = node_hash(sibling, old)
            new = node_hash(sibling, new)
            while not last & 1 and last:
                first, last, top = first >> 1, last >> 1, top >> 1
        else:
            new = node_hash(new, sibling)
        first, last, top = first >> 1, last >> 1, top >> 1
    return top == 0 and old == subtree_root and new == root


def _are_hashes(*values: bytes) -> bool:
    return all(isinstance(value, bytes) and len(value) == _HASH_BYTES for value in values)


@dataclass(frozen=True, slots=True)
class Frontier:
    """The right edge of a growing tree: all that is needed to append leaves and know the root.

    `size` counts leaves; `peaks` are the roots of the perfect subtrees that `size` is made
    of, the largest (leftmost) first: one for each bit that is set in `size`.
    """

    size: int = 0
    peaks: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 0 or len(self.peaks) != self.size.bit_count():
            raise LocalError(f"{len(self.peaks)} peaks do not make a tree of {self.size} leaves")

    def append(self, leaf_hash: bytes) -> "Frontier":
        """Return the frontier with one more leaf hash at its right."""
        return self.extend((leaf_hash,))

    def extend(self, leaf_hashes: Iterable[bytes]) -> "Frontier":
        """Return the frontier with these leaf hashes at its right, in order."""
        size = self.size
        peaks = list(self.peaks)
        for node in leaf_hashes:
            bits = size
            while bits & 1:
                node = _sha256(_NODE + peaks.pop() + node).digest()
                bits >>= 1
            peaks.append(node)
            size += 1
        return Frontier(size, tuple(peaks))

    @property
    def root(self) -> bytes:
        """The root of the whole tree, as `root()` would give it over all leaf hashes."""
        if not self.peaks:
            return EMPTY_ROOT
        return reduce(lambda right, left: node_hash(left, right), reversed(self.peaks))
