"""The HTTP surface over real sockets, with a service in memory behind it."""

import http.client
import json
import socket
import ssl
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pcity.api.config import ApiConfig
from p2pcity.api.service import Answer, Health
from p2pcity.errors import ConfigError, MempoolFull, NotLeader, Pruned, Unavailable
from tests.api_server import READ_TOKEN, TOKEN, RunningServer, running_server
from tests.memory_service import MemoryService, make_transaction

pytestmark = pytest.mark.integration

EVENT = {"specversion": "1.0", "id": "1", "source": "/s", "type": "city.test", "data": 1}
CLOUDEVENT = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with running_server(tmp_path) as running:
        yield running


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[RunningServer]:
    """A server that waits for nobody: a busy machine may be too slow for it at any time."""
    with running_server(tmp_path, body_timeout_s=0.3, header_timeout_s=0.5) as running:
        yield running


def call(
    server: RunningServer,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    token: str | None = TOKEN,
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    sent = dict(headers or {})
    if token:
        sent["Authorization"] = f"Bearer {token}"
    connection.request(method, path, body, sent)
    answer = connection.getresponse()
    found = answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    connection.close()
    return found


def post_event(server: RunningServer, event: object, query: str = "") -> tuple[int, dict]:
    status, _, body = call(
        server,
        "POST",
        f"/v1/events{query}",
        json.dumps(event).encode(),
        {"Content-Type": BATCH if isinstance(event, list) else CLOUDEVENT},
    )
    return status, json.loads(body)


def test_a_transaction_is_committed_and_found(server: RunningServer) -> None:
    made = make_transaction(server.service, 1, events=3)
    cbor = {"Content-Type": "application/cbor"}
    path = "/v1/transactions?wait=committed&timeout_ms=1000"
    first = call(server, "POST", path, made.data, cbor)
    again = call(server, "POST", path, made.data, cbor)
    assert first[0] == again[0] == 200
    assert json.loads(first[2]) == json.loads(again[2])
    assert json.loads(first[2])["id"] == made.id.hex()
    status, headers, body = call(server, "GET", f"/v1/transactions/{made.id.hex()}")
    assert status == 200
    assert json.loads(body)["status"] == "committed"
    assert json.loads(body)["count"] == 3
    assert headers["p2pcity-height"] == "1"
    assert headers["p2pcity-head"] == server.service.head().hash.hex()
    raw = call(
        server,
        "GET",
        f"/v1/transactions/{made.id.hex().upper()}?consistency=local",
        headers={"Accept": "application/cbor"},
    )
    assert raw[2] == made.data
    assert server.service.reads == [True, False]
    block = json.loads(call(server, "GET", "/v1/blocks/latest")[2])
    assert block["transactions"][0]["id"] == made.id.hex()
    raw_block = call(server, "GET", "/v1/blocks/1", headers={"Accept": "application/cbor"})
    assert raw_block[2] == server.service.blocks[0].data


def test_a_sequence_gets_an_answer_each(server: RunningServer) -> None:
    good = [make_transaction(server.service, number).data for number in range(300)]
    broken = good[0][:-1] + bytes([good[0][-1] ^ 1])
    status, _, body = call(
        server,
        "POST",
        "/v1/transactions",
        b"".join([*good, broken]),
        {"Content-Type": "application/cbor-seq"},
    )
    answers = json.loads(body)["answers"]
    assert status == 202
    assert [item["status"] for item in answers] == ["committed"] * 300 + ["rejected"]
    assert answers[300]["reason"] in ("root", "malformed")


def test_what_waits_is_202_until_it_is_committed(server: RunningServer) -> None:
    server.service.is_paused = True
    made = make_transaction(server.service, 1)
    cbor = {"Content-Type": "application/cbor"}
    assert call(server, "POST", "/v1/transactions", made.data, cbor)[0] == 202
    server.call(server.service.commit)
    assert call(server, "POST", "/v1/transactions", made.data, cbor)[0] == 200


def test_events_are_signed_by_the_node_once(server: RunningServer) -> None:
    status, first = post_event(server, EVENT, "?wait=committed")
    assert status == 200
    assert (first["status"], first["event"]) == ("committed", 0)
    assert post_event(server, {**EVENT, "data": 2})[1]["id"] == first["id"]
    status, many = post_event(server, [{**EVENT, "id": str(number)} for number in range(600)])
    assert status == 200
    assert many["answers"][1]["id"] == first["id"]
    assert len({item["id"] for item in many["answers"]}) == 4
    binary = {"ce-specversion": "1.0", "ce-id": "b", "ce-source": "/s", "ce-type": "t"}
    headers = {**binary, "Content-Type": "text/plain"}
    assert call(server, "POST", "/v1/events", b"hello", headers)[0] == 200
    found = json.loads(call(server, "GET", "/v1/events?type=t")[2])
    assert found["events"][0]["data"] == "hello"
    assert found["events"][0]["p2pcityauthor"] == server.service.key.public.hex()


def test_pages_and_lines(server: RunningServer) -> None:
    post_event(server, [{**EVENT, "id": str(number)} for number in range(25)])
    seen: list[str] = []
    cursor = ""
    while True:
        page = json.loads(call(server, "GET", f"/v1/events?limit=10{cursor}")[2])
        seen += [item["id"] for item in page["events"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert seen == [str(number) for number in range(25)]
    status, headers, body = call(
        server, "GET", "/v1/events?limit=20", headers={"Accept": "application/x-ndjson"}
    )
    assert status == 200
    assert [json.loads(line)["id"] for line in body.splitlines()] == seen[:20]
    assert headers["p2pcity-next"] == "1.0.19"


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "reason"),
    [
        ("GET", "/v1/nothing", None, {}, 404, "not-found"),
        ("GET", "/v1/status/", None, {}, 404, "not-found"),
        ("GET", "/v1/transactions/%00", None, {}, 400, "bad-parameter"),
        ("GET", "/v1/transactions/../../etc", None, {}, 404, "not-found"),
        ("GET", "/v1/blocks/-1", None, {}, 400, "bad-parameter"),
        ("GET", "/v1/blocks/99", None, {}, 404, "unknown-block"),
        ("GET", f"/v1/transactions/{'0' * 63}%F0", None, {}, 400, "bad-parameter"),
        ("GET", "/v1/events?limit=x", None, {}, 400, "bad-parameter"),
        ("GET", "/v1/events?type='%20OR%201=1&x=1", None, {}, 400, "bad-parameter"),
        ("GET", "/v1/events", None, {"Accept": "image/png"}, 406, "not-acceptable"),
        ("GET", "/v1/stream?from=x", None, {}, 400, "bad-parameter"),
        ("GET", "/v1/stream", None, {"Last-Event-ID": "x"}, 400, "bad-parameter"),
        ("DELETE", "/v1/events", None, {}, 405, "method-not-allowed"),
        ("PUT", "/livez", b"x" * 100, {}, 405, "method-not-allowed"),
        ("POST", "/v1/admin/transfer", None, {}, 403, "local-only"),
        ("POST", "/v1/events", b"{}", {}, 415, "unsupported-media-type"),
        ("POST", "/v1/events", b"{}", {"Content-Type": "text/html"}, 415, "unsupported-media-type"),
        ("POST", "/v1/events", b"{}", {"Content-Type": CLOUDEVENT}, 400, "malformed"),
        ("POST", "/v1/transactions", b"", {"Content-Type": "application/cbor"}, 400, "malformed"),
        (
            "POST",
            "/v1/transactions",
            b"x" * 70_000,
            {"Content-Type": "application/cbor"},
            413,
            "size",
        ),
    ],
)
def test_errors_are_problem_documents(
    server: RunningServer,
    method: str,
    path: str,
    body: bytes | None,
    headers: dict[str, str],
    status: int,
    reason: str,
) -> None:
    found, answer_headers, answer = call(server, method, path, body, headers)
    document = json.loads(answer)
    assert (found, document["status"], document["reason"]) == (status, status, reason)
    assert answer_headers["content-type"] == "application/problem+json"
    assert "p2pcity-height" in answer_headers
    assert document["remedy"]
    if status == 405:
        assert "GET" in answer_headers["allow"]
    if status == 415:
        assert "application/cloudevents+json" in answer_headers["accept"]


def test_overload_and_absence_say_when_to_come_again(server: RunningServer) -> None:
    for error, status, reason in (
        (MempoolFull("full", retry_after_ms=2500), 429, "queue-full"),
        (Unavailable("no leader"), 503, "unavailable"),
        (NotLeader("another leads"), 503, "not-leader"),
    ):
        server.service.error = error
        found, headers, body = call(server, "GET", "/v1/events")
        assert (found, json.loads(body)["reason"]) == (status, reason)
        assert int(headers["retry-after"]) >= 1
    server.service.error = None
    server.service.forced = Answer(None, "ignore", "rejected", "queue-full")
    found, headers, _ = call(
        server, "POST", "/v1/transactions", b"x", {"Content-Type": "application/cbor"}
    )
    assert (found, headers["retry-after"]) == (429, "1")


def test_what_was_pruned_is_gone_and_says_what_is_left(server: RunningServer) -> None:
    """Also for a stream: its answer begins only when there is no gap at its start."""
    server.service.error = Pruned("block 1 was pruned here", first_height=257)
    for path in ("/v1/blocks/1", "/v1/events?cursor=1.0.0", "/v1/stream?from=1"):
        status, _, body = call(server, "GET", path)
        document = json.loads(body)
        assert (status, document["reason"], document["first_height"]) == (410, "pruned", 257)
        assert "keep_blocks" in document["remedy"]
    server.service.error = None


def test_a_bug_is_a_500_and_the_next_request_works(server: RunningServer) -> None:
    server.service.error = RuntimeError("a bug")
    status, _, body = call(server, "GET", "/v1/events")
    assert (status, json.loads(body)["reason"]) == (500, "internal")
    server.service.error = None
    assert call(server, "GET", "/v1/events")[0] == 200


def test_health(server: RunningServer) -> None:
    assert call(server, "GET", "/readyz")[0] == call(server, "GET", "/livez")[0] == 200
    server.service.health = Health(False, ("no leader for 3 s",))
    for path in ("/readyz", "/livez"):
        status, headers, body = call(server, "GET", path, token=None)
        assert (status, json.loads(body)["reasons"]) == (503, ["no leader for 3 s"])
        assert headers["retry-after"] == "1"


def test_tokens_open_writes_and_the_rest_is_refused(server: RunningServer) -> None:
    headers = {"Content-Type": CLOUDEVENT}
    body = json.dumps(EVENT).encode()
    for token, status in ((None, 401), ("wrong-token-000000000", 401), (READ_TOKEN, 403)):
        found, sent, answer = call(server, "POST", "/v1/events", body, headers, token)
        assert found == status
        assert json.loads(answer)["reason"] in ("no-token", "bad-token", "read-token")
        if status == 401:
            assert sent["www-authenticate"] == "Bearer"
    assert call(server, "POST", "/v1/events", body, headers)[0] == 200
    assert call(server, "GET", "/v1/status", token=None)[0] == 200


def test_reads_by_token(tmp_path: Path) -> None:
    with running_server(tmp_path, is_read_by_token=True) as server:
        assert call(server, "GET", "/v1/status", token=None)[0] == 401
        assert call(server, "GET", "/v1/status", token=READ_TOKEN)[0] == 200
        assert call(server, "GET", "/livez", token=None)[0] == 200


def test_metrics_are_text_that_needs_the_right_to_read(tmp_path: Path) -> None:
    with running_server(tmp_path, is_read_by_token=True) as server:
        assert call(server, "GET", "/metrics", token=None)[0] == 401
        # What Prometheus 2 says that it takes.
        accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
        answer = call(server, "GET", "/metrics", None, {"Accept": accept}, READ_TOKEN)
    status, headers, body = answer
    assert (status, body) == (200, b"p2pcity_ledger_height 0\n")
    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


def test_answers_are_counted_by_route_whatever_clients_ask_for(server: RunningServer) -> None:
    for method, path in (
        ("GET", "/v1/blocks/1"),
        ("GET", "/v1/blocks/2"),
        ("HEAD", "/v1/status"),
        ("GET", "/v1/status?nonsense=1"),
        ("BREW", "/v1/status"),
        ("GET", "/v1/absent"),
        ("BREW", "/p2pcity"),
    ):
        call(server, method, path)
    assert server.statistics.requests == {
        ("GET", "/v1/blocks/{height}", 404): 2,
        ("HEAD", "/v1/status", 200): 1,
        ("GET", "/v1/status", 400): 1,
        ("other", "/v1/status", 405): 1,
        ("GET", "other", 404): 1,
        ("other", "other", 404): 1,
    }


def test_open_streams_are_counted(server: RunningServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(b"GET /v1/stream HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" in connection.recv(65536)
        assert server.statistics.streams_open == 1
    deadline_s = time.monotonic() + 60
    while server.statistics.streams_open:
        assert time.monotonic() < deadline_s, "a stream whose client left stays open"
        time.sleep(0.01)


def raw(server: RunningServer, data: bytes, timeout_s: float = 60) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=timeout_s) as connection:
        connection.sendall(data)
        parts: list[bytes] = []
        while part := connection.recv(65536):
            parts.append(part)
        return b"".join(parts)


POST = b"POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n" % TOKEN.encode()
POST += b"Content-Type: application/cloudevents+json\r\n"


def test_slow_bodies_are_cut_off(hasty: RunningServer) -> None:
    slow = raw(hasty, POST + b"Content-Length: 10\r\n\r\n{")
    assert slow.startswith(b"HTTP/1.1 408")
    assert b'"slow-body"' in slow


def test_endless_bodies_are_cut_off(server: RunningServer) -> None:
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    endless = raw(server, POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 8)
    assert endless.startswith(b"HTTP/1.1 413")
    declared = raw(server, POST + b"Content-Length: 99999999999\r\n\r\n{")
    assert declared.startswith(b"HTTP/1.1 413")


def test_slow_headers_are_cut_off(hasty: RunningServer) -> None:
    assert raw(hasty, b"GET /livez HTTP/1.1\r\nHost: x\r\nX: ") == b""


def test_huge_headers_are_cut_off(server: RunningServer) -> None:
    bomb = raw(server, b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 5000)
    assert bomb.startswith(b"HTTP/1.1 431")


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200) + b"\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
    ],
)
def test_what_is_no_http_gets_an_error_and_nothing_else(hasty: RunningServer, data: bytes) -> None:
    answer = raw(hasty, data)
    assert answer[:10] in (b"HTTP/1.1 4", b"HTTP/1.1 5", b"")
    assert answer.count(b"HTTP/1.1") <= 1
    assert call(hasty, "GET", "/livez")[0] == 200


