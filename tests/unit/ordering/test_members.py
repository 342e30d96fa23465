"""What changes do to the city; apply's vectors hold the same rules against a second reading."""

import random
from collections.abc import Callable

import pytest

from p2pcity.city.membership import State, decode_members, encode_city, encode_members
from p2pcity.crypto.keys import peer_id
from p2pcity.errors import ChangeRefused, DecodeError
from p2pcity.ordering.members import apply_bytes, apply_change, configuration
from p2pcity.wire import cbor
from p2pcity.wire.change import Change, ChangeVoters, LeaveJoint, NewNode, Operation, Step
from tests.change_cases import ADD, CITY, DESCRIBED, LEAVE, NEW, A, B, C
from tests.change_cases import OBSERVER as WATCHER

START = State.from_genesis(CITY)


def after(*changes: Change, state: State = START) -> State:
    for change in changes:
        state = apply_change(state, change)
    return state


def steps(*pairs: tuple[Operation, bytes]) -> ChangeVoters:
    return ChangeVoters(tuple(Step(operation, key) for operation, key in pairs))


def test_the_genesis_is_the_first_state() -> None:
    assert START.sets.voters == (A, B, C)
    assert START.sets.observers == (WATCHER,)
    assert START.voters_digest == CITY.voters_digest
    assert configuration(START).voters == tuple(peer_id(key) for key in (A, B, C))


def test_a_learner_is_added_in_one_step_and_promoted_in_two() -> None:
    added = after(ADD)
    assert added.sets.learners == (NEW,)
    assert added.nodes[NEW].role == "orderer"
    assert added.voters_digest == START.voters_digest
    joint = after(steps(("voter", NEW)), state=added)
    assert (joint.sets.voters, joint.sets.voters_outgoing) == ((A, B, C, NEW), (A, B, C))
    assert joint.voters_digest != added.voters_digest
    done = after(LEAVE, state=joint)
    assert (done.sets.voters, done.sets.voters_outgoing) == ((A, B, C, NEW), ())
    assert len({x.voters_digest for x in (added, joint, done)}) == 3


def test_who_is_removed_votes_until_the_joint_state_ends() -> None:
    joint = after(steps(("remove", A)))
    assert A in joint.nodes
    assert configuration(joint).is_voter(peer_id(A))
    done = after(LEAVE, state=joint)
    assert A not in done.nodes
    assert not configuration(done).is_member(peer_id(A))


def test_who_is_demoted_is_promoted_only_by_word() -> None:
    joint = after(steps(("learner", A)))
    assert joint.sets.learners_next == (A,)
    assert joint.nodes[A].role == "observer"
    done = after(LEAVE, state=joint)
    assert done.sets.learners == (A,)
    again = after(steps(("voter", A)), LEAVE, state=done)
    assert set(again.sets.voters) == {A, B, C}
    assert again.nodes[A].role == "orderer"
    waiting = after(ADD, steps(("learner", NEW)))
    assert waiting.nodes[NEW].role == "observer"


@pytest.mark.parametrize(
    ("before", "change", "says"),
    [
        ((), LEAVE, "no change of voters is under way"),
        ((steps(("remove", A)),), ADD, "under way already"),
        ((), steps(("voter", NEW)), "no node of this city"),
        ((), steps(("remove", NEW)), "no node of this city"),
        ((ADD,), ADD, "a node of this city already"),
        ((), steps(("remove", A), ("remove", B), ("remove", C)), "nobody would vote"),
        ((), steps(("voter", WATCHER)), "never promoted"),
        ((ADD,), ChangeVoters((Step("observer", bytes(32), DESCRIBED),)), "of this name"),
    ],
)
def test_what_does_not_fit_says_why(before: tuple[Change, ...], change: Change, says: str) -> None:
    state = after(*before)
    with pytest.raises(ChangeRefused, match=says):
        apply_change(state, change)


def test_bytes_that_are_no_change_are_refused() -> None:
    with pytest.raises(ChangeRefused, match="it is no change"):
        apply_bytes(START, b"\xa0")


def test_the_members_come_back_from_their_bytes() -> None:
    states = [START, after(ADD), after(steps(("learner", A))), after(steps(("remove", A)), LEAVE)]
    for state in states:
        assert decode_members(encode_members(state), CITY) == state


@pytest.mark.parametrize(
    "harm",
    [
        lambda epoch, nodes, sets: [-1, nodes, sets],
        lambda epoch, nodes, sets: [epoch, nodes[1:], sets],
        lambda epoch, nodes, sets: [epoch, nodes, sets[1:]],
        lambda epoch, nodes, sets: [epoch, nodes, [[b"k"], *sets[1:]]],
        lambda epoch, nodes, sets: [epoch, [[*nodes[0][:2], "king", *nodes[0][3:]]], sets],
    ],
)
def test_wrong_members_are_refused(harm: Callable[..., object]) -> None:
    value = cbor.decode(encode_members(START))
    assert isinstance(value, list)
    with pytest.raises(DecodeError):
        decode_members(cbor.encode(harm(*value)), CITY)


def test_any_row_of_changes_leaves_a_city_that_holds_together() -> None:
    for seed in range(60):
        rng = random.Random(seed)
        state = START
        pool = [A, B, C, WATCHER, *(bytes([n]) * 32 for n in range(1, 4))]
        for _ in range(40):
            change: Change = LEAVE
            if rng.random() < 0.7:
                picked = rng.sample(pool, rng.randint(1, 3))
                change = ChangeVoters(tuple(_any_step(rng, key) for key in picked))
            try:
                state = apply_change(state, change)
            except ChangeRefused:
                continue
            found = configuration(state)
            assert {peer_id(key) for key in state.nodes} == set(found.members)
            assert found.voters
            assert isinstance(change, LeaveJoint) <= (not found.is_joint)
            assert decode_members(encode_members(state), CITY) == state
            # However a node came to know the state, a base has the same bytes everywhere.
            data = encode_city(state)
            again = decode_members(data, CITY)
            assert encode_city(again) == data
            assert (again.nodes, again.voters_digest) == (state.nodes, state.voters_digest)


def _any_step(rng: random.Random, key: bytes) -> Step:
    operation: Operation = rng.choice(("voter", "learner", "observer", "remove"))
    is_described = operation == "observer" or (operation == "learner" and rng.random() < 0.5)
    node = NewNode("Harbour", key.hex()[:8], rng.randbytes(16), ())
    return Step(operation, key, node if is_described else None)
