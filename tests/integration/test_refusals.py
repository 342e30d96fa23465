"""Whom a running node turns away, and whom it does not blame.

The node is a process. Its peers are `Network` objects here, with keys that its genesis knows or
does not know, and hellos that may be doctored.
"""

import json
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from p2pcity.cli.key_files import read_key
from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.crypto.keys import PrivateKey, peer_id
from p2pcity.crypto.merkle import leaf_hash
from p2pcity.net.config import NetConfig
from p2pcity.wire import forward, gossip, limits
from p2pcity.wire import transaction as transaction_wire
from p2pcity.wire.event import Event
from p2pcity.wire.hello import Hello
from p2pcity.wire.transaction import join_carried, split_carried
from tests.bad_input_city import HOUR_MS, p2pcity
from tests.integration.warm_nodes import launch_warm
from tests.net_case import Place, Relay, free_port, running

pytestmark = pytest.mark.integration

AUTHOR = "author"
DEADLINE_S = 60.0
STRANGERS = 20


@pytest.fixture
def network(tmp_path: Path) -> Iterator[LocalNetwork]:
    """Two nodes in one genesis; the first, which orders alone, runs."""
    made = LocalNetwork.create(tmp_path / "net", nodes=2, orderers=1, authors=(AUTHOR,))
    for node in made.nodes:
        node.launch = launch_warm
    try:
        made.start(["node1"])
        made.wait_ready(["node1"])
        yield made
    finally:
        made.stop(deadline_s=0)


class Peer(Place):
    """A peer of the running node; `doctor` changes what it says in hello."""

    doctor: Callable[[Hello], Hello] = staticmethod(lambda hello: hello)

    def hello(self) -> Hello:
        return self.doctor(super().hello())


def make_peer(network: LocalNetwork, key: PrivateKey | None = None) -> Peer:
    """Return a peer that knows the running node: its second node, or one with another key."""
    node1, node2 = network.nodes
    own = read_key(node2.config.node.key, "node.key") if key is None else key
    listen = node2.config.net.listen[0] if key is None else f"/ip4/127.0.0.1/tcp/{free_port()}"
    config = NetConfig(
        listen=(listen,),
        has_mdns=False,
        dial_backoff_min_s=0.02,
        dial_backoff_max_s=0.1,
    )
    peer = Peer(own, int(listen.rpartition("/")[2]), config)
    peer.hello_network = network.network_id
    to = peer_id(read_key(node1.config.node.key, "node.key").public)
    peer.allowed.add(to)
    peer.known[to] = node1.config.net.listen
    return peer


def node_id(peer: Place) -> str:
    """Return the peer id of the one node that `peer` knows."""
    [found] = peer.known
    return found


def lines(network: LocalNetwork, name: str, event: str) -> list[dict[str, Any]]:
    """Return what a node logged under this name so far."""
    text = network.node(name).log_file.read_text(encoding="utf-8")
    # What comes after the last end of a line is not whole yet.
    found = [json.loads(line) for line in text.split("\n")[:-1] if line.startswith("{")]
    assert "Traceback" not in text
    return [line for line in found if line["event"] == event]


