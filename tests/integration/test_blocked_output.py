"""Nobody reads what a node writes: it goes on, and says truthfully how it is."""

import os
import select
import subprocess
import sys
from pathlib import Path
from signal import Signals
from typing import Final

import pytest

from tests.integration.process_case import (
    DEADLINE_S,
    Load,
    ask,
    others,
    running_network,
    verify,
    wait_until,
)

pytestmark = pytest.mark.integration

NODE: Final = "node3"


def _is_full(writing: int) -> bool:
    """Whether a pipe takes nothing more."""
    return not select.select([], [writing], [], 0)[1]


@pytest.mark.long
@pytest.mark.scenario("A18", tier="P")
def test_a_node_whose_output_nobody_reads(tmp_path: Path) -> None:
    with running_network(tmp_path, start=["node1", "node2"]) as network:
        node = network.node(NODE)
        reading, writing = os.pipe()
        process = subprocess.Popen(
            [sys.executable, "-m", "p2pcity", "run", "--config", str(node.config_file)],
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_until(lambda: ask(network, NODE, "/readyz") is not None, f"{NODE} is ready")
            with Load(network) as load:
                wait_until(lambda: _is_full(writing), "the pipe is full", deadline_s=4 * DEADLINE_S)
                # It leads or follows, answers, and applies what comes.
                load.targets = [NODE]
                load.wait_more(20)
                load.targets = others(network, NODE)
                load.wait_more(20)
            head = max(told.height for told in load.acknowledged.values())
            wait_until(
                lambda: ask(network, NODE, "/v1/status")["ledger"]["height"] >= head,
                f"{NODE} has height {head}",
            )
            status = ask(network, NODE, "/v1/status")
            assert (status["is_ready"], status["alarms"]) == (True, [])
            verify(network, load.acknowledged.values())
            # Told to stop it does, with its output as full as before.
            process.send_signal(Signals.SIGTERM)
            assert process.wait(DEADLINE_S) == 0
            assert _is_full(writing)
            print(f"{load.count} acknowledged, {len(os.read(reading, 1 << 20))} bytes in the pipe")
        finally:
            process.kill()
            process.wait(DEADLINE_S)
            os.close(reading)
            os.close(writing)
