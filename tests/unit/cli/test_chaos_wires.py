"""The relays between nodes: what they hold, delay, slow and cut, one way or both."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from p2pcity.cli.chaos import cables
from p2pcity.cli.chaos.wires import Wires

ANSWER_S = 60.0


class Echo:
    """A node that answers each byte with the same byte."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.accepted: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                own, _ = self.listener.accept()
            except OSError:
                return
            self.accepted.append(own)
            threading.Thread(target=self._answer, args=(own,), daemon=True).start()

    def _answer(self, own: socket.socket) -> None:
        try:
            while chunk := own.recv(4096):
                own.sendall(chunk)
        except OSError:
            return


@pytest.fixture
def echo() -> Iterator[Echo]:
    made = Echo()
    yield made
    made.listener.close()


@pytest.fixture
def wires(echo: Echo) -> Iterator[Wires]:
    with Wires(("a", "b")) as made:
        made.retarget("a", 1)
        made.retarget("b", echo.port)
        yield made


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def dial(wires: Wires, stack: ExitStack) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", wires.port("a", "b")), ANSWER_S)
    stack.callback(made.close)
    made.settimeout(ANSWER_S)
    return made


def is_silent(own: socket.socket, seconds: float = 0.3) -> bool:
    own.settimeout(seconds)
    try:
        own.recv(1)
    except TimeoutError:
        return True
    finally:
        own.settimeout(ANSWER_S)
    return False


def test_bytes_pass_both_ways(wires: Wires, stack: ExitStack) -> None:
    own = dial(wires, stack)
    for number in range(50):
        own.sendall(b"%d" % (number % 10))
        assert own.recv(1) == b"%d" % (number % 10)
    assert wires.connections("b", "a") == 1
    # The last byte is counted once it was passed on.
    assert min(wires.passed_bytes.values()) >= 49
    assert set(wires.held_bytes.values()) == {0}


def test_what_is_held_comes_later(wires: Wires, stack: ExitStack) -> None:
    own = dial(wires, stack)
    own.sendall(b"x")
    assert own.recv(1) == b"x"
    for wire in (("a", "b"), ("b", "a")):
        wires.hold([wire])
        own.sendall(b"x")
        until_s = time.monotonic() + ANSWER_S
        while not wires.held_bytes[wire]:
            assert time.monotonic() < until_s
        assert is_silent(own)
        wires.mend([wire])
        assert own.recv(1) == b"x"
        assert wires.held_bytes[wire] == 1


def test_the_end_of_a_connection_is_held_too(wires: Wires, echo: Echo, stack: ExitStack) -> None:
    own = dial(wires, stack)
    own.sendall(b"x")
    assert own.recv(1) == b"x"
    wires.hold([("b", "a")])
    echo.accepted[0].shutdown(socket.SHUT_RDWR)
    assert is_silent(own)
    wires.mend()
    assert own.recv(1) == b""


def test_no_handshake_through_a_held_wire(wires: Wires, echo: Echo, stack: ExitStack) -> None:
    wires.hold([("b", "a")])
    own = dial(wires, stack)
    own.sendall(b"x")
    assert is_silent(own)
    assert echo.accepted == []
    wires.mend()
    assert own.recv(1) == b"x"


def test_who_gave_up_while_it_was_held_is_not_connected(wires: Wires, echo: Echo) -> None:
    wires.hold([("a", "b")])
    with ExitStack() as stack:
        dial(wires, stack).sendall(b"x")
    until_s = time.monotonic() + ANSWER_S
    while wires.connections("a", "b"):
        assert time.monotonic() < until_s
    wires.mend()
    assert echo.accepted == []


def test_late_bytes_keep_their_order(wires: Wires, stack: ExitStack) -> None:
    own = dial(wires, stack)
    wires.delay([("a", "b")], 0.05)
    begin_s = time.monotonic()
    for number in range(10):
        own.sendall(bytes([number]))
    got = b""
    while len(got) < 10:
        got += own.recv(16)
    assert got == bytes(range(10))
    assert time.monotonic() - begin_s >= 0.025
    assert wires.late_bytes["a", "b"] > 0


