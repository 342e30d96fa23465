"""The vectors of the Merkle tree: roots, inclusion proofs and consistency proofs, and broken ones.

`cases()` gives the files under protocol/vectors, `check()` judges one of them with our code.
"""

from typing import Any, Final

from p2pcity.crypto import merkle
from p2pcity.crypto.merkle import Frontier

SPEC: Final = "00-conventions.md#merkle-tree"

_SIZES: Final = (0, 1, 2, 3, 4, 5, 7, 8, 13)
# (index, size) and (size1, size2) that reach every branch of RFC 9162's verifiers.
_INCLUSIONS: Final = ((0, 1), (0, 2), (1, 2), (2, 3), (4, 5), (0, 8), (7, 8), (5, 13), (12, 13))
_CONSISTENCIES: Final = (
    (0, 0), (1, 1), (1, 2), (2, 3), (3, 7), (4, 7), (4, 8), (6, 8), (7, 13), (13, 13),
)  # fmt: skip
_WRONG: Final = b"\xee" * 32


def _leaves(size: int) -> list[bytes]:
    """Leaf number n holds n bytes 0x61: the first is empty."""
    return [b"a" * number for number in range(size)]


def _hashes(size: int) -> list[bytes]:
    return [merkle.leaf_hash(leaf) for leaf in _leaves(size)]


def _case(name: str, comment: str, flag: str, given: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": f"merkle-{name}",
        "spec": SPEC,
        "comment": comment,
        "flags": [flag],
        "input": given,
        "intermediates": {},
        "expected": "valid",
        "reason": None,
    }


def _broken(case: dict[str, Any], name: str, comment: str, **change: Any) -> dict[str, Any]:
    return {
        **case,
        "id": f"merkle-{name}",
        "comment": comment,
        "input": {**case["input"], **change},
        "expected": "invalid",
        "reason": None,
    }


def _root_case(size: int) -> dict[str, Any]:
    hashes = _hashes(size)
    case = _case(
        f"root-{size}",
        f"the root over {size} leaves",
        "root",
        {"leaves": [leaf.hex() for leaf in _leaves(size)], "root": merkle.root(hashes).hex()},
    )
    case["intermediates"] = {"leaf_hashes": [leaf.hex() for leaf in hashes]}
    return case


def _inclusion_case(index: int, size: int) -> dict[str, Any]:
    hashes = _hashes(size)
    return _case(
        f"inclusion-{index}-of-{size}",
        f"leaf {index} (0-based) of {size}",
        "inclusion",
        {
            "leaf_hash": hashes[index].hex(),
            "index": index,
            "size": size,
            "proof": [node.hex() for node in merkle.inclusion_proof(hashes, index)],
            "root": merkle.root(hashes).hex(),
        },
    )


def _consistency_case(size1: int, size2: int) -> dict[str, Any]:
    hashes = _hashes(size2)
    return _case(
        f"consistency-{size1}-to-{size2}",
        f"the tree of {size2} leaves begins with the tree of {size1}",
        "consistency",
        {
            "size1": size1,
            "root1": merkle.root(hashes[:size1]).hex(),
            "size2": size2,
            "root2": merkle.root(hashes).hex(),
            "proof": [node.hex() for node in merkle.consistency_proof(hashes, size1)],
        },
    )


def _proof_mutations(proof: list[str]) -> dict[str, tuple[str, list[str]]]:
    """Name -> what was done and the broken proof; of a proof with at least two nodes."""
    flipped = f"{int(proof[0][:2], 16) ^ 1:02x}{proof[0][2:]}"
    return {
        "proof-bit": ("a bit of the first node flipped", [flipped, *proof[1:]]),
        "proof-truncated": ("the last node missing", proof[:-1]),
        "proof-empty": ("no nodes", []),
        "proof-trailing": ("a node too many at the end", [*proof, _WRONG.hex()]),
        "proof-preceding": ("a node too many in front", [_WRONG.hex(), *proof]),
        "proof-swapped": ("two nodes swapped", [proof[1], proof[0], *proof[2:]]),
        "proof-short-node": ("a node of 31 bytes", [proof[0][:-2], *proof[1:]]),
        "proof-long-node": ("a node of 33 bytes", [proof[0] + "00", *proof[1:]]),
    }


