"""A base from others: who is believed, what is refused, and what goes on after a break."""

import random
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial

import pytest

from p2pcity.errors import DecodeError, RemoteError, Unavailable
from p2pcity.sync.bases import Agreed, Agreement, HeadFetch, IntervalFetch
from p2pcity.sync.sources import Sources
from p2pcity.wire import base as base_wire
from p2pcity.wire.base import RECORD_BYTES, RECORDS_PER_BLOCK_MAX, BaseHead, encode_head
from p2pcity.wire.sync import (
    BaseAnswer,
    BaseHeadAnswer,
    BaseQuery,
    BaseRecordsAnswer,
    BaseRecordsQuery,
)
from tests.base_case import HEAD_PART_BYTES, Holder, Ledger

LEDGER = Ledger(1, 3)
FORGED = Ledger(2, 3)
LEDGERS = [(Ledger(10 + at, 6), Ledger(20 + at, 6)) for at in range(3)]
LIES = ("head", "head-long", "records", "offset", "digest", "size", "count", "height", "slow")
FEW = 7
"""So few records are asked for at once that an interval here comes in parts."""
NETWORK = LEDGER.head(1).network


def ask_round(
    holders: Mapping[str, Holder], voters: Iterable[Iterable[str]], above: int = 0
) -> tuple[Agreement, list[str]]:
    """Ask as a node does; also who was caught lying."""
    agreement, wrong = Agreement([list(names) for names in voters], above), []
    for peer, holder in holders.items():
        answer = holder.answer(BaseQuery())
        assert isinstance(answer, BaseAnswer)
        try:
            agreement.offered(peer, answer)
        except DecodeError:
            wrong.append(peer)
    for question in agreement.questions():
        for peer, holder in holders.items():
            answer = holder.answer(question)
            assert isinstance(answer, BaseAnswer)
            agreement.named(peer, question, answer)
    return agreement, wrong


def digest(ledger: Ledger, number: int) -> bytes:
    return base_wire.digest_head(ledger.heads[number - 1])


def test_a_majority_of_the_voters_has_to_name_it() -> None:
    holders = {"a": Holder(LEDGER, 2, 2), "b": Holder(LEDGER, 0, 1), "x": Holder(LEDGER, 2, 2)}
    # `own` votes and is behind; `x` does not vote, whatever it says.
    agreement, _ = ask_round(holders, [["own", "a", "b"]])
    assert agreement.agreed() is None
    # `x` does not vote; `b` is asked for what it has, which is nothing for those that it trails.
    assert agreement.first_kept({"a", "b", "x"}) == 1
    assert agreement.first_kept({"a", "x"}) == LEDGER.head(2).index + 1
    assert agreement.first_kept({"x"}) is None
    holders["b"].reach = 2
    found = ask_round(holders, [["own", "a", "b"]])[0].agreed()
    size = len(LEDGER.heads[1])
    assert found == Agreed(512, digest(LEDGER, 2), {"a": size, "x": size}, frozenset({"a", "x"}))
    # In a joint state by both sets.
    assert ask_round(holders, [["own", "a", "b"], ["a", "c", "d"]])[0].agreed() is None
    assert ask_round(holders, [["own", "a", "b"], ["a", "b"]])[0].agreed() == found
    # Nothing that this node has already, and nobody to name anything.
    assert ask_round(holders, [["own", "a", "b"]], above=512)[0].agreed() is None
    assert ask_round(holders, [[]])[0].agreed() is None


def test_the_highest_that_is_agreed_on_is_taken() -> None:
    holders = {
        "a": Holder(LEDGER, 3, 3),
        "b": Holder(LEDGER, 2, 2),
        "c": Holder(LEDGER, 2, 2),
    }
    found = ask_round(holders, [["a", "b", "c"]])[0].agreed()
    assert found is not None
    assert (found.height, set(found.holders)) == (512, {"b", "c"})
    # The records of a later base begin with these.
    assert found.sources == {"a", "b", "c"}
    holders["b"].reach = 3
    found = ask_round(holders, [["a", "b", "c"]])[0].agreed()
    assert found is not None
    assert (found.height, set(found.holders), set(found.sources)) == (768, {"a"}, {"a"})


@pytest.mark.parametrize("lie", ["size", "count"])
def test_what_is_said_to_be_too_large_is_refused_before_it_is_fetched(lie: str) -> None:
    holders = {"a": Holder(LEDGER, 3, 3, lies={lie}), "b": Holder(LEDGER, 2, 3)}
    agreement, wrong = ask_round(holders, [["b"]])
    assert wrong == ["a"]
    found = agreement.agreed()
    assert found is not None
    assert found.holders.keys() == {"b"}


