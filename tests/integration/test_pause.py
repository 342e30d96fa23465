"""SIGSTOP and SIGCONT: who slept catches up, and serves nothing that is stale."""

import http.client
import io
import json
import socket
import threading
import time
from pathlib import Path
from typing import Final

import pytest

from p2pcity.cli.testnet.local_network import LocalNetwork
from tests.integration.process_case import (
    CBOR,
    Acknowledgement,
    Author,
    Load,
    ask,
    freeze,
    others,
    running_network,
    thaw,
    verify,
    wait_leader,
    wait_until,
)

pytestmark = pytest.mark.integration

_READS: Final = 20
_ANSWER_S: Final = 20.0


def hold(pause_s: float) -> None:
    """Let the pause last: the fault is the time itself, and nothing ends it sooner."""
    threading.Event().wait(pause_s)


class QueuedRequest:
    """A request that lies in a stopped node's socket before the node wakes."""

    def __init__(self, network: LocalNetwork, name: str, request: bytes) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(_ANSWER_S)
        self._socket.connect(str(network.node(name).socket))
        self._socket.sendall(request)

    def answer(self) -> tuple[int, dict[str, object]]:
        """The status and the JSON of the answer."""
        with self._socket:
            response = http.client.HTTPResponse(self._socket)
            response.begin()
            return response.status, json.loads(response.read())


def get_request(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n".encode()


def post_request(path: str, body: bytes) -> bytes:
    head = io.BytesIO()
    head.write(f"POST {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n".encode())
    head.write(f"Content-Type: {CBOR}\r\nContent-Length: {len(body)}\r\n\r\n".encode())
    return head.getvalue() + body


def check_fresh(told: Acknowledgement, status: int, document: dict[str, object]) -> bool:
    """A linearizable read of what was acknowledged before it: found or refused.

    Returns whether it was answered.
    """
    if status == 503:
        return False
    assert status == 200, document
    found = (document["status"], document["height"], document["leaf_index"])
    assert found == ("committed", told.height, told.leaf_index), f"a stale read: {document}"
    return True


def check_follower_pause(tmp_path: Path, pause_s: float) -> tuple[float, float]:
    """Returns the rates of acknowledgements at the others: before and during the pause."""
    with running_network(tmp_path) as network:
        leader = wait_leader(network)
        follower, *_ = others(network, leader)
        with Load(network, targets=others(network, follower)) as load:
            load.wait_more(50)
            before_s = time.monotonic()
            hold(min(pause_s, 2.0))
            stopped_s = time.monotonic()
            freeze(network, follower)
            hold(pause_s)
            woken_s = time.monotonic()
            thaw(network, follower)
            head = load.since(0)[-1].height

            def is_caught_up() -> bool:
                found = ask(network, follower, "/v1/status")
                return found is not None and found["ledger"]["height"] >= head

            behind_s = wait_until(is_caught_up, f"{follower} catches up")
            load.wait_more(50)
        rates = load.rate(before_s, stopped_s), load.rate(stopped_s, woken_s)
        gap_s = load.longest_gap_s(stopped_s, woken_s)
        print(
            f"{pause_s:.0f} s pause of a follower: {rates[0]:.0f}/s before, {rates[1]:.0f}/s "
            f"meanwhile, longest gap {gap_s:.2f} s, caught up {behind_s:.2f} s after"
        )
        assert gap_s < pause_s, "the others waited for the one that slept"
        verify(network, load.acknowledged.values())
        return rates


@pytest.mark.long
def test_a_follower_sleeps_and_catches_up(tmp_path: Path) -> None:
    check_follower_pause(tmp_path, 6.0)


@pytest.mark.long
def test_a_follower_sleeps_for_30_s(tmp_path: Path) -> None:
    before, meanwhile = check_follower_pause(tmp_path, 30.0)
    # At full rate; half of it leaves room for whatever else the machine does.
    assert meanwhile > before / 2


def sleep_leader(network: LocalNetwork, load: Load, author: Author, pause_s: float) -> int:
    """Stop the leader for a while and queue requests at it; how many reads it answered."""
    leader = wait_leader(network)
    awake = others(network, leader)
    load.targets = awake
    load.wait_more(20)
    stopped_s = time.monotonic()
    freeze(network, leader)
    heir = wait_leader(network, awake)
    elected_s = time.monotonic() - stopped_s
    load.wait_more(_READS)
    hold(max(0.0, pause_s - (time.monotonic() - stopped_s)))
    newest = [told for told in load.since(stopped_s) if told.node in awake][-_READS:]
    writes = [author.sign() for _ in range(5)]
    requests = [
        QueuedRequest(network, leader, get_request(f"/v1/transactions/{told.id}"))
        for told in newest
    ]
    posts = [
        QueuedRequest(
            network,
            leader,
            post_request("/v1/transactions?wait=committed&timeout_ms=15000", carried.data),
        )
        for carried in writes
    ]
    thaw(network, leader)
    answered = sum(
        check_fresh(told, *request.answer()) for told, request in zip(newest, requests, strict=True)
    )
    for carried, post in zip(writes, posts, strict=True):
        status, document = post.answer()
        # What the sleeper says it committed is held against all ledgers like everything else.
        assert status in (200, 202, 503), document
        if status == 200:
            assert document["id"] == carried.transaction.id.hex()
            load.note(document, leader)
    print(
        f"{leader} slept {pause_s:.1f} s, {heir} led after {elected_s:.2f} s; of {len(newest)} "
        f"reads queued at the sleeper {answered} answered, the others refused, none stale"
    )
    load.targets = [node.name for node in network.nodes]
    return answered


def check_leader_pauses(tmp_path: Path, cycles: int, pause_s: float) -> None:
    with running_network(tmp_path) as network:
        author = Author(network)
        with Load(network) as load:
            load.wait_more(20)
            answered = sum(sleep_leader(network, load, author, pause_s) for _ in range(cycles))
            load.wait_more(50)
        print(f"{answered} of {cycles * _READS} queued reads answered; {dict(load.refused)}")
        verify(network, load.acknowledged.values())


@pytest.mark.scenario("B3", tier="P")
def test_a_leader_sleeps_and_serves_nothing_stale(tmp_path: Path) -> None:
    check_leader_pauses(tmp_path, 2, 3.0)


@pytest.mark.scenario("B3", tier="P")
@pytest.mark.long
def test_a_leader_sleeps_for_30_s(tmp_path: Path) -> None:
    check_leader_pauses(tmp_path, 1, 30.0)


@pytest.mark.scenario("B3", tier="P")
@pytest.mark.long
def test_leaders_sleep_again_and_again(tmp_path: Path) -> None:
    check_leader_pauses(tmp_path, 30, 1.5)
