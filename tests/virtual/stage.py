"""One scenario at a time: a cluster of whole nodes, struck by a test's own hand.

All that a seed checks is checked here too, in peace at the end; the test adds what its scenario
promises.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from random import Random
from typing import Any, Final

import trio

from p2pcity.api.service import Answer, Wait
from tests.sim.city import Sample
from tests.virtual.clients import Clients
from tests.virtual.clockwork import run_virtual
from tests.virtual.cluster import POLL_S, Cluster
from tests.virtual.host import Host
from tests.virtual.operator import Operator
from tests.virtual.run import compare, make_peace, quiet_logs, root_directory, run_watched
from tests.virtual.world import World

SCENE_S: Final = 120.0
"""No scenario takes longer, in virtual seconds."""


class Scene:
    """What a test has at hand."""

    def __init__(self, cluster: Cluster, clients: Clients) -> None:
        self.cluster = cluster
        self.clients = clients
        self.world = cluster.world
        self.wires = cluster.wires
        self.hosts = cluster.hosts
        self.operator = Operator(cluster)
        self.random: Random = self.world.random("scene")

    async def leader(self, *among: Host) -> Host:
        """The leader, once there is one (of `among`)."""
        return await self.cluster.wait_leader(*among)

    async def follower(self) -> Host:
        """A voter that does not lead."""
        leader = await self.leader()
        voters = self.operator.hosts_in(self.operator.state.sets.voters)
        return next(host for host in voters if host is not leader)

    def sample(self) -> Sample:
        """A new transaction."""
        self.clients.number += 1
        sample = self.cluster.city.good(self.clients.number)
        self.cluster.checkers.submitted(sample)
        return sample

    async def submit(
        self, host: Host, *samples: Sample, wait: Wait = "committed", timeout_s: float = 10.0
    ) -> list[Answer]:
        """Bring transactions to a node; what it says is checked as clients check it."""

        async def call(service: Any) -> tuple[list[Answer], int]:
            data = [sample.data for sample in samples]
            answers = await service.submit(data, wait, int(timeout_s * 1000))
            return list(answers), service.head().height

        answers, height = await host.ask(call, timeout_s + 1)
        for sample, answer in zip(samples, answers, strict=True):
            if answer.status in ("committed", "duplicate"):
                self.clients.acknowledge(host, sample.id, answer.height, height)
            elif answer.status == "pending" and wait != "none":
                self.clients.accepted.setdefault(sample.id, host)
        return answers

    def cut_off(self, host: Host, *, to: bool = True, of: bool = True) -> Callable[[], None]:
        """Shut all directions to a node, away from it, or both; call what is returned to heal."""
        ways = [*self.wires.ways(to=host.name)] if to else []
        ways += self.wires.ways(of=host.name) if of else []
        for way in ways:
            self.wires.cut(way)

        def heal() -> None:
            for way in ways:
                self.wires.heal(way)

        return heal

    async def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Wait for a condition; the scene as a whole has its deadline."""
        while not is_so():  # noqa: ASYNC110 - many things of many nodes, no one event
            await trio.sleep(POLL_S)


def play(
    course: Callable[[Scene], Awaitable[None]],
    *,
    seed: int = 1,
    is_busy: bool = False,
    is_traced: bool = False,
    **drawn: Any,
) -> World:
    """Play a scenario on a cluster; with clients at work all the time if `is_busy`.

    `is_traced` prints what happens, for whoever looks for the cause of a failure.
    """
    made: list[World] = []

    async def run(cluster: Cluster) -> None:
        clients = Clients(cluster)
        clients.is_open = is_busy
        scene = Scene(cluster, clients)
        assert cluster.nursery is not None
        with trio.fail_after(SCENE_S):
            cluster.start()
            await cluster.wait_up()
            await cluster.wait_leader()
            cluster.nursery.start_soon(clients.run)
            await course(scene)
        await make_peace(cluster, clients)
        await compare(cluster, clients)

    async def main() -> None:
        world = World(seed, is_traced=is_traced)
        made.append(world)
        with quiet_logs(world), root_directory() as root:
            cluster = Cluster(world, root, **drawn)
            await run_watched(cluster, partial(run, cluster))

    run_virtual(seed, main)
    return made[0]