@pytest.mark.parametrize(
    "offer",
    [
        BaseAnswer(0, bytes(32), 1, 1, 1),
        BaseAnswer(300, bytes(32), 1, 1, 1),
        BaseAnswer(256, bytes(32), 0, 1, 1),
        BaseAnswer(256, bytes(32), base_wire.head_bytes_max(256) + 1, 1, 1),
        BaseAnswer(256, bytes(32), 9, 256 * RECORDS_PER_BLOCK_MAX + 1, 1),
    ],
)
def test_offers_that_cannot_be_true_are_wrong(offer: BaseAnswer) -> None:
    with pytest.raises(DecodeError):
        Agreement([["a"]], 0).offered("a", offer)


def test_many_made_up_heights_cost_few_questions() -> None:
    agreement = Agreement([["a"]], 0)
    for number in range(1, 100):
        offer = BaseAnswer(number * 256, bytes([number]) * 32, 9, 1, 1)
        agreement.offered(f"liar{number}", offer)
    assert len(agreement.questions()) == 8
    with pytest.raises(DecodeError):
        agreement.named("a", BaseQuery(256), BaseAnswer(512, bytes(32), 0, 0, 1))


def agreed(number: int, size: int | None = None) -> Agreed:
    size = len(LEDGER.heads[number - 1]) if size is None else size
    return Agreed(number * 256, digest(LEDGER, number), {"a": size}, frozenset({"a"}))


def fetch_head(holder: Holder, wanted: Agreed) -> bytes:
    fetch = HeadFetch(wanted, NETWORK, "a", HEAD_PART_BYTES)
    while True:
        question = fetch.question()
        answer = holder.answer(question)
        assert isinstance(answer, BaseHeadAnswer)
        if (data := fetch.take(question, answer)) is not None:
            return data


def fetch_interval(holder: Holder, head: BaseHead, interval: int) -> bytes:
    fetch = IntervalFetch(head, interval, FEW)
    while not fetch.is_empty:
        question = fetch.question()
        answer = holder.answer(question)
        assert isinstance(answer, BaseRecordsAnswer)
        if (data := fetch.take(question, answer)) is not None:
            return data
    return fetch.finish()


def test_a_base_comes_in_parts() -> None:
    holder = Holder(LEDGER, 3, 3)
    assert fetch_head(holder, agreed(3)) == LEDGER.heads[2]
    found = b"".join(fetch_interval(holder, LEDGER.head(3), at) for at in range(3))
    assert found == LEDGER.records


@pytest.mark.parametrize(
    ("holder", "wanted", "error"),
    [
        (Holder(LEDGER, 3, 3, lies={"head"}), agreed(3), DecodeError),
        (Holder(LEDGER, 3, 3, lies={"head-long"}), agreed(3), DecodeError),
        (Holder(LEDGER, 3, 3, lies={"slow"}), agreed(3), DecodeError),
        (Holder(FORGED, 3, 3), agreed(3), DecodeError),
        (Holder(LEDGER, 3, 3), agreed(3, 900), DecodeError),
        (Holder(LEDGER, 2, 3), agreed(3), Unavailable),
    ],
)
def test_a_head_that_is_not_the_agreed_one_is_refused(
    holder: Holder, wanted: Agreed, error: type[Exception]
) -> None:
    with pytest.raises(error):
        fetch_head(holder, wanted)


def test_who_lies_about_a_size_is_measured_by_it_alone() -> None:
    """A true digest with a size of one byte must not turn the honest holder's head down."""
    data, honest = LEDGER.heads[0], len(LEDGER.heads[0])
    agreement = Agreement([["a"]], 0)
    for peer, size in (("a", honest), ("liar", 1)):
        agreement.offered(peer, BaseAnswer(256, digest(LEDGER, 1), size, LEDGER.head(1).records, 1))
    for question in agreement.questions():
        agreement.named("a", question, BaseAnswer(256, digest(LEDGER, 1), 0, 0, 1))
    found = agreement.agreed()
    assert found is not None
    fetch = HeadFetch(found, NETWORK, "a")
    assert fetch.take(fetch.question(), BaseHeadAnswer(256, 0, data)) == data
    fetch = HeadFetch(found, NETWORK, "liar")
    with pytest.raises(DecodeError, match="longer than it was said"):
        fetch.take(fetch.question(), BaseHeadAnswer(256, 0, data))


def test_a_head_of_another_network_is_refused_whoever_agreed() -> None:
    fetch = HeadFetch(agreed(1), bytes(32), "a")
    data = LEDGER.heads[0]
    with pytest.raises(DecodeError, match="another base or network"):
        fetch.take(fetch.question(), BaseHeadAnswer(256, 0, data))