async def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait until `is_so()`, within the deadline."""
    with trio.fail_after(DEADLINE_S):
        while not is_so():  # noqa: ASYNC110 - another process makes it so
            await trio.sleep(0.02)


async def wait_failed(peer: Place) -> None:
    """Wait until `peer` was not let in."""
    await wait_until(lambda: peer.network.peers()[0].last_error != "")


def shown(network: LocalNetwork, peer: Place) -> dict[str, Any]:
    """Return what the running node shows of a peer."""
    with network.client("node1") as client:
        rows: list[dict[str, Any]] = client.get_json("/v1/peers")["peers"]
    [row] = [row for row in rows if row["peer"] == peer.id]
    return row


class CountingRelay(Relay):
    """A relay that counts the connections through it."""

    count = 0

    async def _relay(self, near: trio.SocketStream) -> None:
        self.count += 1
        await super()._relay(near)


# -- not on the list ---------------------------------------------------------------------------


async def test_a_stranger_is_refused_at_the_handshake_and_logged_once(
    network: LocalNetwork,
) -> None:
    stranger = make_peer(network, PrivateKey.generate())
    relay = CountingRelay(int(network.nodes[0].config.net.listen[0].rpartition("/")[2]))
    stranger.known[node_id(stranger)] = (f"/ip4/127.0.0.1/tcp/{relay.port}",)
    async with running(stranger) as nursery:
        await nursery.start(relay.run)
        await wait_until(lambda: relay.count >= 10)
        assert stranger.ups == []
        [info] = stranger.network.peers()
        assert not info.is_connected
    refused = lines(network, "node1", "peer_refused")
    assert [line["peer"] for line in refused] == [stranger.id]
    assert not lines(network, "node1", "peer_up")
    with network.client("node1") as client:
        assert stranger.id not in [row["peer"] for row in client.get_json("/v1/peers")["peers"]]


async def test_a_node_turns_away_from_whoever_answers_with_another_key(
    network: LocalNetwork,
) -> None:
    # Somebody else listens where the second node should: the first dials, and that is all.
    second = make_peer(network)
    impostor = make_peer(network, PrivateKey.generate())
    impostor.known.clear()
    relay = CountingRelay(impostor.port)
    relay.port = second.port
    async with running(impostor) as nursery:
        await nursery.start(relay.run)
        await wait_until(lambda: relay.count >= 4)
        assert impostor.ups == []
    row = shown(network, second)
    assert (row["is_connected"], row["score"]) == (False, 0)
    assert not lines(network, "node1", "peer_up")


async def test_many_strangers_do_not_flood_the_log(network: LocalNetwork) -> None:
    for _ in range(STRANGERS):
        stranger = make_peer(network, PrivateKey.generate())
        async with running(stranger):
            await wait_failed(stranger)
    found = lines(network, "node1", "peer_refused")
    assert 0 < len(found) < STRANGERS, f"{len(found)} lines for {STRANGERS} strangers"


# -- refused in hello --------------------------------------------------------------------------


async def refused(network: LocalNetwork, peer: Peer) -> tuple[str, str]:
    """Run `peer` until both sides have logged a refusal; return both reasons."""

    def has_both() -> bool:
        mine = [line for line in logged if line["event"] == "hello_refused"]
        return bool(mine) and bool(lines(network, "node1", "hello_refused"))

    with capture_logs() as logged:
        async with running(peer):
            await wait_until(has_both)
            assert peer.ups == []
            [info] = peer.network.peers()
            assert not info.is_connected
            assert info.state == "refused"
    [mine] = [line for line in logged if line["event"] == "hello_refused"]
    [theirs] = lines(network, "node1", "hello_refused")
    assert (mine["peer"], theirs["peer"]) == (node_id(peer), peer.id)
    assert mine["detail"]
    assert theirs["detail"]
    row = shown(network, peer)
    assert row["refusal"] == theirs["reason"]
    assert row["score"] == 0
    return mine["reason"], theirs["reason"]


async def test_too_old_a_protocol_is_refused(network: LocalNetwork) -> None:
    peer = make_peer(network)
    peer.doctor = lambda hello: replace(hello, protocol=0, protocol_oldest=0)
    assert await refused(network, peer) == ("protocol-too-new", "protocol-too-old")


async def test_too_new_a_protocol_is_refused(network: LocalNetwork) -> None:
    peer = make_peer(network)
    newer = limits.PROTOCOL_VERSION + 1
    peer.doctor = lambda hello: replace(hello, protocol=newer, protocol_oldest=newer)
    assert await refused(network, peer) == ("protocol-too-old", "protocol-too-new")


async def test_other_parameters_are_refused(network: LocalNetwork) -> None:
    peer = make_peer(network)
    peer.hello_parameters = bytes(32)
    assert await refused(network, peer) == ("other-parameters", "other-parameters")


async def test_a_wrong_network_in_hello_is_refused(network: LocalNetwork) -> None:
    peer = make_peer(network)
    peer.hello_network = bytes(32)
    assert await refused(network, peer) == ("wrong-network", "wrong-network")


def test_nodes_of_two_genesis_files_refuse_each_other(network: LocalNetwork) -> None:
    # The same cards, another genesis: the second node's owner took the wrong file.
    cards = [part for node in network.nodes for part in ("--card", node.directory / "node.card")]
    other = network.directory / "other.cbor"
    p2pcity("genesis", "new", "--name", "another city", "-o", other, *cards)
    shutil.copyfile(other, network.nodes[1].directory / "genesis.cbor")
    network.start(["node2"])
    until_s = time.monotonic() + DEADLINE_S
    while not all(found := [lines(network, n.name, "hello_refused") for n in network.nodes]):
        assert time.monotonic() < until_s
        network.node("node2").check_alive()
        time.sleep(0.05)
    for [line] in found:
        assert line["reason"] == "wrong-network"
        assert network.network_id.hex() in line["detail"]
    for name in ("node1", "node2"):
        assert not lines(network, name, "peer_up")
        with network.client(name) as client:
            [row] = client.get_json("/v1/peers")["peers"]
        assert (row["state"], row["refusal"], row["score"]) == ("refused", "wrong-network", 0)


# -- no blame for what may be right in a moment ------------------------------------------------


def make_carried(
    network: LocalNetwork, key: PrivateKey | None = None, expires_in_ms: int = HOUR_MS
) -> bytes:
    """Return a transaction of one event."""
    event = Event(secrets.token_bytes(16), secrets.token_hex(8), "city.test", "/refusals")
    return transaction_wire.make(
        key or network.author_key(AUTHOR),
        network.network_id,
        [event],
        time.time_ns() // 1_000_000 + expires_in_ms,
        secrets.token_bytes(16),
    ).data


def verdicts(network: LocalNetwork) -> dict[str, int]:
    """Return the running node's verdicts so far, by `kind.reason`."""
    with network.client("node1") as client:
        found: dict[str, int] = client.get_json("/v1/status")["verdicts"]
    return found


