"""Whole nodes on wires in memory: whatever is lost or cut, what was accepted gets ordered."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import trio

from p2pcity.api.service import EventInput
from p2pcity.errors import NotLeader, Unavailable
from p2pcity.node import expiring
from p2pcity.ordering.clocks import Verdict
from tests.memory_network import DEADLINE_S, City, WholeNode

TEN_YEARS_MS = 10 * 365 * 24 * 3_600_000

pytestmark = pytest.mark.integration


@pytest.fixture
async def city(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[City]:
    city = City(tmp_path, nursery, orderers=3, observers=1)
    with trio.fail_after(2 * DEADLINE_S):
        await city.start()
        yield city
        for node in city.nodes:
            assert node.parts.network.penalised == []  # type: ignore[attr-defined]  # in memory
        for node in city.nodes:
            await node.stop()


def others(city: City, *nodes: WholeNode) -> list[WholeNode]:
    return [node for node in city.nodes if node not in nodes]


def orderers(city: City, *without: WholeNode) -> list[WholeNode]:
    return [node for node in city.nodes[:3] if node not in without]


def alarms(node: WholeNode) -> list[str]:
    return cast(list[str], node.parts.status.status()["alarms"])


async def test_each_node_takes_transactions_and_all_agree(city: City) -> None:
    await city.wait_leader()
    for node in city.nodes:
        carried = [city.carried() for _ in range(20)]
        answers = await node.submit(*carried)
        assert {answer.status for answer in answers} == {"committed"}, node.name
        assert len({answer.leaf_index for answer in answers}) == 20
    await city.wait_same_head()
    observer = city.nodes[3]
    assert not observer.is_leader
    assert observer.parts.ordering.raw_node.status().role.value == "follower"


async def test_gossip_may_get_lost(city: City) -> None:
    city.wires.lost["gossip"] = 1.0
    leader = await city.wait_leader()
    for node in others(city, leader):
        [answer] = await node.submit(city.carried())
        assert answer.status == "committed"
    assert city.wires.lost_count["gossip"] > 0


async def test_forwarding_may_get_lost(city: City) -> None:
    city.wires.lost["forward"] = 1.0
    leader = await city.wait_leader()
    for node in others(city, leader):
        [answer] = await node.submit(city.carried())
        assert answer.status == "committed"
    assert city.wires.lost_count["forward"] > 0


async def test_anti_entropy_alone_is_enough(city: City) -> None:
    city.wires.lost |= {"gossip": 1.0, "forward": 1.0}
    leader = await city.wait_leader()
    for node in others(city, leader):
        [answer] = await node.submit(city.carried())
        assert answer.status == "committed"
    # By whoever led just then.
    assert sum(node.parts.anti_entropy.fetched_count for node in city.nodes) >= 3


async def test_half_of_all_messages_lost(city: City) -> None:
    city.wires.lost |= {"raft": 0.1, "gossip": 0.5, "forward": 0.3, "sync": 0.1}
    await city.wait_leader()
    carried = [city.carried() for _ in range(12)]
    for number, item in enumerate(carried):
        await city.nodes[number % 4].submit(item, wait="accepted")
    for item in carried:
        await city.wait_on_ledger(item)
    await city.wait_same_head()


async def test_what_a_cut_off_node_accepted_is_ordered_once_it_is_back(city: City) -> None:
    leader = await city.wait_leader()
    alone = others(city, leader)[0]
    city.wires.cut_off(alone.peer)
    carried = [city.carried() for _ in range(5)]
    answers = await alone.submit(*carried, wait="accepted")
    assert {answer.status for answer in answers} == {"pending"}
    [answer] = await leader.submit(city.carried())
    assert answer.status == "committed"
    assert alone.height < leader.height
    city.wires.heal()
    for item in carried:
        await city.wait_on_ledger(item)
    await city.wait_same_head()


async def test_a_leader_that_is_cut_off_acknowledges_nothing_and_comes_back(city: City) -> None:
    old = await city.wait_leader()
    rest = others(city, old)
    city.wires.cut_off(old.peer)
    carried = city.carried()
    [answer] = await old.submit(carried, timeout_s=0.2)
    assert answer.status == "pending"
    # No quorum stands behind it: it must not answer a linearizable read from what it has.
    with pytest.raises(Unavailable):
        await old.parts.reads.wait_linearizable(0.5)
    new = await city.wait_leader(rest)
    for node in rest:
        [answer] = await node.submit(city.carried())
        assert answer.status == "committed"
    await city.wait_until(lambda: not old.is_leader, "the old leader steps down")
    assert old.height == 0
    city.wires.heal()
    await city.wait_on_ledger(carried)
    await city.wait_same_head()
    assert new.parts.ordering.raw_node.term > 1


async def test_a_cut_between_two_nodes_is_bridged_by_the_third(city: City) -> None:
    leader = await city.wait_leader()
    follower, *_ = orderers(city, leader)
    observer = city.nodes[3]
    # The observer reaches nobody but a follower: gossip and anti-entropy go through it.
    city.wires.cut_off(observer.peer, [node.peer for node in orderers(city, follower)])
    carried = city.carried()
    await observer.submit(carried, wait="accepted")
    await city.wait_on_ledger(carried, *city.nodes[:3])


async def test_a_node_that_starts_anew_has_its_outbox_ordered(city: City) -> None:
    leader = await city.wait_leader()
    alone = orderers(city, leader)[0]
    await city.wait_same_head() if leader.height else None
    city.wires.cut_off(alone.peer)
    carried = [city.carried() for _ in range(3)]
    await alone.submit(*carried, wait="accepted")
    await alone.stop()
    await leader.submit(city.carried())
    city.wires.heal()
    await city.start(alone)
    for item in carried:
        await city.wait_on_ledger(item)
    await city.wait_same_head()
    await city.wait_until(lambda: alone.parts.outbox.pending_count == 0, "an empty outbox")


async def test_the_same_transaction_everywhere_at_once_is_ordered_once(city: City) -> None:
    await city.wait_leader()
    carried = city.carried()
    found: list[int | None] = []

    async def submit(node: WholeNode) -> None:
        [answer] = await node.submit(carried)
        assert answer.status == "committed"
        found.append(answer.leaf_index)

    async with trio.open_nursery() as nursery:
        for node in city.nodes * 5:
            nursery.start_soon(submit, node)
    assert found == [0] * 20
    await city.wait_same_head()
    assert city.nodes[0].parts.stores.views.frontier.size == 1


async def test_an_event_sent_again_gets_the_first_transaction(city: City) -> None:
    await city.wait_leader()
    service = city.nodes[0].parts.service
    event = EventInput(id="1", type="t", source="urn:s")
    found = set()

    async def send() -> None:
        [answer] = await service.submit_events([event], "committed", 30_000)
        assert answer.status == "committed"
        found.add((answer.id, answer.height))

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(send)
    await send()
    assert len(found) == 1


async def hand_over(city: City) -> WholeNode:
    """Move leadership to another node; who led before. A busy one may be late: then again."""
    with trio.fail_after(DEADLINE_S):
        while True:
            leader = await city.wait_leader()
            try:
                await leader.parts.service.transfer_leader(orderers(city, leader)[0].peer)
            except (NotLeader, Unavailable):
                continue
            return leader


async def test_leadership_moves_on_request_and_reads_stay_linearizable(city: City) -> None:
    for _ in range(3):
        leader = await hand_over(city)
        [answer] = await leader.submit(city.carried())
        assert answer.height is not None
        for node in city.nodes:
            await node.parts.reads.wait_linearizable(10)
            assert node.height >= answer.height, node.name


async def test_what_expires_without_a_quorum_ends_visibly_once_there_is_one(
    city: City, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone, a node can't know whether the others ordered it in time."""
    # Twelve of these pass before the end is asked for.
    monkeypatch.setattr(expiring, "PERIOD_S", 0.1)
    leader = await city.wait_leader()
    alone = orderers(city, leader)[0]
    rule = alone.parts.ordering.clock_rule
    # A node that never heard another voter's clock doesn't know what time it is, and drops nothing.
    await city.wait_until(lambda: rule.verdict(city.now_ms()) is Verdict.RIGHT, "a known time")
    city.wires.cut_off(alone.peer)
    carried = city.carried(lives_ms=1_500)
    await alone.submit(carried, wait="accepted")
    await city.wait_until(lambda: not len(alone.parts.mempool), "its time is over")
    [answer] = await alone.submit(carried)
    assert answer.status == "pending"
    city.wires.heal()
    await city.wait_until(lambda: alone.parts.outbox.pending_count == 0, "the end in the outbox")
    found = await alone.parts.reading.status_of(carried.transaction.id)
    assert found.status == "expired"


