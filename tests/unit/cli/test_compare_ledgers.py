"""Where two ledgers part: the bisection for every place, and what two blocks say differently."""

from typing import Any

import pytest

from p2pcity.cli.compare_ledgers import Difference, find_first_difference


@pytest.mark.parametrize("high", [1, 2, 3, 7, 8, 9, 40])
def test_every_first_difference_is_found_whatever_was_pruned(high: int) -> None:
    for first in range(1, high + 1):
        for pruned in range(high):
            looked: list[int] = []

            def look(at: int, first: int = first, pruned: int = pruned) -> bool | None:
                looked.append(at)  # noqa: B023  # read before the next turn
                return None if at <= pruned else at < first

            found = find_first_difference(high, look)
            assert found[0] == max(first, pruned + 1)
            # Height 0 is never pruned: a difference at 1 is the first one.
            assert found[1] == (found[0] == 1 or pruned < found[0] - 1)
            assert len(looked) <= high.bit_length()
            assert all(0 < at < high for at in looked)


def test_a_million_blocks_take_twenty_looks() -> None:
    looked: list[int] = []

    def look(at: int) -> bool:
        looked.append(at)
        return at < 123_456

    assert find_first_difference(1_000_000, look) == (123_456, True)
    assert len(looked) <= 20


def block(*transactions: tuple[str, str], **fields: Any) -> dict[str, Any]:
    listed = [{"id": id_, "outcome": outcome} for id_, outcome in transactions]
    made = {"parent": "p", "time": "t", "epoch": 0, "rules": 1, "size": 9, "tree_size": 2}
    return {**made, "hash": "h", "change": None, "transactions": listed, **fields}


def test_what_two_blocks_say_differently() -> None:
    one = block(("a", "applied"), ("b", "applied"), ("c", "applied"))
    other = block(("c", "applied"), ("b", "expired"), ("d", "applied"), epoch=1, size=10)
    found = Difference(5, True, (one, other))
    assert found.fields == {"epoch": [0, 1], "size": [9, 10]}
    assert found.transactions == {
        "only": [["a"], ["d"]],
        "outcomes": {"b": ["applied", "expired"]},
        "is_other_order": True,
    }


def test_a_pruned_block_says_nothing_of_its_fields() -> None:
    found = Difference(256, False, (None, block(("a", "applied"))))
    assert found.fields == {}
    assert found.transactions["only"] == [[], ["a"]]
