"""No bytes make a decoder raise anything but DecodeError, and what decodes encodes back."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pcity.crypto.digest import digest
from p2pcity.errors import DecodeError
from p2pcity.wire import (
    base,
    block,
    card,
    cbor,
    event,
    forward,
    genesis,
    gossip,
    hello,
    sync,
    transaction,
)
from p2pcity.wire.event import Event
from tests import vectors_base, vectors_block, vectors_genesis, vectors_hello
from tests.vectors_event import FULL, MINIMAL
from tests.vectors_genesis import AUTHORS, NODES
from tests.vectors_transaction import NETWORK, make

GOOD = make(MINIMAL, FULL)
BLOCK = vectors_block.example().data
CARD = card.make(
    NODES[0],
    member="m",
    name="n",
    role="observer",
    incarnation=bytes(16),
    author=AUTHORS[0].public,
    addresses=["/ip4/192.0.2.1/tcp/4710"],
)
SIGNED_GENESIS = genesis.sign(vectors_genesis.example(), NODES[0])
DECODERS: dict[str, tuple[Callable[[bytes], Any], bytes]] = {
    "event": (event.decode, GOOD.events[1]),
    "transaction": (transaction.decode, GOOD.transaction.data),
    "carried": (transaction.decode_carried, GOOD.data),
    "examine": (lambda data: transaction.examine(data, NETWORK), GOOD.data),
    "signed part": (transaction.signed_part, GOOD.data),
    "block": (block.decode, BLOCK),
    "split": (block.split, BLOCK),
    "skeleton": (lambda data: block.join(data, []), block.split(BLOCK)[0]),
    "genesis": (genesis.decode, genesis.encode(SIGNED_GENESIS)),
    "card": (card.decode, CARD),
    "base": (base.decode_head, base.encode_head(vectors_base.head(2))),
    "gossip": (gossip.decode_batch, gossip.encode_batch([GOOD.data])),
    "hello": (hello.decode, hello.make(NODES[0], vectors_hello.MINE)),
    "hello answer": (hello.HelloAnswer.decode, hello.HelloAnswer(False, "x", "y").encode()),
    "forward": (forward.decode_forward, forward.encode_forward([GOOD.data])),
    "forward answer": (
        forward.decode_answer,
        forward.encode_answer([forward.ForwardResult(bytes(32), "accept", "accepted")]),
    ),
    "request": (sync.decode_request, sync.encode(sync.Fetch((bytes(32),)))),
    "answer": (sync.decode_answer, sync.encode(sync.PendingAnswer(bytes(16), 1, (bytes(32),)))),
}

_scalars = (
    st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.binary() | st.text("ab")
)
_values = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["id", "kind", "ids", "salt", "network", "a"]), inner)
    ),
    max_leaves=12,
)


def _try(decoder: Callable[[bytes], Any], data: bytes) -> None:
    with suppress(DecodeError):
        decoder(data)


@pytest.mark.parametrize("name", DECODERS)
def test_the_example_decodes(name: str) -> None:
    decoder, good = DECODERS[name]
    if name != "skeleton":
        decoder(good)


@pytest.mark.parametrize("name", DECODERS)
@settings(max_examples=150)
@given(data=st.data())
def test_only_decode_errors(name: str, data: st.DataObject) -> None:
    decoder, good = DECODERS[name]
    start = data.draw(st.integers(0, len(good) - 1))
    end = data.draw(st.integers(start, min(len(good), start + 8)))
    _try(decoder, good[:start] + data.draw(st.binary(max_size=8)) + good[end:])
    _try(decoder, cbor.encode(data.draw(_values)))
    _try(decoder, data.draw(st.binary(max_size=64)))


_texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)


@settings(max_examples=200)
@given(
    id=_texts,
    source=_texts,
    time_ms=st.none() | st.integers(0, 253_402_300_799_999),
    place=st.none()
    | st.tuples(st.integers(-1_800_000_000, 1_800_000_000), st.integers(-900_000_000, 900_000_000)),
    data=_values.filter(lambda value: value is not None),
)
def test_events_come_back(
    id: str, source: str, time_ms: int | None, place: tuple[int, int] | None, data: Any
) -> None:
    item = Event(bytes(16), id, "t", source, time_ms=time_ms, place=place, data=data)
    encoded = event.encode(item)
    assert event.decode(encoded) == item
    key = cbor.encode([bytes(32), source, id])
    assert event.name_key(bytes(32), source, id) == digest("p2pcity/event-name/1", key)


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=80), max_size=5), st.data())
def test_blocks_split_and_join(junk: list[bytes], data: st.DataObject) -> None:
    items = data.draw(st.permutations([*junk, GOOD.data, make(MINIMAL).data]))
    encoded = cbor.encode([b"header", items, data.draw(st.none() | st.binary(max_size=4))])
    skeleton, bodies = block.split(encoded)
    assert block.join(skeleton, bodies) == encoded
    assert [len(body) for body in bodies] == [size for _, size in block.list_bodies(skeleton)]