def test_pipelined_requests_are_answered_in_order(server: RunningServer) -> None:
    first = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = raw(server, first + last)
    assert answer.index(b" 200 ") < answer.index(b" 404 ")


def test_websockets_are_turned_away(server: RunningServer) -> None:
    answer = raw(
        server,
        b"GET /v1/stream HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )
    assert answer.startswith(b"HTTP/1.1 403")


def test_the_unix_socket_has_full_rights_and_goes_away(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        path = tmp_path / "api.sock"
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            connection.sendall(
                b"POST /v1/admin/transfer?to=12D3 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            )
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        assert server.service.transfers == ["12D3"]
        second = RunningServer(ApiConfig(unix_socket=path), MemoryService())
        with pytest.raises(ConfigError, match="another process answers"):
            second.start()
    assert not path.exists()


def test_a_dead_process_s_socket_is_replaced_and_a_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    with running_server(tmp_path) as server:
        assert call(server, "GET", "/livez")[0] == 200
    path.write_text("not a socket")
    with pytest.raises(ConfigError, match="no socket"):
        RunningServer(ApiConfig(unix_socket=path), MemoryService()).start()
    assert path.read_text() == "not a socket"


def test_configuration_that_cannot_be(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for config, words in (
            (ApiConfig(bind=f"127.0.0.1:{port}"), "cannot listen"),
            (ApiConfig(bind="nonsense"), "http.bind"),
            (ApiConfig(unix_socket=tmp_path / "absent" / "x"), "cannot listen"),
            (ApiConfig(unix_socket=tmp_path / ("x" * 120)), "cannot listen"),
            (ApiConfig(bind="127.0.0.1:0", tls_key=tmp_path / "k"), "both files"),
            (ApiConfig(bind="127.0.0.1:0", is_read_by_token=True), "token"),
            (ApiConfig(), "nothing to listen"),
        ):
            with pytest.raises(ConfigError, match=words) as caught:
                RunningServer(config, MemoryService()).start()
            assert caught.value.remedy


def test_tls_by_files(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        [*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True
    )
    with running_server(tmp_path, tls_key=key, tls_certificate=certificate) as server:
        assert server.url.startswith("https://")
        context = ssl.create_default_context(cafile=certificate)
        connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=context)
        connection.request("GET", "/livez")
        assert connection.getresponse().status == 200
        connection.close()


def test_shutdown_takes_less_than_two_seconds_whoever_hangs_on(tmp_path: Path) -> None:
    with running_server(tmp_path, grace_s=0.5) as server:
        idle = socket.create_connection(("127.0.0.1", server.port))
        half = socket.create_connection(("127.0.0.1", server.port))
        half.sendall(POST + b"Content-Length: 10\r\n\r\n{")
        # A Unix socket has small buffers: this one is full long before the stream's end.
        deaf = socket.socket(socket.AF_UNIX)
        deaf.connect(server.unix)
        events = [{**EVENT, "id": str(n), "data": "x" * 100} for n in range(4000)]
        assert post_event(server, events)[0] == 200
        deaf.sendall(b"GET /v1/stream?from=0 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert deaf.recv(100).startswith(b"HTTP/1.1 200")
        server.stop()
        for connection in (idle, half, deaf):
            connection.close()


def test_connections_beyond_the_bound_wait(tmp_path: Path) -> None:
    with running_server(tmp_path, connections_max=2, header_timeout_s=0.5) as server:
        hogs = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(6)]
        assert call(server, "GET", "/livez")[0] == 200
        for hog in hogs:
            hog.close()


def test_500_slow_connections_do_not_stop_the_others(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        hogs = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(500)]
        for hog in hogs:
            hog.sendall(b"GET /livez HTTP/1.1\r\nX: ")
        for _ in range(20):
            assert call(server, "GET", "/livez")[0] == 200
        for hog in hogs:
            hog.close()