async def test_a_clock_set_back_stops_nothing(city: City) -> None:
    await city.wait_leader()
    [before] = await city.nodes[0].submit(city.carried())
    city.clock_offset_ms = -600_000
    [after] = await city.nodes[1].submit(city.carried())
    assert (before.status, after.status) == ("committed", "committed")
    await city.wait_same_head()
    tip = city.nodes[0].parts.stores.views.tip
    block = await city.nodes[0].parts.reading.block(tip.height - 1)
    assert block is not None
    assert tip.time_ms >= block.time_ms


async def test_a_peer_with_another_incarnation_takes_no_part_in_raft(city: City) -> None:
    leader = await city.wait_leader()
    wiped = orderers(city, leader)[0]
    network = city.wires.networks[wiped.peer]
    hello = network.hello
    # It comes back before its old connection was found dead: up again, never down.
    network.hello = lambda: replace(hello(), incarnation=bytes(16))
    for node in others(city, wiped):
        city.wires.networks[node.peer].handlers.on_peer(wiped.peer, True)
    rest = orderers(city, wiped)
    follower = next(node for node in rest if node is not leader)
    city.wires.cut_off(follower.peer)
    carried = city.carried()
    # Shorter than an election time-out: later this leader steps down, and the node, whose own log
    # is what it was, may campaign and lead.
    [answer] = await leader.submit(carried, timeout_s=0.3)
    assert answer.status == "pending", "a wiped node's vote was counted"
    city.wires.heal()
    await city.wait_on_ledger(carried, *rest)


