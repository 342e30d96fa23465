"""Whom to ask for missing entries: each peer once a round, within bounds, nobody believed."""

from collections.abc import Set

from p2pcity.sync import repair as repair_module
from p2pcity.sync.repair import Repair
from p2pcity.wire.raft import Entry
from p2pcity.wire.sync import EntriesAnswer, EntriesQuery


def give(
    repair: Repair, peer: str, *entries: Entry, commit: int = 100, index: int | None = None
) -> bool:
    question = repair.question(peer)
    assert question is not None
    answer = EntriesAnswer(question.index if index is None else index, 3, commit, entries)
    return repair.take(peer, question, answer)


def test_each_hole_is_asked_for_and_what_else_comes_is_left_out() -> None:
    repair = Repair([(3, 4), (8, 8)])
    assert repair.question("a") == EntriesQuery(3)
    assert give(repair, "a", *(Entry(1, index, b"x") for index in range(3, 7)), commit=3)
    assert repair.question("a") == EntriesQuery(8)
    assert give(repair, "a")
    assert repair.question("a") is None
    assert repair.entries == {3: [Entry(1, 3, b"x")], 4: [Entry(1, 4, b"x")]}
    assert repair.committed == {3: 1}
    assert repair.givers(3) == ["a"]
    assert repair.givers(8) == []
    # Another one is asked for everything, and what more peers say is tried first.
    assert repair.question("b") == EntriesQuery(3)
    give(repair, "b", Entry(2, 3, b"y"))
    give(repair, "c", Entry(2, 3, b"y"))
    assert repair.entries[3] == [Entry(2, 3, b"y"), Entry(1, 3, b"x")]
    assert repair.givers(3) == ["a", "b", "c"]


def test_a_new_round_asks_anew() -> None:
    repair = Repair([(3, 3)])
    question = repair.question("a")
    assert question is not None
    repair.refused("a", question)
    assert repair.question("a") is None
    repair.begin_round()
    assert repair.question("a") == question


def test_an_answer_to_something_else_is_wrong() -> None:
    repair = Repair([(3, 3)])
    assert not give(repair, "a", Entry(1, 7, b"x"), index=7)
    assert repair.entries == {}


def test_what_is_kept_is_bounded() -> None:
    """Of each peer, so that one leaves room for the others, and of all of them."""
    repair = Repair([(1, 1 << 60)])
    repair.begin_round()
    counts = []
    for peer in map(str, range(repair_module.BYTES_MAX // repair_module.PEER_BYTES_MAX)):
        assert not repair.is_full
        assert repair.question(peer) == EntriesQuery(1)
        counts.append(0)
        while (question := repair.question(peer)) is not None:
            entry = Entry(int(peer) + 1, question.index, bytes(1 << 20))
            assert repair.take(peer, question, EntriesAnswer(question.index, 1, 0, (entry,)))
            counts[-1] += 1
    assert set(counts) == {repair_module.PEER_BYTES_MAX >> 20}
    assert repair.is_full
    assert repair.question("honest") is None
    few = Repair([(5, 5), (9, 1 << 60)])
    for _ in range(repair_module.WANTED_MAX):
        question = few.question("a")
        assert question is not None
        few.refused("a", question)
    assert few.question("a") is None


def test_a_peer_that_makes_up_versions_is_heard_a_few_times() -> None:
    repair = Repair([(3, 3)])
    for number in range(100):
        repair.begin_round()
        give(repair, "a", Entry(1, 3, b"%d" % number))
    assert len(repair.entries[3]) < 10


def test_what_a_quorum_holds_as_committed_succeeds_the_first_hole() -> None:
    def is_quorum(peers: Set[str]) -> bool:
        return len(peers) >= 2

    repair = Repair([(3, 4)])
    entry, other = Entry(2, 3, b"y"), Entry(1, 3, b"x")
    give(repair, "a", entry, Entry(2, 4, b"z"), commit=4)
    assert repair.successors(is_quorum) == []
    give(repair, "b", other, commit=4)
    give(repair, "c", entry, commit=2)
    assert repair.successors(is_quorum) == [], "another entry, and one that is not committed"
    # Saying it twice makes no second one.
    repair.begin_round()
    give(repair, "a", entry, commit=4)
    assert repair.successors(is_quorum) == []
    repair.begin_round()
    give(repair, "c", entry, commit=3)
    assert repair.successors(is_quorum) == [entry]


def test_it_is_known_what_those_keep_who_had_what_is_missing() -> None:
    repair = Repair([(5, 7), (30, 30)])
    assert repair.first_kept() is None
    # It does not know that anything of it is committed.
    repair.take("a", EntriesQuery(5), EntriesAnswer(5, 3, 4, (), 1))
    assert repair.first_kept() is None
    # It has pruned one of the holes, or both: what is gone is not asked for.
    repair.take("b", EntriesQuery(5), EntriesAnswer(5, 3, 100, (), 41))
    assert repair.first_kept() == 41
    repair.take("c", EntriesQuery(5), EntriesAnswer(5, 3, 90, (), 20))
    assert repair.first_kept() == 20
    assert [repair.question(peer) for peer in "abc"] == [EntriesQuery(6), None, EntriesQuery(30)]
    assert repair.ahead(90) == {"b"}
    # It is damaged there too, though its log begins below.
    repair.take("d", EntriesQuery(5), EntriesAnswer(5, 3, 90, (), 1))
    assert repair.first_kept() == 6
    # What it gave may be wrong; it says that it keeps it.
    repair.take("e", EntriesQuery(5), EntriesAnswer(5, 3, 90, (Entry(3, 5, b"x"),), 3))
    assert repair.first_kept() == 3
    repair.begin_round()
    assert repair.first_kept() is None
    assert repair.question("b") == EntriesQuery(5)


def test_a_peers_new_word_takes_the_place_of_its_old_one() -> None:
    """One that says something else each time leaves room for the others, and speaks once."""
    repair = Repair([(3, 3)])
    for number in range(3 * repair_module._VERSIONS_MAX):
        repair.begin_round()
        give(repair, "liar", Entry(1 + number, 3, b"%d" % number))
        assert len(repair.entries[3]) == 1
    for peer in "ab":
        give(repair, peer, Entry(1, 3, b"true"))
    assert repair.entries[3][0] == Entry(1, 3, b"true")
    assert repair.successors(lambda peers: len(peers) > 1) == [Entry(1, 3, b"true")]
    # Who learns that another one was committed says so, and counts for that one alone.
    repair.begin_round()
    give(repair, "a", Entry(2, 3, b"newer"))
    assert repair.givers(3) == ["a", "b", "liar"]
    assert repair.successors(lambda peers: len(peers) > 1) == []
