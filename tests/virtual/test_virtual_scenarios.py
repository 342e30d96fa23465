"""Scenarios of whole nodes on virtual time, each by itself, with its own promise."""

from collections.abc import Sequence
from functools import partial
from typing import Final

import pytest
import trio

from p2pcity.api.service import Answer, EventInput
from p2pcity.errors import LocalError, Unavailable
from p2pcity.node.service import NodeService
from p2pcity.wire import gossip as gossip_wire
from tests.virtual.cluster import city
from tests.virtual.door import Gone
from tests.virtual.faults import KILL_POINTS
from tests.virtual.host import Host
from tests.virtual.stage import Scene, play

_YEARS_10_MS: Final = 10 * 365 * 24 * 3600 * 1000


_FEW_POINTS: Final = ("after append", "before vote", "after apply_blocks", "after write")


@pytest.mark.scenario("A2", tier="T")
@pytest.mark.parametrize(
    "point",
    [
        pytest.param(point, marks=() if point in _FEW_POINTS else pytest.mark.long)
        for point in KILL_POINTS
    ],
)
def test_a_node_killed_at_a_point_loses_nothing(point: str) -> None:
    """Killed before or after a save, an apply, an answer: what was acknowledged stays."""
    kills = []

    async def course(scene: Scene) -> None:
        for number in range(3):
            leader = await scene.leader()
            others = [host for host in scene.hosts if host is not leader]
            is_vote = "ote" in point
            host = others[number % 2] if is_vote else (leader, *others)[number % 2]
            host.kill_at = point
            # Nobody votes before somebody is missed.
            heal = scene.cut_off(leader) if is_vote else None
            with trio.move_on_after(3):
                await host.ended.wait()
            kills.append(host.ended.is_set())
            host.kill_at = ""
            if heal is not None:
                heal()
            scene.cluster.start(host)
            await scene.cluster.wait_up()

    play(course, is_busy=True)
    assert any(kills), f"nobody passed {point}"


@pytest.mark.scenario("A2", tier="T")
@pytest.mark.long
@pytest.mark.parametrize("first", range(1, 400, 40))
def test_a_node_killed_at_any_step_loses_nothing(first: int) -> None:
    """A kill in front of any step of any task, ten times in a row at rising distances."""

    async def course(scene: Scene) -> None:
        for number in range(10):
            host = await scene.leader() if number % 2 else await scene.follower()
            host.kill_in_steps = first + 4 * number
            await host.ended.wait()
            scene.cluster.start(host)
            await scene.cluster.wait_up()

    play(course, seed=first, is_busy=True)


@pytest.mark.scenario("C1", tier="T")
def test_a_leader_that_is_cut_off_acknowledges_nothing() -> None:
    """It steps down within an election time-out, and answers no read as if it still led."""

    async def course(scene: Scene) -> None:
        old = await scene.leader()
        heal = scene.cut_off(old)
        cut_s = scene.world.now
        sample = scene.sample()

        async def submit() -> None:
            [answer] = await scene.submit(old, sample, timeout_s=5.0)
            assert answer.status == "pending"

        async def read() -> None:
            with pytest.raises(Unavailable):
                await old.ask(
                    lambda service: service.transaction(sample.id, is_linearizable=True), 8.0
                )

        async with trio.open_nursery() as nursery:
            nursery.start_soon(submit)
            nursery.start_soon(read)
            await scene.wait_until(lambda: not old.is_leader)
            assert scene.world.now - cut_s <= 1.5 * scene.cluster.election_s / 2
            rest = [host for host in scene.hosts if host is not old]
            new = await scene.leader(*rest)
            for host in rest:
                [answer] = await scene.submit(host, scene.sample())
                assert answer.status == "committed"
        assert old.height < new.height
        heal()

    play(course)


@pytest.mark.scenario("C10", tier="T")
def test_whoever_heard_no_answer_brings_it_again_and_has_it_once() -> None:
    """All answers are lost for a while; the same bytes come again, to other nodes."""

    async def course(scene: Scene) -> None:
        scene.clients.answers_lost = 1.0
        await scene.wait_until(lambda: scene.world.struck["answer lost"] >= 60)
        assert not scene.clients.ended
        scene.clients.answers_lost = 0.0
        await scene.wait_until(lambda: len(scene.clients.ended) >= 20)

    play(course, is_busy=True)


