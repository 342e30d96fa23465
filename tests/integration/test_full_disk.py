"""No room for one of a node's files: what it then does, and that it needs no help once there is.

strace lets the writes of one file fail with ENOSPC; `test_bad_input` fills a real disk.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from p2pcity.api.client import ApiProblem
from p2pcity.cli.testnet.local_network import LocalNetwork
from tests.integration.lives import SYNC_FAILED, Fault, Role, strike_at
from tests.integration.process_case import (
    Author,
    Load,
    ask,
    ask_patiently,
    others,
    running_network,
    submit,
    verify,
    wait_equal,
    wait_leader,
    wait_until,
)
from tests.integration.strace import Strace, needs_strace

pytestmark = [pytest.mark.integration, needs_strace]

LOG: Final = Fault("pwrite64", "error=ENOSPC", SYNC_FAILED)


@pytest.mark.scenario("A10", tier="P")
def test_no_room_for_the_databases(tmp_path: Path) -> None:
    """The views fall behind and the outbox takes nothing, both until there is room again."""
    with running_network(tmp_path, errors=("apply_waits",)) as network:
        name = others(network, wait_leader(network))[0]
        node = network.node(name)
        data, pid = node.config.node.data_dir, node.pid
        assert pid is not None
        with Load(network, targets=others(network, name)) as load, ExitStack() as stack:
            load.wait_more(20)
            wait_equal_height(network, name, load)
            paths = [data / file for file in ("views.db", "views.db-wal", "outbox.db-wal")]
            fault = "error=ENOSPC:when=1+"
            report = tmp_path / "strace"
            trace = stack.enter_context(Strace(pid, report, "pwrite64", fault, paths=paths))
            load.wait_more(20)
            wait_until(lambda: trace.struck > 0, "a write fails")
            wait_until(lambda: bool(status(network, name)["alarms"]), "an alarm")
            before = status(network, name)["ledger"]["height"]
            assert ask(network, name, f"/v1/blocks/{before}") is not None, "reads go on"
            with pytest.raises(ApiProblem) as refused:
                submit(network, name, Author(network).sign().data, "accepted")
            assert (refused.value.status, refused.value.reason) == (503, "unavailable")
            stack.close()
            wait_until(lambda: not status(network, name)["alarms"], "the alarm ends")
            load.wait_more(20)
            answer = submit(network, name, Author(network).sign().data, "accepted")
            assert answer["verdict"] == "accept"
        print(f"{trace.struck} writes failed at height {before}")
        assert node.pid == pid, "it went on by itself"
        wait_equal(network)
        verify(network, load.acknowledged.values())


def status(network: LocalNetwork, name: str) -> Any:
    return ask_patiently(network, name, "/v1/status")


def wait_equal_height(network: LocalNetwork, name: str, load: Load) -> None:
    """Wait until a node has all that was acknowledged so far."""
    head = load.since(0)[-1].height
    wait_until(lambda: status(network, name)["ledger"]["height"] >= head, f"{name} follows")


@pytest.mark.long
@pytest.mark.parametrize("role", ["leader", "follower"])
@pytest.mark.scenario("A10", tier="P")
def test_no_room_for_the_log(tmp_path: Path, role: Role) -> None:
    assert strike_at(tmp_path, role, LOG, (1, 4, 9), commits=30).struck == 3
