"""The rules for transactions and events, at running nodes: once each, and the true one wins."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from p2pcity.api.client import ApiProblem, Unreachable
from p2pcity.cli.key_files import read_key
from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.crypto.keys import peer_id
from p2pcity.net.config import NetConfig
from p2pcity.wire import forward, gossip
from p2pcity.wire.card import decode as decode_card
from p2pcity.wire.hello import Hello
from p2pcity.wire.transaction import join_carried, split_carried
from tests.integration.process_case import (
    DEADLINE_S,
    Author,
    ask,
    ask_patiently,
    others,
    running_network,
    set_keys,
    submit,
    wait_equal,
    wait_leader,
    wait_serving,
    wait_until,
)
from tests.net_case import Place, running

pytestmark = pytest.mark.integration

STRUCTURED: Final = "application/cloudevents+json"
NAMES: Final = ("node1", "node2", "node3")


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNetwork]:
    """Three nodes that all tests share which leave them as they were."""
    with running_network(tmp_path_factory.mktemp("rules")) as network:
        yield network


def garbled(data: bytes) -> bytes:
    """The carried bytes with another signature: the id is the same."""
    signed, events = split_carried(data)
    return join_carried(signed[:-1] + bytes([signed[-1] ^ 1]), events)


def tree_size(network: LocalNetwork) -> int:
    size = wait_equal(network)["tree_size"]
    assert isinstance(size, int)
    return size


def status_of(network: LocalNetwork, name: str, id_: str) -> Any:
    return ask(network, name, f"/v1/transactions/{id_}", consistency="local")


def is_committed_at(network: LocalNetwork, name: str, id_: str) -> bool:
    found = status_of(network, name, id_)
    return found is not None and found["status"] == "committed"


def in_parallel(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Make all calls at once, each in a thread; what they return, in order."""
    results: list[Any] = [None] * len(calls)
    begin = threading.Barrier(len(calls))

    def run(number: int) -> None:
        begin.wait()
        results[number] = calls[number]()

    threads = [threading.Thread(target=run, args=(n,), daemon=True) for n in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
        assert not thread.is_alive(), "a call hangs"
    return results


def send_patiently(network: LocalNetwork, name: str, data: bytes) -> Any:
    """Send until committed; 429 and 503 are to be tried again, as the node says."""
    while True:
        try:
            answer = submit(network, name, data, "committed")
        except ApiProblem as problem:
            if problem.status not in (429, 503) or not problem.retry_after_s:
                raise
        else:
            if answer["status"] == "committed":
                return answer


# -- the garbled copy ------------------------------------------------------------------------------


@pytest.mark.parametrize("second", ["node1", "node2"])
def test_a_garbled_copy_does_not_censor_the_true_one(city: LocalNetwork, second: str) -> None:
    before = tree_size(city)
    true = Author(city).sign()
    with pytest.raises(ApiProblem) as caught:
        submit(city, "node1", garbled(true.data), "committed")
    assert (caught.value.status, caught.value.reason) == (422, "signature")
    assert submit(city, second, true.data, "committed")["status"] == "committed"
    # The garbled one is no better for it afterwards.
    with pytest.raises(ApiProblem, match="signature"):
        submit(city, "node1", garbled(true.data), "committed")
    assert tree_size(city) == before + 1


class Relayer(Place):
    """The third node of a network as a test has it: its key and place, and whatever it says."""

    incarnation = bytes(16)

    @classmethod
    def of(cls, network: LocalNetwork) -> "Relayer":
        node = network.node("node3")
        key = read_key(node.config.node.key, "node.key")
        listen = node.config.net.listen
        made = cls(key, int(listen[0].rpartition("/")[2]), NetConfig(listen=listen, has_mdns=False))
        made.hello_network = network.network_id
        card = decode_card((node.directory / "node.card").read_bytes())
        made.incarnation = card.incarnation
        for name in ("node1", "node2"):
            other = network.node(name)
            peer = peer_id(read_key(other.config.node.key, "node.key").public)
            made.allowed.add(peer)
            made.known[peer] = other.config.net.listen
        return made

    def hello(self) -> Hello:
        return replace(super().hello(), incarnation=self.incarnation)

    def peer(self, number: int) -> str:
        return list(self.known)[number]

    async def wait_peers(self) -> None:
        """Wait until both nodes are connected and in the mesh of the topic."""
        for peer in self.known:
            with trio.fail_after(DEADLINE_S):
                await self.network.wait_connected(peer)
        await self.wait_until(lambda: all(info.is_in_mesh for info in self.network.peers()))


def has_rejected(network: LocalNetwork, name: str) -> bool:
    return "reject.signature" in ask(network, name, "/v1/status")["verdicts"]


async def wait_at(is_so: Callable[[], bool], what: str) -> None:
    await trio.to_thread.run_sync(partial(wait_until, is_so, what))


async def test_a_relay_sends_the_garbled_copy_first(tmp_path: Path) -> None:
    with running_network(tmp_path, start=()) as network:
        network.start(["node1", "node2"])
        network.wait_ready(["node1", "node2"])
        relayer = Relayer.of(network)
        author = Author(network)
        async with running(relayer):
            await relayer.wait_peers()
            # Over gossip: the true one comes in a message of its own, and later.
            first = author.sign()
            await relayer.network.publish(gossip.encode_batch([garbled(first.data)]))
            for name in ("node1", "node2"):
                rejected = partial(has_rejected, network, name)
                await wait_at(rejected, f"{name} rejects the garbled copy")
            await relayer.network.publish(gossip.encode_batch([first.data]))
            id_ = first.transaction.id.hex()
            for name in ("node1", "node2"):
                committed = partial(is_committed_at, network, name, id_)
                await wait_at(committed, f"{name} has the true one")
            # Forwarded: both in one request, the garbled one first.
            second = author.sign()
            request = forward.encode_forward([garbled(second.data), second.data])
            answer = await relayer.network.request(relayer.peer(0), "forward", request, 10)
            results = forward.decode_answer(answer)
            assert [(item.verdict, item.reason) for item in results] == [
                ("reject", "signature"),
                ("accept", "accepted"),
            ]
            committed = partial(is_committed_at, network, "node2", second.transaction.id.hex())
            await wait_at(committed, "the forwarded one is ordered")
        peers = await trio.to_thread.run_sync(partial(ask, network, "node1", "/v1/peers"))
        [row] = [row for row in peers["peers"] if row["peer"] == relayer.id]
        assert row["score"] < 0, "who passes on what is wrong pays for it"


# -- once each -------------------------------------------------------------------------------------


def test_the_same_transaction_100_times_at_once(city: LocalNetwork) -> None:
    before = tree_size(city)
    data = Author(city).sign().data
    calls = [partial(send_patiently, city, NAMES[n % 3], data) for n in range(100)]
    answers = in_parallel(calls)
    assert {(item["status"], item["verdict"]) for item in answers} == {("committed", "accept")}
    places = {(item["id"], item["height"], item["leaf_index"]) for item in answers}
    assert len(places) == 1
    assert tree_size(city) == before + 1


def post_event(network: LocalNetwork, name: str, event_id: str, wait: str = "committed") -> Any:
    document = {"specversion": "1.0", "id": event_id, "source": "/rules", "type": "city.test"}
    with network.client(name, 30) as client:
        body = json.dumps(document).encode()
        return client.post("/v1/events", body, STRUCTURED, {"wait": wait, "timeout_ms": 20_000})


def test_the_same_event_again_and_again(city: LocalNetwork) -> None:
    before = tree_size(city)
    at_once = in_parallel([partial(post_event, city, "node1", "again") for _ in range(20)])
    later = [post_event(city, "node1", "again", wait) for wait in ("accepted", "committed")]
    places = {(item["id"], item["height"], item["leaf_index"]) for item in [*at_once, *later]}
    assert len(places) == 1
    assert {item["status"] for item in [*at_once, *later]} == {"committed"}
    assert tree_size(city) == before + 1
    found = ask_patiently(city, "node2", "/v1/events", source="/rules")
    assert [item["id"] for item in found["events"]] == ["again"]
    # Another node signs as another author: another event, by CloudEvents' rule.
    assert post_event(city, "node2", "again")["id"] not in {place[0] for place in places}


def test_one_event_in_two_transactions_of_one_author(city: LocalNetwork) -> None:
    before = tree_size(city)
    author = Author(city)
    made = [author.sign("twice", data=f"version {n}") for n in range(2)]
    first, second = (submit(city, NAMES[n], made[n].data, "committed") for n in range(2))
    assert first["status"] == "committed"
    # Ordered and provable, but in no view: the first one's event stays what it was.
    assert tree_size(city) == before + 2
    for name in NAMES:
        found = ask_patiently(city, name, "/v1/events", source="/load", limit=1000)["events"]
        twice = [item for item in found if item["id"] == "twice"]
        assert [item["p2pcitytransaction"] for item in twice] == [first["id"]]
        assert twice[0]["data"] == "version 0"
    shown = ask_patiently(city, "node3", f"/v1/transactions/{second['id']}")
    assert (second["status"], shown["status"]) == ("duplicate", "duplicate")
    assert shown["leaf_index"] == first["leaf_index"] + 1


def test_a_transaction_sent_again_after_a_restart(tmp_path: Path) -> None:
    with running_network(tmp_path) as network:
        author = Author(network)
        data = author.sign().data
        first = submit(network, "node1", data, "committed")
        event = post_event(network, "node1", "before")
        leader = wait_leader(network)
        for name in dict.fromkeys(("node1", leader)):
            network.kill(name)
        network.start()
        network.wait_ready()
        for name in NAMES:
            again = submit(network, name, data, "committed")
            assert (again["status"], again["height"], again["leaf_index"]) == (
                "committed",
                first["height"],
                first["leaf_index"],
            )
        assert post_event(network, "node1", "before")["id"] == event["id"]
        assert tree_size(network) == 2


# -- back-pressure ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Refusal:
    status: int
    reason: str
    retry_after_s: int | None


def fill(network: LocalNetwork, name: str) -> tuple[list[str], Refusal]:
    """Send large transactions to a node without a leader until it takes no more."""
    author = Author(network)
    ids = []
    for _ in range(100):
        try:
            carried = author.sign(data="z" * 30_000, events=2)
            ids.append(submit(network, name, carried.data, "accepted")["id"])
        except ApiProblem as problem:
            return ids, Refusal(problem.status, problem.reason, problem.retry_after_s)
    pytest.fail("6 MB went into a mempool of 1 MiB")


def test_a_full_mempool_says_429_and_empties(tmp_path: Path) -> None:
    with running_network(tmp_path, start=()) as network:
        set_keys(network, "node1", mempool={"bytes_max": 1_048_576, "author_bytes_max": 1_048_576})
        network.start(["node1"])
        wait_serving(network, "node1")
        ids, refusal = fill(network, "node1")
        assert (refusal.status, refusal.reason) == (429, "queue-full")
        assert refusal.retry_after_s
        network.start()
        network.wait_ready()
        for id_ in ids:
            committed = partial(is_committed_at, network, "node2", id_)
            wait_until(committed, f"{id_} is ordered")
        answer = submit(network, "node1", Author(network).sign().data, "committed")
        assert answer["status"] == "committed"


def test_a_full_disk_says_503_and_only_there(tmp_path: Path) -> None:
    with running_network(tmp_path, start=()) as network:
        set_keys(network, "node1", ledger={"disk_free_bytes_min": 2**50})
        network.start()
        network.wait_ready(others(network, "node1"))
        wait_serving(network, "node1")
        author = Author(network)
        data = author.sign().data
        for call in (
            partial(submit, network, "node1", data, "accepted"),
            partial(post_event, network, "node1", "full"),
        ):
            with pytest.raises(ApiProblem) as caught:
                call()
            assert (caught.value.status, caught.value.reason) == (503, "unavailable")
            assert caught.value.retry_after_s
            assert "disk_free_bytes_min" in caught.value.remedy
        with network.client("node1") as client, pytest.raises((ApiProblem, Unreachable)) as ready:
            client.get("/readyz")
        assert "disk" in str(ready.value.members if isinstance(ready.value, ApiProblem) else "")
        # The others take it, and this node still follows and answers.
        answer = submit(network, "node2", data, "committed")
        assert answer["status"] == "committed"
        committed = partial(is_committed_at, network, "node1", answer["id"])
        wait_until(committed, "the full node follows")


def test_what_the_outbox_holds_is_offered_until_there_is_room(tmp_path: Path) -> None:
    """A restarted node whose quotas are too small for its whole outbox at once."""
    with running_network(tmp_path, start=()) as network:
        network.start(["node1"])
        wait_serving(network, "node1")
        author = Author(network)
        ids = [submit(network, "node1", author.sign().data, "accepted")["id"] for _ in range(8)]
        network.kill("node1")
        set_keys(network, "node1", admission={"author_transactions_per_second_max": 2})
        network.start()
        network.wait_ready()
        for id_ in ids:
            committed = partial(is_committed_at, network, "node2", id_)
            wait_until(committed, f"{id_} is ordered")
        assert tree_size(network) == len(ids)
