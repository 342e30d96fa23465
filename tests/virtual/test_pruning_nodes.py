"""Whole nodes that prune while clients are at work, and are killed while they do."""

from typing import Final

import pytest
import trio

from tests.virtual.faults import PRUNE_POINTS
from tests.virtual.pruned_scene import first_height, play_pruned, resubmit_what_was_pruned
from tests.virtual.stage import Scene

_FEW_POINTS: Final = ("after add", "after finish", "after publish", "after remove_files")


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

    play_pruned(course, is_busy=True)
    assert all(kills), f"nobody passed {point}"


@pytest.mark.scenario("E2", tier="T")
def test_what_every_node_pruned_is_still_on_the_ledger() -> None:
    resubmit_what_was_pruned()
