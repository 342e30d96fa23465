"""Spans of real nodes at a real OTLP/HTTP receiver; a collector that is away; the extra missing."""

import socket
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from p2pcity.api.client import ApiProblem, Params
from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.cli.testnet.making import change_settings
from tests.integration.process_case import (
    AUTHOR,
    CBOR,
    Author,
    kept_running,
    log_lines,
    wait_leader,
    wait_until,
)
from tests.metrics_case import value
from tests.otlp_receiver import Receiver, receiving

pytestmark = pytest.mark.integration

CLIENT_SPAN: Final = "00f067aa0ba902b7"
LEADER: Final = ["submit", "admitted", "proposed", "committed", "applied", "answered"]
FOLLOWER: Final = [name for name in LEADER if name != "proposed"]


def make(directory: Path, url: str) -> LocalNetwork:
    """One orderer and one observer that send their spans to `url`."""
    network = LocalNetwork.create(directory, nodes=2, orderers=1, authors=(AUTHOR,))
    for node in network.nodes:
        change_settings(node.config_file, {"telemetry.otlp_endpoint": url})
    return LocalNetwork(directory)


def traceparent(number: int, flags: str = "01") -> tuple[str, str]:
    """A trace id of its own, and the header that names it."""
    trace = f"{number:032x}"
    return trace, f"00-{trace}-{CLIENT_SPAN}-{flags}"


def submit(network: LocalNetwork, name: str, data: bytes, header: str, wait: str) -> Any:
    headers = {"Content-Type": CBOR, "traceparent": header}
    with network.client(name) as client:
        params: Params = {"wait": wait, "timeout_ms": 20_000}
        reply = client.request("POST", "/v1/transactions", params, body=data, headers=headers)
        return reply.json()


def attributes(span: Span) -> dict[str, Any]:
    return {
        item.key: getattr(item.value, str(item.value.WhichOneof("value")))
        for item in span.attributes
    }


def check(spans: list[Span]) -> Span:
    """The request's own span below the client's, all others below it and one after the other."""
    [root] = [span for span in spans if span.parent_span_id.hex() == CLIENT_SPAN]
    children = [span for span in spans if span is not root]
    assert {span.parent_span_id for span in children} == {root.span_id}
    assert root.kind == Span.SPAN_KIND_SERVER
    assert children[0].start_time_unix_nano == root.start_time_unix_nano
    for early, late in pairwise(children):
        assert early.end_time_unix_nano <= late.end_time_unix_nano
        assert late.start_time_unix_nano <= late.end_time_unix_nano
    return root


def test_spans_of_submits_and_queries(tmp_path: Path) -> None:
    with receiving() as receiver:
        network = make(tmp_path / "net", receiver.url)
        with kept_running(network):
            leader = wait_leader(network)
            [observer] = [node.name for node in network.nodes if node.name != leader]
            author = Author(network)
            _submits(network, receiver, author, leader, LEADER)
            _submits(network, receiver, author, observer, FOLLOWER)
            _follows_what_was_answered_early(network, receiver, author, observer)
            _queries(network, receiver, leader)
            _refusals(network, receiver, leader)
            with network.client(leader) as client:
                text = client.get("/metrics").body.decode()
            assert value(text, "p2pcity_telemetry_spans_exported_total") >= len(LEADER)
            assert value(text, "p2pcity_telemetry_spans_dropped_total") == 0


def _submits(
    network: LocalNetwork, receiver: Receiver, author: Author, name: str, names: list[str]
) -> None:
    trace, header = traceparent(len(names))
    answer = submit(network, name, author.sign().data, header, "committed")
    root = check(receiver.wait(trace, names))
    assert root.name == "submit"
    assert attributes(root) == {
        "p2pcity.transactions": 1,
        "p2pcity.transaction": answer["id"],
        "p2pcity.answers.committed": 1,
    }
    assert {node for node, span in receiver.spans if span.trace_id.hex() == trace} == {name}


def _follows_what_was_answered_early(
    network: LocalNetwork, receiver: Receiver, author: Author, name: str
) -> None:
    trace, header = traceparent(100)
    answer = submit(network, name, author.sign().data, header, "accepted")
    spans = receiver.wait(trace, FOLLOWER)
    [root] = [span for span in spans if span.name == "submit"]
    assert f"p2pcity.answers.{answer['status']}" in attributes(root)
    assert all(span.parent_span_id == root.span_id for span in spans if span is not root)
    # The client says that this one is not to be recorded; the next one is heard without it.
    submit(network, name, author.sign().data, traceparent(101, "00")[1], "committed")
    trace, header = traceparent(102)
    submit(network, name, author.sign().data, header, "committed")
    receiver.wait(trace, FOLLOWER)
    receiver.wait(traceparent(101)[0], [])


def _queries(network: LocalNetwork, receiver: Receiver, name: str) -> None:
    trace, header = traceparent(200)
    with network.client(name) as client:
        client.request("GET", "/v1/events", {"limit": 1}, headers={"traceparent": header})
        local, not_heard = traceparent(201)
        client.request(
            "GET", "/v1/events", {"consistency": "local"}, headers={"traceparent": not_heard}
        )
    root = check(receiver.wait(trace, ["query", "confirmed", "answered"]))
    assert attributes(root) == {"p2pcity.query": "events"}
    receiver.wait(local, [])


def _refusals(network: LocalNetwork, receiver: Receiver, name: str) -> None:
    trace, header = traceparent(300)
    with pytest.raises(ApiProblem):
        submit(network, name, b"\x82\x00\x00", header, "committed")
    [answered, root] = sorted(receiver.wait(trace, ["submit", "answered"]), key=lambda s: s.name)
    assert answered.name == "answered"
    assert attributes(root) == {"p2pcity.transactions": 0, "p2pcity.answers.rejected": 1}
    assert root.status.code == Status.STATUS_CODE_UNSET


def test_a_collector_that_is_away_costs_a_counted_drop(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        # Bound and not listening: connections are refused, and nobody else takes the port.
        nobody.bind(("127.0.0.1", 0))
        network = make(tmp_path / "net", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        with kept_running(network, is_told_to_stop=True):
            leader = wait_leader(network)
            author = Author(network)

            def is_dropped() -> bool:
                answer = submit(network, leader, author.sign().data, "", "committed")
                assert answer["status"] == "committed"
                with network.client(leader) as client:
                    text = client.get("/metrics").body.decode()
                return value(text, "p2pcity_telemetry_spans_dropped_total") > 0

            wait_until(is_dropped, "spans are dropped and counted", poll_s=0.2)
        said = [line for line in log_lines(network, leader) if line["event"] == "spans_dropped"]
        assert len(said) == 1
        assert said[0]["level"] == "warning"


def test_a_start_without_the_extra_says_what_to_install(tmp_path: Path) -> None:
    network = make(tmp_path / "net", "http://127.0.0.1:4318")
    script = "import sys; sys.modules['opentelemetry'] = None; from p2pcity.cli.main import main"
    arguments = ["run", "--config", str(network.nodes[0].config_file)]
    done = subprocess.run(
        [sys.executable, "-c", f"{script}; main({arguments!r})"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 2, said
    assert "pip install 'p2pcity[otel]'" in said
    assert "Traceback" not in said
