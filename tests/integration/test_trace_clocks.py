"""The trace of a city in memory: clocks that differ, an older release, and too many at once."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing

from p2pcity.errors import Unavailable
from p2pcity.wire import sync as sync_wire
from tests.memory_network import DEADLINE_S, City, WholeNode

pytestmark = pytest.mark.integration


@pytest.fixture
async def city(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[City]:
    city = City(tmp_path, nursery, orderers=3)
    with trio.fail_after(2 * DEADLINE_S):
        await city.start()
        await city.wait_leader()
        yield city
        for node in city.nodes:
            await node.stop()


async def traced(node: WholeNode, id_: bytes) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The trace as `node` tells it, and its nodes by their names."""
    document = cast(dict[str, Any], await node.parts.service.trace(id_))
    return document, {item["name"].partition("/")[2]: item for item in document["nodes"]}


async def test_clocks_are_compared(city: City) -> None:
    asked, slow, fast = city.nodes
    city.clock_offsets_ms[slow.peer] = -2000
    city.clock_offsets_ms[fast.peer] = 2000
    carried = city.carried()
    await asked.submit(carried)
    await city.wait_on_ledger(carried)
    id_ = carried.transaction.id
    document, found = await traced(asked, id_)
    for node, offset_ms in (slow, -2000), (fast, 2000):
        told = found[node.name]
        assert abs(told["clock_offset_ms"] - offset_ms) <= told["clock_error_ms"] + 1
    for told in found.values():
        # The way ends where it is applied: the client hears of it some time later.
        after_ms = [item["after_ms"] for item in told["moments"] if item["stage"] != "answered"]
        # Without the comparison they would lie 2 s apart; each is as good as its error.
        assert all(0 <= at <= document["total_ms"] + 1 for at in after_ms)
    assert document["total_ms"] < DEADLINE_S * 1000


async def test_an_older_release_is_said_to_know_no_traces(
    city: City, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, older, _ = city.nodes
    own = older.parts.introduction.status_answer
    # What a node answered before there were traces: it passes over the field.
    monkeypatch.setattr(older.parts.peer_status, "answer", lambda data: sync_wire.encode(own()))
    carried = city.carried()
    await asked.submit(carried)
    _, found = await traced(asked, carried.transaction.id)
    assert found[older.name]["state"] == "unsupported"
    assert found[older.name]["error"].startswith("its release is ")
    assert found[older.name]["clock_offset_ms"] is not None
    assert asked.parts.network.penalised == []  # type: ignore[attr-defined]  # in memory


async def test_silence_and_crowds_are_bounded(city: City) -> None:
    asked = city.nodes[0]
    city.wires.lost["status"] = 1.0
    found: list[dict[str, dict[str, Any]]] = []

    async def ask() -> None:
        found.append((await traced(asked, bytes(32)))[1])

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(Unavailable, match="too many traces"):
            await traced(asked, bytes(32))
    for nodes in found:
        assert [nodes[node.name]["state"] for node in city.nodes] == [
            "unknown",
            "unreachable",
            "unreachable",
        ]
    city.wires.lost.clear()
    await ask()
    assert {node["state"] for node in found[-1].values()} == {"unknown"}
