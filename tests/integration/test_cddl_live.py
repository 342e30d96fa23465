"""The CDDL files against what nodes really say: a run of three nodes, its wire tapped."""

import re
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from click.testing import CliRunner

from p2pcity.api.service import Wait
from p2pcity.cli.genesis import genesis
from p2pcity.cli.testnet.making import make_network, prepare_socket_directory, socket_path
from p2pcity.crypto.keys import PrivateKey
from p2pcity.errors import Unavailable
from p2pcity.node import node
from p2pcity.node.assembly import Parts
from p2pcity.node.config_reading import load
from p2pcity.wire import block as block_wire
from p2pcity.wire import genesis as genesis_wire
from p2pcity.wire import gossip as gossip_wire
from p2pcity.wire import raft as raft_wire
from p2pcity.wire import sync as sync_wire
from p2pcity.wire import transaction as transaction_wire
from p2pcity.wire.event import Event
from tests.cddl import FOLDER, check, check_layers
from tests.wire_tap import WireTap, open_tap

pytestmark = pytest.mark.integration

DEADLINE_S: Final = 60.0
# Rules of the CDDL that stand for the kinds of messages, and nothing else.
_KINDS: Final = {
    "raft": set(re.findall(r'type: "([a-z-]+)"', (FOLDER / "raft.cddl").read_text("utf-8"))),
    "sync": set(re.findall(r'kind: "([a-z-]+)"', (FOLDER / "sync.cddl").read_text("utf-8"))),
    "forward": {"request", "answer"},
    "gossip": {"batch"},
    "hello": {"hello", "answer"},
}
EXPECTED: Final = {f"{area} {kind}" for area, kinds in _KINDS.items() for kind in kinds}


def _check(kind: str, data: bytes) -> None:
    area, rule = kind.split()
    match area:
        case "hello" if rule == "hello":
            check_layers(data, "hello")
        case "gossip":
            check_layers(data, "gossip")
            for item in gossip_wire.decode_batch(data):
                check_layers(item, "transaction")
        case _:
            check(data, area, rule)


class City:
    """Four nodes on disk, made by the command line; some of them run in this process."""

    def __init__(self, directory: Path, nursery: trio.Nursery) -> None:
        self.directory = directory
        self._nursery = nursery
        self._scopes: list[trio.CancelScope] = []

    async def start(self, number: int) -> Parts:
        own = self.directory / f"node{number}"
        prepare_socket_directory(socket_path(own))
        config = load(own / "p2pcity.toml").config
        parts: Parts = await self._nursery.start(partial(node.run, config))
        return parts


def _events(count: int) -> list[Event]:
    kinds: Sequence[dict[str, Any]] = (
        {"subject": "request/42", "place": (-739_857_000, 407_484_000)},
        {"data": {"level_db": 71.5, "tags": ["a", None, True], "raw": b"\x00"}},
        {"time_ms": 0, "dataschema": "urn:x", "extensions": {"urgent": False, "agency": "DEP"}},
    )
    return [Event(bytes(16), str(i), "city.test", "urn:test", **kinds[i % 3]) for i in range(count)]


