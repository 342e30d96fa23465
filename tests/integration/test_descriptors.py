"""A running node that may open no more files: it says so, goes on, and needs no restart."""

import os
import resource
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.integration.process_case import (
    Load,
    ask,
    log_lines,
    others,
    running_network,
    verify,
    wait_leader,
    wait_until,
)

pytestmark = pytest.mark.integration

CLIENTS: Final = 24
"""Three times what is to spare. A client that left says nothing: it is let go after the 5 s in
which a request has to come."""
_SPARE: Final = 8


@pytest.mark.long
@pytest.mark.parametrize("is_leader", [True, False], ids=["leader", "follower"])
@pytest.mark.scenario("A14", tier="P")
def test_no_descriptors_are_left(tmp_path: Path, is_leader: bool) -> None:
    with running_network(tmp_path) as network:
        leader = wait_leader(network)
        name = leader if is_leader else others(network, leader)[0]
        node = network.node(name)
        pid = node.pid
        assert pid is not None
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        with Load(network, targets=others(network, name)) as load, ExitStack() as stack:
            load.wait_more(20)
            used = len(os.listdir(f"/proc/{pid}/fd"))
            few = used + _SPARE
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (few, before[1]))
            for _ in range(CLIENTS):
                own = stack.enter_context(socket.socket(socket.AF_UNIX))
                own.connect(str(node.socket))
            wait_until(
                lambda: len(os.listdir(f"/proc/{pid}/fd")) >= few - 1, "all descriptors are taken"
            )
            # Ordering needs none: the others' clients are answered, this node's wait.
            load.wait_more(100)
            assert node.pid == pid
            stack.close()
            wait_until(lambda: ask(network, name, "/livez") is not None, f"{name} answers again")
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
            load.wait_more(20)
        assert node.pid == pid, "it needed no restart"
        said = [line["event"] for line in log_lines(network, name)]
        print(f"{CLIENTS} clients on {_SPARE} descriptors; {said[-5:]}")
        verify(network, load.acknowledged.values())
