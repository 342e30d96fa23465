"""Whole nodes with a damaged log that nobody can mend any more: the others pruned beyond it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import pytest
import trio
from structlog.testing import capture_logs
from structlog.typing import EventDict

from tests.segment_case import entry_records, flip
from tests.virtual.host import Host
from tests.virtual.network import VirtualNetwork
from tests.virtual.pruned_scene import DyingAsker, first_height, have_pruned, keep_all, play_pruned
from tests.virtual.stage import Scene

_KILLS: Final = 9


def damage(host: Host, index: int) -> None:
    """Flip a bit of an entry in the log of a node that is stopped."""
    [(file, record)] = (
        (file, record)
        for file in (host.directory / "log").glob("*.segment")
        for record in entry_records(file)
        if record.index == index
    )
    # In the payload: what length, kind and index say is still known.
    flip(file, 8 * (record.offset + record.length - 20))


async def leave_damaged(scene: Scene, *, keeps_all: bool = False) -> tuple[Host, list[Host], int]:
    """Stop a follower, damage its log in the middle, and let the others prune on beyond it.

    Also the height that the others do not keep any more. `keeps_all`: it never pruned.
    """
    late = await scene.follower()
    if keeps_all:
        await keep_all(scene, late)
    others = [host for host in scene.hosts if host is not late]
    pruned = others if keeps_all else scene.hosts
    await scene.wait_until(lambda: all(first_height(host) > 8 for host in pruned))
    gone, log = late.height + 16, late.parts.stores.raft_log
    middle = (log.first_index + log.last_index) // 2
    await late.stop()
    damage(late, middle)
    await have_pruned(scene, others, gone)
    return late, others, gone


async def check_votes(scene: Scene, late: Host, others: Sequence[Host]) -> None:
    """With one of the others gone every commit needs the one that was damaged."""
    leader = await scene.leader(*others)
    [other] = (host for host in others if host is not leader)
    await other.stop()
    for host in (late, leader):
        [answer] = await scene.submit(host, scene.sample(), timeout_s=30.0)
        assert answer.status == "committed"
    scene.cluster.start(other)
    await scene.cluster.wait_up()


def events_of(lines: Sequence[EventDict]) -> list[str]:
    return [line["event"] for line in lines]


@pytest.mark.scenario("A5", "D7", tier="T")
def test_a_damaged_node_that_nobody_can_mend_goes_on_from_a_base() -> None:
    async def course(scene: Scene) -> None:
        late, others, gone = await leave_damaged(scene)
        with capture_logs() as lines:
            scene.cluster.start(late)
            await have_pruned(scene, [late], gone)
        said = events_of(lines)
        steps = ["log_damaged", "fetching_base", "base_installed"]
        assert sorted(steps, key=said.index) == steps
        assert "log_repaired" not in said
        await check_votes(scene, late, others)

    play_pruned(course, is_busy=True)


@pytest.mark.long
@pytest.mark.scenario("A5", "D8", tier="T")
def test_its_fetch_goes_on_over_kills_at_each_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    dying = DyingAsker()

    async def course(scene: Scene) -> None:
        late, others, gone = await leave_damaged(scene)
        monkeypatch.setattr(VirtualNetwork, "request", dying.request())
        for number in range(1, _KILLS + 1):
            dying.dies_at(number)
            scene.cluster.start(late)
            await late.ended.wait()
        dying.dies_at(0)
        scene.cluster.start(late)
        await have_pruned(scene, [late], gone)
        await check_votes(scene, late, others)

    play_pruned(course, is_busy=True)
    assert dying.kinds == {"BaseQuery", "BaseHeadQuery", "BaseRecordsQuery"}


@pytest.mark.scenario("A5", tier="T")
def test_what_one_of_two_voters_names_is_not_taken() -> None:
    async def course(scene: Scene) -> None:
        late, others, gone = await leave_damaged(scene)
        await others[0].stop()
        with capture_logs() as lines:
            scene.cluster.start(late)
            with trio.move_on_after(15):
                await late.ended.wait()
        assert not late.is_up
        said = events_of(lines)
        assert {"base_not_agreed", "log_repair_waits"} <= set(said)
        assert "fetching_base" not in said
        scene.cluster.start(others[0])
        await have_pruned(scene, [late], gone)

    play_pruned(course, is_busy=True)


@pytest.mark.scenario("A5", tier="T")
def test_one_that_keeps_all_waits_until_its_operator_lets_its_blocks_go() -> None:
    async def course(scene: Scene) -> None:
        late, _, gone = await leave_damaged(scene, keeps_all=True)
        with capture_logs() as lines:
            scene.cluster.start(late)
            with trio.move_on_after(15):
                await late.ended.wait()
        assert not late.is_up
        [remedy, *_] = [line["remedy"] for line in lines if line["event"] == "log_repair_waits"]
        assert "ledger.keep_blocks" in remedy
        assert "fetching_base" not in events_of(lines)
        late.kill()
        await late.ended.wait()
        late.config = replace(late.config, ledger=replace(late.config.ledger, keep_blocks=8))
        scene.cluster.start(late)
        await have_pruned(scene, [late], gone)

    play_pruned(course, is_busy=True)


@pytest.mark.scenario("A5", "D7", tier="T")
def test_a_damaged_one_and_one_that_is_behind_help_each_other() -> None:
    """A majority names a base with the damaged one alone; and then with the other, in its turn."""

    async def course(scene: Scene) -> None:
        late = await scene.follower()
        await keep_all(scene, late)
        leader = await scene.leader()
        [behind] = (host for host in scene.hosts if host not in (late, leader))
        await scene.wait_until(lambda: all(host.height > 8 for host in scene.hosts))
        gone, index = behind.height + 16, behind.parts.stores.raft_log.last_index + 5
        await behind.stop()
        await have_pruned(scene, [leader], gone)
        await scene.wait_until(lambda: late.height >= first_height(leader))
        await late.stop()
        late.config = replace(late.config, ledger=replace(late.config.ledger, keep_blocks=8))
        # What stands before the hole it can give to the one that is behind.
        damage(late, index)
        for host in (late, behind):
            scene.cluster.start(host)
        await have_pruned(scene, [late, behind], gone)
        assert scene.world.struck["base fetched"] >= 2

    play_pruned(course, is_busy=True)
