import base64
import json
from pathlib import Path
from typing import Any

import pymerkle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pcity.crypto import merkle
from p2pcity.crypto.merkle import EMPTY_ROOT, Frontier
from p2pcity.errors import LocalError
from tests import vectors_merkle

_CASES = vectors_merkle.cases()
_HASHES = [merkle.leaf_hash(bytes((number,))) for number in range(70)]


@pytest.mark.parametrize("path", _CASES)
def test_own_vectors(path: str) -> None:
    vectors_merkle.check(_CASES[path])


def _unpack(text: str | None) -> bytes:
    return base64.b64decode(text or "")


def _judge(kind: str, case: dict[str, Any]) -> bool:
    """Judge one of transparency-dev's cases; subtree inclusion is inclusion with an offset."""
    proof = [_unpack(node) for node in case["proof"] or ()]
    if kind == "inclusion":
        leaf, root = _unpack(case["leafHash"]), _unpack(case["root"])
        return merkle.verify_inclusion(leaf, case["leafIdx"], case["treeSize"], proof, root)
    if kind == "consistency":
        root1, root2 = _unpack(case["root1"]), _unpack(case["root2"])
        return merkle.verify_consistency(case["size1"], root1, case["size2"], root2, proof)
    start, end = case["start"], case["end"]
    if kind == "subtreeinclusion":
        width = end - start
        is_subtree = width > 0 and start % (1 << (width - 1).bit_length()) == 0
        leaf, root = _unpack(case["leafHash"]), _unpack(case["root"])
        offset = case["leafIdx"] - start
        return is_subtree and merkle.verify_inclusion(leaf, offset, width, proof, root)
    roots = _unpack(case["root1"]), _unpack(case["root2"])
    return merkle.verify_subtree_consistency(start, end, case["size"], *roots, proof)


def test_all_518_proofs_of_transparency_dev(shared_vectors: Path) -> None:
    folder = shared_vectors / "merkle/testdata"
    count = failed = 0
    for path in sorted(folder.rglob("*.json")):
        case = json.loads(path.read_text())
        verdict = _judge(path.relative_to(folder).parts[0], case)
        assert verdict is not case["wantErr"], path
        count, failed = count + 1, failed + (not verdict)
    assert (count, failed) == (518, 482)


def _other_tree(size: int) -> Any:
    return pymerkle.InmemoryTree.init_from_entries(
        [bytes((number,)) for number in range(size)], algorithm="sha256"
    )


def test_pymerkle_has_the_same_roots_and_inclusion_proofs() -> None:
    tree = _other_tree(len(_HASHES))
    for size in range(1, len(_HASHES) + 1):
        assert tree.get_root(size) == merkle.root(_HASHES[:size])
        for index in range(0, size, 3):
            proof = merkle.inclusion_proof(_HASHES[:size], index)
            # pymerkle counts from one and puts the leaf hash in front.
            assert (_HASHES[index], *proof) == tuple(tree.prove_inclusion(index + 1, size).path)


def _agrees(theirs: Any, root1: bytes, root2: bytes) -> bool:
    try:
        pymerkle.verify_consistency(root1, root2, theirs)
    except pymerkle.InvalidProof:
        return False
    return True


def test_pymerkle_gives_the_same_verdicts_on_consistency() -> None:
    size2 = 40
    tree = _other_tree(size2)
    root2 = merkle.root(_HASHES[:size2])
    for size1 in range(1, size2 + 1):
        # Its proofs begin deeper in the tree than RFC 9162's, so verdicts are compared.
        theirs = tree.prove_consistency(size1, size2)
        ours = merkle.consistency_proof(_HASHES[:size2], size1)
        for root1 in (merkle.root(_HASHES[:size1]), EMPTY_ROOT, _HASHES[1]):
            verdict = merkle.verify_consistency(size1, root1, size2, root2, ours)
            assert verdict is _agrees(theirs, root1, root2)


def _rfc_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 9162 section 2.1.1, word by word."""
    if not leaves:
        return EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return merkle.node_hash(_rfc_root(leaves[:split]), _rfc_root(leaves[split:]))


def _rfc_subproof(size: int, leaves: list[bytes], is_known: bool) -> list[bytes]:
    """SUBPROOF of RFC 9162 section 2.1.4.1, word by word."""
    if size == len(leaves):
        return [] if is_known else [_rfc_root(leaves)]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    if size <= split:
        return [*_rfc_subproof(size, leaves[:split], is_known), _rfc_root(leaves[split:])]
    return [*_rfc_subproof(size - split, leaves[split:], False), _rfc_root(leaves[:split])]


@pytest.mark.parametrize("size", range(40))
def test_every_small_tree_against_the_rfcs_words(size: int) -> None:
    leaves = _HASHES[:size]
    root = merkle.root(leaves)
    assert root == _rfc_root(leaves)
    for index in range(size):
        proof = merkle.inclusion_proof(leaves, index)
        assert merkle.verify_inclusion(leaves[index], index, size, proof, root)
        assert not merkle.verify_inclusion(leaves[index], index + 1, size, proof, root)
    for size1 in range(min(size, 1), size + 1):
        proof = merkle.consistency_proof(leaves, size1)
        assert list(proof) == _rfc_subproof(size1, leaves, True)
        assert merkle.verify_consistency(size1, merkle.root(leaves[:size1]), size, root, proof)


def test_frontier_grows_like_the_tree() -> None:
    one_by_one = Frontier()
    for size in range(len(_HASHES) + 1):
        assert one_by_one.size == size
        assert one_by_one.root == merkle.root(_HASHES[:size])
        assert one_by_one == Frontier().extend(_HASHES[:size])
        assert one_by_one.extend(_HASHES[size:]).root == merkle.root(_HASHES)
        if size < len(_HASHES):
            one_by_one = one_by_one.append(_HASHES[size])


@pytest.mark.parametrize(("size", "peaks"), [(1, 0), (0, 1), (3, 1), (4, 2), (-1, 1)])
def test_a_frontier_has_a_peak_for_each_bit(size: int, peaks: int) -> None:
    with pytest.raises(LocalError):
        Frontier(size, tuple(_HASHES[:peaks]))


def test_a_proof_of_what_is_not_there() -> None:
    for index in (-1, 3):
        with pytest.raises(LocalError):
            merkle.inclusion_proof(_HASHES[:3], index)
    for size1 in (-1, 0, 4):
        with pytest.raises(LocalError):
            merkle.consistency_proof(_HASHES[:3], size1)


_ANY_HASH = st.one_of(st.sampled_from(_HASHES), st.binary(max_size=40), st.just(EMPTY_ROOT))
_ANY_SIZE = st.one_of(st.integers(-3, 70), st.integers())


@given(_ANY_HASH, _ANY_SIZE, _ANY_SIZE, st.lists(_ANY_HASH, max_size=9), _ANY_HASH)
def test_verifiers_never_raise(
    one: bytes, size1: int, size2: int, proof: list[bytes], other: bytes
) -> None:
    verdicts = (
        merkle.verify_inclusion(one, size1, size2, proof, other),
        merkle.verify_consistency(size1, one, size2, other, proof),
        merkle.verify_subtree_consistency(size1, size2, size2, one, other, proof),
    )
    assert all(isinstance(verdict, bool) for verdict in verdicts)
