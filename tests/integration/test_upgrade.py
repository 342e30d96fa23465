"""One release after another on the same data directories, mixed meanwhile; and who stays out."""

import subprocess
import time
from functools import partial
from pathlib import Path
from signal import SIGTERM
from typing import Final

import pytest

from p2pcity import __version__
from p2pcity.api.client import ApiProblem, Unreachable
from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.cli.testnet.local_node import LocalNode
from p2pcity.cli.testnet.making import change_settings
from p2pcity.crypto.keys import PrivateKey, peer_id
from tests import previous_release
from tests.bad_input_city import clean_environment
from tests.integration.other_release import RULES
from tests.integration.process_case import (
    DEADLINE_S,
    Load,
    ask,
    log_lines,
    running_network,
    verify,
    wait_serving,
    wait_until,
)
from tests.integration.test_doctor import checks, doctor
from tests.integration.warm_nodes import launch_warm

pytestmark = pytest.mark.integration

NAMES: Final = ("node1", "node2", "node3")
MORE: Final = 10
"""Acknowledgements in each mixture."""
RULES_TOO_OLD: Final = 14
Program = tuple[str, ...]


@pytest.fixture(scope="session")
def previous(pytestconfig: pytest.Config) -> Program:
    """The command line of the previous release."""
    assert pytestconfig.cache is not None
    return previous_release.install(pytestconfig.cache.mkdir("previous-release"))


def change_program(network: LocalNetwork, name: str, program: Program) -> None:
    """Stop a node as an operator does, and start the other release on its data directory."""
    node = network.node(name)
    assert node.send(SIGTERM)
    assert node.wait_gone(time.monotonic() + DEADLINE_S)
    assert node.exit_code == 0, node.last_lines(3)
    node.program = program
    network.start([name])
    wait_serving(network, name)


def lead(network: LocalNetwork, name: str) -> None:
    """Hand leadership to a node, whoever has it."""
    to = peer_id(read_key(network.node(name)))

    def is_leader() -> bool:
        leader = network.leader()
        if leader not in (None, name):
            with network.client(leader) as client:
                try:
                    client.post("/v1/admin/transfer", params={"to": to})
                except (Unreachable, ApiProblem):
                    return False
        return leader == name

    wait_until(is_leader, f"{name} leads")


