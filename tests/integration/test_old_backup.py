"""An old copy of a data directory is put back: its node takes no part, and everybody says so."""

import shutil
from pathlib import Path
from signal import Signals

import pytest

from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.ledger import promises_file
from p2pcity.ledger.segment_log import SegmentLog
from tests.integration.process_case import (
    Load,
    ask,
    log_lines,
    others,
    running_network,
    verify,
    wait_leader,
    wait_serving,
    wait_until,
)

pytestmark = pytest.mark.integration


def _alarms(network: LocalNetwork, name: str) -> str:
    status = ask(network, name, "/v1/status")
    return "" if status is None else " ".join(status["alarms"])


def _said(network: LocalNetwork, name: str, event: str) -> bool:
    return any(line.get("event") == event for line in log_lines(network, name))


def _remembered(network: LocalNetwork, name: str, peer: str) -> int:
    """Up to which index a node has written down that a voter acknowledged."""
    found = promises_file.read(network.node(name).config.node.data_dir / "promises")
    return max((promise.index for promise in found if promise.peer == peer), default=0)


@pytest.mark.long
@pytest.mark.scenario("A8", tier="P")
def test_an_old_copy_neither_votes_nor_follows(tmp_path: Path) -> None:
    with running_network(tmp_path, errors=("older_log", "peer_has_older_log")) as network:
        with Load(network) as load:
            load.wait_more(30)
            old = others(network, wait_leader(network))[0]
            rest = others(network, old)
            peer = ask(network, old, "/v1/status")["node"]["peer"]
            # A backup as it should not be made, but is: while the node is down.
            network.kill(old, Signals.SIGTERM)
            data = network.node(old).config.node.data_dir
            wait_until(lambda: network.node(old).pid is None, f"{old} has ended")
            backup = Path(shutil.copytree(data, tmp_path / "backup"))
            log = SegmentLog.open(backup / "log")
            index = log.last_index
            log.close()
            network.start([old])
            wait_serving(network, old)
            load.targets = [old]
            load.wait_more(30)
            load.targets = rest
            load.wait_more(30)
            # Who does not lead learns it from the leader, and writes it down now and then.
            wait_until(
                lambda: all(_remembered(network, name, peer) > index for name in rest),
                "all remember what it acknowledged",
            )
            network.kill(old)
            wait_until(lambda: network.node(old).pid is None, f"{old} has ended")
            shutil.rmtree(data)
            backup.rename(data)
            network.start([old])
            wait_serving(network, old)
            wait_until(lambda: "older log" in _alarms(network, old), f"{old} knows it")
            wait_until(
                lambda: all("older log" in _alarms(network, name) for name in rest), "all know it"
            )
            assert _said(network, old, "older_log")
            load.wait_more(30)
        before = {name: ask(network, name, "/v1/raft")["term"] for name in rest}
        height = ask(network, old, "/v1/status")["ledger"]["height"]
        # The two others order without it; one of them and the old copy are no quorum.
        network.kill(rest[0])
        wait_until(lambda: not _has_quorum(network, rest[1]), f"{rest[1]} has no quorum")
        raft = ask(network, rest[1], "/v1/raft")
        assert raft["role"] != "leader"
        assert raft["term"] <= before[rest[1]] + 1
        assert ask(network, old, "/v1/raft")["role"] == "follower"
        assert ask(network, old, "/v1/status")["ledger"]["height"] == height
        assert not ask(network, old, "/v1/status")["is_ready"]
        # The newest data would do, and the others' memory outlives them.
        network.start([rest[0]])
        wait_leader(network, rest)
        network.kill(old)
        wait_until(lambda: network.node(old).pid is None, f"{old} has ended")
        network.start([old])
        wait_until(lambda: "older log" in _alarms(network, old), f"{old} knows it again")
        _verify_rest(network, rest, load)


def _has_quorum(network: LocalNetwork, name: str) -> bool:
    status = ask(network, name, "/v1/status")
    return status is None or bool(status["raft"]["has_quorum"])


def _verify_rest(network: LocalNetwork, rest: list[str], load: Load) -> None:
    """Nothing acknowledged is missing on the nodes that take part."""
    verify(network, load.acknowledged.values(), rest)
