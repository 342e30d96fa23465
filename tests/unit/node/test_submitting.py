"""What clients are told: waits, retries, and events that the node signs for them."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from itertools import count

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from p2pcity.api.service import Answer, EventInput, TransactionStatus, Wait
from p2pcity.errors import DecodeError, MempoolFull, Unavailable
from p2pcity.mempool.mempool import MempoolConfig
from p2pcity.node.submitting import Signer, Submitting
from p2pcity.node.waiting import Settled, Waiters
from p2pcity.wire import event as event_wire
from p2pcity.wire.transaction import Carried
from tests.chain_case import AUTHOR, NOW_MS
from tests.node_case import Door, ids

STEP_MS = 20


class MemoryOutbox:
    """Accepts at once; `error` is raised instead when set."""

    def __init__(self) -> None:
        self.accepted: list[bytes] = []
        self.error: Exception | None = None

    async def accept(self, carried: Sequence[Carried]) -> None:
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        self.accepted += ids(carried)

    def is_pending(self, id_: bytes) -> bool:
        return id_ in self.accepted

    def settle(self, ids: Iterable[bytes], state: str) -> None:
        assert state == "committed"
        for id_ in ids:
            self.accepted.remove(id_)


class Ledger:
    """What the views would say; `on_find` runs while the views are read."""

    def __init__(self) -> None:
        self.committed: dict[bytes, int] = {}
        self.names: dict[bytes, bytes] = {}
        self.on_find: Callable[[], Awaitable[None]] | None = None
        self.on_wait: Callable[[], None] | None = None

    async def status(self, id_: bytes) -> TransactionStatus:
        await trio.lowlevel.checkpoint()
        if id_ in self.committed:
            return TransactionStatus(id_, "committed", "", self.committed[id_], 0)
        return TransactionStatus(id_, "unknown")

    async def wait_current(self, timeout_s: float) -> None:
        await trio.lowlevel.checkpoint()
        if self.on_wait is not None:
            self.on_wait()

    async def find(self, names: Sequence[bytes]) -> Mapping[bytes, bytes]:
        found = {name: self.names[name] for name in names if name in self.names}
        await trio.lowlevel.checkpoint()
        if self.on_find is not None:
            await self.on_find()
        return found


class Case(Door):
    def __init__(self, mempool: MempoolConfig | None = None, *, has_signer: bool = True) -> None:
        super().__init__(mempool=mempool)
        self.waiters = Waiters()
        self.outbox = MemoryOutbox()
        self.ledger = Ledger()
        self.unsaid: set[bytes] = set()
        self.height = 0
        self.late: list[bytes] = []
        random = count(1)
        self.submitting = Submitting(
            intake=self.intake,
            mempool=self.mempool,
            outbox=self.outbox,  # type: ignore[arg-type]  # its `accept`
            waiters=self.waiters,
            signer=Signer(
                AUTHOR,
                self.chain.genesis.network,
                lambda size: next(random).to_bytes(size, "big"),
                lambda: self.now_ms,
            )
            if has_signer
            else None,
            status=self._status,
            wait_current=self.ledger.wait_current,
            is_unsaid=lambda id_: id_ in self.unsaid,
            expire_later=lambda ids: self.late.extend(ids),
            find_events=self.ledger.find,
            moments=self.moments,
        )

    async def _status(self, id_: bytes) -> TransactionStatus:
        if id_ in self.mempool:
            return TransactionStatus(id_, "pending")
        return await self.ledger.status(id_)

    def commit(self, carried: Iterable[Carried] = ()) -> None:
        """Apply, as the assembly does; everything that is pending when nothing is named."""
        chosen = list(carried) or self.mempool.select(1 << 20)
        self.height += 1
        for item in chosen:
            id_ = item.transaction.id
            self.ledger.committed[id_] = self.height
            self.state.on_ledger.add(id_)
            for event in item.decoded_events():
                assert event is not None
                author = item.transaction.author
                self.ledger.names[event_wire.name_key(author, event.source, event.id)] = id_
        self.mempool.remove(ids(chosen))
        for item in chosen:
            self.waiters.settle(item.transaction.id, Settled("committed", "", self.height, 0))
        self.submitting.applied(ids(chosen))

    async def submit(self, *carried: Carried, wait: Wait = "committed") -> list[Answer]:
        return list(await self.submitting.submit([item.data for item in carried], wait, STEP_MS))

    async def send(self, *events: EventInput, wait: Wait = "accepted") -> list[Answer]:
        return list(await self.submitting.submit_events(events, wait, STEP_MS))


def event(id: str) -> EventInput:
    return EventInput(id=id, type="t", source="urn:s")


async def test_a_client_that_waits_is_told_the_height() -> None:
    case = Case()
    carried = case.chain.carried()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(commit_soon, case)
        [answer] = await case.submit(carried)
    assert (answer.id, answer.status, answer.height) == (carried.transaction.id, "committed", 1)
    # What was committed in time needs no outbox.
    assert case.outbox.accepted == []


async def commit_soon(case: Case) -> None:
    await wait_all_tasks_blocked()
    case.commit()


async def test_a_client_that_waited_in_vain_leaves_it_to_the_outbox(
    autojump_clock: trio.testing.MockClock,
) -> None:
    case = Case()
    carried = case.chain.carried()
    [answer] = await case.submit(carried)
    assert answer.status == "pending"
    assert case.outbox.accepted == ids([carried])
    assert len(case.waiters) == 0


async def test_wait_none_touches_no_disk() -> None:
    case = Case()
    [answer] = await case.submit(case.chain.carried(), wait="none")
    assert answer.status == "pending"
    assert case.outbox.accepted == []


async def test_a_full_disk_is_an_error_and_not_an_accept() -> None:
    case = Case()
    case.outbox.error = Unavailable("the disk is full")
    with pytest.raises(Unavailable):
        await case.submit(case.chain.carried(), wait="accepted")


async def test_the_same_again_gets_the_same_answer_or_a_better_one() -> None:
    case = Case()
    carried = case.chain.carried()
    for _ in range(2):
        [answer] = await case.submit(carried, wait="accepted")
        assert (answer.verdict, answer.status) == ("accept", "pending")
    case.commit()
    [answer] = await case.submit(carried)
    assert (answer.verdict, answer.status, answer.height) == ("accept", "committed", 1)


async def test_a_rejected_one_has_its_reason_and_the_others_go_on() -> None:
    case = Case()
    answers = await case.submitting.submit(
        [b"rubbish", case.chain.carried().data], "accepted", STEP_MS
    )
    assert [(item.status, item.reason) for item in answers] == [
        ("rejected", "malformed"),
        ("pending", ""),
    ]


async def test_a_full_mempool_is_an_error_when_nothing_got_in() -> None:
    case = Case(MempoolConfig(transactions_max=1))
    first, second, third = (case.chain.carried() for _ in range(3))
    answers = await case.submit(first, second, wait="accepted")
    assert [item.reason for item in answers] == ["", "queue-full"]
    with pytest.raises(MempoolFull):
        await case.submit(second, third, wait="accepted")


async def test_what_was_admitted_and_is_nowhere_any_more_has_expired() -> None:
    case = Case()
    carried = case.chain.carried(expires_ms=NOW_MS + 10)
    await case.submit(carried, wait="none")
    case.now_ms += 20
    case.mempool.expire(case.now_ms)
    [answer] = await case.submit(carried)
    assert (answer.status, answer.reason) == ("expired", "expired")


async def test_what_a_node_behind_missed_has_not_expired() -> None:
    """Said only after a read that a quorum confirmed; without one it may be anywhere."""
    case = Case()
    carried = case.chain.carried(expires_ms=NOW_MS + 10)
    await case.submit(carried, wait="none")
    case.now_ms += 20
    case.mempool.expire(case.now_ms)

    def nobody_leads() -> None:
        raise Unavailable("no leader confirmed the read in time")

    case.ledger.on_wait = nobody_leads
    [answer] = await case.submit(carried)
    assert answer.status == "pending"
    # Whoever is told so may go away: the disk answers for it, and its end will be said.
    assert case.outbox.accepted == case.late == [carried.transaction.id]
    case.ledger.on_wait = lambda: case.ledger.committed.update({carried.transaction.id: 7})
    [answer] = await case.submit(carried)
    assert (answer.status, answer.height) == ("committed", 7)


async def test_events_are_signed_once_however_often_they_come() -> None:
    case = Case()
    [first] = await case.send(event("1"))
    [retry] = await case.send(event("1"))
    assert (first.id, first.event) == (retry.id, 0)
    case.commit()
    [late] = await case.send(event("1"), wait="committed")
    assert (late.id, late.status, late.height) == (first.id, "committed", 1)
    assert len(case.admitted) == 1


async def test_many_events_share_a_transaction_and_keep_their_places() -> None:
    case = Case()
    await case.send(event("2"))
    answers = await case.send(*(event(str(number)) for number in (1, 2, 3, 1)))
    assert [answer.event for answer in answers] == [0, 0, 1, 0]
    assert len({answer.id for answer in answers}) == 2
    assert answers[0].id == answers[2].id == answers[3].id


async def test_an_event_applied_while_the_views_are_read_is_not_signed_again() -> None:
    case = Case()
    [first] = await case.send(event("1"))

    async def apply_meanwhile() -> None:
        case.ledger.on_find = None
        case.commit()

    case.ledger.on_find = apply_meanwhile
    [again] = await case.send(event("1"), wait="committed")
    assert (again.id, again.status) == (first.id, "committed")
    assert len(case.admitted) == 1


async def test_two_requests_at_once_sign_an_event_once() -> None:
    case = Case()
    found: list[bytes | None] = []

    async def send() -> None:
        [answer] = await case.send(event("1"))
        found.append(answer.id)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(send)
    assert len(set(found)) == 1
    assert len(case.admitted) == 1


async def test_an_event_signed_and_applied_while_the_views_are_read_is_not_signed_again() -> None:
    case = Case()
    case.ledger.on_find = first = trio.Event().wait
    async with trio.open_nursery() as nursery:
        told: list[Answer] = []

        async def send() -> None:
            told.extend(await case.send(event("1"), wait="committed"))

        # It has read the views, and the loop has not told it yet.
        nursery.start_soon(send)
        await wait_all_tasks_blocked()
        case.ledger.on_find = None
        nursery.start_soon(commit_soon, case)
        [answer] = await case.send(event("1"), wait="committed")
        first.__self__.set()  # type: ignore[attr-defined]  # the event's
    assert {(answer.status, answer.id, answer.height)} == {
        (item.status, item.id, item.height) for item in told
    }
    assert case.height == 1
    assert len(case.admitted) == 1


async def test_a_retry_waits_for_the_threads_that_verify() -> None:
    case = Case()
    # Three transactions: they are verified in threads, and the loop goes on meanwhile.
    many = [event(str(number)) for number in range(3 * 256)]
    answers: list[list[Answer]] = []

    async def send() -> None:
        answers.append(await case.send(*many))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        nursery.start_soon(send)
    assert {answer.status for told in answers for answer in told} == {"pending"}
    assert [answer.id for answer in answers[0]] == [answer.id for answer in answers[1]]


async def test_an_event_that_found_no_room_can_come_again() -> None:
    case = Case(MempoolConfig(transactions_max=1))
    await case.send(event("1"))
    with pytest.raises(MempoolFull):
        await case.send(event("2"))
    case.commit()
    [answer] = await case.send(event("2"))
    assert answer.status == "pending"


async def test_a_client_that_goes_away_leaves_nothing_behind_that_blocks_a_retry() -> None:
    case = Case(MempoolConfig(transactions_max=1))
    with trio.CancelScope() as scope:
        scope.cancel()
        await case.send(event("1"))
    [answer] = await case.send(event("1"))
    assert answer.status == "pending"


async def test_an_event_whose_transaction_expired_is_signed_anew() -> None:
    case = Case()
    [first] = await case.send(event("1"))
    case.now_ms += 25 * 3_600_000
    expired = case.mempool.expire(case.now_ms)
    # Until the end is told, a retry hears of it; from then on it begins anew.
    [told] = await case.send(event("1"))
    assert (told.id, told.status) == (first.id, "expired")
    case.submitting.forget(expired)
    [again] = await case.send(event("1"))
    assert (again.id != first.id, again.status) == (True, "pending")


async def test_an_event_too_large_for_a_transaction_takes_the_request_down_whole() -> None:
    case = Case()
    large = EventInput(id="2", type="t", source="urn:s", data="x" * 70_000)
    with pytest.raises(DecodeError) as caught:
        await case.send(event("1"), large)
    assert caught.value.reason == "size"
    assert case.admitted == []


async def test_a_node_without_an_author_key_signs_for_nobody() -> None:
    with pytest.raises(Unavailable):
        await Case(has_signer=False).send(event("1"))


async def test_names_are_remembered_again_after_a_restart() -> None:
    before = Case()
    [first] = await before.send(event("1"))
    assert first.id is not None
    carried = before.mempool.get(first.id)
    assert carried is not None
    after = Case()
    await after.intake.admit([carried.data], None)
    after.submitting.remember(carried)
    [again] = await after.send(event("1"))
    assert again.id == first.id
