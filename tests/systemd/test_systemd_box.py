"""The units in a real systemd: what an operator does to them, and what systemd does to a node."""

import json
import re
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.systemd.box import PROGRAM, Box, why_not

pytestmark = [
    pytest.mark.systemd,
    pytest.mark.skipif(bool(why_not()), reason=f"no systemd in a box: {why_not()}"),
]

UNIT: Final = "p2pcity.service"
SOCKET: Final = "/run/p2pcity/main.sock"
CONFIG: Final = "etc/p2pcity/main.toml"
OPERATOR: Final = ("setpriv", "--reuid=4710", "--regid=4710")
# Of the time-out three quarters are the limit; a busy machine stands still for seconds.
WATCHDOG_S: Final = 16
LINE: Final = r"(leader|follower|candidate), height [\d,]+, \d of \d orderers, lag [\d,]+"


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """The booted box with the units installed, and `main` as a city of its own."""
    with Box(tmp_path_factory.mktemp("systemd")) as made:
        made.p2pcity("systemd", "install")
        make_node(made, "main", 4710)
        make_genesis(made, "main")
        begin_s = time.monotonic()
        made.run("systemctl", "start", UNIT)
        print(f"first start: READY after {time.monotonic() - begin_s:.1f} s")
        yield made


@pytest.fixture
def node(box: Box) -> Box:
    """The box with `main` running and leading, whatever a test before did to it."""
    box.run("systemctl", "reset-failed", UNIT, is_checked=False)
    box.run("systemctl", "start", UNIT)
    wait_status(box, UNIT, "leader, .*")
    return box


def make_node(box: Box, name: str, port: int) -> None:
    address = f"/ip4/127.0.0.1/tcp/{port}"
    box.p2pcity("init", "--system", "--name", name, "--member", f"M {name}", "--listen", address)


def make_genesis(box: Box, *names: str) -> None:
    first = f"/etc/p2pcity/{names[0]}/genesis.cbor"
    cards = [part for name in names for part in ("--card", f"/etc/p2pcity/{name}/node.card")]
    box.p2pcity("genesis", "new", "--name", "Box", *cards, "-o", first)
    for name in names[1:]:
        box.run("cp", first, f"/etc/p2pcity/{name}/genesis.cbor")


def wait_status(box: Box, unit: str, pattern: str) -> float:
    return box.wait(
        lambda: re.fullmatch(pattern, box.show(unit, "StatusText")) is not None,
        f"the status of {unit} is {pattern}",
    )


def submit(box: Box, id_: str) -> None:
    data = json.dumps({"number": id_})
    box.p2pcity("submit", "--type", "box.test", "--id", id_, "--data", data, "--node", SOCKET)


def found(box: Box) -> set[str]:
    lines = box.p2pcity("query", "--type", "box.test", "--json", "--node", SOCKET).splitlines()
    return {json.loads(line)["id"] for line in lines}


def last_exit(box: Box) -> tuple[str, str]:
    return box.show(UNIT, "Result"), box.show(UNIT, "ExecMainStatus")


def wait_restarted(box: Box, restarts: int) -> None:
    box.wait(
        lambda: (
            int(box.show(UNIT, "NRestarts")) > restarts
            and box.show(UNIT, "ActiveState") == "active"
        ),
        "systemd has restarted the node",
        deadline_s=120,
    )


def wait_watchdog(box: Box, cursor: str) -> None:
    """Wait until systemd has given a life up; the unit's Result says so for a moment alone."""
    said = f"{UNIT}: Failed with result 'watchdog'."
    box.wait(
        lambda: any(entry["MESSAGE"] == said for entry in box.journal(UNIT, cursor)),
        "the watchdog has struck",
        deadline_s=180,
    )


def with_watchdog(box: Box) -> int:
    """Restart `main` with a short watchdog; how often systemd has restarted it so far."""
    box.drop_in(UNIT, "watchdog", f"[Service]\nWatchdogSec={WATCHDOG_S}\nTimeoutAbortSec=3\n")
    box.run("systemctl", "restart", UNIT)
    wait_status(box, UNIT, "leader, .*")
    return int(box.show(UNIT, "NRestarts"))


