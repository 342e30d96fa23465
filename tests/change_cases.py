"""Apply's vectors of changes: what blocks with a change do to the city (protocol/06-block.md)."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from p2pcity.city.membership import State
from p2pcity.errors import ChangeRefused
from p2pcity.ordering.members import apply_bytes
from p2pcity.wire import block, cbor, change, transaction
from p2pcity.wire.block import Block
from p2pcity.wire.change import ChangeVoters, LeaveJoint, NewNode, Recover, Step
from p2pcity.wire.genesis import Genesis
from tests.vector_case import Case
from tests.vectors_event import MINIMAL
from tests.vectors_genesis import AUTHORS, NODES, STRANGER, TIME_MS, example

MakeCase = Callable[[Genesis, str, list[Block], str, str], Case]

CITY = example()
A, B, C, OBSERVER = (key.public for key in NODES)
NEW = STRANGER.public
LEAVE = LeaveJoint()
DESCRIBED = NewNode("Harbour", "5", bytes(16), ("/ip4/192.0.2.5/tcp/4710",))
_INCARNATIONS = {node.key: node.incarnation for node in CITY.nodes}
RECOVER_A, RECOVER_B, RECOVER_OBSERVER = (
    Recover(key, _INCARNATIONS[key]) for key in (A, B, OBSERVER)
)
ADD = ChangeVoters((Step("learner", NEW, DESCRIBED),))


def _voters(*steps: Step) -> ChangeVoters:
    return ChangeVoters(steps)


def _remove(*keys: bytes) -> ChangeVoters:
    return ChangeVoters(tuple(Step("remove", key) for key in keys))


def chain(*changes: change.Change | bytes) -> list[Block]:
    """Blocks with one change each, as a leader makes them."""
    blocks: list[Block] = []
    state = State.from_genesis(CITY)
    for item in changes:
        data = item if isinstance(item, bytes) else change.encode(item)
        parent = blocks[-1].hash if blocks else CITY.network
        made = block.make(
            len(blocks) + 1, parent, TIME_MS, [], state.epoch, state.voters_digest, 1, data
        )
        blocks.append(made)
        try:
            state = apply_bytes(state, data)
        except ChangeRefused:
            continue
    return blocks


def change_cases(make_case: MakeCase) -> Iterator[Case]:
    """Every rule of the changes, each with its effect or without."""
    replace_all = _voters(Step("voter", NEW), *(Step("remove", key) for key in (A, B, C)))
    promote, remove_a = _voters(Step("voter", NEW)), _remove(A)
    demote_a = _voters(Step("learner", A))
    other = replace(DESCRIBED, name="6")
    table: tuple[tuple[str, tuple[change.Change | bytes, ...], str], ...] = (
        ("add", (ADD,), "A learner: the voters stay as they are."),
        ("add-and-promote", (ADD, promote, LEAVE), "Through the joint state and out of it."),
        ("remove-voter", (remove_a, LEAVE), "It votes until the joint state ends."),
        ("remove-observer", (_remove(OBSERVER),), "In one step."),
        ("demote", (demote_a, LEAVE, _voters(Step("voter", A)), LEAVE), "And promoted again."),
        ("replace-all", (ADD, replace_all, LEAVE), "One voter takes over from three."),
        ("remove-and-add-again", (remove_a, LEAVE, _voters(Step("learner", A, DESCRIBED)),
         _voters(Step("voter", A)), LEAVE), "The same key with a new log."),
        ("nothing", (_voters(Step("voter", A)),), "It votes already: an effect, though none."),
        ("garbage", (b"\x00", b""), "No change; a leaf all the same."),
        ("kind-unknown", (cbor.encode({"kind": "later"}),), "No change of these rules."),
        ("joint-already", (remove_a, _remove(B), ADD, LEAVE), "One after the other."),
        ("leave-nothing", (LEAVE, ADD, LEAVE), "No joint state to end."),
        ("unknown-node", (promote, _remove(NEW), _voters(Step("learner", NEW))), "Who is it?"),
        ("known-node", (_voters(Step("learner", A, DESCRIBED)),
         _voters(Step("observer", OBSERVER, DESCRIBED))), "Removed first."),
        ("nobody-left", (_remove(A, B, C),), "Somebody votes."),
        ("observer-promoted", (_voters(Step("voter", OBSERVER)),
         _voters(Step("learner", OBSERVER))), "Never."),
        ("name-taken", (ADD, _voters(Step("observer", bytes(32), DESCRIBED))), "In its member."),
        ("one-step-wrong", (_voters(Step("learner", NEW, other), Step("remove", bytes(32))),),
         "All or nothing."),
        ("recover", (RECOVER_A, ADD, promote, LEAVE), "A begins again, and the city grows."),
        ("recover-joint", (remove_a, RECOVER_B, LEAVE, ADD), "No joint state is left."),
        ("recover-outgoing", (remove_a, RECOVER_A), "It voted until the joint state ended."),
        ("recover-observer", (RECOVER_OBSERVER,), "All that is left: it votes."),
        ("recover-twice", (RECOVER_A, RECOVER_B, RECOVER_A), "B is none of it; A once more."),
        ("recover-stranger", (Recover(NEW, bytes(16)),), "No node of the city."),
        ("recover-other-log", (Recover(A, bytes([9]) * 16),), "Not the log that it voted with."),
    )  # fmt: skip
    for name, changes, comment in table:
        yield make_case(CITY, f"change-{name}", chain(*changes), comment, "changes")
    yield from _with_transactions(make_case)


def _with_transactions(make_case: MakeCase) -> Iterator[Case]:
    state = State.from_genesis(CITY)
    carried = transaction.make(AUTHORS[0], CITY.network, (MINIMAL,), TIME_MS + 60_000, bytes(16))
    data = change.encode(_remove(A))
    made = block.make(1, CITY.network, TIME_MS, [carried], 0, state.voters_digest, 1, data)
    yield make_case(
        CITY, "change-behind-transactions", [made], "Two leaves, the change's last.", "changes"
    )
    stale = block.make(2, made.hash, TIME_MS, [], 0, state.voters_digest, 1)
    yield make_case(CITY, "voters-before-change", [made, stale], "The joint set is in force.", "")
    [recovered] = chain(RECOVER_A)
    voters = apply_bytes(state, change.encode(RECOVER_A)).voters_digest
    older = block.make(2, recovered.hash, TIME_MS, [], 0, voters, 1)
    yield make_case(CITY, "epoch-before-recover", [recovered, older], "Epoch 1 began.", "")
