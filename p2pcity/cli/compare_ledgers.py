"""Where two nodes' ledgers part: a bisection over block hashes, since each names its parent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from p2pcity.api.client import ApiProblem, Client

FIELDS: Final = ("parent", "time", "epoch", "rules", "size", "tree_size", "change")
"""What a block's JSON says beside its hash and its transactions."""

Block = Mapping[str, Any]


def find_first_difference(high: int, look: Callable[[int], bool | None]) -> tuple[int, bool]:
    """Return the lowest height that is seen to differ, and whether the one below it is the same.

    `look` says whether both ledgers have the same block at a height, None where that can't be
    told: blocks are pruned from below. At height 0 they are the same, at `high` they are not;
    neither is looked at, and the rest in at most log2(high) + 1 steps.
    """
    low, is_known = 0, True
    while high - low > 1:
        middle = (low + high) // 2
        is_same = look(middle)
        if is_same is False:
            high = middle
        else:
            low, is_known = middle, is_same is not None
    return high, is_known


class NodeLedger:
    """One node's ledger as its HTTP surface shows it, up to the height that it had at first."""

    def __init__(self, client: Client) -> None:
        """Ask for the node's status; raises Unreachable, ApiProblem."""
        self._client = client
        self.status: dict[str, Any] = client.get_json("/v1/status")
        self.address = client.address
        self.network: str = self.status["network"]["id"]
        self.height: int = self.status["ledger"]["height"]
        self.head: str = self.status["ledger"]["head"]

    @property
    def name(self) -> str:
        """Member and name of the node."""
        return f"{self.status['node']['member']}/{self.status['node']['name']}"

    def block(self, height: int) -> Block | None:
        """Return the block's JSON, None when it was pruned; raises Unreachable, ApiProblem."""
        try:
            block: Block = self._client.get_json(f"/v1/blocks/{height}")
        except ApiProblem as problem:
            if problem.reason != "pruned":
                raise
            return None
        return block

    def hash_at(self, height: int) -> str | None:
        """Return the hash of the block at `height`, None when nothing here tells it any more."""
        if height in (0, self.height):
            return self.head if height else self.network
        block = self.block(height)
        if block is not None:
            return str(block["hash"])
        # The oldest block that is kept names the one before it.
        following = self.block(height + 1)
        return None if following is None else str(following["parent"])

    def tree_at(self, height: int) -> tuple[int, str] | int | None:
        """Return the tree's size behind `height`, with the root where it is known; None: pruned."""
        ledger = self.status["ledger"]
        if height == self.height:
            return int(ledger["tree_size"]), str(ledger["root"])
        block = self.block(height)
        return None if block is None else int(block["tree_size"])


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two ledgers part, and the blocks there (None: pruned).

    `is_first` is False when one of them pruned what lies below: they may have parted earlier.
    """

    height: int
    is_first: bool
    blocks: tuple[Block | None, Block | None]

    @property
    def fields(self) -> dict[str, list[Any]]:
        """What the two blocks say differently, by name."""
        one, other = self.blocks
        if one is None or other is None:
            return {}
        return {
            name: [one.get(name), other.get(name)]
            for name in FIELDS
            if one.get(name) != other.get(name)
        }

    @property
    def transactions(self) -> dict[str, Any]:
        """Ids that only one block has, outcomes that differ, and whether the order does."""
        found = [
            {} if block is None else {item["id"]: item["outcome"] for item in block["transactions"]}
            for block in self.blocks
        ]
        one, other = found
        shared = [id_ for id_ in one if id_ in other]
        return {
            "only": [[id_ for id_ in one if id_ not in other], [x for x in other if x not in one]],
            "outcomes": {id_: [one[id_], other[id_]] for id_ in shared if one[id_] != other[id_]},
            "is_other_order": shared != [id_ for id_ in other if id_ in one],
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came out.

    `verdict` is equal, behind (the shorter ledger is the beginning of the longer one), differ,
    applied-differently (the same blocks, another tree), other-network, or unknown (the blocks that
    both had were pruned on one of them). `height` is the highest that both have.
    """

    verdict: str
    height: int
    difference: Difference | None = None


def compare_ledgers(one: NodeLedger, other: NodeLedger) -> Comparison:
    """Compare two ledgers; about two requests to each node for each doubling of the height.

    Raises Unreachable, ApiProblem.
    """
    height = min(one.height, other.height)
    if one.network != other.network:
        return Comparison("other-network", height)

    def look(at: int) -> bool | None:
        hashes = one.hash_at(at), other.hash_at(at)
        return None if None in hashes else hashes[0] == hashes[1]

    is_same = look(height)
    if is_same is None:
        return Comparison("unknown", height)
    if is_same:
        if not _is_same_tree(one.tree_at(height), other.tree_at(height)):
            return Comparison("applied-differently", height)
        return Comparison("equal" if one.height == other.height else "behind", height)
    first, is_first = find_first_difference(height, look)
    blocks = one.block(first), other.block(first)
    return Comparison("differ", height, Difference(first, is_first, blocks))


def _is_same_tree(one: tuple[int, str] | int | None, other: tuple[int, str] | int | None) -> bool:
    """Whether two trees are equal, as far as both sides tell."""
    if one is None or other is None:
        return True
    if isinstance(one, tuple) and isinstance(other, tuple):
        return one == other
    sizes = [tree[0] if isinstance(tree, tuple) else tree for tree in (one, other)]
    return sizes[0] == sizes[1]