async def forwarded(peer: Place, items: list[bytes]) -> list[tuple[str, str]]:
    """Forward transactions to the running node and return its verdicts."""
    answer = await peer.network.request(
        node_id(peer), "forward", forward.encode_forward(items), DEADLINE_S
    )
    return [(item.verdict, item.reason) for item in forward.decode_answer(answer)]


@asynccontextmanager
async def connected(network: LocalNetwork) -> AsyncIterator[Peer]:
    """Run the second node's network until it is connected to the first, and for the context."""
    peer = make_peer(network)
    async with running(peer):
        with trio.fail_after(DEADLINE_S):
            await peer.network.wait_connected(node_id(peer))
        await wait_until(lambda: shown(network, peer)["is_in_mesh"])
        yield peer


async def test_an_honest_peer_that_is_ahead_is_not_blamed(network: LocalNetwork) -> None:
    stranger = PrivateKey.generate()
    ahead = {
        "author-unknown": [make_carried(network, stranger) for _ in range(200)],
        "expired": [make_carried(network, expires_in_ms=-1) for _ in range(200)],
        "expires-too-far": [make_carried(network, expires_in_ms=26 * HOUR_MS) for _ in range(200)],
    }
    async with connected(network) as peer:
        for reason, items in ahead.items():
            assert await forwarded(peer, items) == [("ignore", reason)] * 200
            for batch in gossip.pack_batches(items):
                await peer.network.publish(gossip.encode_batch(batch))
        # Gossip is lossy, but its first messages are not lost between two idle peers.
        await wait_until(
            lambda: all(verdicts(network).get(f"ignore.{name}", 0) > 200 for name in ahead)
        )
        row = shown(network, peer)
        assert (row["score"], row["state"], row["refusal"]) == (0, "connected", "")
        assert peer.ups == [(node_id(peer), True)]
        # And it is heard as before.
        right = make_carried(network)
        assert await forwarded(peer, [right]) == [("accept", "accepted")]
    assert not [key for key in verdicts(network) if key.startswith("reject.")]


async def test_a_relay_that_strips_a_body_is_blamed_and_its_victim_is_not(
    network: LocalNetwork,
) -> None:
    true = make_carried(network)
    cose_bytes, events = split_carried(true)
    stripped = join_carried(cose_bytes, [leaf_hash(events[0])])
    garbled = join_carried(cose_bytes[:-1] + bytes((cose_bytes[-1] ^ 1,)), events)
    async with connected(network) as peer:
        assert await forwarded(peer, [stripped]) == [("reject", "events-missing")]
        assert await forwarded(peer, [garbled]) == [("reject", "signature")]
        await wait_until(lambda: shown(network, peer)["score"] < 0)
        # What was rejected under its id does not keep the true one out.
        assert await forwarded(peer, [true]) == [("accept", "accepted")]
        assert shown(network, peer)["state"] == "connected"


async def test_a_peer_that_goes_on_with_it_is_cut_off(network: LocalNetwork) -> None:
    async with connected(network) as peer:
        for _ in range(100):
            cose_bytes, events = split_carried(make_carried(network))
            garbled = join_carried(cose_bytes[:-1] + bytes((cose_bytes[-1] ^ 1,)), events)
            await peer.network.publish(gossip.encode_batch([garbled]))
            if len(peer.ups) > 1:
                break
            with trio.move_on_after(0.05):
                await wait_until(lambda: len(peer.ups) > 1)
        await wait_until(lambda: shown(network, peer)["state"] == "banned")
        await wait_until(lambda: len(peer.ups) > 1)
        assert peer.ups[:2] == [(node_id(peer), True), (node_id(peer), False)]
    with network.client("node1") as client:
        assert client.get("/readyz").status == 200
