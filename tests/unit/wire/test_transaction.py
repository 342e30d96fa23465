"""Carried transactions: what they keep, and what is taken from their bytes alone."""

import pytest

from p2pcity.crypto import merkle
from p2pcity.crypto.digest import sha256
from p2pcity.crypto.keys import PrivateKey
from p2pcity.errors import DecodeError
from p2pcity.wire import transaction
from p2pcity.wire.event import Event

KEY = PrivateKey.from_seed(bytes(32))
NETWORK = bytes(range(32))


def _events(count: int, size: int = 0) -> list[Event]:
    return [Event(bytes(16), str(i), "t", "s", data=bytes(size)) for i in range(count)]


def test_make_gives_what_examine_accepts() -> None:
    made = transaction.make(KEY, NETWORK, _events(3), 1000, bytes(16))
    examined = transaction.examine(made.data, NETWORK)
    assert examined.transaction == made.transaction
    assert examined.digest == sha256(made.data)
    assert examined.id == sha256(made.transaction.signed.to_be_signed)
    assert [item.id for item in examined.decoded_events() if item] == ["0", "1", "2"]
    assert examined.leaf == merkle.leaf_hash(made.transaction.data)


def test_decoded_events_are_kept_until_forgotten() -> None:
    made = transaction.make(KEY, NETWORK, _events(1), 1000, bytes(16))
    first = made.decoded_events()
    assert made.decoded_events() is first
    made.forget_events()
    assert made.decoded_events() is not first
    assert made.decoded_events() == first


def test_a_withheld_event_is_none_and_keeps_the_root() -> None:
    made = transaction.make(KEY, NETWORK, _events(2), 1000, bytes(16))
    data = transaction.join_carried(made.transaction.data, [made.events[0], made.leaf_hashes[1]])
    stored = transaction.examine(data, NETWORK, is_withheld_allowed=True)
    assert not stored.is_complete
    assert stored.leaf_hashes == made.leaf_hashes
    assert stored.decoded_events()[1] is None
    with pytest.raises(DecodeError) as caught:
        transaction.examine(data, NETWORK)
    assert caught.value.reason == "events-missing"


def test_make_refuses_257_events() -> None:
    with pytest.raises(DecodeError):
        transaction.make(KEY, NETWORK, _events(257), 1000, bytes(16))


def test_make_refuses_more_than_64_kib() -> None:
    with pytest.raises(DecodeError) as caught:
        transaction.make(KEY, NETWORK, _events(3, 30_000), 1000, bytes(16))
    assert caught.value.reason == "size"


@pytest.mark.parametrize("count", [1, 200])
def test_the_signed_part_is_a_slice(count: int) -> None:
    made = transaction.make(KEY, NETWORK, _events(count), 1000, bytes(16))
    assert transaction.signed_part(made.data) == made.transaction.data


@pytest.mark.parametrize(
    ("head", "length"),
    [("41", 1), ("57", 23), ("5818", 24), ("590100", 256), ("5a00010000", 65536)],
)
def test_the_signed_part_has_a_shortest_length(head: str, length: int) -> None:
    data = b"\x82" + bytes.fromhex(head) + bytes(length) + b"\x80"
    assert transaction.signed_part(data) == bytes(length)


@pytest.mark.parametrize("head", ["5817", "5900ff", "5a0000ffff", "40", "5b0000000000000001", "61"])
def test_the_signed_part_refuses_other_heads(head: str) -> None:
    with pytest.raises(DecodeError):
        transaction.signed_part(b"\x82" + bytes.fromhex(head) + bytes(70_000))
