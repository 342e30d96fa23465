"""Whom a node blames for what was sent: nobody for what is ignored (protocol/03-admission.md)."""

from collections.abc import Sequence
from typing import Any, cast

import pytest
import trio
import trio.testing

from p2pcity.admission.verdict import make_verdict
from p2pcity.mempool.mempool import Mempool
from p2pcity.net.network import Network
from p2pcity.node.forwarding import Forwarding
from p2pcity.node.gossiping import Gossiping
from p2pcity.node.intake import Admitted, Intake
from p2pcity.node.moments import Moments
from p2pcity.wire import forward, gossip
from tests.vectors_event import MINIMAL
from tests.vectors_transaction import make


class Peers:
    """Notes who is blamed."""

    def __init__(self) -> None:
        self.penalised: list[str] = []

    def penalise(self, peer: str) -> None:
        self.penalised.append(peer)


class Judge:
    """An intake that gives each transaction the same verdict."""

    def __init__(self, reason: str) -> None:
        self._verdict = make_verdict(reason)
        self.judged = trio.Event()

    async def admit(self, items: Sequence[bytes], peer: str | None) -> list[Admitted]:
        self.judged.set()
        return [Admitted(self._verdict, None) for _ in items]


@pytest.mark.parametrize(
    ("reason", "is_blamed"),
    [("author-unknown", False), ("known", False), ("queue-full", False), ("signature", True)],
)
async def test_only_a_rejected_transaction_is_blamed_on_the_peer(
    reason: str, is_blamed: bool
) -> None:
    peers, judge = Peers(), Judge(reason)
    network, intake = cast(Network, peers), cast(Intake, judge)
    moments = Moments(lambda: 0)
    gossiping = Gossiping(network=network, mempool=Mempool(), intake=intake, moments=moments)
    parts: dict[str, Any] = {"mempool": None, "leader": lambda: None, "own_id": "", "reoffer_s": 1}
    parts["moments"] = moments
    async with trio.open_nursery() as nursery:
        batch = gossip.encode_batch([make(MINIMAL).data])
        assert await gossiping.receive("gossiper", batch) is not is_blamed
        with trio.fail_after(10):
            await judge.judged.wait()
        await trio.testing.wait_all_tasks_blocked()
        forwarding = Forwarding(network=network, intake=intake, **parts)
        await forwarding.answer("forwarder", forward.encode_forward([make(MINIMAL).data]))
        nursery.cancel_scope.cancel()
    assert peers.penalised == (["forwarder"] if is_blamed else [])