@pytest.mark.scenario("E1", tier="T")
def test_the_same_transaction_a_hundred_times_is_ordered_once() -> None:
    """By clients of all nodes, by gossip and by forwarding at once: one height for all."""
    told = set()

    async def course(scene: Scene) -> None:
        sample = scene.sample()

        async def submit(host: Host) -> None:
            [answer] = await scene.submit(host, sample)
            told.add((answer.status, answer.height, answer.leaf_index))

        async def gossip(host: Host) -> None:
            peer = scene.hosts[host.number - 1].name
            batch = gossip_wire.encode_batch([sample.data])
            assert await host.ask(lambda _: host.parts.gossiping.receive(peer, batch), 5.0)

        async with trio.open_nursery() as nursery:
            for number in range(100):
                host = scene.hosts[number % len(scene.hosts)]
                nursery.start_soon(submit, host)
                nursery.start_soon(gossip, host)

    play(course, observers=1)
    assert len(told) == 1
    assert told.pop()[0] == "committed"


@pytest.mark.scenario("E1", tier="T")
def test_the_same_event_at_once_is_signed_once() -> None:
    """A program that is impatient: one node signs an event for it, once."""
    told = set()

    async def course(scene: Scene) -> None:
        event = EventInput(id="1", type="permit.asked", source="urn:desk")
        host = await scene.follower()

        async def send() -> None:
            [answer] = await host.ask(
                lambda service: service.submit_events([event], "committed", 9000), 10.0
            )
            told.add((answer.status, answer.id, answer.height))

        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(send)
        await send()

    play(course)
    assert len(told) == 1, told


@pytest.mark.scenario("E3", tier="T")
def test_a_garbled_copy_does_not_stand_in_for_the_true_one() -> None:
    """Other bytes under the same id are rejected wherever they come, before or after."""

    async def course(scene: Scene) -> None:
        for host in scene.hosts:
            sample = scene.sample()
            for is_first in (True, False):
                garbled = scene.cluster.city.garbled(scene.clients.number, scene.random)
                [answer] = await host.ask(partial(_bring, garbled.data), 5.0)
                assert (answer.verdict, answer.status) == ("reject", "rejected")
                if is_first:
                    [answer] = await scene.submit(host, sample)
                    assert answer.status == "committed"

    play(course)


@pytest.mark.scenario("E7", tier="T")
def test_another_networks_transaction_is_rejected() -> None:
    """The network id is inside of what is signed: an old valid transaction is worth nothing."""

    async def course(scene: Scene) -> None:
        other = city(4, 1).good(1)
        assert city(4, 1).genesis.network != scene.cluster.city.genesis.network
        for host in scene.hosts:
            [answer] = await host.ask(partial(_bring, other.data), 5.0)
            assert (answer.verdict, answer.reason) == ("reject", "network")

    play(course)


@pytest.mark.scenario("E6", tier="T")
def test_streams_go_on_where_they_were_cut() -> None:
    """Followers that are cut off and resume elsewhere get every event once, in order."""

    async def course(scene: Scene) -> None:
        for _ in range(3):
            host = await scene.leader()
            host.kill()
            await host.ended.wait()
            await trio.sleep(1)
            scene.cluster.start(host)
            await scene.cluster.wait_up()
        followers = scene.clients.followers
        await scene.wait_until(lambda: all(len(follower.got) > 50 for follower in followers))
        assert all(follower.resumed >= 5 for follower in followers)

    play(course, is_busy=True)


@pytest.mark.scenario("B1", tier="T")
@pytest.mark.parametrize("step_ms", [-3_600_000, 3_600_000, -_YEARS_10_MS, _YEARS_10_MS])
def test_a_wild_clock_orders_nothing_and_stops_nothing(step_ms: int) -> None:
    """A leader whose clock steps hands over; its time gets into no block."""

    async def course(scene: Scene) -> None:
        wild = await scene.leader()
        await scene.submit(wild, scene.sample())
        wild.wall_offset_ms = step_ms
        rest = [host for host in scene.hosts if host is not wild]
        await scene.leader(*rest)
        for host in rest:
            [answer] = await scene.submit(host, scene.sample())
            assert answer.status == "committed"
        await scene.wait_until(lambda: not wild.is_leader)
        tip = scene.cluster.checkers.chain[-1].block.header
        assert abs(tip.time_ms - scene.world.wall_ms) < 6000
        wild.wall_offset_ms = 0

    play(course)