async def test_a_city_of_one(tmp_path: Path, nursery: trio.Nursery) -> None:
    city = City(tmp_path, nursery, orderers=1)
    await city.start()
    [node] = city.nodes
    [answer] = await node.submit(city.carried())
    assert (answer.status, answer.height) == ("committed", 1)
    await node.parts.reads.wait_linearizable(5)
    with pytest.raises(Unavailable):
        await node.parts.service.transfer_leader(None)
    await node.stop()
    await city.start(node)
    assert node.height == 1
    await node.stop()


@pytest.mark.scenario("B1", tier="T")
@pytest.mark.parametrize("offset_ms", [TEN_YEARS_MS, -TEN_YEARS_MS, 3_600_000, 6000])
async def test_a_leader_with_a_wild_clock_hands_over(city: City, offset_ms: int) -> None:
    """Its time gets into no block, nothing expires, and what it takes from clients goes through."""
    wild = await city.wait_leader()
    await wild.submit(city.carried())
    city.clock_offsets_ms[wild.peer] = offset_ms
    right = orderers(city, wild)
    await city.wait_leader(right)
    for node in (wild, *right):
        [answer] = await node.submit(city.carried())
        assert answer.status == "committed", node.name
    await city.wait_same_head()
    for node in city.nodes:
        off_ms = node.parts.stores.views.head_time_ms - city.now_ms()
        assert abs(off_ms) < 5000 + DEADLINE_S * 1000, node.name
    # An election under way is an alarm too, and passes.
    await city.wait_until(lambda: not any(map(alarms, right)), "the others have no alarm")
    await city.wait_until(lambda: len(alarms(wild)) == 1, "it has one alarm")
    [alarm] = alarms(wild)
    assert "set it, and let NTP keep it" in alarm
    # Right again, it may lead again.
    city.clock_offsets_ms[wild.peer] = 0
    await city.wait_until(lambda: alarms(wild) == [], "no alarm")


@pytest.mark.scenario("B1", tier="T")
async def test_two_right_clocks_go_on_without_the_leader_whose_clock_is_wild(city: City) -> None:
    """It is cut off as well, so it hands over to nobody and proposes nothing of its own time."""
    wild = await city.wait_leader()
    await wild.submit(city.carried())
    city.wires.cut_off(wild.peer)
    city.clock_offsets_ms[wild.peer] = TEN_YEARS_MS
    right = orderers(city, wild)
    await city.wait_leader(right)
    carried = city.carried()
    [answer] = await wild.submit(carried, wait="accepted")
    assert answer.status == "pending"
    city.wires.heal()
    await city.wait_on_ledger(carried)
    assert all(node.parts.stores.views.head_time_ms < city.now_ms() + 5000 for node in right)
