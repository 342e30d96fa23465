"""Starting: whatever is wrong with keys, genesis or disk is one clear error with its code."""

import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import structlog
import trio

from p2pcity.city.membership import State
from p2pcity.crypto import keys
from p2pcity.crypto.keys import PrivateKey
from p2pcity.errors import (
    ConfigError,
    CorruptionError,
    DivergedError,
    LockedError,
    P2PCityError,
    RulesTooOldError,
    SyncFailedError,
)
from p2pcity.ledger.data_directory import initialise
from p2pcity.ledger.lock import DataLock
from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.ledger.views_reader import ViewsDamaged
from p2pcity.node import node
from p2pcity.node.base_fetch import BaseComplete
from p2pcity.node.config import Config, NodeSection
from p2pcity.node.identity import load_identity
from p2pcity.node.membership import Membership, check_place
from p2pcity.node.opening import open_stores
from p2pcity.ordering.members import Members
from p2pcity.wire import genesis as genesis_wire
from p2pcity.wire.genesis import Genesis
from tests.chain_case import AUTHOR, NODE, STRANGER, Chain
from tests.node_case import append

INCARNATION = b"i" * 16
PEER = keys.peer_id(NODE.public)


def write_key(path: Path, key: PrivateKey) -> None:
    path.write_bytes(key.to_pem())
    path.chmod(0o600)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A node as `init` leaves it, in the genesis of `Chain`."""
    write_key(tmp_path / "node.key", NODE)
    write_key(tmp_path / "author.key", AUTHOR)
    (tmp_path / "genesis.cbor").write_bytes(genesis_wire.encode(Chain().genesis))
    initialise(tmp_path / "data", INCARNATION)
    return Config(
        node=NodeSection(
            data_dir=tmp_path / "data",
            genesis=tmp_path / "genesis.cbor",
            key=tmp_path / "node.key",
            author_key=tmp_path / "author.key",
        )
    )


def test_the_identity_is_what_keys_and_genesis_say(config: Config) -> None:
    identity = load_identity(config)
    assert identity.peer_id == PEER
    assert identity.node == Chain().genesis.nodes[0]
    assert identity.author is not None
    assert identity.author.public == AUTHOR.public
    without = replace(config, node=replace(config.node, author_key=None))
    assert load_identity(without).author is None


@pytest.mark.parametrize("wrong", ["no-genesis", "torn-genesis", "no-key"])
def test_keys_and_genesis_that_cannot_be_read_are_refused(config: Config, wrong: str) -> None:
    section = config.node
    if wrong == "no-genesis":
        section.genesis.unlink()
    elif wrong == "torn-genesis":
        section.genesis.write_bytes(section.genesis.read_bytes()[:-1])
    else:
        section.key.unlink()
    with pytest.raises(ConfigError) as caught:
        load_identity(config)
    assert caught.value.remedy
    assert caught.value.exit_code == 2


async def open_and_close(config: Config, genesis: Genesis) -> None:
    path = config.node.data_dir
    stores = await open_stores(path, genesis=genesis, peer_id=PEER)
    await stores.close()


async def test_stores_open_close_and_open_again(config: Config) -> None:
    for _ in range(2):
        await open_and_close(config, Chain().genesis)


@pytest.mark.parametrize("wrong", ["log", "role"])
def test_another_nodes_log_or_role_is_refused(config: Config, wrong: str) -> None:
    identity = load_identity(config)
    state = State.from_genesis(identity.genesis)
    members = Members(state, STRANGER.public if wrong == "log" else NODE.public, INCARNATION)
    named = replace(identity, peer_id=keys.peer_id(STRANGER.public), node=None)
    with pytest.raises(ConfigError) as caught:
        check_place(members, named if wrong == "log" else identity, "observer")
    assert caught.value.remedy
    check_place(Members(state, NODE.public, INCARNATION), identity, "orderer")


def test_a_node_with_another_log_is_no_member(config: Config) -> None:
    identity = load_identity(config)
    members = Members(State.from_genesis(identity.genesis), NODE.public, b"j" * 16)
    check_place(members, identity, "observer")
    assert not members.is_own_log
    # Its former self is a voter that nobody can be; the node itself never campaigns.
    assert members.configuration.voters == (f"{PEER}/{INCARNATION.hex()}",)
    membership = Membership(members=members, identity=identity, peers=())
    assert membership.place(PEER) == "none"
    assert "p2pcity raft replace" in membership.alarm


async def test_a_directory_belongs_to_one_network(config: Config) -> None:
    await open_and_close(config, Chain().genesis)
    chain = Chain()
    member = chain.genesis.members[0]
    other = genesis_wire.make("other", chain.genesis.time_ms, b"h" * 16, [member])
    with pytest.raises(ConfigError, match="network"):
        await open_and_close(config, other)


async def test_a_log_that_lost_what_was_applied_is_corrupt(config: Config) -> None:
    chain = Chain()
    chain.add(chain.carried())
    path = config.node.data_dir
    stores = await open_stores(path, genesis=chain.genesis, peer_id=PEER)
    append(stores.raft_log, chain)
    stores.views.apply_blocks(chain.pairs())
    await stores.close()
    for file in (path / "log").iterdir():
        file.unlink()
    SegmentLog.create(path / "log", INCARNATION)
    with pytest.raises(CorruptionError) as caught:
        await open_and_close(config, chain.genesis)
    assert caught.value.index == 1
    assert caught.value.remedy


async def test_all_is_closed_even_when_one_store_fails(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    genesis = Chain().genesis
    stores = await open_stores(config.node.data_dir, genesis=genesis, peer_id=PEER)

    def fail() -> None:
        raise SyncFailedError("the disk refused")

    monkeypatch.setattr(stores.outbox, "close", fail)
    with pytest.raises(SyncFailedError):
        await stores.close()
    await open_and_close(config, genesis)


def logged(
    config: Config, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> tuple[int, list[dict[str, object]]]:
    """The exit code of the daemon and what it wrote; nothing may go to stderr."""
    # A logger keeps the set-up that it met first; each run here has its own.
    monkeypatch.setattr(node, "_logger", structlog.get_logger("p2pcity.node"))
    code = node.main(config)
    structlog.reset_defaults()
    output = capfd.readouterr()
    assert output.err == ""
    return code, [json.loads(line) for line in output.out.splitlines()]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("wrong", remedy="mend it"), 2),
        (CorruptionError("wrong", remedy="mend it"), 10),
        (SyncFailedError("wrong", remedy="mend it"), 11),
        (LockedError("wrong", remedy="mend it"), 12),
        (DivergedError("wrong", remedy="mend it"), 13),
        (RulesTooOldError("wrong", remedy="mend it"), 14),
    ],
)
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_each_error_has_its_exit_code_and_one_line(
    config: Config,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: P2PCityError,
    code: int,
    depth: int,
) -> None:
    async def run(*arguments: object, **named: object) -> None:
        await trio.lowlevel.checkpoint()
        raised: Exception = error
        for _ in range(depth):
            raised = ExceptionGroup("from a nursery", [raised])
        raise raised

    monkeypatch.setattr(node, "run", run)
    found, lines = logged(config, capfd, monkeypatch)
    assert found == code
    [line] = lines
    assert (line["level"], line["reason"], line["remedy"]) == ("critical", "wrong", "mend it")
    assert line["exit_code"] == code


def test_what_breaks_on_the_way_out_does_not_hide_the_disk(
    config: Config, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run(*arguments: object, **named: object) -> None:
        await trio.lowlevel.checkpoint()
        raise ExceptionGroup("", [SyncFailedError("the disk refused"), KeyError("a bug")])

    monkeypatch.setattr(node, "run", run)
    code, lines = logged(config, capfd, monkeypatch)
    assert code == 11
    assert [line["event"] for line in lines] == ["failed_while_stopping", "stopped"]


def test_a_bug_alone_ends_with_its_traceback(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run(*arguments: object, **named: object) -> None:
        await trio.lowlevel.checkpoint()
        raise ExceptionGroup("", [KeyError("a bug")])

    monkeypatch.setattr(node, "run", run)
    with pytest.raises(ExceptionGroup):
        node.main(config)
    structlog.reset_defaults()


def test_under_a_service_manager_a_node_waits_for_an_earlier_life_of_its_own(
    config: Config,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tries = 0

    async def run(*arguments: object, **named: object) -> None:
        nonlocal tries
        await trio.lowlevel.checkpoint()
        tries += 1
        if tries % 4:
            raise LockedError("in use by process 7", remedy="wait")

    monkeypatch.setattr(node, "run", run)
    monkeypatch.setattr(node, "_LOCK_PERIOD_S", 0.0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        code, lines = logged(config, capfd, monkeypatch)
        assert (code, tries) == (0, 4)
        assert [line["event"] for line in lines] == ["lock_waits"]
        assert manager.recv(4096) == b"STATUS=waiting: in use by process 7"
        # Not for ever, and not where somebody sits and watches.
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setattr(node, "_LOCK_TRIES", 2)
        assert logged(config, capfd, monkeypatch)[0] == 12
    tries = 0
    assert (logged(config, capfd, monkeypatch)[0], tries) == (12, 1)


def test_damaged_views_are_made_anew_once(
    config: Config, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[bool] = []

    async def run(config: Config, *, has_damaged_views: bool, **named: object) -> None:
        await trio.lowlevel.checkpoint()
        starts.append(has_damaged_views)
        raise ViewsDamaged("a page", remedy="p2pcity rebuild")

    monkeypatch.setattr(node, "run", run)
    code, lines = logged(config, capfd, monkeypatch)
    assert starts == [False, True]
    assert code == 10
    assert [line["event"] for line in lines] == ["views_rebuilt", "stopped"]


def test_good_views_stay_when_the_node_begins_again_for_another_reason(
    config: Config, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons = [ViewsDamaged("a page"), BaseComplete("a base"), ViewsDamaged("another page")]
    starts: list[bool] = []

    async def run(config: Config, *, has_damaged_views: bool, **named: object) -> None:
        await trio.lowlevel.checkpoint()
        starts.append(has_damaged_views)
        raise reasons[len(starts) - 1]

    monkeypatch.setattr(node, "run", run)
    code, _ = logged(config, capfd, monkeypatch)
    assert starts == [False, True, False]
    assert code == 10


def test_a_locked_directory_is_left_alone(
    config: Config, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with DataLock(config.node.data_dir, PEER):
        code, lines = logged(config, capfd, monkeypatch)
    assert code == 12
    assert len(lines) == 1
    assert PEER in str(lines[0]["reason"])
