"""Vectors of changes: the bytes that a block carries (protocol/06-block.md)."""

from collections.abc import Iterator, Mapping
from typing import Any

from p2pcity.wire import cbor, change
from p2pcity.wire.change import ChangeVoters, LeaveJoint, NewNode, Recover, Step
from tests.vector_case import Case, Outcome, collect, compare, judge

AREA = "change"
SPEC = "06-block.md#changes"
KEYS = tuple(bytes([number]) * 32 for number in range(1, 6))
NEW = NewNode("Roads", "2", bytes(range(16)), ("/ip4/192.0.2.9/tcp/4710",))


def run(input: Mapping[str, Any]) -> Outcome:
    """Decode a change and encode it again."""

    def decode(data: bytes) -> Mapping[str, Any]:
        decoded = change.decode(data)
        assert change.encode(decoded) == data
        return {"fields": _plain(cbor.decode(data))}

    return judge(decode, bytes.fromhex(input["data"]))


def cases() -> dict[str, dict[str, Any]]:
    """The files of this area."""
    return collect(_cases())


def check(case: Mapping[str, Any]) -> None:
    """Judge one case with the code."""
    compare(run(case["input"]), case)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _case(name: str, data: bytes, comment: str, reason: str = "", *flags: str) -> Case:
    input = {"data": data.hex()}
    if reason:
        return Case(AREA, name, SPEC, comment, input, "reject", reason, flags=flags)
    return Case(AREA, name, SPEC, comment, input, intermediates=run(input).intermediates)


def _cases() -> Iterator[Case]:
    first, second, third, *rest = KEYS
    for name, steps, comment in (
        ("add", [Step("learner", first, NEW)], "A node that is to vote once it caught up."),
        ("add-observer", [Step("observer", first, NEW)], "A node that never votes."),
        ("promote", [Step("voter", first)], "A learner votes."),
        ("demote", [Step("learner", first)], "A voter follows."),
        ("remove", [Step("remove", first)], "A node goes."),
        (
            "replace-two",
            [Step("voter", third), Step("voter", first), *(Step("remove", x) for x in rest)],
            "Several at once, in any order of keys.",
        ),
    ):
        yield _case(name, change.encode(ChangeVoters(tuple(steps))), comment)
    yield _case("leave", change.encode(LeaveJoint()), "The joint state ends.")
    recover = Recover(first, NEW.incarnation)
    yield _case("recover", change.encode(recover), "One node goes on under the next epoch.")
    bare = NewNode("Roads", "2", bytes(16), ())
    bare_step = ChangeVoters((Step("learner", second, bare),))
    yield _case("add-without-address", change.encode(bare_step), "Others can't dial it.")
    yield from _broken()


def _broken() -> Iterator[Case]:
    key = KEYS[0]
    node: dict[str, Any] = {
        "member": NEW.member,
        "name": NEW.name,
        "incarnation": NEW.incarnation,
        "addresses": list(NEW.addresses),
    }

    def steps(*items: Any, **more: Any) -> bytes:
        return cbor.encode({"kind": "voters", "steps": list(items), **more})

    def one(**fields: Any) -> bytes:
        return steps({"operation": "remove", "key": key, **fields})

    def described(**fields: Any) -> bytes:
        kept = {name: item for name, item in {**node, **fields}.items() if item is not ...}
        return one(operation="learner", node=kept)

    for name, data, comment in (
        ("no-steps", steps(), "At least one."),
        ("steps-33", steps(*({"operation": "remove", "key": bytes([n]) * 32} for n in range(33))),
         "At most 32."),
        ("kind-unknown", cbor.encode({"kind": "rules", "steps": []}), "No such kind."),
        ("kind-integer", cbor.encode({"kind": 1}), "A kind is text."),
        ("kind-missing", cbor.encode({"steps": []}), "Which kind?"),
        ("not-a-map", cbor.encode(["voters"]), "An array."),
        ("unknown-field", steps({"operation": "remove", "key": key}, why="x"), "Of the change."),
        ("leave-with-steps", cbor.encode({"kind": "leave", "steps": []}), "Leave has none."),
        ("operation-unknown", one(operation="leader"), "No such operation."),
        ("operation-integer", one(operation=1), "An operation is text."),
        ("step-unknown-field", one(force=True), "Of a step."),
        ("step-array", steps(["remove", key]), "A step is a map."),
        ("key-31", one(key=bytes(31)), "A key has 32 bytes."),
        ("key-twice", steps(*({"operation": x, "key": key} for x in ("remove", "voter"))),
         "One step a node."),
        ("remove-described", one(node=node), "Only what is new is described."),
        ("voter-described", one(operation="voter", node=node), "Learners first."),
        ("observer-bare", one(operation="observer"), "An observer is always new."),
        ("node-unknown-field", described(role="orderer"), "The operation says the role."),
        ("node-without-name", described(name=...), "Which node of its member?"),
        ("node-name-space", described(name=" 2"), "A name of the genesis's rules."),
        ("node-incarnation-15", described(incarnation=bytes(15)), "16 bytes."),
        ("node-address-text", described(addresses=["192.0.2.9"]), "No multiaddr."),
        ("node-addresses-17", described(addresses=["/a"] * 17), "At most 16."),
    ):  # fmt: skip
        yield _case(name, data, comment, "malformed")
    good = one()
    yield _case("truncated", good[:-1], "The last byte.", "malformed", "truncated")
    yield _case("trailing-byte", good + b"\x00", "One more.", "malformed", "trailing-byte")
    yield _case("too-large", bytes(64 * 1024 + 1), "Above 64 KiB.", "size")
