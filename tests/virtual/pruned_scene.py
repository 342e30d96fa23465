"""Whole nodes that keep few blocks, and what is asked of them about those that are gone."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from p2pcity.api.service import Cursor, EventFilter
from p2pcity.errors import Pruned
from p2pcity.wire import sync as sync_wire
from p2pcity.wire.sync import BaseHeadQuery, BaseQuery, BaseRecordsQuery
from tests.short_intervals import short_intervals
from tests.virtual.host import Host
from tests.virtual.network import VirtualNetwork
from tests.virtual.run import BASE_INTERVAL, PRUNED
from tests.virtual.stage import Scene, play


def play_pruned(
    course: Callable[[Scene], Awaitable[None]], *, is_busy: bool = False, **drawn: Any
) -> None:
    """Play a scenario on nodes that have a base every BASE_INTERVAL blocks, and prune to it."""
    with short_intervals(BASE_INTERVAL):
        play(course, is_busy=is_busy, **PRUNED, **drawn)


class DyingAsker:
    """Kills a node as it asks its first question about a base, its second, and so on.

    `kinds` are the questions at which one died.
    """

    def __init__(self) -> None:
        self.kinds: set[str] = set()
        self._asked = self._dies_at = 0

    def dies_at(self, number: int) -> None:
        """From here on the question of this number kills; 0 lets all live."""
        self._asked, self._dies_at = 0, number

    def request(self) -> Callable[..., Awaitable[bytes]]:
        """What takes the place of `VirtualNetwork.request`."""
        real = VirtualNetwork.request

        async def request(
            network: VirtualNetwork, peer: str, protocol: str, data: bytes, timeout_s: float
        ) -> bytes:
            question = sync_wire.decode_request(data) if protocol == "sync" else None
            if isinstance(question, BaseQuery | BaseHeadQuery | BaseRecordsQuery):
                self._asked += 1
                if self._asked == self._dies_at:
                    self.kinds.add(type(question).__name__)
                    network.host.kill()
            return await real(network, peer, protocol, data, timeout_s)

        return request


def first_height(host: Host) -> int:
    """The oldest block that a node keeps."""
    return host.parts.pruning.first_height


async def keep_all(scene: Scene, host: Host) -> None:
    """Have a node keep every block, from the first on."""
    await host.stop()
    host.config = replace(host.config, ledger=replace(host.config.ledger, keep_blocks=0))
    scene.cluster.start(host)
    await scene.cluster.wait_up()


async def have_pruned(scene: Scene, hosts: Sequence[Host], height: int) -> None:
    """Wait until these nodes are up and keep nothing below a height."""
    await scene.wait_until(
        lambda: all(host.is_up and first_height(host) >= height for host in hosts)
    )


def resubmit_what_was_pruned() -> None:
    """Brought again it is a duplicate, its status is known, and its bytes are said to be gone.

    The same again from views that every node had to begin from its base.
    """

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
                    for path in host.directory.glob("views.db*"):
                        path.unlink()
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
        files = sorted((host.directory / "log").iterdir())
        assert files[0].name > "0000000000000002"

    play_pruned(course)