class Sender:
    """An author's client of one node, in this process."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._count = 0
        author = parts.identity.author
        assert author is not None
        self._key: PrivateKey = author
        self._network = parts.identity.genesis.network

    async def send(self, wait: Wait = "committed") -> None:
        """Submit one transaction of three events."""
        self._count += 1
        carried = transaction_wire.make(
            self._key,
            self._network,
            _events(3),
            time.time_ns() // 1_000_000 + 600_000,
            self._count.to_bytes(16, "big"),
        )
        [answer] = await self.parts.service.submit([carried.data], wait, 20_000)
        assert answer.verdict == "accept", answer


async def _drive(city: City, tap: WireTap) -> list[Parts]:
    """Make the nodes say everything that they can say; returns them, the leader first."""
    first = await city.start(1)
    await Sender(first).send("accepted")
    second = await city.start(2)
    # Two of four voters commit nothing, and the batch was gossiped before the second was there:
    # only anti-entropy can bring it.
    await tap.wait_until(lambda: len(second.mempool) == 1)
    third = await city.start(3)
    running = [first, second, third]
    await tap.wait_until(lambda: any(p.ordering.raw_node.is_leader for p in running))
    leader = next(p for p in running if p.ordering.raw_node.is_leader)
    followers = [p for p in running if p is not leader]
    sender = Sender(followers[0])
    await sender.send()
    while not {"gossip batch", "forward answer"} <= tap.messages.keys():
        # A follower may not have heard of the leader yet, and the mesh takes its time: what is
        # sent before they stand travels one of the two ways only.
        await sender.send()
    for height in (1, 1_000_000):
        # Nobody asks for blocks by himself yet; one that is there, and one that is not.
        question = sync_wire.encode(sync_wire.BlockQuery(height))
        await sender.parts.network.request(leader.identity.peer_id, "sync", question, 10.0)
    # Nobody is far behind in so short a time: the leader says so all the same, and a peer asks.
    question = sync_wire.encode(sync_wire.EntriesQuery(1))
    await sender.parts.network.request(leader.identity.peer_id, "sync", question, 10.0)
    # Nor has anybody pruned anything: only who lags behind that asks for a base by itself.
    for asked in (
        sync_wire.BaseQuery(),
        sync_wire.BaseQuery(256),
        sync_wire.BaseHeadQuery(256, 0),
        sync_wire.BaseRecordsQuery(0),
    ):
        data = sync_wire.encode(asked)
        await sender.parts.network.request(leader.identity.peer_id, "sync", data, 10.0)
    raw_node = leader.ordering.raw_node
    behind = raft_wire.encode(raft_wire.Behind(raw_node.term, raw_node.status().commit))
    assert leader.network.send(followers[0].identity.peer_id, "control", behind)
    await followers[1].reads.wait_linearizable(20.0)
    # That the message travels is asked for here; three nodes in one busy process may be late with
    # the election behind it, and a hand-over has no longer than an election.
    while "raft timeout-now" not in tap.messages:
        await trio.lowlevel.checkpoint()
        await tap.wait_until(lambda: any(p.ordering.raw_node.is_leader for p in running))
        leader = next(p for p in running if p.ordering.raw_node.is_leader)
        with suppress(Unavailable):
            await leader.service.transfer_leader(None)
    await tap.wait_for(*EXPECTED)
    return running


async def test_everything_that_travels_is_in_the_cddl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_network(
        tmp_path, nodes=4, orderers=4, authors=["desk"], raft_preset="lan", name="a tapped city"
    )
    tap = open_tap(monkeypatch)
    stored: list[bytes] = []
    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            running = await _drive(City(tmp_path, nursery), tap)
            log = running[0].stores.raft_log
            stored = [x.payload for x in log.entries(1, log.last_index + 1, 1 << 24) if x.payload]
            nursery.cancel_scope.cancel()
    refused = {kind for kind in tap.messages if kind.endswith(" refused")}
    for kind in refused:
        # A peer may be busy or on its way down; what was asked was right.
        assert not {b"malformed", b"internal"} & tap.messages.pop(kind), kind
    assert set(tap.messages) ^ EXPECTED == set()
    # Appends share one lane, so that they keep their order, and delay nothing else.
    assert tap.lanes == {
        kind: {"bulk" if kind == "append" else "control"} for kind in _KINDS["raft"]
    }
    for kind, messages in tap.messages.items():
        for data in messages:
            _check(kind, data)
    _check_stored(stored)
    _check_files(tmp_path)


def _check_stored(blocks: Sequence[bytes]) -> None:
    assert blocks
    carried = [item for data in blocks for item in block_wire.decode(data).transactions]
    for data in blocks:
        check_layers(data, "block")
    for item in carried:
        check_layers(item, "transaction")
    assert len(carried) >= 2


def _check_files(directory: Path) -> None:
    check_layers((directory / "genesis.cbor").read_bytes(), "genesis")
    for number in range(1, 5):
        check_layers((directory / f"node{number}" / "node.card").read_bytes(), "card")
    file = directory / "genesis.cbor"
    arguments = ["sign", str(file), "--key", str(directory / "node1" / "node.key")]
    assert CliRunner().invoke(genesis, arguments).exit_code == 0
    assert len(genesis_wire.decode(file.read_bytes()).signatures) == 1
    check_layers(file.read_bytes(), "genesis")