@pytest.mark.parametrize(
    ("holder", "error"),
    [
        (Holder(LEDGER, 3, 3, lies={"records"}), DecodeError),
        (Holder(LEDGER, 3, 3, lies={"offset"}), DecodeError),
        (Holder(LEDGER, 3, 3, lies={"slow"}), DecodeError),
        (Holder(FORGED, 3, 3), RemoteError),
        (Holder(LEDGER, 1, 3), Unavailable),
    ],
)
def test_records_that_do_not_fit_their_mark_are_refused(
    holder: Holder, error: type[Exception]
) -> None:
    with pytest.raises(error):
        fetch_interval(holder, LEDGER.head(3), 1)


def test_more_records_than_asked_for_are_refused() -> None:
    fetch = IntervalFetch(LEDGER.head(1), 0, count_max=2)
    question = fetch.question()
    with pytest.raises(DecodeError, match="3 records came"):
        fetch.take(question, BaseRecordsAnswer(0, LEDGER.records[: 3 * RECORD_BYTES]))
    head = HeadFetch(agreed(1), NETWORK, "a")
    with pytest.raises(DecodeError, match="another part"):
        head.take(question, BaseRecordsAnswer(0, b""))
    with pytest.raises(DecodeError, match="0 bytes"):
        head.take(head.question(), BaseHeadAnswer(256, 0, b""))


@pytest.mark.parametrize("count", [1, 2, FEW - 1])
def test_fewer_records_than_asked_for_are_refused(count: int) -> None:
    """One by one, each of them in time, they would keep the asker for ever."""
    head, data = LEDGER.head(3), LEDGER.records
    fetch = IntervalFetch(head, 0, FEW)
    with pytest.raises(DecodeError, match=f"{count} records came, {FEW} were asked for"):
        fetch.take(fetch.question(), BaseRecordsAnswer(0, data[: count * RECORD_BYTES]))
    # What is left of the interval at its end is all that is asked for.
    end = head.mark(1).records
    fetch = IntervalFetch(head, 0, end - 1)
    assert fetch.take(fetch.question(), BaseRecordsAnswer(0, data[: (end - 1) * 48])) is None
    assert fetch.question() == BaseRecordsQuery(end - 1, 1)
    last = BaseRecordsAnswer(end - 1, data[(end - 1) * 48 : end * 48])
    assert fetch.take(fetch.question(), last) == data[: end * 48]


@pytest.mark.parametrize("length", [0, 1, HEAD_PART_BYTES - 1, HEAD_PART_BYTES + 1])
def test_a_part_of_a_head_has_all_bytes_that_fit(length: int) -> None:
    data = LEDGER.heads[0]
    fetch = HeadFetch(agreed(1), NETWORK, "a", HEAD_PART_BYTES)
    with pytest.raises(DecodeError, match=f"{length} bytes came, not of {HEAD_PART_BYTES}"):
        fetch.take(fetch.question(), BaseHeadAnswer(256, 0, data[:length]))
    # The last part is as short as what is left, and no shorter.
    before = len(data) - 2
    fetch = HeadFetch(agreed(1), NETWORK, "a", before)
    assert fetch.take(fetch.question(), BaseHeadAnswer(256, 0, data[:before])) is None
    with pytest.raises(DecodeError, match="1 bytes came, not of 2"):
        fetch.take(fetch.question(), BaseHeadAnswer(256, before, data[before : before + 1]))
    assert fetch.take(fetch.question(), BaseHeadAnswer(256, before, data[before:])) == data


class Breaks(Exception):
    """The asking node was killed."""


Fetch = HeadFetch | IntervalFetch


