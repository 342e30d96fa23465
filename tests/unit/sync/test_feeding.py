"""Far behind: whom to ask in turn, and what of an answer is taken."""

import pytest

from p2pcity.errors import DecodeError
from p2pcity.sync.feeding import Feeding
from p2pcity.sync.sources import EMPTY_REST_S, WRONG_REST_S
from p2pcity.wire import block
from p2pcity.wire.raft import Entry
from p2pcity.wire.sync import EntriesAnswer, EntriesQuery
from tests.chain_case import Chain


def chain_entries(count: int) -> list[Entry]:
    """A leader's empty entry in front of every third block."""
    chain = Chain()
    for number in range(count):
        if number % 3 == 0:
            chain.add_nothing()
        else:
            chain.add(chain.carried())
    return [Entry(1, index, payload or b"") for index, payload in chain.pairs(1)]


def answer(entries: list[Entry], commit: int = 100, index: int | None = None) -> EntriesAnswer:
    return EntriesAnswer(entries[0].index if index is None else index, 1, commit, tuple(entries))


def test_sources_are_asked_in_turn_and_rest_when_they_failed() -> None:
    feeding = Feeding()
    assert [feeding.choose(["c", "a", "b"], 0.0) for _ in range(4)] == ["a", "b", "c", "a"]
    feeding.failed("b", 0.0, is_wrong=True)
    feeding.failed("c", 0.0, is_wrong=False)
    assert [feeding.choose(["c", "a", "b"], 0.5) for _ in range(2)] == ["a", "a"]
    assert feeding.choose(["c", "a", "b"], EMPTY_REST_S) == "c"
    assert feeding.choose(["b"], WRONG_REST_S - 1) is None
    assert feeding.choose(["b"], WRONG_REST_S) == "b"
    assert feeding.choose([], 0.0) is None


def test_only_what_is_committed_is_taken() -> None:
    entries = chain_entries(6)
    checked = Feeding().check(EntriesQuery(1), answer(entries, commit=4))
    assert list(checked.entries) == entries[:4]
    assert Feeding().check(EntriesQuery(1), answer(entries, commit=0)).entries == ()
    with pytest.raises(DecodeError):
        Feeding().check(EntriesQuery(2), answer(entries))


def test_blocks_that_do_not_follow_each_other_are_wrong() -> None:
    entries = chain_entries(9)
    feeding = Feeding()
    feeding.check(EntriesQuery(1), answer(entries[:5]))
    feeding.check(EntriesQuery(6), answer(entries[5:]))
    other = [Entry(1, entry.index, entry.payload) for entry in chain_entries(9)]
    other[4] = Entry(1, 5, other[1].payload)
    with pytest.raises(DecodeError, match="another parent"):
        Feeding().check(EntriesQuery(1), answer(other))
    # Over two answers: the second one is of another chain.
    feeding = Feeding()
    feeding.check(EntriesQuery(1), answer(entries[:5]))
    forged = block.make(4, b"p" * 32, 1_800_000_000_000, [], 0, b"v" * 32, 1).data
    with pytest.raises(DecodeError, match="another parent"):
        feeding.check(EntriesQuery(6), answer([Entry(1, 6, forged)]))
    with pytest.raises(DecodeError):
        Feeding().check(EntriesQuery(1), answer([Entry(1, 1, b"no block")]))


def test_the_header_alone_is_read_as_the_whole_block_is() -> None:
    for entry in chain_entries(6):
        if entry.payload:
            whole = block.decode(entry.payload)
            assert block.read_header(entry.payload) == (whole.header, whole.hash)
