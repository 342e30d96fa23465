"""Changes of voters in whole nodes on virtual time, each story with its own promise."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

import pytest
import trio

from p2pcity.api.service import ChangeWanted
from p2pcity.city.membership import State
from p2pcity.errors import ChangeRefused, ConfigError, DecodeError, NotLeader, P2PCityError
from p2pcity.node.config import NetSection
from p2pcity.node.service import NodeService
from tests.segment_case import entry_records, flip, last_file
from tests.virtual.host import Host
from tests.virtual.operator import change
from tests.virtual.stage import Scene, play

_SPOKEN: Final = (
    "before append",
    "after append",
    "before commit",
    "after commit",
    "before send Append",
    "before send AppendAnswer",
)
_APPLIED: Final = ("before apply_blocks", "after apply_blocks")
_CONFIGURED: Final = ("before configure", "after configure")
POINTS: Final = {
    "join": _SPOKEN,
    # What a leader sends first in a joint state is the end of it.
    "joint": (
        *(*_CONFIGURED, *_APPLIED),
        *(point for point in _SPOKEN if point != "before send Append"),
    ),
    "leave": (*_SPOKEN, *_CONFIGURED, *_APPLIED),
}
"""Where a node can die while a change is on its way, in effect and joint, and about to end."""
_FEW: Final = (
    ("join", "after append"),
    ("joint", "before append"),
    ("joint", "after configure"),
    ("leave", "before configure"),
    ("leave", "after commit"),
)
_KILL_S: Final = 2.0
_MORE_MAX: Final = 6


def _cells() -> list[object]:
    return [
        pytest.param(step, point, marks=() if (step, point) in _FEW else pytest.mark.long)
        for step, points in POINTS.items()
        for point in points
    ]


@pytest.mark.scenario("D4", tier="T")
@pytest.mark.parametrize(("step", "point"), _cells())
def test_a_change_is_whole_or_undone_whoever_is_killed_at_which_step(step: str, point: str) -> None:
    """A voter comes, one goes, the leader is demoted, promoted, removed: a kill in each."""
    kills = []

    async def course(scene: Scene) -> None:
        spare = scene.cluster.install()
        assert spare is not None
        await scene.cluster.wait_up(spare)
        operator = scene.operator
        await operator.until(lambda state: spare.key in state.nodes, partial(_adding, scene, spare))
        kills.append(await _struck(scene, step, point, _promoting(spare), victim=spare))
        gone = await scene.follower()
        kills.append(await _struck(scene, step, point, _removing(gone)))
        leader = await scene.leader()
        kills.append(await _struck(scene, step, point, _demoting(leader), victim=leader))
        kills.append(await _struck(scene, step, point, _promoting(leader)))
        for _ in range(_MORE_MAX):
            # Who is where when it happens is chance; some of it happens in the end.
            if any(kills):
                break
            again = await scene.follower()
            kills.append(await _struck(scene, step, point, _demoting(again)))
            kills.append(await _struck(scene, step, point, _promoting(again)))
        leader = await scene.leader()
        kills.append(await _struck(scene, step, point, _removing(leader), victim=leader))

    # Of those added in the end: they vote after a second.
    play(course, is_busy=True, spares=1, promotion_ms=1000)
    assert any(kills), f"nobody passed {point} during {step}"


Wanted = tuple[Callable[[State], bool], ChangeWanted]


def _adding(scene: Scene, host: Host) -> ChangeWanted:
    return change("add", cards=(scene.operator.card(host),))


def _promoting(host: Host) -> Wanted:
    return lambda state: host.key in state.sets.voters, change("promote", host)


def _demoting(host: Host) -> Wanted:
    return lambda state: host.key not in state.sets.voters, change("demote", host, is_forced=True)


def _removing(host: Host) -> Wanted:
    return lambda state: host.key not in state.nodes, change("remove", host, is_forced=True)


async def _struck(
    scene: Scene, step: str, point: str, wanted: Wanted, *, victim: Host | None = None
) -> bool:
    """Have a change made while the victim (the leader without one) is to die in the middle.

    Returns whether it died there.
    """
    host = victim or await scene.leader()
    if point == "before send AppendAnswer" and host.is_leader:
        host = await scene.follower()
    is_so, asked = wanted
    doomed = {host: point}
    if step == "joint" and point in _SPOKEN:
        # A leader ends the joint state as soon as it is in effect: only the next one's entries
        # fall into it.
        leader = await scene.leader()
        doomed = dict.fromkeys(_voters(scene), point)
        doomed[leader] = _APPLIED[0]
    for one, where in doomed.items():
        one.kill_at, one.kill_during = where, step

    async def live_again(one: Host) -> None:
        with trio.move_on_after(_KILL_S):
            await one.ended.wait()
            kills.append(one)
        one.forgive()
        scene.cluster.start(one)
        await scene.cluster.wait_up(one)

    kills: list[Host] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.operator.until, is_so, lambda: asked)
        for one in doomed:
            nursery.start_soon(live_again, one)
    return any(doomed[one] == point for one in kills)


def _voters(scene: Scene) -> list[Host]:
    return scene.operator.hosts_in(scene.operator.state.sets.voters)


_BOTH: Final = ("works/node 0", "works/node 1")
_SENSELESS: Final[tuple[tuple[ChangeWanted, type[P2PCityError], str], ...]] = (
    (ChangeWanted("remove"), ConfigError, "needs the nodes"),
    (ChangeWanted("promote", cards=(b"card",)), ConfigError, "needs the nodes"),
    (ChangeWanted("remove", nodes=("works/nobody",)), ConfigError, "is no node of this city"),
    (ChangeWanted("demote", nodes=("works",)), ConfigError, "means several nodes"),
    (ChangeWanted("add"), ConfigError, "is added with its card"),
    (ChangeWanted("add", cards=(b"card",)), DecodeError, "not a COSE_Sign1"),
    (ChangeWanted("replace", nodes=_BOTH[:1]), ConfigError, "nodes to remove and cards"),
    (ChangeWanted("replace", cards=(b"card",)), DecodeError, "not a COSE_Sign1"),
    (ChangeWanted("remove", nodes=_BOTH, force=("nobody",)), ConfigError, "is no node of"),
    (ChangeWanted("remove", nodes=_BOTH, force=_BOTH[:1]), ChangeRefused, "UNSAFE"),
)


def test_a_change_that_makes_no_sense_is_refused_with_a_remedy() -> None:
    """Nothing of it is ordered; the node names what to correct."""

    async def ask(service: NodeService) -> None:
        for wanted, error, words in _SENSELESS:
            with pytest.raises(error, match=words) as refused:
                await service.change_voters(wanted)
            assert refused.value.remedy or error is DecodeError

    async def course(scene: Scene) -> None:
        leader, follower = await scene.leader(), await scene.follower()
        await scene.submit(leader, scene.sample())

        async def ask_follower(service: NodeService) -> None:
            for wanted, _, _ in _SENSELESS:
                with pytest.raises(NotLeader) as refused:
                    await service.change_voters(wanted)
                assert refused.value.leader == leader.name

        await leader.ask(ask, 5.0)
        await follower.ask(ask_follower, 5.0)
        assert scene.cluster.checkers.changes == 0

    play(course)


@pytest.mark.scenario("D4", tier="T")
def test_nothing_is_called_safe_while_a_change_is_under_way() -> None:
    """What-if refuses in a joint state what the change itself would be refused."""
    told: list[str] = []

    async def course(scene: Scene) -> None:
        leader, gone = await scene.leader(), await scene.follower()
        spare = scene.cluster.install()
        assert spare is not None
        card = scene.operator.card(spare)
        city_changed = leader.city_changed

        def ask_in_between() -> None:
            city_changed()
            if not leader.members.state.sets.voters_outgoing:
                return
            what_if = leader.parts.service._administration.what_if
            for wanted in (
                change("add", cards=(card,)),
                change("replace", gone, cards=(card,)),
                change("demote", leader),
            ):
                try:
                    told.append(str(what_if(wanted)["verdict"]))
                except ChangeRefused as error:
                    told.append(str(error))

        leader.city_changed = ask_in_between  # type: ignore[method-assign]  # joint for a moment
        is_so, asked = _removing(gone)
        await scene.operator.until(is_so, lambda: asked)
        await scene.cluster.wait_up(spare)

    play(course, spares=1)
    assert told
    assert all("under way already" in words for words in told), told


@pytest.mark.parametrize("has_views", [True, pytest.param(False, marks=pytest.mark.long)])
def test_a_damaged_log_is_mended_by_todays_nodes(has_views: bool) -> None:
    """All of the genesis are gone; whom to ask stands in the views, else in `net.peers`."""

    async def course(scene: Scene) -> None:
        cluster, operator = scene.cluster, scene.operator
        first = list(scene.hosts)
        new = [cluster.install() for _ in range(3)]
        todays = [host for host in new if host is not None]
        assert len(todays) == 3
        await cluster.wait_up(*todays)
        cards = tuple(operator.card(host) for host in todays)
        await operator.until(
            lambda state: all(host.key in state.sets.voters for host in todays),
            lambda: None if operator.strangers() != todays else change("add", cards=cards),
        )
        await operator.until(
            lambda state: not any(host.key in state.nodes for host in first),
            lambda: change("remove", *(host for host in first if host.key in operator.state.nodes)),
        )
        leader = await scene.leader(*todays)
        await scene.submit(leader, *(scene.sample() for _ in range(5)))
        for host in first:
            host.kill()
        hurt = next(host for host in todays if host is not leader)
        await hurt.stop()
        file = last_file(hurt.directory / "log")
        record = entry_records(file)[4]
        flip(file, 8 * (record.offset + record.length // 2))
        if not has_views:
            (hurt.directory / "views.db").unlink()
            hurt.config = replace(hurt.config, net=NetSection(peers=cluster.peers_of(hurt.number)))
        cluster.start(hurt)
        await cluster.wait_up(hurt)
        [answer] = await scene.submit(hurt, scene.sample())
        assert answer.status == "committed"
        for host in first:
            await host.ended.wait()
        # A node that was away while all others went knows nobody of today's: it has to be told.
        for host in first:
            host.config = replace(host.config, net=NetSection(peers=cluster.peers_of(host.number)))

    play(course, spares=3, promotion_ms=100)
