"""Whole nodes that prune while clients are at work, and are killed while they do."""

from dataclasses import replace
from typing import Final

import pytest
import trio
from structlog.testing import capture_logs

from p2pcity.errors import ChangeRefused
from p2pcity.node.base_fetch import PATIENCE_S
from tests.virtual.faults import PRUNE_POINTS
from tests.virtual.host import Host
from tests.virtual.network import VirtualNetwork
from tests.virtual.operator import change
from tests.virtual.pruned_scene import (
    DyingAsker,
    first_height,
    have_pruned,
    keep_all,
    play_pruned,
    resubmit_what_was_pruned,
)
from tests.virtual.stage import Scene, play

_KILLS: Final = 9
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


@pytest.mark.long
@pytest.mark.scenario("D7", "D8", tier="T")
def test_a_fetch_of_a_base_goes_on_over_kills_and_another_leader(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed before it hears its first answer, its second, ...; meanwhile others lead and prune."""
    dying = DyingAsker()

    async def course(scene: Scene) -> None:
        late = await scene.follower()
        others = [host for host in scene.hosts if host is not late]
        await scene.wait_until(lambda: all(first_height(host) > 8 for host in scene.hosts))
        gone = first_height(late)
        await late.stop()
        await have_pruned(scene, others, gone + 16)
        monkeypatch.setattr(VirtualNetwork, "request", dying.request())
        for number in range(1, _KILLS + 1):
            dying.dies_at(number)
            scene.cluster.start(late)
            await late.ended.wait()
            if number % 3 == 0:
                leader = await scene.leader(*others)
                [other] = (host for host in others if host is not leader)
                await scene.clients.transfer(leader, other.name)
                await have_pruned(scene, others, max(map(first_height, others)) + 8)
        dying.dies_at(0)
        scene.cluster.start(late)
        await scene.cluster.wait_up()
        await have_pruned(scene, [late], gone + 16)

    play_pruned(course, is_busy=True)
    assert dying.kinds == {"BaseQuery", "BaseHeadQuery", "BaseRecordsQuery"}


@pytest.mark.scenario("D7", tier="T")
def test_two_that_are_left_behind_do_not_take_each_other_for_a_source() -> None:
    """Their logs begin lower than the others', and lack the same: both fetch a base at once."""

    async def course(scene: Scene) -> None:
        await scene.wait_until(lambda: all(first_height(host) > 8 for host in scene.hosts))
        leader = await scene.leader()
        late = [host for host in scene.hosts if host is not leader][:2]
        others = [host for host in scene.hosts if host not in late]
        gone = max(map(first_height, late))
        for host in late:
            await host.stop()
        await have_pruned(scene, others, gone + 16)
        back_s = trio.current_time()
        for host in late:
            scene.cluster.start(host)
        await have_pruned(scene, late, gone + 16)
        assert trio.current_time() - back_s < 30

    play_pruned(course, is_busy=True, orderers=5)


@pytest.mark.scenario("D7", tier="T")
def test_one_that_keeps_all_and_is_behind_waits_until_its_operator_lets_its_blocks_go() -> None:
    """It may be the only one that has them all; who has none, or begins at a base, is not asked."""

    def alarms(host: Host) -> list[str]:
        return [*filter(None, host.parts.status.alarms([]))]

    async def course(scene: Scene) -> None:
        late = await scene.follower()
        settings = late.config.ledger
        await keep_all(scene, late)
        await scene.wait_until(lambda: late.height > 8)
        gone = late.height + 16
        await late.stop()
        others = [host for host in scene.hosts if host is not late]
        await have_pruned(scene, others, gone)
        with capture_logs() as lines:
            scene.cluster.start(late)
            await scene.wait_until(
                lambda: late.is_up and late.parts.base_fetching.alarm in alarms(late)
            )
        [said] = [line for line in lines if line["event"] == "base_waits"]
        assert "ledger.keep_blocks" in said["remedy"]
        assert "fetching_base" not in [line["event"] for line in lines]
        await late.stop()
        late.config = replace(late.config, ledger=settings)
        scene.cluster.start(late)
        await have_pruned(scene, [late], gone)
        assert late.parts.base_fetching.alarm == ""

    play_pruned(course, is_busy=True)


@pytest.mark.scenario("E2", tier="T")
def test_what_every_node_pruned_is_still_on_the_ledger() -> None:
    resubmit_what_was_pruned()


@pytest.mark.scenario("D7", tier="T")
def test_where_everybody_keeps_all_no_blocks_are_called_gone() -> None:
    """However long Raft does not reach a node while all else does."""

    async def course(scene: Scene) -> None:
        late = await scene.follower()
        await scene.submit(await scene.leader(), scene.sample())
        await scene.wait_until(lambda: late.height >= 1)
        raw_node = late.parts.ordering.raw_node
        raw_node.step = lambda sender, message: None  # type: ignore[method-assign]  # a deaf node
        await scene.submit(await scene.leader(), scene.sample())
        await trio.sleep(PATIENCE_S + 10)
        assert late.parts.base_fetching.alarm == ""
        del raw_node.step
        await scene.cluster.wait_up()

    play(course)


@pytest.mark.scenario("D10", tier="T")
def test_voters_that_wait_for_what_was_pruned_are_not_counted_on() -> None:
    """They answer, and could not follow: without one of the others nothing would be ordered."""

    async def course(scene: Scene) -> None:
        leader = await scene.leader()
        late = [host for host in scene.hosts if host is not leader][:2]
        for host in late:
            await keep_all(scene, host)
        await scene.wait_until(lambda: all(host.height > 8 for host in late))
        gone = max(host.height for host in late) + 16
        for host in late:
            await host.stop()
        others = [host for host in scene.hosts if host not in late]
        await have_pruned(scene, others, gone)
        for host in late:
            scene.cluster.start(host)
        await scene.wait_until(
            lambda: all(host.is_up and host.parts.base_fetching.alarm for host in late)
        )
        leader = await scene.leader(*others)
        wanted = change("remove", next(host for host in others if host is not leader))

        found = await leader.ask(lambda service: service.what_if(wanted), 5.0)
        assert (found["verdict"], found["voters_up_before"]) == ("UNSAFE", 3)
        with pytest.raises(ChangeRefused, match="nothing could be ordered any more"):
            await leader.ask(lambda service: service.change_voters(wanted), 5.0)
        for host in late:
            await host.stop()
            host.config = replace(host.config, ledger=replace(host.config.ledger, keep_blocks=8))
            scene.cluster.start(host)
        await have_pruned(scene, late, gone)

    play_pruned(course, is_busy=True, orderers=5)
