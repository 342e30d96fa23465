"""Changes: made, read, and refused (what is refused by its bytes alone is in the vectors)."""

from dataclasses import replace

import pytest

from p2pcity.errors import DecodeError
from p2pcity.wire import change
from p2pcity.wire.change import ChangeVoters, LeaveJoint, Step
from p2pcity.wire.limits import CHANGE_BYTES_MAX, CHANGE_STEPS_MAX
from tests.vectors_change import KEYS, NEW


def test_a_change_comes_back() -> None:
    steps = (Step("learner", KEYS[0], NEW), Step("voter", KEYS[1]), Step("remove", KEYS[2]))
    for item in (ChangeVoters(steps), LeaveJoint()):
        assert change.decode(change.encode(item)) == item


@pytest.mark.parametrize(
    "steps",
    [
        (),
        (Step("observer", KEYS[0]),),
        (Step("voter", KEYS[0], NEW),),
        (Step("remove", KEYS[0]), Step("voter", KEYS[0])),
        (Step("learner", KEYS[0], replace(NEW, name="")),),
        (Step("learner", b"short"),),
        tuple(Step("remove", bytes([n]) * 32) for n in range(CHANGE_STEPS_MAX + 1)),
    ],
)
def test_what_breaks_a_rule_is_not_made(steps: tuple[Step, ...]) -> None:
    with pytest.raises(DecodeError):
        change.encode(ChangeVoters(steps))


def test_a_change_of_many_large_nodes_is_refused_by_its_size() -> None:
    large = replace(NEW, addresses=("/" + "a" * 511,) * 16)
    steps = tuple(Step("learner", bytes([n]) * 32, large) for n in range(8))
    with pytest.raises(DecodeError) as caught:
        change.encode(ChangeVoters(steps))
    assert caught.value.reason == "size"
    assert len(change.encode(ChangeVoters(steps[:7]))) <= CHANGE_BYTES_MAX
