"""`p2pcity top` on a terminal: it draws, hears keys, survives its node, and cleans up."""

import codecs
import os
import pty
import select
import subprocess
import termios
import time
from pathlib import Path

import pytest

from p2pcity.cli.testnet.local_network import LocalNetwork
from tests.bad_input_city import clean_environment, command_line

pytestmark = pytest.mark.integration

DEADLINE_S = 60.0


def read_until(terminal: int, wanted: str) -> str:
    """Read what is drawn until it has a text."""
    seen, until_s = "", time.monotonic() + DEADLINE_S
    # What is read may end in the middle of a character.
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while wanted not in seen:
        ready, _, _ = select.select([terminal], [], [], max(0.0, until_s - time.monotonic()))
        assert ready, f"no {wanted!r} in {seen[-2000:]!r}"
        seen += decoder.decode(os.read(terminal, 65_536))
    return seen


def test_a_terminal(tmp_path: Path) -> None:
    network = LocalNetwork.create(tmp_path / "net", nodes=1, orderers=1)
    [node] = network.nodes
    arguments = command_line("top", "--node", str(node.directory), "--interval", "0.2")
    with network:
        network.start()
        network.wait_ready()
        terminal, inner = pty.openpty()
        termios.tcsetwinsize(inner, (24, 80))
        before = termios.tcgetattr(inner)
        process = subprocess.Popen(
            arguments, stdin=inner, stdout=inner, stderr=inner, env=clean_environment()
        )
        try:
            seen = read_until(terminal, "q quit")
            assert "node1 / node1  leader" in seen
            assert "NODE^" in seen
            os.write(terminal, b"h")
            read_until(terminal, "HEIGHTv")
            os.write(terminal, b"h")
            read_until(terminal, "HEIGHT^")
            network.kill("node1")
            read_until(terminal, "NO ANSWER")
            network.restart("node1")
            read_until(terminal, "node1 / node1  ")
            os.write(terminal, b"q")
            # The cursor is back, and so are the screen and the terminal's settings. It is read
            # first: a terminal takes a frame or two that nobody reads, and then the process waits.
            assert "\x1b[?25h\x1b[?1049l" in read_until(terminal, "\x1b[?1049l")
            assert process.wait(DEADLINE_S) == 0
            assert termios.tcgetattr(inner) == before
        finally:
            process.kill()
            os.close(terminal)
            os.close(inner)
        once = subprocess.run(
            [*arguments, "--once"],
            capture_output=True,
            text=True,
            env=clean_environment(),
            check=True,
        )
    assert len(once.stdout.splitlines()) == 24
    assert "\x1b" not in once.stdout
