"""Straight to the leader: once if it goes well, again if not, all of it to a new leader."""

from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from p2pcity.errors import DecodeError, Unavailable
from p2pcity.node.forwarding import Forwarding
from p2pcity.wire import forward as forward_wire
from p2pcity.wire.forward import FORWARD_BYTES_MAX, ForwardResult
from p2pcity.wire.transaction import Carried
from tests.node_case import Door, HandNetwork, ids


class Case(Door):
    """A follower whose leader answers each request with `verdict`; `None`: never."""

    def __init__(self) -> None:
        super().__init__()
        self.leader: str | None = "leader"
        self.verdict: tuple[str, str] | None = ("accept", "accepted")
        self.make_answer: Callable[[list[bytes]], bytes] | None = None
        self.gate: trio.Event | None = None
        self.network = HandNetwork("leader", answer=self.answer)
        self.forwarding = Forwarding(
            network=self.network.typed,
            mempool=self.mempool,
            intake=self.intake,
            leader=lambda: self.leader,
            own_id="own",
            reoffer_s=1.0,
            moments=self.moments,
        )

    async def answer(self, peer: str, protocol: str, data: bytes) -> bytes:
        if self.gate is not None:
            await self.gate.wait()
        if self.verdict is None:
            await trio.sleep(5)
            raise Unavailable(f"{peer} gave no answer")
        items = forward_wire.decode_forward(data)
        if self.make_answer is not None:
            return self.make_answer(items)
        return forward_wire.encode_answer([ForwardResult(None, *self.verdict) for _ in items])

    @property
    def forwarded(self) -> list[tuple[str, list[bytes]]]:
        return [(peer, forward_wire.decode_forward(data)) for peer, _, data in self.network.asked]

    def offer(self, count: int = 1) -> list[Carried]:
        carried = self.put(count)
        self.forwarding.offer(carried)
        return carried


def data(carried: list[Carried]) -> list[bytes]:
    return [item.data for item in carried]


@pytest.fixture
async def case(nursery: trio.Nursery) -> Case:
    case = Case()
    nursery.start_soon(case.forwarding.run)
    return case


async def test_what_the_leader_has_is_not_sent_each_second(
    case: Case, autojump_clock: MockClock
) -> None:
    carried = case.offer(3)
    await trio.sleep(8)
    assert case.forwarded == [("leader", data(carried))]


@pytest.mark.parametrize("verdict", [("ignore", "queue-full"), ("ignore", "author-quota"), None])
async def test_what_the_leader_did_not_take_is_offered_again(
    case: Case, autojump_clock: MockClock, verdict: tuple[str, str] | None
) -> None:
    case.verdict = verdict
    carried = case.offer()
    await trio.sleep(8)
    assert len(case.forwarded) >= 2
    case.verdict = ("ignore", "duplicate")
    before = len(case.forwarded)
    while len(case.forwarded) == before:  # noqa: ASYNC110 - the clock jumps
        await trio.sleep(0.1)
    await trio.sleep(8)
    assert len(case.forwarded) == before + 1
    assert {peer for peer, _ in case.forwarded} == {"leader"}
    assert all(items == data(carried) for _, items in case.forwarded)


async def test_a_leader_that_answers_rubbish_has_taken_nothing(
    case: Case, autojump_clock: MockClock
) -> None:
    case.make_answer = lambda items: b"rubbish"
    case.offer()
    await trio.sleep(2.5)
    assert len(case.forwarded) >= 2
    assert case.forwarding.failed_count >= 2


async def test_a_leader_with_too_few_verdicts_has_taken_nothing(
    case: Case, autojump_clock: MockClock
) -> None:
    case.make_answer = lambda items: forward_wire.encode_answer(
        [ForwardResult(None, "accept", "accepted")] * (len(items) - 1)
    )
    case.offer(2)
    await trio.sleep(2.5)
    assert len(case.forwarded) >= 2


async def test_what_is_applied_is_offered_no_more(case: Case, autojump_clock: MockClock) -> None:
    case.verdict = ("ignore", "queue-full")
    carried = case.offer(2)
    await trio.sleep(0.5)
    case.mempool.remove(ids(carried[:1]))
    await trio.sleep(1)
    assert case.forwarded[-1][1] == data(carried[1:])
    case.mempool.remove(ids(carried))
    await trio.sleep(1)
    before = len(case.forwarded)
    await trio.sleep(10)
    assert len(case.forwarded) == before


async def test_a_new_leader_is_offered_everything_at_once(
    case: Case, autojump_clock: MockClock
) -> None:
    carried = case.offer(2)
    await trio.sleep(0.5)
    case.leader = "next"
    case.forwarding.leader_changed()
    await wait_all_tasks_blocked()
    assert [(peer, sorted(items)) for peer, items in case.forwarded] == [
        ("leader", sorted(data(carried))),
        ("next", sorted(data(carried))),
    ]


async def test_requests_to_a_silent_leader_do_not_hold_up_a_new_one(
    case: Case, autojump_clock: MockClock
) -> None:
    case.verdict = None
    for _ in range(6):
        case.offer()
        await wait_all_tasks_blocked()
    assert len(case.forwarded) == 4  # as many as may be in flight
    case.leader, case.verdict = "next", ("accept", "accepted")
    begin_s = trio.current_time()
    case.forwarding.leader_changed()
    await wait_all_tasks_blocked()
    assert {item for peer, items in case.forwarded if peer == "next" for item in items} == set(
        data(case.mempool.select(1 << 20))
    )
    assert trio.current_time() == begin_s


async def test_without_a_leader_it_waits_for_one(case: Case, autojump_clock: MockClock) -> None:
    case.leader = None
    carried = case.offer()
    await trio.sleep(3)
    assert case.forwarded == []
    case.leader = "leader"
    await trio.sleep(2)
    assert case.forwarded == [("leader", data(carried))]


async def test_the_leader_forwards_nothing(case: Case, autojump_clock: MockClock) -> None:
    case.leader = "own"
    case.offer()
    await trio.sleep(5)
    assert case.forwarded == []


async def test_many_travel_in_few_requests_within_the_limits(
    case: Case, autojump_clock: MockClock
) -> None:
    carried = [
        case.chain.carried(case.chain.event(data="x" * 30_000), case.chain.event(data="x" * 30_000))
        for _ in range(40)
    ]
    for item in carried:
        case.mempool.add(item, case.now_ms)
    case.forwarding.offer(carried)
    await trio.sleep(1)
    assert all(len(request) <= FORWARD_BYTES_MAX for _, _, request in case.network.asked)
    assert [item for _, items in case.forwarded for item in items] == data(carried)
    assert len(case.forwarded) == 5


async def test_the_leader_answers_for_each_in_order() -> None:
    case = Case()
    good = case.chain.carried()
    request = forward_wire.encode_forward([good.data, b"rubbish", good.data])
    answer = forward_wire.decode_answer(await case.forwarding.answer("peer", request))
    assert answer == [
        ForwardResult(good.transaction.id, "accept", "accepted"),
        ForwardResult(None, "reject", "malformed"),
        ForwardResult(good.transaction.id, "ignore", "duplicate"),
    ]
    assert case.network.penalised == ["peer"]


async def test_bytes_that_are_no_request_are_the_peers_fault() -> None:
    with pytest.raises(DecodeError):
        await Case().forwarding.answer("peer", b"rubbish")
