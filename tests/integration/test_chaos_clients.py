"""Clients that lose answers, die, ask a hundred times, read slowly, and come back."""

import json
import random
import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from p2pcity.api.client import ApiProblem, Unreachable
from p2pcity.api.stream import BATCH_EVENTS_MAX
from p2pcity.cli.testnet.local_network import LocalNetwork
from tests.integration.process_case import (
    CBOR,
    Acknowledgement,
    Author,
    Load,
    ask,
    ask_patiently,
    freeze,
    others,
    running_network,
    submit,
    thaw,
    verify,
    wait_equal,
    wait_leader,
    wait_until,
)
from tests.integration.relayed_case import running_relayed
from tests.integration.test_pause import QueuedRequest, check_fresh, get_request, post_request

pytestmark = pytest.mark.integration

PARALLEL = 100
LOST_ANSWERS = 60
READ_PAUSES = 10
SLOW_EVENTS = 3_000
SLOW_BYTES = 1_000
SLOW_STREAMS = 48
# A stream holds one batch: as it was read, as text, as a chunk of HTTP and as what is being sent,
# none of them larger than twice its data. The rest is what the ledger's own work takes.
BATCH_COPIES = 4
NOISE_BYTES = 32 * 1024 * 1024
GROWN_BYTES_MAX = NOISE_BYTES + SLOW_STREAMS * BATCH_EVENTS_MAX * BATCH_COPIES * 2 * SLOW_BYTES
assert GROWN_BYTES_MAX < SLOW_STREAMS * SLOW_EVENTS * SLOW_BYTES / 2, "else it proves nothing"


