"""Who is asked how it is: voters each round, the others in turn."""

from collections import Counter

import trio
from trio.testing import MockClock

from p2pcity.node.moments import Moments
from p2pcity.node.peer_status import PeerStatus
from p2pcity.ordering.clocks import Clocks
from p2pcity.wire import sync as sync_wire
from p2pcity.wire.sync import StatusAnswer
from tests.node_case import HandNetwork

ROUND_S = 2.0
VOTERS = ("a", "b", "c")


def own() -> StatusAnswer:
    raise AssertionError("nobody asks this node")


async def test_voters_are_asked_each_round_and_each_other_within_four(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    others = [f"observer{number}" for number in range(20)]
    network = HandNetwork(*VOTERS, *others)
    status = PeerStatus(
        network=network.typed,
        own=own,
        now_ms=lambda: 0,
        clocks=Clocks(lambda: 0),
        is_voter=lambda peer: peer in VOTERS,
        on_answer=lambda peer, answer: None,
        moments=Moments(lambda: 0),
    )
    nursery.start_soon(status.run)
    await trio.sleep(4 * ROUND_S - 0.1)
    asked = Counter(peer for peer, _, _ in network.asked)
    assert asked == {**dict.fromkeys(VOTERS, 4), **dict.fromkeys(others, 1)}
    assert {protocol for _, protocol, _ in network.asked} == {"status"}
    assert isinstance(sync_wire.decode_request(network.asked[0][2]), sync_wire.StatusQuery)
    # One that comes back is asked at once.
    network.asked.clear()
    status.forget(others[-1])
    await trio.sleep(ROUND_S)
    assert others[-1] in {peer for peer, _, _ in network.asked}
