"""Whole nodes that prune while clients are at work, and are killed while they do."""

from collections.abc import Iterator
from typing import Final

import pytest
import trio

from p2pcity.api.service import Cursor, EventFilter
from p2pcity.errors import Pruned
from tests.short_intervals import short_intervals
from tests.virtual.host import Host
from tests.virtual.stage import Scene, play

KEPT: Final = 8
SEGMENT_BYTES: Final = 8_000

# In the order in which they are passed (`node/pruning.py`).
PRUNE_POINTS: Final = (
    "before begin",
    "after begin",
    "after base_records",
    "after add",
    "before finish",
    "after finish",
    "before publish",
    "after publish",
    "before remove_files",
    "after remove_files",
    "before prune",
    "after prune",
)
_FEW_POINTS: Final = ("after add", "after finish", "after publish", "after remove_files")


@pytest.fixture(autouse=True)
def intervals() -> Iterator[None]:
    with short_intervals(8):
        yield


def first_height(host: Host) -> int:
    return host.parts.pruning.first_height


@pytest.mark.scenario("D10", "A2", tier="T")
@pytest.mark.parametrize(
    "point",
    [
        pytest.param(point, marks=() if point in _FEW_POINTS else pytest.mark.long)
        for point in PRUNE_POINTS
    ],
)
def test_a_node_killed_while_it_prunes_loses_nothing(point: str) -> None:
    """Leader and followers in turn: each comes back with a base and a log that fit together."""
    kills = []

    async def course(scene: Scene) -> None:
        for number in range(3):
            leader = await scene.leader()
            host = leader if number == 1 else await scene.follower()
            host.kill_at = point
            with trio.move_on_after(20):
                await host.ended.wait()
            kills.append(host.ended.is_set())
            host.kill_at = ""
            scene.cluster.start(host)
            await scene.cluster.wait_up()
        await scene.wait_until(lambda: all(first_height(host) > 40 for host in scene.hosts))

    play(course, is_busy=True, keep_blocks=KEPT, segment_bytes_max=SEGMENT_BYTES)
    assert all(kills), f"nobody passed {point}"


@pytest.mark.scenario("E2", tier="T")
def test_what_every_node_pruned_is_still_on_the_ledger() -> None:
    """Brought again it is a duplicate, its status is known, and its bytes are said to be gone."""

    async def course(scene: Scene) -> None:
        sample = scene.sample()
        [old] = await scene.submit(await scene.leader(), sample)
        assert old.height is not None
        for _ in range(40):
            await scene.submit(scene.hosts[0], scene.sample())
        await scene.wait_until(lambda: all(first_height(host) > 24 for host in scene.hosts))
        for life in range(2):
            for host in scene.hosts:
                [again] = await scene.submit(host, sample)
                assert (again.height, again.leaf_index) == (old.height, old.leaf_index)
                await check_gone(host, sample.id)
            if life == 0:
                for host in scene.hosts:
                    await host.stop()
                    scene.cluster.start(host)
                await scene.cluster.wait_up()
                await scene.leader()

    async def check_gone(host: Host, id_: bytes) -> None:
        status = await host.ask(
            lambda service: service.transaction(id_, is_linearizable=False), 5.0
        )
        assert status.status == "committed"
        assert status.time_ms is None
        for ask in (
            lambda service: service.block(1),
            lambda service: service.transaction_bytes(id_),
            lambda service: service.next_events(EventFilter(), Cursor(0, 0, 0), 10, 100),
        ):
            with pytest.raises(Pruned) as caught:
                await host.ask(ask, 5.0)
            assert caught.value.first_height == first_height(host)
        page = await host.ask(
            lambda service: service.events(EventFilter(), None, 10, is_linearizable=False), 5.0
        )
        assert page.events[0].cursor.height >= first_height(host)
        files = sorted((host._directory / "log").iterdir())
        assert files[0].name > "0000000000000002"

    play(course, keep_blocks=KEPT, segment_bytes_max=SEGMENT_BYTES)
