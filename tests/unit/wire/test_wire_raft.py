"""Raft messages as bytes."""

import pytest

from p2pcity.errors import DecodeError
from p2pcity.wire import cbor, raft
from p2pcity.wire.raft import Message
from tests.cddl import check
from tests.raft.cluster import Cluster
from tests.vectors_raft import MESSAGES

Fields = dict[str | int, cbor.Value]
OPTIONAL = ("sent", "time")
"""Fields that a message may lack."""


def _fields(message: Message) -> Fields:
    fields = cbor.decode(raft.encode(message))
    assert isinstance(fields, dict)
    return fields


def _without(fields: Fields, key: str | int) -> Fields:
    return {name: value for name, value in fields.items() if name != key}


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_round_trip(message: Message) -> None:
    assert raft.decode(raft.encode(message)) == message


def test_every_kind_of_message_has_an_example() -> None:
    kinds = {type(message).__name__ for message in MESSAGES.values()}
    assert kinds == {kind.__name__ for kind in raft.Message.__args__}


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_unknown_fields_are_ignored(message: Message) -> None:
    fields = _fields(message)
    later: Fields = {"later": [1, {"x": b"y"}], 7: None}
    newer = cbor.encode({**fields, **later})
    assert raft.decode(newer) == message


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_every_field_is_needed_and_of_its_type(message: Message) -> None:
    fields = _fields(message)
    for key in fields:
        others: list[cbor.Value] = [None, -1, b"", 1.5, "x", {}, [0]]
        wrongs: list[Fields] = [{**fields, key: other} for other in others]
        if key not in OPTIONAL:
            wrongs.append(_without(fields, key))
        for wrong in wrongs:
            with pytest.raises(DecodeError):
                raft.decode(cbor.encode(wrong))


@pytest.mark.parametrize("value", [[], 1, None, "append", {}, {"type": 5}, {"type": b"append"}])
def test_what_is_no_message(value: cbor.Value) -> None:
    with pytest.raises(DecodeError) as caught:
        raft.decode(cbor.encode(value))
    assert caught.value.reason == "malformed"


def test_a_later_message_has_a_reason_of_its_own() -> None:
    with pytest.raises(DecodeError) as caught:
        raft.decode(cbor.encode({"type": "snapshot", "term": 1}))
    assert caught.value.reason == "unknown-message"


@pytest.mark.parametrize("entry", [None, [], [1], [1, b"", 1], [b"", 1], [-1, b""], [1, "x"]])
def test_what_is_no_entry(entry: cbor.Value) -> None:
    fields = _fields(MESSAGES["append"])
    with pytest.raises(DecodeError):
        raft.decode(cbor.encode({**fields, "entries": [entry]}))


def _rule(message: Message) -> str:
    """The rule of one kind of message; it is called like the type."""
    return str(_fields(message)["type"])


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_messages_are_instances_of_the_cddl(message: Message) -> None:
    data, fields, rule = raft.encode(message), _fields(message), _rule(message)
    check(data, "raft", rule)
    check(cbor.encode({**fields, "later": [1]}), "raft", rule)
    changes: list[Fields] = [{"type": "nothing"}, {"term": -1}, {"term": "1"}]
    broken: list[Fields] = [{**fields, **change} for change in changes]
    broken += [_without(fields, key) for key in fields if key not in OPTIONAL]
    for wrong in broken:
        with pytest.raises(Exception, match="validating"):
            check(cbor.encode(wrong), "raft", rule)


def test_a_cluster_says_only_what_the_cddl_has() -> None:
    cluster = Cluster(voters=3, learners=1)
    cluster.elect("1")
    cluster.members["1"].up.propose(b"a block")
    cluster.members["2"].up.read_index(b"r")
    cluster.members["1"].up.transfer_leader("3")
    count = 0
    while True:
        for name in cluster.members:
            cluster.pump(name)
        if not cluster.queue:
            break
        message = cluster.queue[0][2]
        check(raft.encode(message), "raft", _rule(message))
        count += 1
        cluster.deliver_one()
    assert count > 20
