"""A change of who orders, as a block carries it (protocol/06-block.md, cddl/change.cddl).

One map of deterministic CBOR; unknown fields and kinds are errors, so that every node reads it
alike. Whether it fits the city at that height is for apply to say (`ordering.members`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

from p2pcity.errors import DecodeError
from p2pcity.wire import cbor
from p2pcity.wire.fields import read_array, read_bytes, read_exact_map, read_map
from p2pcity.wire.genesis import (
    ADDRESSES_MAX,
    INCARNATION_BYTES,
    KEY_BYTES,
    check_address,
    check_name,
)
from p2pcity.wire.limits import CHANGE_BYTES_MAX, CHANGE_STEPS_MAX

Operation = Literal["voter", "learner", "observer", "remove"]

_KINDS: Final = {
    "voters": frozenset(("kind", "steps")),
    "leave": frozenset(("kind",)),
    "recover": frozenset(("kind", "key", "incarnation")),
}
_STEP: Final = frozenset(("operation", "key"))
_NODE: Final = frozenset(("member", "name", "incarnation", "addresses"))


@dataclass(frozen=True, slots=True)
class NewNode:
    """What the city is told of a node that it does not know yet."""

    member: str
    name: str
    incarnation: bytes
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One operation on the node with this key; `node` describes one that is new to the city."""

    operation: Operation
    key: bytes
    node: NewNode | None = None


@dataclass(frozen=True, slots=True)
class ChangeVoters:
    """The steps, in order, to the voters and followers that come next; at least one."""

    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class LeaveJoint:
    """From here on the incoming voters decide alone."""


@dataclass(frozen=True, slots=True)
class Recover:
    """The next epoch begins: this node, under this incarnation, is all that is left of the city.

    Made by an operator's word alone (`p2pcity raft recover`), when a quorum is gone for ever.
    """

    key: bytes
    incarnation: bytes


Change = ChangeVoters | LeaveJoint | Recover


def encode(change: Change) -> bytes:
    """Return the bytes of a change; DecodeError when it breaks a rule of the protocol."""
    if isinstance(change, LeaveJoint):
        return cbor.encode({"kind": "leave"})
    if isinstance(change, Recover):
        fields = {"kind": "recover", "key": change.key, "incarnation": change.incarnation}
        return cbor.encode(fields)
    steps: list[object] = [_step_value(step) for step in change.steps]
    data = cbor.encode({"kind": "voters", "steps": steps})
    decode(data)
    return data


def decode(data: bytes) -> Change:
    """Return the change in `data`; DecodeError: `size` above 64 KiB, else `malformed`."""
    if len(data) > CHANGE_BYTES_MAX:
        raise DecodeError(f"the change has {len(data)} bytes", reason="size")
    value = cbor.decode(data)
    kind = read_map(value, "the change").get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise DecodeError("the change is of no known kind")
    fields = read_exact_map(value, "the change", _KINDS[kind])
    if kind == "leave":
        return LeaveJoint()
    if kind == "recover":
        return Recover(
            read_bytes(fields["key"], "the node's key", KEY_BYTES),
            read_bytes(fields["incarnation"], "the incarnation", INCARNATION_BYTES),
        )
    values = read_array(fields["steps"], "the steps", length_max=CHANGE_STEPS_MAX)
    steps = tuple(_read_step(item) for item in values)
    if not steps:
        raise DecodeError("the change has no steps")
    if len({step.key for step in steps}) != len(steps):
        raise DecodeError("two steps of a change are about one node")
    return ChangeVoters(steps)


def _step_value(step: Step) -> Mapping[str, object]:
    value: dict[str, object] = {"operation": step.operation, "key": step.key}
    if step.node is not None:
        value["node"] = {
            "member": step.node.member,
            "name": step.node.name,
            "incarnation": step.node.incarnation,
            "addresses": list(step.node.addresses),
        }
    return value


def _read_step(value: object) -> Step:
    fields = read_exact_map(value, "a step", _STEP, frozenset(("node",)))
    key = read_bytes(fields["key"], "a node's key", KEY_BYTES)
    node = _read_node(fields["node"]) if "node" in fields else None
    for operation in get_args(Operation):
        if fields["operation"] == operation:
            break
    else:
        raise DecodeError("a step's operation is not known")
    if node is None and operation == "observer":
        raise DecodeError("a new observer is not described")
    if node is not None and operation in ("voter", "remove"):
        raise DecodeError(f"the operation {operation} describes no node")
    return Step(operation, key, node)


def _read_node(value: object) -> NewNode:
    fields = read_exact_map(value, "a new node", _NODE)
    addresses = read_array(fields["addresses"], "the addresses", length_max=ADDRESSES_MAX)
    return NewNode(
        check_name(fields["member"], "the member"),
        check_name(fields["name"], "the node's name"),
        read_bytes(fields["incarnation"], "the incarnation", INCARNATION_BYTES),
        tuple(check_address(item) for item in addresses),
    )
