"""The client against the real server: over the Unix socket, over TCP, and against nobody."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from p2pcity.api.client import ApiProblem, Client, StreamEvent, Unreachable
from p2pcity.errors import ConfigError
from tests.api_server import TOKEN, RunningServer, running_server
from tests.memory_service import make_transaction

pytestmark = pytest.mark.integration


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with running_server(tmp_path, keep_alive_interval_s=0.2) as running:
        yield running


def batch(first: int, count: int) -> bytes:
    return json.dumps(
        [
            {"specversion": "1.0", "id": str(n), "source": "/s", "type": f"t.{n % 2}"}
            for n in range(first, first + count)
        ]
    ).encode()


BATCH = "application/cloudevents-batch+json"
DEADLINE_S = 60.0


def test_both_ways_in_give_the_same(server: RunningServer) -> None:
    made = make_transaction(server.service, 1)
    with Client(server.unix) as local, Client(server.url, token=TOKEN) as remote:
        for client in (local, remote):
            answer = client.post(
                "/v1/transactions", made.data, "application/cbor", {"wait": "committed"}
            )
            assert answer["status"] == "committed"
        reply = local.get(f"/v1/transactions/{made.id.hex()}", accept="application/cbor")
        assert reply.body == made.data
        assert reply.height == 1
        assert reply.head == server.service.head().hash.hex()
        assert local.post("/v1/admin/transfer") == {"to": None}
        assert remote.get_json("/v1/events", {"limit": 1, "cursor": None})["next"] is None


def test_problems_are_typed(server: RunningServer) -> None:
    with Client(server.url) as client, pytest.raises(ApiProblem) as caught:
        client.post("/v1/events", batch(0, 1), BATCH)
    assert (caught.value.status, caught.value.reason) == (401, "no-token")
    assert "Bearer" in caught.value.remedy
    server.service.error = RuntimeError("a bug")
    with Client(server.unix) as client, pytest.raises(ApiProblem) as caught:
        client.get_json("/v1/status")
    assert caught.value.exit_code == 1


def test_nobody_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for address in (tmp_path / "absent.sock", f"http://127.0.0.1:{port}"):
        with Client(address) as client, pytest.raises(Unreachable) as caught:
            client.get_json("/v1/status")
        assert caught.value.exit_code == 4
        assert "p2pcity run" in caught.value.remedy


def test_addresses_that_cannot_be() -> None:
    for address in ("ftp://x", "http://", "http://h:x", "http://h/path"):
        with pytest.raises(ConfigError):
            Client(address)


def test_a_connection_that_the_node_closed_is_opened_anew(tmp_path: Path) -> None:
    with running_server(tmp_path, header_timeout_s=0.3) as server, Client(server.unix) as client:
        client.get_json("/v1/status")
        kept = client._connection
        assert kept is not None
        assert kept.sock is not None
        kept.sock.settimeout(DEADLINE_S)
        assert kept.sock.recv(1) == b""
        assert client.get_json("/v1/status")["height"] == 0


def test_the_stream_is_gap_free_and_resumes(server: RunningServer) -> None:
    with Client(server.unix) as client:
        client.post("/v1/events", batch(0, 150), BATCH)
        stream = client.stream({"from": 0})
        first = list(islice(stream, 100))
        assert [item.document["id"] for item in first] == [str(n) for n in range(100)]
        stream.close()
        resumed = client.stream(last_event_id=first[-1].cursor)
        rest = list(islice(resumed, 50))
        assert [item.document["id"] for item in rest] == [str(n) for n in range(100, 150)]
        client.post("/v1/events", batch(150, 1), BATCH)
        assert next(resumed).document["id"] == "150"
        resumed.close()


def test_the_stream_filters_and_moves_its_cursor(server: RunningServer) -> None:
    with Client(server.unix) as client:
        client.post("/v1/events", batch(0, 10), BATCH)
        odd = list(islice(client.stream({"from": 1, "type": "t.1"}), 5))
        assert [item.document["id"] for item in odd] == ["1", "3", "5", "7", "9"]


def test_the_stream_survives_a_restart_of_the_node(tmp_path: Path) -> None:
    found: list[StreamEvent] = []
    waits: list[float] = []
    with running_server(tmp_path, keep_alive_interval_s=0.1) as first:
        service = first.service
        with Client(first.unix) as client:
            client.post("/v1/events", batch(0, 3), BATCH)
        followed, restarted = threading.Event(), threading.Event()

        def follow() -> None:
            def wait(seconds: float) -> None:
                waits.append(seconds)
                restarted.wait(DEADLINE_S)

            for item in islice(Client(first.unix).stream({"from": 0}, wait=wait), 6):
                found.append(item)
                if len(found) == 3:
                    followed.set()

        follower = threading.Thread(target=follow, daemon=True)
        follower.start()
        # Begun later it would never have met the first one.
        assert followed.wait(DEADLINE_S)
        first.stop()
    second = RunningServer(first.config, service)
    second.start()
    restarted.set()
    with Client(second.unix) as client:
        client.post("/v1/events", batch(3, 3), BATCH)
    follower.join(DEADLINE_S)
    second.stop()
    assert [item.document["id"] for item in found] == [str(n) for n in range(6)]
    assert waits


def test_streams_beyond_the_bound_are_refused(tmp_path: Path) -> None:
    with running_server(tmp_path, streams_max=1) as server, Client(server.unix) as client:
        client.post("/v1/events", batch(0, 1), BATCH)
        open_stream = client.stream({"from": 0})
        next(open_stream)
        with pytest.raises(ApiProblem) as caught:
            next(client.stream({"from": 0}, reconnect_tries=0))
        assert caught.value.reason == "too-many-streams"
        assert caught.value.retry_after_s == 1
        open_stream.close()


def test_the_client_is_light() -> None:
    code = "import sys, p2pcity.api.client; print(sorted({'trio', 'starlette'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