@pytest.mark.scenario("B1", tier="T")
def test_a_clock_that_jumps_to_and_fro_stops_nothing() -> None:
    """Strobe: a second ahead, an hour back, ten years ahead, ten times a second."""

    async def course(scene: Scene) -> None:
        wild = await scene.leader()
        for number in range(50):
            wild.wall_offset_ms = (1000, -3_600_000, _YEARS_10_MS, 0)[number % 4]
            await trio.sleep(0.1)
        wild.wall_offset_ms = 0
        await scene.wait_until(lambda: len(scene.clients.ended) >= 10)

    play(course, is_busy=True)


@pytest.mark.scenario("E4", tier="T")
def test_whoever_accepted_it_says_how_it_ended() -> None:
    """The client is gone, the node is killed and starts anew: the outbox has it ordered."""

    async def course(scene: Scene) -> None:
        host = await scene.follower()
        heal = scene.cut_off(host)
        samples = [scene.sample() for _ in range(5)]
        answers = await scene.submit(host, *samples, wait="accepted")
        assert {answer.status for answer in answers} == {"pending"}
        host.kill()
        await host.ended.wait()
        heal()
        scene.cluster.start(host)
        await scene.cluster.wait_up()
        for sample in samples:
            await scene.wait_until(partial(scene.cluster.checkers.ids.__contains__, sample.id))

    play(course)


@pytest.mark.scenario("E5", tier="T")
def test_a_woken_leader_serves_nothing_stale() -> None:
    """Reads queue while a leader stands still; woken, it answers none from the past."""

    async def course(scene: Scene) -> None:
        for _ in range(3):
            old = await scene.leader()
            old.pause()
            rest = [host for host in scene.cluster.orderers if host is not old]
            answered: list[bool] = []

            async def read(host: Host, into: list[bool]) -> None:
                into.append(await scene.clients.read(host))

            async with trio.open_nursery() as nursery:
                await scene.leader(*rest)
                [answer] = await scene.submit(rest[0], scene.sample())
                assert answer.status == "committed"
                for _ in range(10):
                    nursery.start_soon(read, old, answered)
                await trio.sleep(0.5)
                old.resume()
            assert len(answered) == 10
            assert any(answered)

    play(course)


def test_a_stopped_node_refuses_and_its_clients_go_elsewhere() -> None:
    """SIGTERM under load: leadership is handed over first, nobody waits for long."""

    async def course(scene: Scene) -> None:
        for _ in range(3):
            old = await scene.leader()
            stopped_s = scene.world.now
            await old.stop()
            assert scene.world.now - stopped_s < 3
            new = await scene.leader()
            assert new is not old
            with pytest.raises(Gone):
                await old.ask(lambda service: service.status(), 1.0)
            scene.cluster.start(old)
            await scene.cluster.wait_up()
            try:
                await scene.submit(old, scene.sample())
            except LocalError as error:
                pytest.fail(f"a node that is up refuses: {error}")

    play(course, is_busy=True)


async def _bring(data: bytes, service: NodeService) -> Sequence[Answer]:
    return await service.submit([data], "none", 1000)


@pytest.mark.scenario("C8", tier="T")
@pytest.mark.parametrize(
    "seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 12))]
)
def test_bad_ways_lose_nothing(seed: int) -> None:
    """Messages are late, lost, doubled and pass each other; some ways are clogged for a while."""

    async def course(scene: Scene) -> None:
        ways = [*scene.wires.ways()]
        for way in ways:
            way.extra_s = scene.random.uniform(0, 0.1)
            way.lost = scene.random.uniform(0, 0.3)
            way.twice = scene.random.uniform(0, 0.5)
            way.passing = scene.random.uniform(0, 0.3)
        for number in range(9):
            clogged = scene.random.sample(ways, 2)
            for way in clogged:
                scene.wires.cut(way)
            await trio.sleep((0.2, 1.0, 5.0)[number % 3])
            for way in clogged:
                scene.wires.heal(way)
        for way in ways:
            way.extra_s = way.lost = way.twice = way.passing = 0.0
        assert min(scene.wires.struck[what] for what in ("lost", "twice", "passed")) > 30
        await scene.wait_until(lambda: len(scene.clients.ended) >= 20)

    play(course, seed=seed, is_busy=True)