def check(node: LocalNode, program: Program) -> None:
    """`p2pcity check` of a stopped node, by the release that runs it."""
    done = subprocess.run(
        [*program, "check", "--config", str(node.config_file)],
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, (node.name, done.stdout, done.stderr)


@pytest.mark.scenario("D11", tier="P")
def test_one_node_after_the_other_and_one_back(tmp_path: Path, previous: Program) -> None:
    with running_network(tmp_path, start=()) as network:
        present = network.nodes[0].program
        for node in network.nodes:
            node.program = previous
        network.start()
        network.wait_ready()
        with Load(network) as load:
            load.wait_more(MORE)
            for name in NAMES:
                # Whoever leads hands over by itself; then each release leads the mixture.
                change_program(network, name, present)
                for leader in dict.fromkeys((NAMES[-1], name)):
                    lead(network, leader)
                    load.wait_more(MORE)
            # And one back, which follows and leads.
            change_program(network, NAMES[0], previous)
            lead(network, NAMES[0])
            load.wait_more(MORE)
        verify(network, list(load.acknowledged.values()))
        assert network.stop() == []
        for node in network.nodes:
            assert node.exit_code == 0
            check(node, node.program)
            check(node, present)
        print(f"{load.count} acknowledged, {dict(load.refused)} refused")


# -- rules -------------------------------------------------------------------------------------


def of_another_release(network: LocalNetwork, name: str, what: str) -> None:
    """Let a node run a release that differs (`other_release`)."""
    network.node(name).launch = partial(
        launch_warm, plugin="tests.integration.other_release", arguments=(what,)
    )


def rules_of(network: LocalNetwork, name: str) -> set[int]:
    """The rules of all blocks on a node's ledger."""
    height = ask(network, name, "/v1/status")["ledger"]["height"]
    return {ask(network, name, f"/v1/blocks/{n}")["rules"] for n in range(1, height + 1)}


@pytest.mark.long
@pytest.mark.scenario("D11", tier="P")
def test_a_leader_that_knows_more_rules_goes_on_under_those_in_force(tmp_path: Path) -> None:
    with running_network(tmp_path, start=()) as network:
        for name in NAMES[:2]:
            of_another_release(network, name, "rules")
        network.start()
        network.wait_ready()
        with Load(network) as load:
            for name in NAMES:
                lead(network, name)
                load.wait_more(MORE)
        verify(network, list(load.acknowledged.values()))
        assert rules_of(network, NAMES[2]) == {1}


@pytest.mark.long
@pytest.mark.scenario("D11", tier="P")
def test_who_does_not_know_the_rules_stops_before_them_and_says_so(tmp_path: Path) -> None:
    old = NAMES[2]
    with running_network(tmp_path, start=(), exit_code=RULES_TOO_OLD) as network:
        for name in NAMES[:2]:
            of_another_release(network, name, "raises")
        network.start()
        network.wait_ready()
        lead(network, NAMES[0])
        node = network.node(old)
        with Load(network, targets=NAMES[:2]) as load:
            load.wait_more(MORE)
            assert node.wait_gone(time.monotonic() + DEADLINE_S)
            load.wait_more(MORE)
            # Nor does it go on when it is started again.
            for _ in range(2):
                assert node.exit_code == RULES_TOO_OLD
                last = log_lines(network, old)[-1]
                assert (last["event"], last["exit_code"]) == ("stopped", RULES_TOO_OLD)
                assert "under rules 2, this release knows 1 to 1" in last["reason"]
                assert "Install the newest release" in last["remedy"]
                network.start([old])
                assert node.wait_gone(time.monotonic() + DEADLINE_S)
            _, findings = doctor(node)
            found = next(item for item in findings if item["check"] == "rules")
            assert "under rules 2" in found["cause"]
            assert "Install the newest release" in found["remedy"]
            # The others see that it is away, and which release it ran.
            assert "reach" in checks(doctor(network.node(NAMES[0]))[1])
            rows = ask(network, NAMES[0], "/v1/peers")["peers"]
            [row] = [row for row in rows if row["name"].endswith(f"/{old}")]
            assert (row["is_connected"], row["release"]) == (False, __version__)
            # The newest release takes it on from where it stands.
            of_another_release(network, old, "raises")
            network.start([old])
            network.wait_ready([old])
        verify(network, list(load.acknowledged.values()))
        assert RULES in rules_of(network, old)


# -- settings ----------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.scenario("D15", tier="P")
def test_settings_of_nodes_may_differ(tmp_path: Path) -> None:
    """Clocks of ordering, limits, what is kept, and whom they know by their own settings."""
    with running_network(tmp_path, start=()) as network:
        addresses = [
            f"{node.config.net.listen[0]}/p2p/{peer_id(read_key(node))}" for node in network.nodes
        ]
        settings: tuple[dict[str, object], ...] = (
            {"raft.preset": "local", "ledger.keep_blocks": 256},
            {"raft.preset": "lan", "mempool.bytes_max": 2**20, "mempool.author_bytes_max": 2**20},
            {"raft.preset": "wan", "admission.author_transactions_per_second_max": 50},
        )
        for number, changes in enumerate(settings):
            known = tuple(addresses[:number])
            change_settings(network.nodes[number].config_file, {**changes, "net.peers": known})
        network.start()
        network.wait_ready()
        with Load(network) as load:
            for name in NAMES:
                lead(network, name)
                load.wait_more(MORE)
        verify(network, list(load.acknowledged.values()))


@pytest.mark.scenario("D15", tier="P")
def test_limits_that_all_share_may_not(tmp_path: Path) -> None:
    other = NAMES[2]
    with running_network(tmp_path, start=()) as network:
        of_another_release(network, other, "limits")
        network.start()
        network.wait_ready(NAMES[:2])
        with Load(network, targets=NAMES[:2]) as load:
            load.wait_more(MORE)
            for asked, away in (NAMES[0], other), (other, NAMES[0]):
                is_refused = partial(is_refused_for_limits, network, asked, away)
                wait_until(is_refused, f"{asked} says why {away} is not let in")
                lines = [x for x in log_lines(network, asked) if x["event"] == "hello_refused"]
                assert {line["reason"] for line in lines} == {"other-parameters"}
                assert all("upgrade the older one" in line["detail"] for line in lines)
                found = [x for x in doctor(network.node(asked))[1] if x["check"] == "peer"]
                assert any("Run the same release" in item["remedy"] for item in found)
        # It waits, out of the way: no start would mend it.
        assert network.node(other).pid is not None
        assert ask(network, other, "/v1/status")["ledger"]["height"] == 0
        verify(network, list(load.acknowledged.values()), NAMES[:2])


def is_refused_for_limits(network: LocalNetwork, name: str, peer: str) -> bool:
    """Whether a node shows that it has no connection with a peer because their limits differ."""
    answer = ask(network, name, "/v1/peers")
    rows = [] if answer is None else answer["peers"]
    return [row["refusal"] for row in rows if row["name"].endswith(f"/{peer}")] == [
        "other-parameters"
    ]


def read_key(node: LocalNode) -> bytes:
    """The public key of a node."""
    return PrivateKey.from_pem(node.config.node.key.read_bytes()).public
