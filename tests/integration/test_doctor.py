"""`p2pcity doctor` on real nodes: faults, one at a time, each named with its cause and remedy."""

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from p2pcity.cli.chaos import shifted_clock
from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.cli.testnet.local_node import LocalNode, launch
from p2pcity.cli.testnet.making import change_settings
from p2pcity.ledger import records
from tests.bad_input_city import clean_environment
from tests.integration.process_case import (
    AUTHOR,
    Author,
    Load,
    kept_running,
    others,
    running_network,
    submit,
    verify,
    wait_equal,
    wait_leader,
    wait_until,
)
from tests.integration.relayed_case import running_relayed
from tests.integration.strace import Strace, needs_strace
from tests.segment_case import entry_records, flip, last_file

pytestmark = pytest.mark.integration

UNREACHABLE: Final = 4
DEGRADED: Final = 3
RIGHT: Final = "the-right-token-of-a-test"


def doctor(
    node: LocalNode | None, *options: str, prefix: tuple[str, ...] = ()
) -> tuple[int, list[dict[str, Any]]]:
    """Run the command on a node, or without one's configuration; its exit code and its findings."""
    command = [sys.executable, "-m", "p2pcity", "doctor"]
    command += ["--config", str(node.config_file)] if node is not None else []
    done = subprocess.run(
        [*prefix, *command, "--json", *options],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout, done.stderr
    document = json.loads(done.stdout)
    for finding in document["findings"]:
        assert finding["cause"]
        assert finding["remedy"]
    return done.returncode, document["findings"]


def checks(findings: list[dict[str, Any]], severity: str = "error") -> set[str]:
    return {finding["check"] for finding in findings if finding["severity"] == severity}


# -- a node that does not run ------------------------------------------------------------------

Spoil = Callable[[LocalNode, ExitStack], None]


def _take_the_port(node: LocalNode, stack: ExitStack) -> None:
    port = int(node.config.net.listen[0].rpartition("/")[2])
    own = stack.enter_context(socket.socket())
    own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    own.bind(("127.0.0.1", port))
    own.listen()


def _open_the_key(node: LocalNode, stack: ExitStack) -> None:
    node.config.node.key.chmod(0o644)


def _lose_the_genesis(node: LocalNode, stack: ExitStack) -> None:
    node.config.node.genesis.unlink()


def _take_another_genesis(node: LocalNode, stack: ExitStack) -> None:
    home = Path(stack.enter_context(_directory(node)))
    other = LocalNetwork.create(home / "net", nodes=1, orderers=1, authors=(AUTHOR,))
    shutil.copyfile(other.nodes[0].config.node.genesis, node.config.node.genesis)


def _damage_an_entry(node: LocalNode, stack: ExitStack) -> None:
    file = last_file(node.config.node.data_dir / "log")
    record = entry_records(file)[2]
    flip(file, 8 * (record.offset + record.length // 2))


def _lose_the_views(node: LocalNode, stack: ExitStack) -> None:
    for name in ("views.db", "views.db-wal", "views.db-shm"):
        (node.config.node.data_dir / name).unlink(missing_ok=True)


def _take_another_key(node: LocalNode, stack: ExitStack) -> None:
    home = Path(stack.enter_context(_directory(node)))
    other = LocalNetwork.create(home / "net", nodes=1, orderers=1, authors=(AUTHOR,))
    shutil.copyfile(other.nodes[0].config.node.key, node.config.node.key)


def _misspell_a_setting(node: LocalNode, stack: ExitStack) -> None:
    with node.config_file.open("a", encoding="utf-8") as file:
        file.write("\n[ledger]\nkeep_block = 1\n")


def _want_more_room(node: LocalNode, stack: ExitStack) -> None:
    with node.config_file.open("a", encoding="utf-8") as file:
        file.write(f"\n[ledger]\ndisk_free_bytes_min = {2**49}\n")


def _run_a_later_release(node: LocalNode, stack: ExitStack) -> None:
    file = last_file(node.config.node.data_dir / "log")
    header, _ = records.parse_file_header(file.read_bytes())
    with file.open("r+b") as opened:
        opened.write(records.encode_file_header(header._replace(version=header.version + 1)))


def _lose_the_data(node: LocalNode, stack: ExitStack) -> None:
    shutil.rmtree(node.config.node.data_dir)


@contextmanager
def _directory(node: LocalNode) -> Iterator[str]:
    home = node.directory / "other"
    home.mkdir()
    yield str(home)
    shutil.rmtree(home)


STOPPED: Final[dict[str, tuple[Spoil, str, str]]] = {
    "port": (_take_the_port, "error", "ss -ltnp"),
    "key": (_open_the_key, "error", "chmod"),
    "genesis": (_lose_the_genesis, "error", "node.genesis"),
    "genesis ": (_take_another_genesis, "error", "genesis.cbor"),
    "damage": (_damage_an_entry, "error", "from the other nodes"),
    "views": (_lose_the_views, "warning", "rebuild"),
    "identity": (_take_another_key, "error", "its own key"),
    "configuration": (_misspell_a_setting, "error", "keep_blocks"),
    "disk": (_want_more_room, "error", "keep_blocks"),
    "data": (_lose_the_data, "error", "init"),
    "data ": (_run_a_later_release, "error", "Install the release that wrote"),
}


def test_a_stopped_node(tmp_path: Path) -> None:
    """Each fault is named; the node itself says at the same time that it does not run."""
    with running_network(tmp_path) as network:
        with Load(network) as load:
            load.wait_more(20)
        # Its log is damaged in the middle: it must have as many entries as the leader.
        wait_equal(network)
        name = others(network, wait_leader(network))[0]
        node = network.node(name)
        network.kill(name)
        before = tmp_path / "before"
        shutil.copytree(node.directory, before, ignore=shutil.ignore_patterns("*.sock"))
        code, findings = doctor(node)
        assert (code, checks(findings)) == (UNREACHABLE, {"daemon"})
        for check, (spoil, severity, remedy) in STOPPED.items():
            with ExitStack() as stack:
                spoil(node, stack)
                code, findings = doctor(node)
            told = [x for x in findings if (x["check"], x["severity"]) == (check.strip(), severity)]
            assert code == UNREACHABLE, check
            assert told, f"{check}: {findings}"
            assert any(remedy in x["cause"] + x["remedy"] for x in told), f"{check}: {told}"
            shutil.rmtree(node.directory)
            shutil.copytree(before, node.directory)
        # Only a process that is started so meets this one.
        few = ("sh", "-c", 'ulimit -n 100; exec "$@"', "sh")
        code, findings = doctor(node, prefix=few)
        assert checks(findings) == {"daemon", "descriptors"}
        network.start([name])
        wait_until(lambda: doctor(node)[0] == 0, "all is well again")
        verify(network, load.acknowledged.values())


# -- nodes that run ----------------------------------------------------------------------------


def test_nodes_that_run(tmp_path: Path) -> None:
    """Nothing to say of a healthy city; then one node is away, and then so is the quorum."""
    with running_network(tmp_path) as network:
        leader = wait_leader(network)
        first, second = others(network, leader)
        node = network.node(leader)
        wait_until(lambda: doctor(node) == (0, []), "a healthy node is called healthy")
        network.kill(first)
        found: list[dict[str, Any]] = []

        def is_away() -> bool:
            code, found[:] = doctor(node)
            told = checks(found), "quorum" in checks(found, "warning")
            return (code, *told) == (DEGRADED, {"reach"}, True)

        wait_until(is_away, "one is away")
        assert f"Start {first}/{first}" in " ".join(x["remedy"] for x in found)
        network.kill(second)
        submit(network, leader, Author(network).sign().data, "accepted")
        wait_until(
            lambda: {"quorum", "isolated", "mempool"} <= checks(doctor(node)[1]), "the quorum is"
        )
        assert "raft recover" in " ".join(x["remedy"] for x in doctor(node)[1])
        # A stranger's token is refused; nothing else can be said then.
        network.start([first, second])
        network.wait_ready()
        wait_until(lambda: doctor(node) == (0, []), "all is well again")


@pytest.mark.long
def test_a_wrong_token(tmp_path: Path) -> None:
    network = LocalNetwork.create(
        tmp_path / "net", nodes=3, orderers=3, authors=(AUTHOR,), raft_preset="local"
    )
    node = network.nodes[0]
    tokens, token = tmp_path / "tokens", tmp_path / "token"
    tokens.write_text(f"read {RIGHT}\n", encoding="ascii")
    tokens.chmod(0o600)
    token.write_text(f"{RIGHT[::-1]}\n", encoding="ascii")
    token.chmod(0o600)
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        port = own.getsockname()[1]
    change_settings(
        node.config_file,
        {
            "http.bind": f"127.0.0.1:{port}",
            "http.tokens_file": str(tokens),
            "http.read_by_token": True,
            # As behind a firewall that lets nothing in: it reaches the others, and they reach it.
            "net.announce": ("/ip4/127.0.0.1/tcp/1",),
        },
    )
    with kept_running(network):
        url = f"http://127.0.0.1:{port}"
        code, findings = doctor(node, "--node", url, "--token-file", str(token))
        assert (code, checks(findings)) == (DEGRADED, {"token"})
        token.write_text(f"{RIGHT}\n", encoding="ascii")
        code, findings = doctor(node, "--node", url, "--token-file", str(token))
        assert checks(findings) == set()
        assert "reach" not in checks(findings, "warning")
        # From another host there is no configuration to look at, but the node's own addresses.
        code, findings = doctor(None, "--node", url, "--token-file", str(token))
        assert "/ip4/127.0.0.1/tcp/1" in next(x["cause"] for x in findings if x["check"] == "reach")


@pytest.mark.long
def test_a_wrong_clock(tmp_path: Path) -> None:
    network = LocalNetwork.create(
        tmp_path / "net", nodes=3, orderers=3, authors=(AUTHOR,), raft_preset="local"
    )
    node = network.nodes[0]
    offset = tmp_path / "offset"
    shifted_clock.make_file(offset)
    node.program = (sys.executable, "-m", shifted_clock.__name__, str(offset))
    with kept_running(network, start=()):
        node.launch = launch
        network.start()
        network.wait_ready()
        wait_until(lambda: doctor(node)[0] == 0, "all is well")
        shifted_clock.shift(offset, 90 * 1_000_000_000)
        wait_until(lambda: "clock" in checks(doctor(node)[1]), "the clock is found")
        [clock] = [x for x in doctor(node)[1] if x["check"] == "clock"]
        assert "ahead of its peers" in clock["cause"]
        assert "timedatectl" in clock["remedy"]


@pytest.mark.long
@needs_strace
def test_a_slow_disk(tmp_path: Path) -> None:
    with running_network(tmp_path, raft_preset="lan") as network:
        leader = wait_leader(network)
        node = network.node(leader)
        assert node.pid is not None
        fault = "delay_exit=300000"
        with (
            Load(network) as load,
            Strace(node.pid, tmp_path / "strace", "fdatasync", fault),
        ):
            load.wait_more(20)
            wait_until(lambda: "sync" in checks(doctor(node)[1], "warning"), "the disk is found")


@pytest.mark.long
def test_a_leader_that_is_cut_off(tmp_path: Path) -> None:
    with running_relayed(tmp_path) as (network, wires):
        leader = wait_leader(network)
        node = network.node(leader)
        wires.hold(wires.around([leader]))
        wait_until(
            lambda: {"quorum", "isolated"} <= checks(doctor(node)[1]), "it says that it is alone"
        )
        wires.mend()
        wait_until(lambda: not checks(doctor(node)[1]), "all is well again")
