"""Whole nodes whose logs went bad: mended by the others before anything of them takes part."""

import random
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs
from structlog.typing import EventDict

from p2pcity.ledger.records import Record
from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.wire.raft import Entry, HardState
from tests.memory_network import DEADLINE_S, City, WholeNode
from tests.segment_case import entry_records, flip, last_file

pytestmark = pytest.mark.integration


@pytest.fixture
async def city(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[City]:
    """Three orderers that ordered something and were stopped."""
    city = City(tmp_path, nursery, orderers=3)
    with trio.fail_after(2 * DEADLINE_S):
        await city.start()
        await city.wait_leader()
        for number in range(30):
            [answer] = await city.nodes[number % 3].submit(city.carried(size=number * 10))
            assert answer.status == "committed"
        await city.wait_same_head()
        for node in city.nodes:
            await node.stop()
        yield city
        for node in city.nodes:
            await node.stop()


def log_file(node: WholeNode) -> Path:
    return last_file(node.config.node.data_dir / "log")


def entries_of(node: WholeNode) -> list[Record]:
    return entry_records(log_file(node))


def damage(node: WholeNode, rng: random.Random, *numbers: int) -> list[int]:
    """Flip a bit in each of these entries; their indexes."""
    found = entries_of(node)
    for number in numbers:
        record = found[number]
        flip(log_file(node), 8 * record.offset + rng.randrange(8 * record.length))
    return [found[number].index for number in numbers]


async def start_all(city: City, nodes: list[WholeNode]) -> None:
    async with trio.open_nursery() as starting:
        for node in nodes:
            starting.start_soon(city.start, node)


def repaired(lines: list[EventDict]) -> list[int]:
    return [line["index"] for line in lines if line["event"] == "log_repaired"]


async def assert_goes_on(city: City) -> None:
    await city.wait_leader()
    for node in city.nodes:
        [answer] = await node.submit(city.carried())
        assert answer.status == "committed"
    await city.wait_same_head()


@pytest.mark.scenario("A5", tier="T")
async def test_a_damaged_node_is_mended_by_the_others(city: City) -> None:
    whole = log_file(city.nodes[0]).read_bytes()
    hurt = damage(city.nodes[0], random.Random(1), 3, 10, 11, 25)
    await city.start(city.nodes[1])
    await city.start(city.nodes[2])
    with capture_logs() as lines:
        await city.start(city.nodes[0])
    assert repaired(lines) == hurt
    assert log_file(city.nodes[0]).read_bytes()[: len(whole)] == whole
    await assert_goes_on(city)


@pytest.mark.scenario("A6", tier="T")
async def test_all_nodes_damaged_at_different_heights_mend_each_other(city: City) -> None:
    whole = [log_file(node).read_bytes() for node in city.nodes]
    rng = random.Random(2)
    hurt = [
        damage(node, rng, *(at for at in range(28) if at % 3 == number))
        for number, node in enumerate(city.nodes)
    ]
    with capture_logs() as lines:
        await start_all(city, city.nodes)
    assert sorted(repaired(lines)) == sorted(index for part in hurt for index in part)
    for node, before in zip(city.nodes, whole, strict=True):
        assert log_file(node).read_bytes()[: len(before)] == before
    await assert_goes_on(city)


@pytest.mark.scenario("A5", tier="T")
async def test_a_damaged_node_takes_no_part_until_somebody_helps(city: City) -> None:
    node = city.nodes[0]
    [hurt] = damage(node, random.Random(3), 5)
    damage(city.nodes[1], random.Random(3), 5)
    before = node.parts, city.nodes[1].parts
    with capture_logs() as lines:
        async with trio.open_nursery() as starting:
            starting.start_soon(city.start, node)
            starting.start_soon(city.start, city.nodes[1])

            def has_both() -> bool:
                return len(city.wires.networks) == 2

            await city.wait_until(has_both, "both ask each other")
            # Neither is there for Raft: there is nothing of it that could vote.
            assert (node.parts, city.nodes[1].parts) == before
            assert not repaired(lines)
            starting.start_soon(city.start, city.nodes[2])
    assert repaired(lines) == [hurt, hurt]
    await assert_goes_on(city)


@pytest.mark.scenario("A5", tier="T")
async def test_a_lost_entry_that_the_others_never_had_gives_way(city: City) -> None:
    """Its leader died before anybody else had it; nobody can give it, and nobody needs it."""
    hurt, *rest = city.nodes
    log = SegmentLog.open(hurt.config.node.data_dir / "log")
    index = log.last_index + 1
    log.save(None, [Entry(log.hard_state.term, index, b"\0" * 40)], True)
    log.close()
    [lost] = [record for record in entries_of(hurt) if record.index == index]
    flip(log_file(hurt), 8 * (lost.offset + lost.length - 20))
    await start_all(city, rest)
    await city.wait_leader()
    with capture_logs() as lines:
        await city.start(hurt)
    [said] = [line for line in lines if line["event"] == "log_superseded"]
    assert said["index"] == index
    await assert_goes_on(city)


@pytest.mark.scenario("A5", tier="T")
async def test_a_lost_sector_is_mended_though_entries_before_it_are_in_doubt(city: City) -> None:
    """As a follower writes its log under load: several entries at once, the commit index behind."""
    hurt, *rest = city.nodes
    place = hurt.config.node.data_dir / "log"
    log = SegmentLog.open(place)
    entries, state = log.entries(1, log.last_index + 1, 1 << 30), log.hard_state
    incarnation, network = log.incarnation, log.network
    assert network is not None
    log.close()
    shutil.rmtree(place)
    SegmentLog.create(place, incarnation)
    log = SegmentLog.open(place)
    log.bind_network(network)
    for commit, few in ((0, entries[:3]), (3, entries[3:9]), (entries[-1].index, entries[9:])):
        log.save(HardState(state.term, state.vote, commit), few, True)
    log.close()
    whole = log_file(hurt).read_bytes()
    data = bytearray(whole)
    offset = entries_of(hurt)[5].offset
    data[offset - 256 : offset + 256] = bytes(512)
    log_file(hurt).write_bytes(data)
    await start_all(city, rest)
    await city.wait_leader()
    await city.start(hurt)
    assert log_file(hurt).read_bytes()[: len(whole)] == whole
    await assert_goes_on(city)
