"""A quorum is gone for ever: one node goes on under the next epoch, and the old one stays out."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from signal import Signals
from typing import Any

import pytest

from p2pcity.cli.testnet.local_network import LocalNetwork
from tests.integration.members_case import change, hasten, wait_place, wipe
from tests.integration.process_case import (
    Load,
    ask,
    log_lines,
    others,
    read_ledger,
    running_network,
    verify,
    wait_equal,
    wait_leader,
    wait_serving,
    wait_until,
)
from tests.json_schemas import check

pytestmark = [pytest.mark.integration, pytest.mark.scenario("D13", tier="P")]
_RUN_S = 60


def _recover(network: LocalNetwork, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    config = network.node(name).config_file
    return subprocess.run(
        [sys.executable, "-m", "p2pcity", "raft", "recover", "--config", str(config), *arguments],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=_RUN_S,
    )


def _stop(network: LocalNetwork, name: str, number: Signals) -> None:
    network.kill(name, number)
    wait_until(lambda: network.node(name).pid is None, f"{name} has ended")


def _status(network: LocalNetwork, name: str) -> Any:
    return ask(network, name, "/v1/status")


@pytest.mark.long
def test_one_of_three_goes_on_alone(tmp_path: Path) -> None:
    with running_network(tmp_path) as network:
        with Load(network) as load:
            load.wait_more(60)
        wait_equal(network)
        left = others(network, wait_leader(network))[0]
        gone, old = others(network, left)
        for name in (gone, old):
            _stop(network, name, Signals.SIGKILL)
        shutil.rmtree(network.node(gone).config.node.data_dir)
        # Nothing is done to a node that runs, or without a yes.
        assert _recover(network, left).returncode == 12
        _stop(network, left, Signals.SIGKILL)
        refused = _recover(network, left, "--yes-lose-what-is-missing", "some other city")
        assert refused.returncode == 2
        assert "LOST: whatever was committed beyond index" in refused.stdout
        assert "nothing was changed" in refused.stderr
        assert _recover(network, left, "--json").returncode == 2
        yes = ("--yes-lose-what-is-missing", "testnet")
        done = _recover(network, left, *yes, "--json")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        check(told)
        assert told["epoch"] == 1
        again = _recover(network, left, *yes)
        assert again.returncode == 2
        assert "decides alone already" in again.stderr

        network.start([left])
        assert wait_alone(network, left)
        with Load(network, targets=[left]) as later:
            later.wait_more(30)
        # Every acknowledgement of before is there: nobody can have been told of more, since the
        # node that is left was up to date.
        height = _status(network, left)["ledger"]["height"]
        places = read_ledger(network, left, height)
        for answer in (*load.acknowledged.values(), *later.acknowledged.values()):
            assert places[answer.id] == (answer.height, answer.leaf_index)

        # The old epoch comes back: it is refused, says so, and neither side takes it up.
        before = _status(network, left)
        network.start([old])
        wait_serving(network, old)
        wait_until(lambda: _is_refused(network, old), f"{old} was refused")
        wait_until(lambda: "newer epoch" in " ".join(_status(network, old)["alarms"]), "an alarm")
        after = _status(network, left)
        assert after["raft"]["term"] == before["raft"]["term"]
        assert after["raft"]["leader"] == before["raft"]["leader"]
        assert _status(network, old)["ledger"]["height"] < height
        assert ask(network, left, "/v1/raft")["voters"] == 1


@pytest.mark.long
def test_the_others_join_the_recovered_city_with_new_logs(tmp_path: Path) -> None:
    with running_network(tmp_path) as network:
        names = [node.name for node in network.nodes]
        hasten(network, *names)
        with Load(network) as load:
            load.wait_more(30)
        wait_equal(network)
        for name in names:
            _stop(network, name, Signals.SIGKILL)
        left, *rest = names
        done = _recover(network, left, "--yes-lose-what-is-missing", "testnet")
        assert done.returncode == 0, done.stderr
        network.start([left])
        assert wait_alone(network, left)
        with Load(network, targets=[left]) as later:
            later.wait_more(20)
            for name in rest:
                # What the recovery's last line says: a new log, and the card to whoever leads.
                card = wipe(network, name)
                network.start([name])
                wait_serving(network, name)
                change(network, "add", str(card))
                wait_place(network, name, "voter", left, name)
                later.wait_more(20)
            assert ask(network, left, "/v1/raft")["voters"] == 3
            # They are a quorum like any other: it goes on without the one that was left.
            later.targets = rest
            _stop(network, left, Signals.SIGKILL)
            later.wait_more(20)
            network.start([left])
            wait_serving(network, left)
        verify(network, [*load.acknowledged.values(), *later.acknowledged.values()])


def wait_alone(network: LocalNetwork, name: str) -> bool:
    """Wait until the node leads with nobody else."""
    wait_serving(network, name)
    wait_until(lambda: (_status(network, name) or {})["raft"]["role"] == "leader", f"{name} leads")
    return True


def _is_refused(network: LocalNetwork, name: str) -> bool:
    lines = log_lines(network, name)
    return any(line.get("event") == "hello_refused" and "epoch" in str(line) for line in lines)
