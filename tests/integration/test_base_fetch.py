"""Whole nodes that prune: one that was away for too long gets a base, whoever lies and breaks."""

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from p2pcity.errors import P2PCityError
from p2pcity.wire import sync as sync_wire
from p2pcity.wire.limits import BASE_INTERVAL_BLOCKS
from p2pcity.wire.sync import Answer, BaseAnswer, BaseHeadAnswer, BaseRecordsAnswer
from p2pcity.wire.transaction import Carried
from tests.memory_network import DEADLINE_S, City, MemoryNetwork, WholeNode

pytestmark = pytest.mark.integration

KEEP = BASE_INTERVAL_BLOCKS
PRUNES_AT = 2 * BASE_INTERVAL_BLOCKS


@pytest.fixture
async def city(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[City]:
    """Three orderers that keep 256 blocks, and two intervals to begin with."""
    city = City(tmp_path, nursery, orderers=3, keep_blocks=KEEP)
    with trio.fail_after(8 * DEADLINE_S):
        await city.start()
        yield city
        for node in city.nodes:
            await node.stop()


async def write(city: City, node: WholeNode, count: int) -> list[Carried]:
    """Commit `count` blocks, one after the other."""
    made = [city.carried() for _ in range(count)]
    for item in made:
        [answer] = await node.submit(item)
        assert answer.status == "committed"
    return made


async def wait_pruned(city: City, nodes: Sequence[WholeNode], height: int) -> None:
    def are_pruned() -> bool:
        return all(node.parts.stores.bases.base.height >= height for node in nodes)

    await city.wait_until(are_pruned, f"all pruned to {height}")


async def leave_behind(city: City) -> tuple[WholeNode, list[WholeNode], list[Carried]]:
    """Stop a follower early, and let the others prune beyond all that it has."""
    leader = await city.wait_leader()
    early = await write(city, leader, 20)
    await city.wait_same_head()
    late = next(node for node in city.nodes if node is not leader)
    await late.stop()
    others = [node for node in city.nodes if node is not late]
    await write(city, leader, PRUNES_AT + 5)
    await wait_pruned(city, others, BASE_INTERVAL_BLOCKS)
    return late, others, early


async def check_is_one_of_them(
    city: City, late: WholeNode, others: Sequence[WholeNode], early: Sequence[Carried]
) -> None:
    """It has what the others have, knows what was pruned, and counts."""
    await city.wait_same_head()
    base = late.parts.stores.bases.stored
    assert base is not None
    assert base.stored.is_given
    probe = late.parts.stores.probe
    assert all(probe.has_transaction(item.transaction.id) for item in early)
    height = late.height
    [again] = await late.submit(early[0])
    assert (again.verdict, again.status) == ("accept", "committed")
    assert late.height == height
    # With one of the others gone it is needed for every commit.
    gone = next(node for node in others if not node.is_leader)
    await gone.stop()
    await write(city, late, 3)
    await city.start(gone)
    await city.wait_same_head()


@pytest.mark.scenario("D7", "D8", tier="T")
async def test_a_follower_behind_every_base_joins_while_others_write(
    city: City, nursery: trio.Nursery
) -> None:
    late, others, early = await leave_behind(city)
    is_writing = True

    async def keep_writing() -> None:
        while is_writing:
            await write(city, await city.wait_leader(others), 1)

    nursery.start_soon(keep_writing)
    await city.start(late)
    await city.wait_until(lambda: late.lives == 3, "the node begins again with a base")
    is_writing = False
    await check_is_one_of_them(city, late, others, early)


@pytest.mark.long
@pytest.mark.scenario("D8", tier="T")
async def test_a_fetch_goes_on_over_stops_at_each_part_and_another_leader(city: City) -> None:
    late, others, early = await leave_behind(city)
    answers: list[Answer] = []

    def note(data: bytes) -> None:
        with suppress(P2PCityError):
            answer = sync_wire.decode_answer(data)
            if isinstance(answer, BaseHeadAnswer | BaseRecordsAnswer):
                answers.append(answer)
                end.set()

    # It ends as soon as the first part is there, then the second, and so on.
    for number in range(4):
        end = trio.Event()
        await city.start(late)
        first = late.parts.network
        assert isinstance(first, MemoryNetwork)
        first.on_answer = note
        await end.wait()
        await late.stop()
        if number == 1:
            # Another leader, and a base that is newer than the one begun with.
            leader = await city.wait_leader(others)
            [other] = (node for node in others if node is not leader)
            await leader.parts.service.transfer_leader(other.peer)
            await write(city, await city.wait_leader(others), BASE_INTERVAL_BLOCKS)
            await wait_pruned(city, others, PRUNES_AT)
    await city.start(late)
    await check_is_one_of_them(city, late, others, early)
    assert {answer.height for answer in answers if isinstance(answer, BaseHeadAnswer)} == {256, 512}


def lie(answer: Answer, how: str) -> Answer:
    """One answer as a liar gives it."""
    match answer:
        case BaseAnswer() if how == "size" and answer.size:
            return replace(answer, size=1 << 40)
        case BaseAnswer() if how == "count" and answer.size:
            return replace(answer, records=1 << 40)
        case BaseHeadAnswer() if how == "head" and answer.data:
            return replace(answer, data=answer.data[:-1] + b"\x00")
        case BaseRecordsAnswer() if how == "records" and answer.data:
            return replace(answer, data=b"\x00" + answer.data[1:])
        case BaseRecordsAnswer() if how == "offset":
            return replace(answer, offset=answer.offset + 1)
    return answer


@pytest.mark.scenario("D9", tier="T")
@pytest.mark.parametrize(
    "how",
    [
        "records",
        *(pytest.param(x, marks=pytest.mark.long) for x in ("size", "count", "head", "offset")),
    ],
)
async def test_a_voter_that_lies_about_its_base_is_found_out(city: City, how: str) -> None:
    late, others, early = await leave_behind(city)
    # Asked in turn, by name: the head of the first, the only interval of the second.
    by_name = sorted(others, key=lambda node: node.peer)
    lying = by_name[1 if how in ("records", "offset") else 0]
    liar = lying.parts.network
    assert isinstance(liar, MemoryNetwork)
    honest = liar.handlers.on_request

    async def on_request(peer: str, protocol: str, data: bytes) -> bytes:
        answer = await honest(peer, protocol, data)
        try:
            decoded = sync_wire.decode_answer(answer)
        except P2PCityError:
            return answer
        return sync_wire.encode(lie(decoded, how))

    liar.handlers = replace(liar.handlers, on_request=on_request)
    await city.start(late)
    first = late.parts.network
    assert isinstance(first, MemoryNetwork)
    await city.wait_until(lambda: late.lives == 3, "the node begins again with a base")
    assert set(first.penalised) == {lying.peer}
    await check_is_one_of_them(city, late, others, early)