def events_of(lines: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [line for line in lines if line.get("event") == name]


@pytest.mark.short
@pytest.mark.scenario("H7", tier="P", needs="root")
def test_it_serves_when_it_is_ready_and_says_where_it_stands(node: Box) -> None:
    assert node.show(UNIT, "ActiveState") == "active"
    assert re.fullmatch(LINE, node.show(UNIT, "StatusText"))
    assert "leader, height" in node.run("systemctl", "status", "--no-pager", UNIT)
    assert node.json("status", "--node", SOCKET)["is_ready"]
    submit(node, "seen")
    height = node.json("status", "--node", SOCKET)["ledger"]["height"]
    wait_status(node, UNIT, f"leader, height {height:,}, 1 of 1 orderers, lag 0")


@pytest.mark.short
def test_the_socket_is_for_the_group(node: Box) -> None:
    mode, group = node.run("stat", "-c", "%a %G", SOCKET).split()
    assert (mode, group) == ("660", "p2pcity")
    status = (PROGRAM, "status", "--json", "--node", SOCKET)
    assert json.loads(node.run(*OPERATOR, "--groups=p2pcity", *status))["is_ready"]
    assert node.run(*OPERATOR, "--clear-groups", *status, is_checked=False) == ""


@pytest.mark.short
def test_keys_and_data_are_the_nodes_alone(node: Box) -> None:
    owner, mode = node.run("stat", "-c", "%u %a", "/var/lib/private/p2pcity/main").split()
    assert 61184 <= int(owner) <= 65519, "a dynamic user"
    assert mode == "700"
    assert node.run("stat", "-c", "%U %a", "/etc/p2pcity/main/node.key").split() == ["root", "600"]


@pytest.mark.short
def test_the_journal_has_the_fields(node: Box) -> None:
    submit(node, "field")
    blocks = [
        entry
        for entry in node.journal(UNIT)
        if '"event": "block"' in str(entry["MESSAGE"]) and entry["_TRANSPORT"] == "stdout"
    ]
    assert blocks
    entry = blocks[-1]
    assert entry["PRIORITY"] == "6"
    assert entry["SYSLOG_IDENTIFIER"] == "p2pcity"
    assert entry["_SYSTEMD_UNIT"] == UNIT
    fields = json.loads(entry["MESSAGE"])
    assert fields["height"] >= 1
    assert not {"time", "priority"} & set(fields), "the journal keeps both"


@pytest.mark.short
def test_reload_takes_what_it_can_and_names_the_rest(node: Box) -> None:
    path = node.root / CONFIG
    before, pid, cursor = path.read_text(), node.show(UNIT, "MainPID"), node.cursor()
    try:
        path.write_text(f'{before}\n[logs]\nlevel = "debug"\n\n[mempool]\nbytes_max = 33554432\n')
        node.run("systemctl", "reload", UNIT)
        node.wait(lambda: bool(events_of(node.lines(UNIT, cursor), "reloaded")), "it has reloaded")
        [reloaded] = events_of(node.lines(UNIT, cursor), "reloaded")
        [waiting] = events_of(node.lines(UNIT, cursor), "reload_needs_restart")
        assert reloaded["changed"] == ["logs.level"]
        assert waiting["settings"] == ["mempool.bytes_max"]
        path.write_text("[net]\nport = 1\n")
        node.run("systemctl", "reload", UNIT)
        refused = "reload_refused"
        node.wait(lambda: bool(events_of(node.lines(UNIT, cursor), refused)), "it has refused")
        [line] = events_of(node.lines(UNIT, cursor), refused)
        assert "net.port" in line["reason"]
    finally:
        path.write_text(before)
    wait_status(node, UNIT, LINE)
    assert node.show(UNIT, "ActiveState") == "active"
    assert node.show(UNIT, "MainPID") == pid


@pytest.mark.short
def test_state_survives_a_restart_and_a_kill(node: Box) -> None:
    # Slower than this, systemd would kill it, and Result would say so.
    node.drop_in(UNIT, "stop", "[Service]\nTimeoutStopSec=10\n")
    submit(node, "before")
    begin_s = time.monotonic()
    node.run("systemctl", "stop", UNIT)
    print(f"stopped after {time.monotonic() - begin_s:.1f} s")
    assert last_exit(node) == ("success", "0")
    begin_s = time.monotonic()
    node.run("systemctl", "start", UNIT)
    print(f"started again: READY after {time.monotonic() - begin_s:.1f} s")
    wait_status(node, UNIT, "leader, .*")
    assert "before" in found(node)
    restarts = int(node.show(UNIT, "NRestarts"))
    submit(node, "kill")
    node.run("systemctl", "kill", "--signal=KILL", "--kill-whom=main", UNIT)
    wait_restarted(node, restarts)
    wait_status(node, UNIT, "leader, .*")
    assert {"before", "kill"} <= found(node)


@pytest.mark.short
def test_what_root_mends_is_the_nodes_again(node: Box) -> None:
    node.run("systemctl", "stop", UNIT)
    node.p2pcity("rebuild", "--config", f"/{CONFIG}")
    node.run("systemctl", "start", UNIT)
    wait_status(node, UNIT, "leader, .*")


@pytest.mark.short
@pytest.mark.scenario("H7", tier="P", needs="root")
def test_a_loop_that_hangs_is_restarted_and_accused(node: Box) -> None:
    restarts, cursor = with_watchdog(node), node.cursor()
    with node.delayed(UNIT, "epoll_wait", 600, is_loop=True):
        wait_status(node, UNIT, r"the event loop stands still for \d+ s")
        wait_watchdog(node, cursor)
    wait_restarted(node, restarts)
    [line] = events_of(node.lines(UNIT, cursor), "watchdog_not_fed")
    assert line["reason"].startswith("the event loop stands still")
    assert any("get_events" in frame for frame in line["stacks"]["MainThread"])
    wait_status(node, UNIT, "leader, .*")


@pytest.mark.scenario("H7", tier="P", needs="root")
def test_a_disk_that_hangs_for_long_is_restarted_and_accused(node: Box) -> None:
    restarts, cursor = with_watchdog(node), node.cursor()
    with node.delayed(UNIT, "fdatasync", 600, is_loop=False):
        submit_unheard(node)
        wait_watchdog(node, cursor)
        # As on a disk that hangs, the process does not even die: its next life waits for that.
        node.wait(lambda: bool(events_of(node.lines(UNIT, cursor), "lock_waits")), "it waits")
        assert node.show(UNIT, "StatusText").startswith("waiting: the data directory")
    wait_restarted(node, restarts)
    lines = node.lines(UNIT, cursor)
    assert events_of(lines, "disk_hangs")
    [line] = events_of(lines, "watchdog_not_fed")
    assert "thread p2pcity-log stands still" in line["reason"]
    assert "SegmentLog.save" in line["reason"]
    assert any("segment" in frame for frame in line["stacks"]["p2pcity-log"])
    # A longer one is left out by `journalctl -o json`.
    assert len(json.dumps(line)) < 4096


@pytest.mark.short
@pytest.mark.scenario("H7", tier="P", needs="root")
def test_a_disk_that_hangs_for_a_moment_is_an_alarm_alone(node: Box) -> None:
    restarts, cursor, pid = with_watchdog(node), node.cursor(), node.show(UNIT, "MainPID")
    with node.delayed(UNIT, "fdatasync", WATCHDOG_S // 3, is_loop=False):
        submit_unheard(node)
        node.wait(
            lambda: bool(events_of(node.lines(UNIT, cursor), "disk_answers")), "the disk answers"
        )
    assert events_of(node.lines(UNIT, cursor), "disk_hangs")
    assert node.show(UNIT, "MainPID") == pid
    assert int(node.show(UNIT, "NRestarts")) == restarts
    wait_status(node, UNIT, "leader, .*")


@pytest.mark.scenario("H7", tier="P", needs="root")
def test_a_process_that_is_stopped_as_a_whole_is_restarted(node: Box) -> None:
    restarts, cursor = with_watchdog(node), node.cursor()
    node.run("systemctl", "kill", "--signal=STOP", "--kill-whom=main", UNIT)
    wait_watchdog(node, cursor)
    wait_restarted(node, restarts)
    messages = [str(entry["MESSAGE"]) for entry in node.journal(UNIT, cursor)]
    assert any(message.startswith("Fatal Python error: Aborted") for message in messages)


def submit_unheard(box: Box) -> None:
    """Give the node something to write to its log, and wait for nothing."""
    event = ["--type", "box.test", "--data", "{}", "--wait", "committed", "--timeout-ms", "1"]
    box.run(PROGRAM, "submit", *event, "--node", SOCKET, is_checked=False)


@pytest.mark.short
def test_a_wrong_configuration_is_not_restarted(node: Box) -> None:
    path = node.root / CONFIG
    before = path.read_text()
    node.run("systemctl", "stop", UNIT)
    try:
        path.write_text(f"{before}\n[nets]\n")
        node.run("systemctl", "start", UNIT, is_checked=False)
        node.wait(lambda: node.show(UNIT, "ActiveState") == "failed", "the unit has failed")
        assert last_exit(node) == ("exit-code", "2")
        assert node.show(UNIT, "NRestarts") == "0"
    finally:
        path.write_text(before)


@pytest.mark.short
def test_three_nodes_on_one_host_are_a_network(box: Box) -> None:
    names = ("1", "2", "3")
    units = {name: f"p2pcity@{name}.service" for name in names}
    for name in names:
        make_node(box, name, 4720 + int(name))
    make_genesis(box, *names)
    begin_s = time.monotonic()
    box.run("systemctl", "start", *units.values())
    print(f"three nodes READY after {time.monotonic() - begin_s:.1f} s")
    for unit in units.values():
        wait_status(box, unit, "(leader|follower), height 0, 3 of 3 orderers, lag 0")
    users = {box.run("stat", "-c", "%u", f"/run/p2pcity/{name}.sock") for name in names}
    assert len(users) == len(names), "a user each"
    [leader] = [n for n in names if box.show(units[n], "StatusText").startswith("leader")]
    other = next(name for name in names if name != leader)
    event = ["--type", "box.test", "--data", "{}"]
    box.p2pcity("submit", *event, "--node", f"/run/p2pcity/{other}.sock")
    begin_s = time.monotonic()
    box.run("systemctl", "stop", units[leader])
    print(f"the leader stopped after {time.monotonic() - begin_s:.1f} s")
    assert box.show(units[leader], "Result") == "success"
    stopped = [str(entry["MESSAGE"]) for entry in box.journal(units[leader])]
    assert not any("not_handed_over" in message for message in stopped)
    wait_status(box, units[other], "(leader|follower), height [1-9], 2 of 3 orderers, lag 0")
    box.p2pcity("submit", *event, "--node", f"/run/p2pcity/{other}.sock")