def send_and_leave(network: LocalNetwork, name: str, body: bytes) -> None:
    """Send a transaction and go away without the answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as own:
        own.connect(str(network.node(name).socket))
        own.sendall(post_request("/v1/transactions?wait=committed&timeout_ms=4000", body))


def ask_until_told(network: LocalNetwork, names: Sequence[str], data: bytes) -> dict[str, Any]:
    """Send a transaction to one node after the other until it is acknowledged."""
    found: list[dict[str, Any]] = []
    turn = iter(range(10_000))

    def is_told() -> bool:
        name = names[next(turn) % len(names)]
        try:
            answer = submit(network, name, data, "committed", timeout_ms=4_000)
        except (ApiProblem, Unreachable):
            return False
        found.append(answer)
        return bool(answer["status"] == "committed")

    wait_until(is_told, "an acknowledgement", deadline_s=60)
    return found[-1]


def place(answer: dict[str, Any]) -> tuple[int, int]:
    return answer["height"], answer["leaf_index"]


@pytest.mark.scenario("C10", "E4", tier="P")
def test_answers_are_lost_and_clients_ask_again(tmp_path: Path) -> None:
    """Each client leaves before its answer; it, or another one, asks and sends again elsewhere."""
    choice = random.Random(10)
    with running_network(tmp_path) as network:
        author = Author(network)
        names = [node.name for node in network.nodes]
        told = []
        for number in range(LOST_ANSWERS):
            carried = author.sign()
            send_and_leave(network, choice.choice(names), carried.data)
            id_ = carried.id.hex()
            status = None
            if number % 2:
                # The truth about it: on its way, or unknown where it did not arrive, or there.
                status = ask(network, choice.choice(names), f"/v1/transactions/{id_}")
                assert status is None or status["status"] in ("unknown", "pending", "committed")
            answer = ask_until_told(network, [choice.choice(names)], carried.data)
            if status is not None and status["status"] == "committed":
                assert place(status) == place(answer)
            told.append(
                Acknowledgement(id_, *place(answer), at_s=time.monotonic(), node="another one")
            )
        ledger = verify(network, told)
        assert ledger["tree_size"] == LOST_ANSWERS, "something stands there twice"


@pytest.mark.long
@pytest.mark.scenario("C10", "E4", tier="P")
def test_answers_between_nodes_are_lost(tmp_path: Path) -> None:
    """The leader takes and orders what a follower forwards; the follower hears nothing of it."""
    with running_relayed(tmp_path) as (network, wires):
        author = Author(network)
        leader = wait_leader(network)
        follower, other = others(network, leader)
        told = []
        for _ in range(10):
            carried = author.sign()
            wires.hold([(leader, follower), (other, follower)])
            answer = submit(network, follower, carried.data, "committed", timeout_ms=700)
            assert answer["status"] in ("pending", "committed")
            again = ask_until_told(network, [leader, other], carried.data)
            wires.release([(leader, follower), (other, follower)])
            at_home = ask_until_told(network, [follower], carried.data)
            assert place(at_home) == place(again)
            told.append(
                Acknowledgement(again["id"], *place(again), at_s=time.monotonic(), node=leader)
            )
        assert sum(wires.held_bytes.values()) > 0
        ledger = verify(network, told)
        assert ledger["tree_size"] == len(told)


@pytest.mark.long
@pytest.mark.scenario("E4", tier="P")
def test_a_node_dies_between_sending_and_the_answer(tmp_path: Path) -> None:
    """Whatever the others say of it afterwards is true, and asking again is harmless."""
    choice = random.Random(4)
    with running_network(tmp_path) as network:
        author = Author(network)
        names = [node.name for node in network.nodes]
        told = []
        for _ in range(8):
            carried = author.sign()
            name = choice.choice(names)
            send_and_leave(network, name, carried.data)
            threading.Event().wait(choice.uniform(0, 0.03))
            network.kill(name)
            rest = others(network, name)
            wait_leader(network, rest)
            status = ask(network, rest[0], f"/v1/transactions/{carried.id.hex()}")
            answer = ask_until_told(network, rest, carried.data)
            if status is not None and status["status"] == "committed":
                assert place(status) == place(answer)
            told.append(
                Acknowledgement(answer["id"], *place(answer), at_s=time.monotonic(), node=rest[0])
            )
            network.restart(name)
        ledger = verify(network, told)
        assert ledger["tree_size"] == len(told)


@pytest.mark.long
@pytest.mark.scenario("E1", tier="P")
def test_a_hundred_times_at_once(tmp_path: Path) -> None:
    """One transaction, a hundred times in parallel to all nodes: one place, one answer.

    The nodes gossip and forward it to each other meanwhile.
    """
    with running_network(tmp_path) as network:
        author = Author(network)
        names = [node.name for node in network.nodes]
        carried = author.sign()
        with ThreadPoolExecutor(32) as pool:
            answers = list(
                pool.map(
                    lambda number: ask_until_told(
                        network, [names[number % len(names)]], carried.data
                    ),
                    range(PARALLEL),
                )
            )
        assert {answer["id"] for answer in answers} == {carried.id.hex()}
        assert len({place(answer) for answer in answers}) == 1
        assert wait_equal(network)["tree_size"] == 1


@pytest.mark.scenario("E1", tier="P")
def test_one_event_in_many_transactions(tmp_path: Path) -> None:
    """One event, signed anew for each of many clients: it is in the views once."""
    with running_network(tmp_path) as network:
        author = Author(network)
        names = [node.name for node in network.nodes]
        bodies = [author.sign("the-one-event").data for _ in range(24)]
        with ThreadPoolExecutor(12) as pool:
            answers = list(
                pool.map(
                    lambda item: submit(network, names[item[0] % 3], item[1], "committed"),
                    enumerate(bodies),
                )
            )
        statuses = [answer["status"] for answer in answers]
        assert statuses.count("committed") == 1, statuses
        assert statuses.count("duplicate") == len(bodies) - 1
        wait_equal(network)
        for name in names:
            page = ask_patiently(network, name, "/v1/events")
            assert [event["id"] for event in page["events"]] == ["the-one-event"]


@pytest.mark.long
@pytest.mark.scenario("E2", tier="P")
def test_sent_again_after_restarts_and_leaders(tmp_path: Path) -> None:
    """The same transactions, after a change of leader, a kill of all, and rebuilt views."""
    with running_network(tmp_path) as network:
        author = Author(network)
        names = [node.name for node in network.nodes]
        items = [author.sign() for _ in range(30)]
        first = {item.id: ask_until_told(network, names, item.data) for item in items}
        for turn in range(3):
            if turn == 0:
                leader = wait_leader(network)
                network.kill(leader)
                network.restart(leader)
            else:
                for name in names:
                    network.kill(name)
                if turn == 2:
                    for file in network.nodes[0].config.node.data_dir.glob("views.db*"):
                        file.unlink()
                network.start()
                network.wait_ready()
            for item in items:
                for name in names:
                    again = ask_until_told(network, [name], item.data)
                    assert place(again) == place(first[item.id])
        assert wait_equal(network)["tree_size"] == len(items)


@pytest.mark.long
@pytest.mark.scenario("B4", tier="P")
def test_a_follower_sleeps_in_the_middle_of_a_read(tmp_path: Path) -> None:
    """A read that it has forwarded, and reads that lie in its socket: fresh, or refused."""
    with running_network(tmp_path) as network, Load(network) as load:
        load.wait_more(20)
        answered = 0
        for _ in range(READ_PAUSES):
            leader = wait_leader(network)
            sleeper, awake = others(network, leader)
            load.targets = [leader, awake]
            load.wait_more(5)
            before = load.since(0)[-5:]
            under_way = [read(network, sleeper, told) for told in before]
            freeze(network, sleeper)
            begin_s = time.monotonic()
            load.wait_more(20)
            newest = load.since(begin_s)[-5:]
            queued = [read(network, sleeper, told) for told in newest]
            thaw(network, sleeper)
            for told, request in [
                *zip(before, under_way, strict=True),
                *zip(newest, queued, strict=True),
            ]:
                answered += check_fresh(told, *request.answer())
        load.targets = [node.name for node in network.nodes]
        load.wait_more(20)
        load.stop()
        print(f"{answered} of {10 * READ_PAUSES} reads answered, the others refused, none stale")
        assert answered > 0
        verify(network, load.acknowledged.values())


def read(network: LocalNetwork, name: str, told: Acknowledgement) -> QueuedRequest:
    return QueuedRequest(network, name, get_request(f"/v1/transactions/{told.id}"))


@pytest.mark.long
@pytest.mark.scenario("E5", tier="P")
def test_reads_at_followers_while_leaders_change(tmp_path: Path) -> None:
    """Linearizable reads anywhere see what was acknowledged; a node's own state never goes back."""
    choice = random.Random(5)
    with running_network(tmp_path) as network, Load(network) as load:
        load.wait_more(20)
        answered = refused = 0
        heights = dict.fromkeys((node.name for node in network.nodes), 0)
        for turn in range(150):
            told = load.since(0)[-1]
            name = choice.choice(list(heights))
            with network.client(name) as client:
                own = client.get("/v1/blocks/latest")
                assert own.height >= heights[name], f"{name} went back"
                heights[name] = own.height
                try:
                    document = client.get_json(f"/v1/transactions/{told.id}")
                except ApiProblem as problem:
                    assert problem.status == 503, problem.members  # noqa: PT017 - refused is right
                    refused += 1
                    continue
            found = (document["status"], *place(document))
            assert found == ("committed", told.height, told.leaf_index), f"stale at {name}"
            answered += 1
            if turn % 50 == 25:
                leader = wait_leader(network)
                with network.client(leader) as client:
                    client.post("/v1/admin/transfer")
        load.stop()
        print(f"{answered} reads answered, {refused} refused; {load.count} acknowledged")
        assert answered > 50
        verify(network, load.acknowledged.values())


