"""The mempool: order, fairness, bounds, numbers; and against a model that cannot be wrong."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pcity.crypto.keys import PrivateKey
from p2pcity.errors import MempoolFull
from p2pcity.mempool.mempool import Mempool, MempoolConfig
from p2pcity.wire import transaction
from p2pcity.wire.event import Event
from p2pcity.wire.transaction import Carried

KEYS = [PrivateKey.from_seed(bytes([number + 1]) * 32) for number in range(3)]


def _make(author: int, number: int, expires_ms: int = 10_000, size: int = 0) -> Carried:
    event = Event(bytes(16), str(number), "t", "s", data=bytes(size))
    nonce = number.to_bytes(16)
    return transaction.make(KEYS[author], bytes(32), [event], expires_ms, nonce)


POOL = [_make(number % 3, number, expires_ms=1000 * (number % 7)) for number in range(21)]


def test_authors_take_turns_and_keep_their_order() -> None:
    mempool = Mempool()
    first = [_make(0, number) for number in range(4)]
    second = [_make(1, number) for number in range(2)]
    for carried in (*first, *second):
        mempool.add(carried, 0)
    chosen = mempool.select(1_000_000)
    assert chosen == [first[0], second[0], first[1], second[1], first[2], first[3]]


def test_who_was_served_goes_to_the_end() -> None:
    mempool = Mempool()
    items = [_make(author, 0) for author in range(3)]
    for carried in items:
        mempool.add(carried, 0)
    room = len(items[0].data) + 5
    assert mempool.select(room) == [items[0]]
    assert mempool.select(room) == [items[1]]
    assert mempool.select(room) == [items[2]]
    assert mempool.select(room) == [items[0]]


def test_select_leaves_out_what_is_under_way() -> None:
    mempool = Mempool()
    items = [_make(0, number) for number in range(3)]
    for carried in items:
        mempool.add(carried, 0)
    assert mempool.select(1_000_000, {items[0].id}) == items[1:]
    assert mempool.select(1_000_000, lambda id: id == items[1].id) == [items[0], items[2]]


def test_it_is_bounded_in_bytes_and_per_author() -> None:
    one = len(_make(0, 0).data)
    mempool = Mempool(MempoolConfig(bytes_max=3 * one, author_bytes_max=2 * one))
    mempool.add(_make(0, 0), 0)
    mempool.add(_make(0, 1), 0)
    with pytest.raises(MempoolFull):
        mempool.add(_make(0, 2), 0)
    mempool.add(_make(1, 0), 0)
    assert not mempool.has_room(_make(2, 0))
    with pytest.raises(MempoolFull):
        mempool.add(_make(2, 0), 0)


def test_what_expired_makes_room() -> None:
    one = len(_make(0, 0).data)
    mempool = Mempool(MempoolConfig(bytes_max=one))
    mempool.add(_make(0, 0, expires_ms=5000), 0)
    mempool.add(_make(1, 1), 5000)
    assert len(mempool) == 1


def test_adding_twice_changes_nothing() -> None:
    mempool = Mempool()
    carried = _make(0, 0)
    mempool.add(carried, 0)
    mempool.add(carried, 0)
    assert mempool.statistics().transactions == 1
    assert mempool.since(0, 10) == (1, [carried.id])


def test_admissions_are_numbered() -> None:
    mempool = Mempool(MempoolConfig(admissions_max=4))
    items = [_make(0, number) for number in range(6)]
    for carried in items:
        mempool.add(carried, 0)
    assert mempool.since(0, 10) == (6, [item.id for item in items[2:]])
    assert mempool.since(3, 2) == (5, [items[3].id, items[4].id])
    mempool.remove([items[4].id])
    assert mempool.since(3, 2) == (6, [items[3].id, items[5].id])
    assert mempool.since(6, 10) == (6, [])
    assert mempool.since(99, 10) == (6, [])


def test_decoded_events_are_dropped_when_there_are_many() -> None:
    mempool = Mempool(MempoolConfig(decoded_bytes_max=0))
    carried = _make(0, 0)
    before = carried.decoded_events()
    mempool.add(carried, 0)
    assert carried.decoded_events() is not before


_steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 20)),
        st.tuples(st.just("remove"), st.integers(0, 20)),
        st.tuples(st.just("expire"), st.integers(0, 8000)),
    ),
    max_size=40,
)


@settings(max_examples=150)
@given(_steps)
def test_it_behaves_like_a_dict(steps: list[tuple[str, int]]) -> None:
    mempool = Mempool()
    model: dict[bytes, Any] = {}
    for what, number in steps:
        if what == "add":
            mempool.add(POOL[number], 0)
            model.setdefault(POOL[number].id, POOL[number])
        elif what == "remove":
            mempool.remove([POOL[number].id])
            model.pop(POOL[number].id, None)
        else:
            gone = {i for i, item in model.items() if item.transaction.expires_ms <= number}
            assert set(mempool.expire(number)) == gone
            model = {i: item for i, item in model.items() if i not in gone}
    assert {item.id for item in mempool.select(10_000_000)} == model.keys()
    assert set(mempool.since(0, 1000)[1]) == model.keys()
    statistics = mempool.statistics()
    assert statistics.transactions == len(mempool) == len(model)
    assert statistics.bytes == sum(len(item.data) for item in model.values())
    for item in model.values():
        assert mempool.get(item.id) is mempool.by_digest(item.digest) is item
