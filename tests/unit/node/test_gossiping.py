"""Gossip: paced and bounded on the way out, bounded and never fatal on the way in."""

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from p2pcity.errors import Unavailable
from p2pcity.node.gossiping import Gossiping
from p2pcity.wire import gossip as gossip_wire
from p2pcity.wire.limits import GOSSIP_BYTES_MAX, GOSSIP_MESSAGES_PER_SECOND_MAX
from p2pcity.wire.transaction import Carried, decode_carried
from tests.node_case import Door, HandNetwork, ids


class Case(Door):
    def __init__(self) -> None:
        super().__init__()
        self.network = HandNetwork("a")
        self.gossiping = Gossiping(
            network=self.network.typed,
            mempool=self.mempool,
            intake=self.intake,
            moments=self.moments,
        )

    def large(self, size: int = 30_000) -> Carried:
        """A transaction in the mempool; three of 30,000 bytes are more than a message."""
        made = self.chain.carried(self.chain.event(data="x" * size), self.chain.event(data="y"))
        self.mempool.add(made, self.now_ms)
        return made

    def sent(self) -> list[bytes]:
        """The ids of all that was published, in order."""
        batches = map(gossip_wire.decode_batch, self.network.published)
        return [decode_carried(item).transaction.id for batch in batches for item in batch]


async def test_out_goes_what_fits_at_the_pace_of_the_protocol(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    case = Case()
    nursery.start_soon(case.gossiping.run)
    carried = [case.large() for _ in range(8)]
    case.gossiping.offer(carried)
    begin_s = trio.current_time()
    await wait_all_tasks_blocked()
    assert len(case.network.published) == 1
    while len(case.network.published) < 4:  # noqa: ASYNC110 - the clock jumps
        await trio.sleep(0.001)
    took_s = trio.current_time() - begin_s
    assert took_s >= 3 / GOSSIP_MESSAGES_PER_SECOND_MAX
    assert all(len(data) <= GOSSIP_BYTES_MAX for data in case.network.published)
    batches = [gossip_wire.decode_batch(data) for data in case.network.published]
    assert [item for batch in batches for item in batch] == [item.data for item in carried]


async def test_a_long_run_of_small_ones_goes_in_few_messages(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """The first go at once; then two messages a second at most, whatever is offered."""
    case = Case()
    nursery.start_soon(case.gossiping.run)
    offered = []
    for _ in range(200):
        offered.append(case.large(10))
        case.gossiping.offer(offered[-1:])
        await trio.sleep(0.1)
    await trio.sleep(1)
    assert case.sent() == ids(offered)
    assert 10 < case.gossiping.messages_out <= 10 + 2 * 22


async def test_what_was_applied_meanwhile_stays_here(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    case = Case()
    nursery.start_soon(case.gossiping.run)
    for _ in range(20):
        case.gossiping.offer([case.large(10)])
        await trio.sleep(0.06)
    before = len(case.sent())
    applied, kept = case.large(10), case.large(10)
    case.gossiping.offer([applied, kept])
    case.mempool.remove(ids([applied]))
    await trio.sleep(1)
    assert ids([kept])[0] in case.sent()[before:]
    assert ids([applied])[0] not in case.sent()


async def test_a_backlog_beyond_the_bound_is_dropped_and_counted(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    case = Case()
    offered = [case.large() for _ in range(160)]
    case.gossiping.offer(offered)
    kept = 160 - case.gossiping.dropped_out
    assert 0 < kept * 30_000 <= 4 * 1024 * 1024 < (kept + 1) * 31_000
    nursery.start_soon(case.gossiping.run)
    await trio.sleep(10)
    assert case.sent() == ids(offered[:kept])
    case.gossiping.offer([case.large()])
    await trio.sleep(2)
    assert len(case.sent()) == kept + 1


async def test_in_comes_what_peers_say() -> None:
    case = Case()
    carried = [case.chain.carried() for _ in range(2)]
    assert await case.gossiping.receive(
        "a", gossip_wire.encode_batch([item.data for item in carried])
    )
    assert [(ids(told), peer) for told, peer in case.admitted] == [(ids(carried), "a")]
    assert case.network.penalised == []


async def test_a_batch_that_is_none_is_rejected_at_once() -> None:
    case = Case()
    assert not await case.gossiping.receive("a", b"rubbish")
    assert not await case.gossiping.receive("a", gossip_wire.encode_batch([b""])[:1])
    assert case.gossiping.messages_in == 0


async def test_a_rejected_item_rejects_the_batch_and_the_rest_is_taken() -> None:
    case = Case()
    good = case.chain.carried()
    data = gossip_wire.encode_batch([b"rubbish", good.data])
    assert not await case.gossiping.receive("a", data)
    assert good.transaction.id in case.mempool


async def test_views_that_do_not_answer_cost_one_batch_and_not_the_node() -> None:
    case = Case()
    lost, kept = case.chain.carried(), case.chain.carried()
    case.state.error = Unavailable("the query took more than 5 s")
    await case.gossiping.receive("a", gossip_wire.encode_batch([lost.data]))
    case.state.error = None
    await case.gossiping.receive("a", gossip_wire.encode_batch([kept.data]))
    assert kept.transaction.id in case.mempool
    assert case.gossiping.dropped_in == 1
    # What was not judged can come again.
    await case.gossiping.receive("a", gossip_wire.encode_batch([lost.data]))
    assert lost.transaction.id in case.mempool