class Stream:
    """A raw connection to a node's stream, read as slowly as the test likes."""

    def __init__(self, network: LocalNetwork, name: str, after: str = "") -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(60)
        self._socket.connect(str(network.node(name).socket))
        resume = f"Last-Event-ID: {after}\r\n" if after else ""
        head = f"GET /v1/stream?from=1 HTTP/1.1\r\nHost: node\r\n{resume}\r\n"
        self._socket.sendall(head.encode())

    def read_to_the_end(self) -> list[str]:
        """What still comes before the node cuts the connection off: whole events' cursors."""
        text = b""
        with self._socket:
            while chunk := self._receive():
                text += chunk
        return cursors(text)

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(65_536)
        except ConnectionResetError:
            return b""


def cursors(text: bytes) -> list[str]:
    """The cursors of the complete events in what a stream sent; heads of chunks lie between."""
    found = []
    for part in text.split(b"\n\n")[:-1]:
        lines = part.splitlines()
        data = [line for line in lines if line.startswith(b"data:")]
        if data:
            found.append(json.loads(data[0][5:])["p2pcitycursor"])
    return found


@pytest.mark.long
@pytest.mark.scenario("E6", tier="P")
def test_a_stream_that_nobody_reads_is_cut_off_and_resumed(tmp_path: Path) -> None:
    """Many cost the node a batch each, end by themselves, and resume without a gap."""
    with running_network(tmp_path) as network:
        author = Author(network)
        name = network.nodes[0].name
        streams = [Stream(network, name) for _ in range(SLOW_STREAMS)]
        with network.client(name, 60) as client:
            before = client.get_json("/v1/status")["process"]["rss_bytes"]
            for _ in range(SLOW_EVENTS // 50):
                carried = author.sign(events=50, data="y" * SLOW_BYTES)
                client.post("/v1/transactions", carried.data, CBOR, {"wait": "committed"})
            grown = client.get_json("/v1/status")["process"]["rss_bytes"] - before
        # The socket's buffers are full by now, and the node waits; after 30 s it cuts off.
        threading.Event().wait(35)
        read = [stream.read_to_the_end() for stream in streams]
        assert max(len(got) for got in read) < SLOW_EVENTS
        got = read[0]
        wait_equal(network)
        expected = []
        cursor = None
        while True:
            params = {"limit": 1000, **({"cursor": cursor} if cursor else {})}
            page = ask(network, name, "/v1/events", **params)
            expected += [event["p2pcitycursor"] for event in page["events"]]
            cursor = page["next"]
            if cursor is None:
                break
        assert len(expected) == SLOW_EVENTS
        rest: list[str] = []
        with network.client(network.nodes[1].name, 30) as client:
            for event in client.stream({"from": 1}, last_event_id=got[-1] if got else None):
                rest.append(event.cursor)
                if len(got) + len(rest) == SLOW_EVENTS:
                    break
        assert [*got, *rest] == expected
        print(f"{len(got)} events before it was cut off, {grown / 2**20:.1f} MiB more")
        assert grown < GROWN_BYTES_MAX
