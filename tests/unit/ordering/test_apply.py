"""What a block does to the ledger, rule by rule."""

from collections.abc import Callable

import pytest

from p2pcity.city.membership import State
from p2pcity.crypto import merkle
from p2pcity.crypto.digest import sha256
from p2pcity.errors import DecodeError, DivergedError, P2PCityError, RulesTooOldError
from p2pcity.ordering.apply import Applier, Examined, Tip, examine_unseen
from p2pcity.wire import event as event_wire
from p2pcity.wire import transaction as transaction_wire
from p2pcity.wire.block import Block
from p2pcity.wire.limits import RULES_VERSION
from p2pcity.wire.transaction import Carried, join_carried
from tests.chain_case import AUTHOR, CLERK, NOW_MS, STRANGER, Chain, make_genesis
from tests.vectors_admission import sign_otherwise


class Known:
    """An index in memory, which the test fills."""

    def __init__(self) -> None:
        self.ids: set[bytes] = set()
        self.names: set[bytes] = set()

    def has_transaction(self, id: bytes, /) -> bool:
        return id in self.ids

    def has_event(self, name_key: bytes, /) -> bool:
        return name_key in self.names


@pytest.fixture
def chain() -> Chain:
    return Chain()


@pytest.fixture
def known() -> Known:
    return Known()


def make_applier(chain: Chain) -> Applier:
    genesis = chain.genesis
    return Applier(genesis.network, State.from_genesis(genesis), Tip.from_genesis(genesis))


def nothing(digest: bytes) -> Examined | None:
    return None


def harmed(carried: Carried) -> Carried:
    """Return `carried` with one bit of its signature flipped: same id, same events."""
    signed = carried.transaction.data
    data = join_carried(signed[:-1] + bytes((signed[-1] ^ 1,)), carried.events)
    return transaction_wire.decode_carried(data)


def outcomes(chain: Chain, known: Known, *carried: Carried, time_ms: int = NOW_MS) -> list[str]:
    applied = make_applier(chain).apply(1, chain.make(carried, time_ms=time_ms), known, nothing)
    return [item.outcome for item in applied.transactions]


def test_a_good_transaction_becomes_the_next_leaf(chain: Chain, known: Known) -> None:
    applier = make_applier(chain)
    first, second, third = chain.carried(), chain.carried(key=CLERK), chain.carried()
    applied = applier.apply(7, chain.add(first, second), known, nothing)
    assert [item.leaf_index for item in applied.transactions] == [0, 1]
    assert (applied.index, applied.height) == (7, 1)
    block = chain.add(third, time_ms=NOW_MS + 1)
    applied = applier.apply(8, block, known, nothing)
    assert applied.transactions[0].leaf_index == 2
    assert applier.tip == applied.tip
    assert (applied.tip.height, applied.tip.hash) == (2, block.hash)
    assert applied.frontier.root == merkle.root([first.leaf, second.leaf, third.leaf])


def test_dropped_transactions_leave_no_leaf(chain: Chain, known: Known) -> None:
    good, again = chain.carried(), chain.carried()
    known.ids.add(again.transaction.id)
    late = chain.carried(expires_ms=NOW_MS - 1)
    foreign = chain.carried(key=STRANGER)
    block = chain.make([late, again, foreign, harmed(chain.carried()), good])
    applied = make_applier(chain).apply(1, block, known, nothing)
    assert [item.outcome for item in applied.transactions] == [
        "expired",
        "duplicate",
        "unauthorised",
        "invalid",
        "applied",
    ]
    assert [item.leaf_index for item in applied.transactions] == [None] * 4 + [0]
    assert applied.frontier.root == good.leaf


def test_a_transaction_may_be_applied_at_the_very_time_it_expires(
    chain: Chain, known: Known
) -> None:
    assert outcomes(chain, known, chain.carried(expires_ms=NOW_MS)) == ["applied"]
    assert outcomes(chain, known, chain.carried(expires_ms=NOW_MS - 1)) == ["expired"]


def test_the_same_id_twice_in_one_block(chain: Chain, known: Known) -> None:
    carried = chain.carried()
    assert outcomes(chain, known, carried, carried) == ["applied", "duplicate"]


@pytest.mark.scenario("E3", tier="U")
def test_one_content_under_two_signatures_is_one_transaction(chain: Chain, known: Known) -> None:
    first = chain.carried()
    data = join_carried(sign_otherwise(first, AUTHOR), first.events)
    second = transaction_wire.examine(data, make_genesis().network)
    assert (second.id, second.data == first.data) == (first.id, False)
    assert outcomes(chain, known, first, second) == ["applied", "duplicate"]
    assert outcomes(chain, known, second, first) == ["applied", "duplicate"]


@pytest.mark.scenario("E3", tier="U")
def test_a_harmed_copy_does_not_take_the_id(chain: Chain, known: Known) -> None:
    carried = chain.carried()
    bad = harmed(carried)
    assert bad.transaction.id == carried.transaction.id
    assert outcomes(chain, known, bad, carried) == ["invalid", "applied"]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda chain: harmed(chain.carried()), "signature"),
        (lambda chain: chain.carried(network=b"x" * 32), "network"),
        (
            lambda chain: _with_events(chain.carried(), [event_wire.encode(chain.event())]),
            "root",
        ),
        (
            lambda chain: _with_events(carried := chain.carried(), [carried.leaf_hashes[0]]),
            "events-missing",
        ),
    ],
)
def test_invalid(chain: Chain, known: Known, make: Callable[[Chain], Carried], reason: str) -> None:
    applied = make_applier(chain).apply(1, chain.make([make(chain)]), known, nothing)
    (item,) = applied.transactions
    assert (item.outcome, item.reason) == ("invalid", reason)
    assert item.carried is not None
    assert applied.frontier.size == 0


