"""sd_notify over a real datagram socket: what is said, when, and what happens if nobody listens."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from p2pcity.errors import CorruptionError
from p2pcity.node.supervision import Supervision
from p2pcity.node.systemd import STATUS_BYTES_MAX, Notifier


class Listener:
    """The service manager's end of the socket."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.setblocking(False)

    def heard(self) -> list[list[str]]:
        """The lines of each datagram so far."""
        found = []
        while True:
            try:
                found.append(self._socket.recv(65536).decode().split("\n"))
            except BlockingIOError:
                return found

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def address(tmp_path: Path) -> str:
    return str(tmp_path / "notify")


@pytest.fixture
def manager(address: str) -> Iterator[Listener]:
    made = Listener(address)
    yield made
    made.close()


def test_the_environment_is_taken_and_not_left_to_children(manager: Listener, address: str) -> None:
    variables = {
        "NOTIFY_SOCKET": address,
        "WATCHDOG_USEC": "60000000",
        "WATCHDOG_PID": str(os.getpid()),
        "OTHER": "stays",
    }
    notifier = Notifier.take(variables)
    assert variables == {"OTHER": "stays"}
    assert (notifier.is_heard, notifier.watchdog_s) == (True, 60.0)
    assert notifier.send("READY=1", "STATUS=here")
    assert manager.heard() == [["READY=1", "STATUS=here"]]


@pytest.mark.parametrize(
    ("given", "watchdog_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "2500000"}, 2.5),
        ({"WATCHDOG_USEC": "2500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_for_whom_it_names(given: dict[str, str], watchdog_s: float | None) -> None:
    assert Notifier.take(dict(given)).watchdog_s == watchdog_s


def test_an_abstract_socket_is_reached() -> None:
    name = f"p2pcity-test-{os.getpid()}"
    manager = Listener(f"\0{name}")
    assert Notifier(f"@{name}").send("READY=1")
    assert manager.heard() == [["READY=1"]]
    manager.close()


@pytest.mark.parametrize("address", [None, "", "vsock:2:9999", "relative"])
def test_without_a_manager_it_is_mute(address: str | None) -> None:
    notifier = Notifier(address)
    assert not notifier.is_heard
    assert notifier.send("READY=1")
    assert notifier.status("here")


def test_nobody_there_and_a_full_queue_are_told_to_the_caller(address: str) -> None:
    notifier = Notifier(address)
    assert not notifier.send("READY=1")
    manager = Listener(address)
    sent = 0
    while notifier.send("STATUS=" + "x" * 1000):
        sent += 1
        assert sent < 100_000
    assert len(manager.heard()) == sent
    assert notifier.send("READY=1")
    manager.close()


def test_a_status_is_one_line_said_when_it_changes(manager: Listener, address: str) -> None:
    notifier = Notifier(address)
    for text in ("a", "a", "b\nREADY=1\r\n c", "x" * 5000):
        assert notifier.status(text)
    first, second, third = manager.heard()
    assert first == ["STATUS=a"]
    assert second == ["STATUS=b READY=1 c"]
    assert len(third[0]) == len("STATUS=") + STATUS_BYTES_MAX
    assert notifier.status("x" * 5000, "READY=1")
    [[ready, _]] = manager.heard()
    assert ready == "READY=1"


def test_a_status_that_was_not_taken_is_said_again(address: str) -> None:
    notifier = Notifier(address)
    assert not notifier.status("a")
    manager = Listener(address)
    assert notifier.status("a")
    assert manager.heard() == [["STATUS=a"]]
    manager.close()


@pytest.mark.scenario("H7", tier="U")
async def test_a_life_is_told_in_order(manager: Listener, address: str) -> None:
    supervision = Supervision(Notifier(address))
    supervision.begin()
    supervision.say("starting: applying the log")
    was_starting = [supervision.vitals.is_starting]
    await supervision.ready("follower")
    assert [*was_starting, supervision.vitals.is_starting] == [True, False]
    before_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    await supervision.reloading()
    await supervision.ready("leader")
    supervision.stopping("stopping: handing over")
    starting, applying, ready, reloading, again, stopping = manager.heard()
    assert starting == ["STATUS=starting: opening the ledger"]
    assert applying == ["STATUS=starting: applying the log"]
    assert ready == ["READY=1", "STATUS=follower"]
    assert reloading[0] == "RELOADING=1"
    name, _, value = reloading[1].partition("=")
    assert name == "MONOTONIC_USEC"
    assert before_us <= int(value) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert again == ["READY=1", "STATUS=leader"]
    assert stopping == ["STOPPING=1", "STATUS=stopping: handing over"]
    supervision.failed(CorruptionError("a bad page"))
    assert manager.heard() == [["STOPPING=1", "STATUS=stopped with exit code 10: a bad page"]]


async def test_the_line_is_kept_true_until_the_node_stops(
    manager: Listener, address: str, autojump_clock: MockClock
) -> None:
    supervision = Supervision(Notifier(address))
    lines = iter(["a", "a", "b"])

    def line() -> str:
        said = next(lines)
        if said == "b":
            supervision.stopping("gone")
        return said

    await supervision.report(line)
    assert [lines[-1] for lines in manager.heard()] == ["STATUS=a", "STATUS=gone", "STATUS=b"]


async def test_a_manager_that_takes_nothing_does_not_hold_up_the_node(
    address: str, autojump_clock: MockClock
) -> None:
    with trio.fail_after(10):
        await Supervision(Notifier(address)).ready("leader")