def test_a_slow_wire_lets_so_much_through(wires: Wires, stack: ExitStack) -> None:
    own = dial(wires, stack)
    wires.slow([("a", "b")], 10_000)
    begin_s = time.monotonic()
    own.sendall(bytes(3_000))
    left = 3_000
    while left:
        left -= len(own.recv(left))
    assert time.monotonic() - begin_s >= 0.3


def test_reset(wires: Wires, stack: ExitStack) -> None:
    own = dial(wires, stack)
    own.sendall(b"x")
    assert own.recv(1) == b"x"
    assert wires.reset("b", "a") == 1
    with pytest.raises(ConnectionResetError):
        own.recv(1)
    assert wires.cut_connections == 1


@pytest.mark.parametrize("deaf", ["a", "b"])
def test_half_open(wires: Wires, echo: Echo, stack: ExitStack, deaf: str) -> None:
    own = dial(wires, stack)
    own.sendall(b"x")
    assert own.recv(1) == b"x"
    other = "b" if deaf == "a" else "a"
    assert wires.leave_half_open(deaf, other) == 1
    if deaf == "a":
        own.sendall(b"y")
        assert is_silent(own)
    else:
        with pytest.raises(ConnectionResetError):
            own.recv(1)
        echo.accepted[0].sendall(b"y")
    assert (wires.connections("a", "b"), wires.silent("a", "b")) == (0, 1)
    # It goes once the side that heard nothing gives up.
    (own if deaf == "a" else echo.accepted[0]).close()
    if deaf == "b":
        echo.listener.close()
    else:
        until_s = time.monotonic() + ANSWER_S
        while wires.silent("a", "b"):
            assert time.monotonic() < until_s


def test_nobody_answers_at_the_refusing_port(wires: Wires) -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", wires.refusing_port), ANSWER_S)


def test_a_node_that_is_down_refuses(wires: Wires) -> None:
    def ask() -> None:
        with socket.create_connection(("127.0.0.1", wires.port("b", "a")), ANSWER_S) as own:
            own.settimeout(ANSWER_S)
            own.recv(1)

    with pytest.raises(ConnectionResetError):
        ask()


def test_which_wires_are_meant() -> None:
    with Wires(("a", "b", "c")) as three:
        assert three.nodes == ("a", "b", "c")
        assert set(three.around(["a"])) == {("a", "b"), ("b", "a"), ("a", "c"), ("c", "a")}
        assert three.into("a") == [("b", "a"), ("c", "a")]
        assert three.out_of("a") == [("a", "b"), ("a", "c")]


def test_cables_lose_packets_and_tell_nobody(stack: ExitStack) -> None:
    if reason := cables.why_not():
        pytest.skip(f"no packets can be dropped here: {reason}")
    stack.enter_context(cables.own_namespace())
    laid = cables.Cables(("a", "b"))
    laid.lay()
    made = Echo()
    stack.callback(made.listener.close)
    wires = stack.enter_context(Wires(("a", "b"), cables=laid))
    wires.retarget("b", made.port)
    place = wires.host("a", "b"), wires.port("a", "b")
    own = stack.enter_context(socket.create_connection(place, ANSWER_S))
    own.sendall(b"x")
    assert own.recv(1) == b"x"
    for wire in (("a", "b"), ("b", "a")):
        assert wires.held([wire]) == 0
        wires.hold([wire])
        own.sendall(b"x")
        assert is_silent(own)
        lost = wires.held([wire])
        assert lost > 0
        with pytest.raises(TimeoutError):
            socket.create_connection(place, 0.2)
        wires.release([wire])
        # TCP sends again what was lost; what was counted stays.
        assert own.recv(1) == b"x"
        assert wires.held([wire]) >= lost
    assert set(wires.held_bytes.values()) == {0}
