"""Positions sort as the ledger does, and cursors come back as they went."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pcity.errors import DecodeError
from p2pcity.views.position import Position
from p2pcity.wire.base import HEIGHT_MAX

positions = st.builds(
    Position,
    st.integers(0, HEIGHT_MAX),
    st.integers(0, 2**18 - 1),
    st.integers(0, 255),
)


@given(positions, positions)
def test_numbers_sort_as_positions(one: Position, other: Position) -> None:
    assert (one < other) == (one.number < other.number)
    assert Position.from_number(one.number) == one
    assert Position.parse(str(one)) == one
    assert one.number < 2**63


def test_before_a_height_comes_all_that_is_below_it() -> None:
    assert Position.before(5) > Position(4, 2**18 - 2, 255)
    assert Position.before(5) < Position(5, 0, 0)
    assert Position.before(0) == Position(0, 0, 0)
    for height in (-1, HEIGHT_MAX + 1):
        with pytest.raises(DecodeError):
            Position.before(height)


@pytest.mark.parametrize(
    "text",
    ["", "1", "1.2", "1.2.3.4", "-1.0.0", "1.2.256", "1.262144.0", "1.2.x", "01.2.3", "1.2.3\n",
     "٣.0.0", "999999999999.0.0", "1 .2.3", " 1.2.3"],
)  # fmt: skip
def test_other_cursors_are_refused(text: str) -> None:
    with pytest.raises(DecodeError):
        Position.parse(text)
