"""The bench's clients: what they send, and that a late answer is not hidden by a late question."""

import json
import threading
import time
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from p2pcity.api.sequence import split
from p2pcity.cli.bench.bodies import EVENT_BYTES, make_bodies
from p2pcity.cli.bench.command import bench
from p2pcity.cli.bench.job import Job
from p2pcity.cli.bench.load import Load
from p2pcity.cli.key_files import write_key
from p2pcity.crypto.keys import PrivateKey
from p2pcity.wire import transaction

NETWORK = bytes(range(32))


@pytest.fixture
def job(tmp_path: Path) -> Job:
    write_key(tmp_path / "author.key", PrivateKey.from_seed(bytes(32)))
    return Job(
        target="p2pcity",
        run="r",
        client=1,
        clients=2,
        addresses=("/nowhere",),
        connections=2,
        requests=3,
        transactions_per_request=4,
        events_per_transaction=5,
        duration_s=1.0,
        network=NETWORK.hex(),
        key_file=str(tmp_path / "author.key"),
    )


def test_bodies_are_signed_transactions_of_events_of_one_size(job: Job) -> None:
    bodies = make_bodies(job)
    assert len(bodies) == 3
    carried = [transaction.examine(item, NETWORK) for body in bodies for item in split(body)]
    assert len(carried) == 12
    events = [data for item in carried for data in item.events]
    assert {len(data) for data in events} == {EVENT_BYTES}
    names = [event.id for item in carried for event in item.decoded_events() if event is not None]
    assert len(set(names)) == 60


def test_etcd_gets_values_of_the_same_size(job: Job) -> None:
    many = make_bodies(replace(job, target="etcd"))
    puts = [put["requestPut"] for body in many for put in json.loads(body)["success"]]
    one = make_bodies(replace(job, target="etcd", events_per_transaction=1))
    puts += [json.loads(body) for body in one]
    assert {len(b64decode(put["value"])) for put in puts} == {EVENT_BYTES}
    assert len({put["key"] for put in puts[:15]}) == 15


class _Node(BaseHTTPRequestHandler):
    """Answers as told in `server.answers`; the first POST is held until `server.gate` opens."""

    protocol_version = "HTTP/1.1"
    server: Any

    def do_GET(self) -> None:
        self._answer(200, {})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.gate.wait(self.server.hold_s)
        self.server.gate.set()
        self._answer(*self.server.answers)

    def _answer(self, status: int, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def node() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Node)
    server.gate = threading.Event()
    server.hold_s = 0.0
    server.answers = (200, {"status": "committed"})
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def address(node: Any) -> str:
    return f"http://127.0.0.1:{node.server_address[1]}"


def on_schedule(job: Job, node: Any) -> Job:
    return replace(
        job,
        client=0,
        clients=1,
        addresses=(address(node),),
        connections=1,
        transactions_per_request=1,
        events_per_transaction=1,
        rate=50.0,
        duration_s=10.0,
    )


def test_latency_counts_from_the_scheduled_time(job: Job, node: Any) -> None:
    node.hold_s = 0.4
    start_s = time.monotonic()
    result = Load(on_schedule(job, node), [b"x"] * 10).run(start_s)
    assert result.taken == 10
    # The first answer came 0.4 s late, and the connection was busy: the nine behind it, one
    # every 20 ms, are late by what is left, though the node answered them at once.
    for turn, latency_ms in enumerate(result.latencies_ms):
        assert latency_ms >= 400 - 20 * turn - 1


def test_nothing_is_sent_after_the_end(job: Job, node: Any) -> None:
    short = replace(on_schedule(job, node), duration_s=0.1)
    result = Load(short, [b"x"] * 1_000).run(time.monotonic())
    assert result.taken == 5


def test_a_sequence_counts_each_answer(job: Job, node: Any) -> None:
    statuses = ["committed", "pending", "rejected", "duplicate"]
    node.answers = (202, {"answers": [{"status": status} for status in statuses]})
    closed = replace(job, addresses=(address(node),), connections=1)
    result = Load(closed, [b"x"] * 3).run(time.monotonic())
    assert (result.taken, result.refused, result.unanswered) == (9, 3, 0)
    assert len(result.latencies_ms) == 3


def test_a_full_node_is_asked_again_until_the_end(job: Job, node: Any) -> None:
    node.answers = (429, {"reason": "queue-full"})
    closed = replace(job, addresses=(address(node),), connections=1, duration_s=1.0)
    result = Load(closed, [b"x"] * 3).run(time.monotonic())
    assert result.taken == 0
    assert result.refused >= 4
    assert set(result.reasons) == {"queue-full"}


def test_an_unreachable_node_leaves_requests_unanswered(job: Job, tmp_path: Path) -> None:
    closed = replace(job, addresses=(str(tmp_path / "no.sock"),), duration_s=60.0)
    result = Load(closed, [b"x"] * 3).run(time.monotonic())
    assert (result.taken, result.refused, result.unanswered) == (0, 0, 12)


@pytest.mark.parametrize("text", ["0s", "soon", "-1s", "11m", "1h", ""])
def test_what_is_no_length_of_time_is_a_usage_error(text: str) -> None:
    answer = CliRunner().invoke(bench, ["--for", text])
    assert answer.exit_code == 2
    assert "no length of time" in answer.output
