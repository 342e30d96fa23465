"""Reads under way."""

from p2pcity.raft.reads import AskedReads, LeaderReads, LocalRead, PeerRead


def test_a_round_confirms_what_came_before_it() -> None:
    reads = LeaderReads()
    reads.open_round(LocalRead(b"a"), 5)
    first = reads.round
    reads.open_round(PeerRead("p", 7), 6)
    assert reads.confirm(first - 1) == []
    assert [found.index for found in reads.confirm(first)] == [5]
    assert reads.confirm(first) == []
    assert [found.read for found in reads.confirm(reads.round)] == [PeerRead("p", 7)]
    assert len(reads) == 0


def test_held_reads_get_rounds_later() -> None:
    reads = LeaderReads()
    assert not reads.release(1)
    reads.hold(LocalRead(b"a"))
    assert reads.round == 0
    assert reads.confirm(9) == []
    assert reads.release(4)
    assert [found.index for found in reads.confirm(1)] == [4]


def test_a_retried_read_needs_its_own_round() -> None:
    reads = LeaderReads()
    reads.open_round(LocalRead(b"a"), 5)
    reads.open_round(LocalRead(b"a"), 9)
    assert reads.confirm(1) == []
    assert reads.local_contexts() == [b"a"]
    assert [found.index for found in reads.confirm(2)] == [9]
    assert reads.local_contexts() == []


def test_answers_fit_one_question_to_one_leader() -> None:
    asked = AskedReads(100)
    number = asked.ask(b"a", "leader", 0)
    assert asked.answer(number, "other") is None
    assert asked.answer(number + 1, "leader") is None
    assert asked.answer(number, "leader") == b"a"
    assert asked.answer(number, "leader") is None


def test_asked_again_the_old_answer_is_worth_nothing() -> None:
    asked = AskedReads(0)
    old = asked.ask(b"a", "leader", 0)
    new = asked.ask(b"a", "leader", 1)
    assert asked.answer(old, "leader") is None
    assert asked.answer(new, "leader") == b"a"
    assert asked.drop_all() == []


def test_old_questions_are_dropped() -> None:
    asked = AskedReads(0)
    asked.ask(b"a", "leader", 1)
    asked.ask(b"b", "leader", 2)
    assert asked.drop_older(0) == []
    assert asked.drop_older(1) == [b"a"]
    assert asked.drop_all() == [b"b"]
    assert len(asked) == 0
