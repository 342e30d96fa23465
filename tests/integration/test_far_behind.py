"""Whole nodes, one of them far behind: other voters feed it, and the leader does not."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import trio

from p2pcity.node import room_configs
from p2pcity.raft.config import RaftConfig
from tests.memory_network import DEADLINE_S, City, WholeNode

pytestmark = pytest.mark.integration

FAR = 8


@pytest.fixture
async def city(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[City]:
    """Three orderers whose leaders keep little in memory, and soon find others far behind."""
    small = partial(RaftConfig, far_entries_max=FAR, tail_bytes_max=2_000)
    monkeypatch.setattr(room_configs, "RaftConfig", small)
    city = City(tmp_path, nursery, orderers=3)
    with trio.fail_after(3 * DEADLINE_S):
        await city.start()
        yield city
        for node in city.nodes:
            await node.stop()


def served_bytes(node: WholeNode) -> int:
    return node.parts.entry_serving.pace.served_bytes


async def is_fed_by_another(city: City) -> bool:
    """Whether one leader lasted while a node fell behind and was fed; by whom is checked then.

    A leader that is new does not know yet what another voter has, and may feed it by itself.
    """
    leader = await city.wait_leader()
    term = leader.parts.ordering.raw_node.term
    late, source = (node for node in city.nodes if node is not leader)
    fetched, by_source, by_leader = (
        late.parts.feeding.fetched_count,
        served_bytes(source),
        served_bytes(leader),
    )
    city.wires.cut_off(late.peer)
    for _ in range(5 * FAR):
        [answer] = await leader.submit(city.carried())
        assert answer.status == "committed"
    city.wires.heal()
    await city.wait_same_head()
    if any(node.parts.ordering.raw_node.term != term for node in city.nodes):
        return False
    assert late.parts.feeding.fetched_count - fetched >= 3 * FAR
    assert served_bytes(source) > by_source
    assert served_bytes(leader) == by_leader
    # And it is a follower like the other again.
    [answer] = await late.submit(city.carried())
    assert answer.status == "committed"
    await city.wait_same_head()
    return True


@pytest.mark.scenario("D7", tier="T")
async def test_another_voter_feeds_it(city: City) -> None:
    while not await is_fed_by_another(city):
        pass


@pytest.mark.scenario("D7", tier="T")
async def test_it_is_fed_while_others_write_and_the_leader_changes(
    city: City, nursery: trio.Nursery
) -> None:
    leader = await city.wait_leader()
    late, other = (node for node in city.nodes if node is not leader)
    city.wires.cut_off(late.peer)
    for _ in range(5 * FAR):
        await leader.submit(city.carried())
    city.wires.heal()
    for _ in range(FAR):
        [answer] = await other.submit(city.carried())
        assert answer.status == "committed"
    city.wires.cut_off(leader.peer)
    next_leader = await city.wait_leader([late, other])
    [answer] = await next_leader.submit(city.carried())
    assert answer.status == "committed"
    city.wires.heal()
    await city.wait_same_head()


@pytest.mark.scenario("D7", tier="T")
async def test_without_another_voter_the_leader_sends_all(city: City) -> None:
    city.wires.lost["sync"] = 1.0
    leader = await city.wait_leader()
    late = next(node for node in city.nodes if node is not leader)
    city.wires.cut_off(late.peer)
    for _ in range(4 * FAR):
        await leader.submit(city.carried())
    city.wires.heal()
    await city.wait_same_head()
    assert late.parts.feeding.fetched_count == 0