def _invalid() -> dict[str, dict[str, Any]]:
    inclusion, consistency = _inclusion_case(5, 13), _consistency_case(7, 13)
    changes: list[tuple[dict[str, Any], str, str, dict[str, Any]]] = []
    for case in (inclusion, consistency):
        for name, (comment, proof) in _proof_mutations(case["input"]["proof"]).items():
            changes.append((case, name, comment, {"proof": proof}))
    root7, root13 = consistency["input"]["root1"], consistency["input"]["root2"]
    changes += [
        (inclusion, "index-below", "the index one lower", {"index": 4}),
        (inclusion, "index-negative", "a negative index", {"index": -1}),
        (inclusion, "index-at-size", "an index that the tree does not reach", {"index": 13}),
        (inclusion, "size-half", "a smaller tree", {"size": 6}),
        (inclusion, "size-double", "a larger tree", {"size": 26}),
        (inclusion, "size-zero", "an empty tree includes nothing", {"size": 0, "index": 0}),
        (inclusion, "root-other", "another root", {"root": root7}),
        (inclusion, "root-empty", "the root of the empty tree", {"root": merkle.EMPTY_ROOT.hex()}),
        (inclusion, "root-short", "a root of 31 bytes", {"root": root13[:-2]}),
        (inclusion, "leaf-other", "another leaf", {"leaf_hash": _WRONG.hex()}),
        (inclusion, "leaf-no-bytes", "no leaf hash", {"leaf_hash": ""}),
        (consistency, "roots-swapped", "roots swapped", {"root1": root13, "root2": root7}),
        (consistency, "size1-other", "another first size", {"size1": 6}),
        (consistency, "size1-above-size2", "a tree does not shrink", {"size1": 14}),
        (consistency, "size1-negative", "a negative size", {"size1": -7}),
        (consistency, "size2-other", "another second size", {"size2": 26}),
        (consistency, "root1-short", "a root of 31 bytes", {"root1": root7[:-2]}),
        (consistency, "sizes-equal-roots-not", "one size, two roots", {"size2": 7, "proof": []}),
        (consistency, "sizes-equal-proof-not-empty", "equal trees need no proof",
         {"size1": 13, "root1": root13}),
        (consistency, "size1-zero-root-not-empty", "no leaves, but a root",
         {"size1": 0, "proof": []}),
        (consistency, "size1-zero", "an empty tree says nothing about a later one",
         {"size1": 0, "root1": merkle.EMPTY_ROOT.hex(), "proof": []}),
        (consistency, "size1-zero-with-proof", "as before, with a proof",
         {"size1": 0, "root1": merkle.EMPTY_ROOT.hex()}),
        (consistency, "sizes-zero-root-not-empty", "the empty tree has one root",
         {"size1": 0, "size2": 0, "root2": root7, "proof": []}),
    ]  # fmt: skip
    files = {}
    for case, name, comment, change in changes:
        name = f"{case['flags'][0]}-{name}"
        files[f"merkle/invalid/{name}.json"] = _broken(case, name, comment, **change)
    # A node passed off as a leaf: what the two prefixes are for.
    left, right = (merkle.leaf_hash(leaf) for leaf in _leaves(2))
    given = {"leaves": [(left + right).hex()], "root": merkle.node_hash(left, right).hex()}
    case = _case("", "", "root", {})
    name = "root-node-as-leaf"
    comment = "two leaf hashes as one leaf do not give the root over the two"
    files[f"merkle/invalid/{name}.json"] = _broken(case, name, comment, **given)
    return files


def cases() -> dict[str, dict[str, Any]]:
    """Every file of this area: its path below protocol/vectors, and what it holds."""
    valid = [_root_case(size) for size in _SIZES]
    valid += [_inclusion_case(index, size) for index, size in _INCLUSIONS]
    valid += [_consistency_case(size1, size2) for size1, size2 in _CONSISTENCIES]
    files = {f"merkle/valid/{case['id'].removeprefix('merkle-')}.json": case for case in valid}
    return {**files, **_invalid()}


def _judge(kind: str, given: dict[str, Any]) -> bool:
    unhex = bytes.fromhex
    if kind == "root":
        hashes = [merkle.leaf_hash(unhex(leaf)) for leaf in given["leaves"]]
        assert Frontier().extend(hashes).root == merkle.root(hashes)
        return merkle.root(hashes) == unhex(given["root"])
    proof = [unhex(node) for node in given["proof"]]
    if kind == "inclusion":
        leaf, root = unhex(given["leaf_hash"]), unhex(given["root"])
        return merkle.verify_inclusion(leaf, given["index"], given["size"], proof, root)
    root1, root2 = unhex(given["root1"]), unhex(given["root2"])
    return merkle.verify_consistency(given["size1"], root1, given["size2"], root2, proof)


def check(case: dict[str, Any]) -> None:
    """Judge one case with our code; never may a verifier raise."""
    assert _judge(case["flags"][0], case["input"]) is (case["expected"] == "valid")
