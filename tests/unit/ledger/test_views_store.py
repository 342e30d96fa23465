"""views.db: what applied blocks leave in it, what it answers, and that it never half changes."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from p2pcity.crypto import merkle
from p2pcity.errors import DivergedError, LockedError, Unavailable
from p2pcity.ledger.views_reader import LedgerEvent, ViewsReader
from p2pcity.ledger.views_store import ViewsStore
from p2pcity.views import labels
from p2pcity.views.position import BEGINNING, Position
from p2pcity.views.queries import EventQuery
from p2pcity.wire import event as event_wire
from p2pcity.wire import transaction as transaction_wire
from p2pcity.wire.change import ChangeVoters, LeaveJoint, NewNode, Step
from p2pcity.wire.event import Event
from p2pcity.wire.transaction import join_carried
from tests.chain_case import AUTHOR, CLERK, NOW_MS, STRANGER, Chain
from tests.views_case import apply_all, dump, harmed, names, open_store


def test_an_empty_ledger(store: ViewsStore, reader: ViewsReader, chain: Chain) -> None:
    assert (store.applied_index, store.height, store.head) == (0, 0, chain.genesis.network)
    assert store.frontier.root == merkle.EMPTY_ROOT
    assert store.recovery is None
    assert reader.meta() == store.meta
    assert reader.transaction(b"x" * 32) is None
    assert reader.block(1) is None
    assert reader.block_bytes(1) is None
    assert reader.events_after(BEGINNING, 10).events == ()
    assert store.apply_blocks([]) == []


def test_committed_transactions_can_be_found(
    store: ViewsStore, reader: ViewsReader, chain: Chain
) -> None:
    first, second, third = chain.carried(), chain.carried(), chain.carried()
    chain.add_nothing()
    one = chain.add(first, second)
    chain.add_nothing()
    two = chain.add(third, time_ms=NOW_MS + 5)
    applied = store.apply_blocks(chain.pairs())
    assert [item.index for item in applied] == [2, 4]
    assert (store.applied_index, store.height, store.head_time_ms) == (4, 2, NOW_MS + 5)
    assert store.frontier.root == merkle.root([first.leaf, second.leaf, third.leaf])
    record = reader.transaction(third.transaction.id)
    assert record is not None
    assert (record.height, record.position, record.outcome, record.leaf_index) == (
        2,
        0,
        "applied",
        2,
    )
    assert reader.transaction_bytes(second.transaction.id) == second.data
    assert reader.transaction_bytes(b"x" * 32) is None
    assert reader.has_transaction(first.transaction.id)
    block = reader.block(2)
    assert block is not None
    assert (block.raft_index, block.hash, block.tree_size) == (4, two.hash, 3)
    assert [item.hash for item in reader.blocks(1, 5)] == [one.hash, two.hash]
    assert reader.block_bytes(1) == one.data
    assert reader.block_transactions(1)[1].id == second.transaction.id
    assert reader.meta().events == 3
    assert reader.types() == ["permit.granted"]


def test_dropped_transactions_are_visible(
    store: ViewsStore, reader: ViewsReader, chain: Chain
) -> None:
    late = chain.carried(expires_ms=NOW_MS - 1)
    foreign = chain.carried(key=STRANGER)
    good = chain.carried()
    bad = harmed(good)
    chain.add(late, foreign, bad)
    chain.add(good)
    chain.add(good, late)
    apply_all(store, chain)
    ends = {}
    for name, carried in (("late", late), ("foreign", foreign), ("good", good)):
        record = reader.transaction(carried.transaction.id)
        assert record is not None
        ends[name] = (record.height, record.outcome, record.leaf_index)
    # A duplicate keeps pointing at the first; an applied one comes before a harmed copy.
    assert ends == {
        "late": (1, "expired", None),
        "foreign": (1, "unauthorised", None),
        "good": (2, "applied", 0),
    }
    assert not reader.has_transaction(late.transaction.id)
    assert reader.meta().dropped == 5
    assert [str(item.position) for item in reader.events_after(BEGINNING, 10).events] == ["2.0.0"]


def test_the_stream_is_ordered_and_without_gaps(
    store: ViewsStore, reader: ViewsReader, chain: Chain
) -> None:
    events = [chain.event() for _ in range(12)]
    chain.add(chain.carried(*events[:3]), chain.carried(*events[3:5]))
    chain.add(chain.carried(*events[5:9], events[0]))  # a duplicate is in no view
    chain.add()
    chain.add(chain.carried(*events[9:]))
    apply_all(store, chain)
    for limit in (1, 2, 5, 12, 13):
        assert names(stream(reader, limit)) == [event.id for event in events]
    page = reader.events_after(BEGINNING, 20)
    seen = list(page.events)
    assert [item.position for item in seen] == sorted(item.position for item in seen)
    assert (page.height, page.head) == (4, chain.blocks[-1].hash)
    from_two = reader.events_after(Position.before(2), 100).events
    assert names(from_two) == [event.id for event in events[5:]]
    assert reader.events_after(seen[-1].position, 5).events == ()
    item = seen[3]
    assert item.event == events[3]
    assert (item.author, item.block_time_ms) == (AUTHOR.public, NOW_MS)
    assert item.data == event_wire.encode(events[3])


def stream(reader: ViewsReader, limit: int) -> list[LedgerEvent]:
    """Read all events in pages of `limit`."""
    cursor: Position | None = BEGINNING
    seen: list[LedgerEvent] = []
    while cursor is not None:
        page = reader.events_after(cursor, limit)
        assert len(page.events) <= limit
        seen += page.events
        cursor = page.next_cursor
    return seen


def ask(reader: ViewsReader, query: EventQuery) -> list[LedgerEvent]:
    """Read all that `query` finds, page by page."""
    seen: list[LedgerEvent] = []
    while True:
        page = reader.query(query)
        assert len(page.events) <= query.limit
        seen += page.events
        if page.next_cursor is None:
            return seen
        query = replace(query, cursor=page.next_cursor)


def test_a_name_leads_to_its_first_transaction(
    store: ViewsStore, reader: ViewsReader, chain: Chain
) -> None:
    event = chain.event()
    first, second = chain.carried(event), chain.carried(event, chain.event())
    other = chain.carried(event, key=CLERK)
    chain.add(first)
    chain.add(second, other)
    applied = store.apply_blocks(chain.pairs())
    assert applied[1].transactions[0].duplicate_events == {0}
    for key, carried in ((AUTHOR, first), (CLERK, other)):
        name = event_wire.name_key(key.public, event.source, event.id)
        assert reader.has_event(name) == carried.transaction.id
        assert store.has_event(name)
    # The index has 64 bits of a name; the rest is compared with the event.
    twin = event_wire.name_key(AUTHOR.public, event.source, event.id)[:8] + b"\0" * 24
    assert reader.has_event(twin) is None


def test_entries_in_one_commit_or_in_many_give_the_same(chain: Chain, tmp_path: Path) -> None:
    event = chain.event()
    chain.add(chain.carried(event), chain.carried(chain.event()))
    chain.add(chain.carried(event), time_ms=NOW_MS + 1)
    chain.add(chain.carried(), time_ms=NOW_MS + 2)
    together, single = (open_store(chain, tmp_path / name) for name in ("a.db", "b.db"))
    applied = together.apply_blocks(chain.pairs())
    one_by_one = [single.apply_blocks([pair])[0] for pair in chain.pairs()]
    assert [item.tip for item in applied] == [item.tip for item in one_by_one]
    assert together.meta == single.meta
    together.close()
    single.close()
    assert dump(tmp_path / "a.db") == dump(tmp_path / "b.db")


def test_what_was_applied_is_there_after_reopening(chain: Chain, path: Path) -> None:
    chain.add(chain.carried())
    store = open_store(chain, path)
    apply_all(store, chain)
    before = store.meta
    store.close()
    store.close()
    store = open_store(chain, path)
    assert store.recovery is None
    assert store.meta == before
    chain.add(chain.carried())
    apply_all(store, chain)
    assert store.height == 2
    store.close()


def test_a_block_that_does_not_follow_changes_nothing(
    store: ViewsStore, reader: ViewsReader, chain: Chain
) -> None:
    chain.add(chain.carried())
    apply_all(store, chain)
    before = store.meta
    good, wrong = chain.make([chain.carried()]), chain.make([], height=7)
    for bad in (wrong, b"no block"):
        with pytest.raises(DivergedError) as caught:
            store.apply_blocks([(2, good), (3, bad)])
        assert caught.value.remedy
        assert store.meta == before == reader.meta()
        assert reader.block(2) is None
    store.apply_blocks([(2, good)])
    assert reader.meta().tip.height == 2


def test_a_failed_commit_changes_nothing(
    chain: Chain, store: ViewsStore, path: Path, reader: ViewsReader
) -> None:
    chain.add(chain.carried(chain.event(type="new.type")))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store._connection.execute("PRAGMA busy_timeout=0").fetchall()
    with pytest.raises(LockedError):
        apply_all(store, chain)
    other.execute("ROLLBACK")
    other.close()
    assert (store.applied_index, store.height) == (0, 0)
    # A full database: the rows are rolled back, and so is what is held in memory.
    store._connection.execute("PRAGMA max_page_count=1").fetchall()
    big = [chain.event(data="x" * 900, id=f"{n}-" + "y" * 1000) for n in range(30)]
    for _ in range(20):
        chain.add(*(chain.carried(*big[:20], expires_ms=NOW_MS + n) for n in range(10)))
    with pytest.raises(Unavailable) as caught:
        apply_all(store, chain)
    assert caught.value.remedy
    assert (store.applied_index, store.height) == (0, 0)
    assert reader.meta().applied_index == 0
    store._connection.execute("PRAGMA max_page_count=1000000").fetchall()
    apply_all(store, chain)
    assert store.height == 21
    assert "new.type" in reader.types()


@pytest.fixture
def city(store: ViewsStore, chain: Chain) -> dict[str, Event]:
    """A ledger of some events with all attributes, over several blocks and spans."""
    made = {
        "old": chain.event(type="permit.filed", subject="a", time_ms=1_000, place=(10, 10)),
        "granted": chain.event(subject="a", source="urn:b", time_ms=2_000, place=(-20, 30)),
        "alarm": chain.event(type="alarm.fire", subject="b", time_ms=3_000),
        "east": chain.event(
            type="alarm.flood", source="urn:b", place=(1_799_000_000, 0), subject="a"
        ),
        "west": chain.event(type="permits", place=(-1_799_000_000, 0), time_ms=9_000),
    }
    chain.add(chain.carried(made["old"], made["granted"], key=CLERK), chain.carried(made["alarm"]))
    for _ in range(130):
        chain.add(time_ms=NOW_MS)
    chain.add(chain.carried(made["east"]), time_ms=NOW_MS + 5)
    chain.add(chain.carried(made["west"]), time_ms=NOW_MS + 5)
    apply_all(store, chain)
    return made


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (EventQuery(), "old granted alarm east west"),
        (EventQuery(type="permit.granted"), "granted"),
        (EventQuery(type="permit.*"), "old granted"),
        (EventQuery(type="alarm.*"), "alarm east"),
        (EventQuery(type="nothing"), ""),
        (EventQuery(type="nothing.*"), ""),
        (EventQuery(source="urn:b"), "granted east"),
        (EventQuery(subject="a"), "old granted east"),
        (EventQuery(subject="a", type="permit.*"), "old granted"),
        (EventQuery(authors=(CLERK.public,)), "old granted"),
        (EventQuery(authors=(STRANGER.public,)), ""),
        (EventQuery(since_ms=2_000), "granted alarm east west"),
        (EventQuery(until_ms=2_000), "old"),
        (EventQuery(since_ms=2_000, until_ms=9_001), "granted alarm west"),
        # An event without a time counts as of its block's.
        (EventQuery(since_ms=NOW_MS + 5, until_ms=NOW_MS + 6), "east"),
        (EventQuery(bbox=(-1.0, -1.0, 1.0, 1.0)), "old granted"),
        (EventQuery(bbox=(0.0, 0.0, 1.0, 1.0)), "old"),
        (EventQuery(bbox=(170.0, -1.0, -170.0, 1.0)), "east west"),
        (EventQuery(bbox=(-180.0, -90.0, 180.0, 90.0)), "old granted east west"),
        (EventQuery(bbox=(0.0, 0.0, 180.0, 1.0), source="urn:b"), "east"),
        (EventQuery(bbox=(170.0, -1.0, -170.0, 1.0), since_ms=9_001), "east"),
    ],
)
def test_queries(
    city: dict[str, Event], reader: ViewsReader, query: EventQuery, expected: str
) -> None:
    page = reader.query(query)
    assert names(page.events) == [city[name].id for name in expected.split()]
    assert page.next_cursor is None


def test_pages_continue_where_they_stopped(city: dict[str, Event], reader: ViewsReader) -> None:
    for query in (
        EventQuery(),
        EventQuery(type="permit.*"),
        EventQuery(since_ms=0),
        EventQuery(subject="a"),
    ):
        assert ask(reader, replace(query, limit=1)) == list(reader.query(query).events)


def test_labels_that_collide_are_told_apart(
    store: ViewsStore, reader: ViewsReader, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels.text_label.cache_clear()
    monkeypatch.setattr(labels, "bytes_label", lambda data: 7)
    monkeypatch.setattr("p2pcity.views.events.bytes_label", lambda data: 7)
    events = [
        chain.event(type=f"t{number % 2}", source=f"s{number % 3}", subject=f"u{number % 5}")
        for number in range(250)
    ]
    chain.add(chain.carried(*events))
    apply_all(store, chain)
    for query in (
        EventQuery(type="t1", limit=7),
        EventQuery(source="s2"),
        EventQuery(subject="u4"),
    ):
        expected = [event.id for event in events if query.matches(event, AUTHOR.public)]
        assert names(ask(reader, replace(query, limit=7))) == expected
    labels.text_label.cache_clear()


def test_a_query_that_takes_too_long_is_given_up(
    store: ViewsStore, chain: Chain, path: Path
) -> None:
    chain.add(*(chain.carried(*(chain.event() for _ in range(256))) for _ in range(20)))
    apply_all(store, chain)
    seconds = iter(range(0, 1_000_000, 10))
    reader = ViewsReader(path, chain, clock=lambda: float(next(seconds)), timeout_s=5.0)
    with pytest.raises(Unavailable) as caught:
        reader.query(EventQuery(authors=(STRANGER.public,)))
    assert caught.value.remedy
    # Where something was found, a short page with a cursor is the answer.
    page = reader.query(EventQuery(type="permit.granted", limit=5))
    assert len(page.events) == 1
    assert page.next_cursor == page.events[-1].position
    reader.close()


def test_withheld_bodies_come_as_tombstones(
    store: ViewsStore, reader: ViewsReader, chain: Chain
) -> None:
    kept, erased = chain.event(), chain.event()
    carried = chain.carried(kept, erased)
    chain.add(carried)
    apply_all(store, chain)
    leaves = carried.leaf_hashes
    data = join_carried(carried.transaction.data, [carried.events[0], leaves[1]])
    chain._payloads[0] = chain.make(
        [transaction_wire.decode_carried(data)], height=1, parent=chain.genesis.network
    ).data
    first, second = reader.events_after(BEGINNING, 10).events
    assert first.event == kept
    assert (second.event, second.data) == (None, leaves[1])
    assert names(reader.query(EventQuery()).events) == [kept.id]
    # Its name stays taken.
    assert reader.has_event(event_wire.name_key(AUTHOR.public, erased.source, erased.id))


def test_the_city_is_kept_with_the_block_that_changed_it(chain: Chain, tmp_path: Path) -> None:
    path = tmp_path / "views.db"
    new = NewNode("works", "2", b"j" * 16, ("/ip4/192.0.2.2/tcp/4710",))
    add = ChangeVoters((Step("learner", STRANGER.public, new),))
    promote = ChangeVoters((Step("voter", STRANGER.public),))
    chain.add(chain.carried())
    chain.add_change(add, promote, promote)
    store = open_store(chain, path)
    applied = store.apply_blocks(chain.pairs())
    assert [item.change_refusal != "" for item in applied] == [False, False, False, True]
    assert store.state == chain.state
    assert store.frontier.size == 4
    chain.add_change(LeaveJoint())
    with pytest.raises(DivergedError):
        # The second block does not follow: what the first one did to the city is taken back.
        store.apply_blocks([*chain.pairs(5), (6, chain.blocks[0].data)])
    before = store.state
    assert before.sets.voters_outgoing
    store.close()
    store = open_store(chain, path)
    assert store.recovery is None
    assert store.state == before
    store.apply_blocks(chain.pairs(5))
    assert store.state == chain.state
    assert not store.state.sets.voters_outgoing
    store.close()


def test_a_damaged_row_of_the_city_is_found(chain: Chain, tmp_path: Path) -> None:
    path = tmp_path / "views.db"
    open_store(chain, path).close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE city SET members = zeroblob(length(members))")
    store = open_store(chain, path)
    assert store.recovery is not None
    assert "city" in str(store.recovery)
    store.close()