def _with_events(carried: Carried, events: list[bytes]) -> Carried:
    return transaction_wire.decode_carried(join_carried(carried.transaction.data, events))


def test_bytes_that_are_no_transaction_are_invalid(chain: Chain, known: Known) -> None:
    good = chain.carried()
    block = chain.make([good])
    bad = Block(block.header, block.header_bytes, block.hash, (b"\x82\x41\x00\x80",), None)
    (item,) = make_applier(chain).apply(1, bad, known, nothing).transactions
    assert (item.outcome, item.carried, item.reason) == ("invalid", None, "malformed")


def test_authors_keep_to_their_types(chain: Chain, known: Known) -> None:
    granted, alarm = chain.event(type="permit.granted"), chain.event(type="alarm.fire")
    assert outcomes(chain, known, chain.carried(granted, key=CLERK)) == ["applied"]
    assert outcomes(chain, known, chain.carried(granted, alarm, key=CLERK)) == ["unauthorised"]
    assert outcomes(chain, known, chain.carried(granted, alarm, key=AUTHOR)) == ["applied"]
    assert outcomes(chain, known, chain.carried(granted, key=STRANGER)) == ["unauthorised"]


def test_a_dropped_transaction_does_not_take_its_events_names(chain: Chain, known: Known) -> None:
    event = chain.event()
    late = chain.carried(event, expires_ms=NOW_MS - 1)
    good = chain.carried(event)
    applied = make_applier(chain).apply(1, chain.make([late, good]), known, nothing)
    assert applied.transactions[1].duplicate_events == frozenset()


def test_events_whose_name_is_taken_are_marked(chain: Chain, known: Known) -> None:
    event, other = chain.event(), chain.event()
    twice = chain.event(id=event.id, data="something else")
    on_ledger = chain.event()
    known.names.add(event_wire.name_key(AUTHOR.public, on_ledger.source, on_ledger.id))
    first = chain.carried(event, other, twice, on_ledger)
    second = chain.carried(other, chain.event())
    third = chain.carried(event, key=CLERK)
    applied = make_applier(chain).apply(1, chain.make([first, second, third]), known, nothing)
    marked = [item.duplicate_events for item in applied.transactions]
    # Another author's event of the same source and id is another event.
    assert marked == [{2, 3}, {0}, frozenset()]
    assert [item.leaf_index for item in applied.transactions] == [0, 1, 2]
    assert applied.transactions[0].names[0] == event_wire.name_key(
        AUTHOR.public, event.source, event.id
    )


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda chain: chain.make([], height=3), DivergedError),
        (lambda chain: chain.make([], height=1), DivergedError),
        (lambda chain: chain.make([], parent=b"x" * 32), DivergedError),
        (lambda chain: chain.make([], time_ms=NOW_MS - 1), DivergedError),
        (lambda chain: chain.make([], rules=RULES_VERSION + 1), RulesTooOldError),
        (lambda chain: chain.make([], epoch=1), DivergedError),
        (lambda chain: chain.make([], voters=bytes(32)), DivergedError),
    ],
)
def test_a_block_that_does_not_follow_stops_the_node(
    chain: Chain, known: Known, make: Callable[[Chain], Block], error: type[P2PCityError]
) -> None:
    applier = make_applier(chain)
    applier.apply(1, chain.add(chain.carried()), known, nothing)
    tip = applier.tip
    with pytest.raises(error) as caught:
        applier.apply(2, make(chain), known, nothing)
    assert caught.value.remedy
    assert applier.tip == tip


def test_the_first_block_stands_on_the_network_id(known: Known) -> None:
    chain, other = Chain(), Chain(make_genesis("other"))
    with pytest.raises(DivergedError):
        make_applier(chain).apply(1, other.make([]), known, nothing)


def test_restore_takes_back_what_could_not_be_stored(chain: Chain, known: Known) -> None:
    applier = make_applier(chain)
    before = applier.tip, applier.state
    block = chain.make([chain.carried()])
    applied = applier.apply(1, block, known, nothing)
    applier.restore(*before)
    assert applier.apply(1, block, known, nothing).tip == applied.tip


def test_what_was_examined_is_not_examined_again(chain: Chain, known: Known) -> None:
    good, bad = chain.carried(), chain.carried()
    block = chain.make([good, bad])
    # The lookup's word is taken, so a signature is verified once on a node.
    known_bytes: dict[bytes, Examined] = {
        good.digest: good,
        bad.digest: DecodeError("said before", reason="signature"),
    }
    applied = make_applier(chain).apply(1, block, known, known_bytes.get)
    assert applied.transactions[0].carried is good
    assert applied.transactions[1].outcome == "invalid"


def test_examine_unseen_leaves_out_what_is_known(chain: Chain) -> None:
    seen, unseen, bad = chain.carried(), chain.carried(), harmed(chain.carried())
    block = chain.make([seen, unseen, bad, unseen])
    found = examine_unseen(block, {seen.digest: seen}.get, make_genesis().network)
    assert set(found) == {unseen.digest, bad.digest}
    examined, refused = found[unseen.digest], found[bad.digest]
    assert isinstance(examined, Carried)
    assert examined.transaction.id == unseen.transaction.id
    assert isinstance(refused, DecodeError)
    assert refused.reason == "signature"
    assert sha256(unseen.data) == unseen.digest