class Asker:
    """A node that fetches among peers that come, go, prune and lie; what is verified stays."""

    def __init__(self, holders: dict[str, Holder], voters: list[str], count_max: int) -> None:
        self.holders = holders
        self.voters = voters
        self.count_max = count_max
        self.sources = Sources()
        self.now_s = 0.0
        self.head: BaseHead | None = None
        self.intervals: list[bytes] = []
        self.liars: set[str] = set()
        self.answers = 0
        self.breaks_at = 0
        self.before_each: Callable[[], None] = lambda: None

    def run(self) -> bool:
        """One round: whether the base is complete. Raises Breaks."""
        self.now_s += 100.0
        agreement, wrong = ask_round(self.holders, [self.voters])
        self.liars |= set(wrong)
        wanted = agreement.agreed()
        if wanted is None:
            return False
        if self.head is None or base_wire.digest_head(encode_head(self.head)) != wanted.digest:
            begin = partial(HeadFetch, wanted, NETWORK, part_bytes_max=HEAD_PART_BYTES)
            data = self._fetch(begin, wanted.holders)
            if data is None:
                return False
            # Intervals that were verified are the beginning of a later base too.
            self.head = base_wire.decode_head(data)
        head = self.head
        while (number := len(self.intervals)) < head.intervals:
            fetch = IntervalFetch(head, number)
            if fetch.is_empty:
                self.intervals.append(fetch.finish())
                continue
            found = self._fetch(self._interval(head, number), wanted.sources)
            if found is None:
                return False
            self.intervals.append(found)
        return True

    def _fetch(self, begin: Callable[[str], Fetch], peers: Collection[str]) -> bytes | None:
        while (peer := self.sources.choose(peers, self.now_s)) is not None:
            # Another peer begins anew: nobody is blamed for somebody else's part.
            fetch, found = begin(peer), None
            try:
                while found is None:
                    self.answers += 1
                    if self.answers == self.breaks_at:
                        raise Breaks
                    self.before_each()
                    question = fetch.question()
                    answer = self.holders[peer].answer(question)
                    assert isinstance(answer, BaseHeadAnswer | BaseRecordsAnswer)
                    found = fetch.take(question, answer)
                return found
            except DecodeError:
                self.liars.add(peer)
                self.sources.failed(peer, self.now_s, is_wrong=True)
            except Unavailable:
                self.sources.failed(peer, self.now_s, is_wrong=False)
        return None

    def _interval(self, head: BaseHead, number: int) -> Callable[[str], Fetch]:
        return lambda peer: IntervalFetch(head, number, self.count_max)


def is_right(asker: Asker, ledger: Ledger) -> bool:
    head = asker.head
    assert head is not None
    number = head.intervals
    return encode_head(head) == ledger.heads[number - 1] and b"".join(
        asker.intervals
    ) == ledger.records_at(number)


@pytest.mark.scenario("D8", tier="S")
def test_a_fetch_goes_on_after_a_break_at_each_part() -> None:
    whole = Asker({name: Holder(LEDGER, 3, 3) for name in "ab"}, ["own", "a", "b"], 40)
    assert whole.run()
    assert whole.answers > 20
    for breaks_at in range(1, whole.answers + 1):
        asker = Asker({name: Holder(LEDGER, 3, 3) for name in "ab"}, ["own", "a", "b"], 40)
        asker.breaks_at = breaks_at
        with pytest.raises(Breaks):
            asker.run()
        kept, before = len(asker.intervals), asker.answers
        asker.sources = Sources()
        assert asker.run()
        assert is_right(asker, LEDGER)
        # Nothing that was verified is asked for again.
        assert asker.answers - before <= whole.answers - kept * 2


@pytest.mark.scenario("D8", "D9", tier="S")
def test_any_row_of_breaks_prunings_and_lies_ends_with_the_right_base() -> None:
    finished = moved = lied = 0
    for seed in range(60):
        rng = random.Random(seed)
        ledger, forged = LEDGERS[seed % 3]
        number = rng.randint(1, 3)
        names = [f"n{at}" for at in range(rng.choice((3, 4, 5)))]
        voters = ["own", *names[: rng.randint(2, len(names))]]
        holders = {name: Holder(ledger, number, number) for name in names}
        # A minority of the voters, and any of the others, lies.
        liars = set(rng.sample(voters[1:], (len(voters) - 3) // 2))
        liars |= {name for name in names if name not in voters and rng.random() < 0.5}
        for name in liars:
            holders[name].lies = set(rng.sample(LIES, rng.randint(1, 3)))
            if rng.random() < 0.3:
                holders[name].ledger = forged
        asker = Asker(holders, voters, rng.randint(3, 60))

        def go_on(rng: random.Random = rng, holders: dict[str, Holder] = holders) -> None:
            """Now and then somebody prunes on: to the base that the others reach by then."""
            if rng.random() < 0.1:
                for holder in holders.values():
                    holder.reach = min(6, holder.reach + 1)
            if rng.random() < 0.1:
                holder = holders[rng.choice(sorted(holders))]
                holder.number = min(holder.reach, holder.number + 1)

        asker.before_each = go_on
        is_done = False
        for _ in range(200):
            asker.breaks_at = asker.answers + rng.randint(1, 250)
            try:
                is_done = asker.run()
            except Breaks:
                asker.sources = Sources()
                # Sometimes what was kept is lost too.
                if rng.random() < 0.1:
                    asker.head, asker.intervals = None, []
                continue
            if is_done:
                break
            go_on()
        assert is_done, seed
        assert is_right(asker, ledger), seed
        assert asker.liars <= liars, seed
        finished += 1
        assert asker.head is not None
        moved += asker.head.intervals > number
        lied += bool(asker.liars)
    assert (finished, moved > 5, lied > 5) == (60, True, True)
