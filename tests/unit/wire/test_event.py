"""Events: what `encode` refuses, and the key of an event's name."""

import pytest

from p2pcity.crypto.digest import digest
from p2pcity.errors import DecodeError
from p2pcity.wire import cbor, event
from p2pcity.wire.event import Event


def test_an_event_comes_back() -> None:
    item = Event(bytes(16), "1", "t", "s", place=(-1, 2), extensions={"a": 1}, data=[1, None])
    assert event.decode(event.encode(item)) == item


@pytest.mark.parametrize(
    "item",
    [
        Event(bytes(15), "1", "t", "s"),
        Event(bytes(16), "", "t", "s"),
        Event(bytes(16), "1", "t", "s", place=(2_000_000_000, 0)),
        Event(bytes(16), "1", "t", "s", time_ms=-1),
        Event(bytes(16), "1", "t", "s", extensions={"Upper": 1}),
        Event(bytes(16), "1", "t", "s", data=float("nan")),
    ],
)
def test_encode_refuses_what_decode_would(item: Event) -> None:
    with pytest.raises(DecodeError):
        event.encode(item)


def test_encode_refuses_too_large_an_event() -> None:
    with pytest.raises(DecodeError) as caught:
        event.encode(Event(bytes(16), "1", "t", "s", data=bytes(32 * 1024)))
    assert caught.value.reason == "size"


@pytest.mark.parametrize("length", [1, 23, 24, 255, 256, 2048])
def test_the_name_key_is_the_digest_of_the_cbor(length: int) -> None:
    source = "ä" * (length // 2) + "x" * (length % 2)
    wanted = digest("p2pcity/event-name/1", cbor.encode([bytes(32), source, "1"]))
    assert event.name_key(bytes(32), source, "1") == wanted
