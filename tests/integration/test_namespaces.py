"""Three hosts in network namespaces on a bridge, from nothing, by the words of the README.

Each host has its own address, its own directory and its own process; what the owners exchange are
cards and one genesis file. Needs root, for the namespaces.
"""

import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from p2pcity.api.client import ApiProblem, Client, Unreachable
from tests.bad_input_city import clean_environment, command_line

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(shutil.which("ip") is None, reason="ip (iproute2) is missing"),
]

MEMBERS: Final = ("Parks", "Water", "Roads")
DEADLINE_S: Final = 60.0


def ip(*arguments: str) -> None:
    """Run ip(8)."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (arguments, done.stderr)


def wait_until(is_so: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> float:
    """Wait until `is_so()`; return how long it took."""
    begin_s = time.monotonic()
    while not is_so():
        assert time.monotonic() - begin_s < deadline_s, f"not within {deadline_s} s: {what}"
        time.sleep(0.02)
    return time.monotonic() - begin_s


@dataclass(eq=False)
class Host:
    """A namespace with an address, the directory of its owner, and its node's process."""

    namespace: str
    port: str
    address: str
    member: str
    directory: Path
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def node(self) -> Path:
        return self.directory / "node"

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text(encoding="utf-8")

    def p2pcity(self, *arguments: str, exit_code: int = 0) -> str:
        """Run a command on this host, in its owner's directory, and return what it prints."""
        done = subprocess.run(
            ["ip", "netns", "exec", self.namespace, *command_line(*arguments)],
            env=clean_environment(),
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert done.returncode == exit_code, (arguments, done.stdout, done.stderr)
        return done.stdout

    def run(self) -> None:
        """Start the daemon."""
        with (self.directory / "log").open("ab") as output:
            self.process = subprocess.Popen(
                [
                    *("ip", "netns", "exec", self.namespace),
                    *command_line("run", "--config", "node/p2pcity.toml"),
                ],
                env=clean_environment(),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def stop(self) -> None:
        """End the daemon for good."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(DEADLINE_S)

    def status(self) -> dict[str, Any] | None:
        """Return /v1/status, None when nobody answers."""
        assert self.process is not None
        assert self.process.poll() is None, self.log
        with Client(self.node / "node.sock", timeout_s=DEADLINE_S) as client:
            try:
                found: dict[str, Any] = client.get_json("/v1/status")
            except (Unreachable, ApiProblem):
                return None
        return found


@dataclass(eq=False)
class Town:
    """The switch and the hosts on it."""

    switch: str
    hosts: list[Host]

    def cut(self, host: Host) -> None:
        """Pull a host's cable out of the switch."""
        ip("-n", self.switch, "link", "set", host.port, "down")

    def heal(self, host: Host) -> None:
        """Put it back."""
        ip("-n", self.switch, "link", "set", host.port, "up")

    def leader(self, among: Sequence[Host]) -> Host | None:
        """Return who leads by the word of all of `among`."""
        rafts = [found["raft"] if (found := host.status()) else {} for host in among]
        told = {(raft.get("term"), raft.get("leader")) for raft in rafts}
        for host, raft in zip(among, rafts, strict=True):
            if len(told) == 1 and raft.get("role") == "leader":
                return host
        return None

    def wait_leader(self, among: Sequence[Host]) -> tuple[Host, float]:
        """Wait for a leader; return it, and how long that took."""
        found: list[Host] = []

        def has_leader() -> bool:
            leader = self.leader(among)
            found.extend([leader] if leader else [])
            return bool(found)

        took_s = wait_until(has_leader, f"a leader among {[host.member for host in among]}")
        return found[0], took_s

    def wait_equal(self) -> None:
        """Wait until all hosts have the same head, and check that it is one height and root."""

        def ledgers() -> list[tuple[object, ...]]:
            names = ("height", "head", "tree_size", "root", "events")
            found = [host.status() for host in self.hosts]
            return [tuple(item["ledger"][name] for name in names) for item in found if item]

        wait_until(
            lambda: len(found := ledgers()) == len(self.hosts) and len(set(found)) == 1,
            "equal heads",
        )


def make_town(stack: ExitStack, directory: Path) -> Town:
    """Make three hosts on a switch; all of it goes when the stack ends."""
    mark = f"p2pcity-{secrets.token_hex(3)}"
    switch = f"{mark}-switch"

    def namespace(name: str) -> None:
        done = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"no network namespaces here: {done.stderr.decode().strip()}")
        stack.callback(subprocess.run, ["ip", "netns", "delete", name], check=True)

    namespace(switch)
    ip("-n", switch, "link", "add", "bridge", "type", "bridge")
    ip("-n", switch, "link", "set", "bridge", "up")
    hosts = []
    for number, member in enumerate(MEMBERS, 1):
        own = f"{mark}-{member.lower()}"
        namespace(own)
        port, address = f"port{number}", f"10.47.10.{number}"
        ip(
            *("-n", switch, "link", "add", port, "type", "veth"),
            *("peer", "name", "eth0", "netns", own),
        )
        ip("-n", switch, "link", "set", port, "master", "bridge", "up")
        ip("-n", own, "address", "add", f"{address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            ip("-n", own, "link", "set", device, "up")
        place = directory / member.lower()
        place.mkdir()
        host = Host(own, port, address, member, place)
        stack.callback(host.stop)
        hosts.append(host)
    return Town(switch, hosts)


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    with ExitStack() as stack:
        yield make_town(stack, tmp_path)


def exchange(town: Town, announce: Callable[[Host], Sequence[str]]) -> None:
    """Init on each host, cards to one of them, the genesis back to all, and run."""
    first = town.hosts[0]
    for host in town.hosts:
        host.p2pcity("init", "node", "--member", host.member, *announce(host))
        card = f"{host.member.lower()}.card"
        shutil.copyfile(host.node / "node.card", first.directory / card)
    cards = [part for host in town.hosts for part in ("--card", f"{host.member.lower()}.card")]
    first.p2pcity("genesis", "new", "--name", "Our city", *cards)
    shown = set()
    for host in town.hosts:
        shutil.copyfile(first.directory / "genesis.cbor", host.node / "genesis.cbor")
        facts = json.loads(host.p2pcity("genesis", "show", "--json", "node/genesis.cbor"))
        shown.add(facts["network"])
        host.run()
    assert len(shown) == 1


def events(host: Host) -> list[dict[str, Any]]:
    """Return what `p2pcity query` prints on a host."""
    text = host.p2pcity("query", "--node", "node", "--type", "permit.*", "--json")
    return [json.loads(line) for line in text.splitlines()]


def submit(host: Host, permit: str, wait: str = "committed") -> dict[str, Any]:
    """Run the README's `p2pcity submit` on a host."""
    data = json.dumps({"permit": permit})
    text = host.p2pcity(
        *("submit", "--node", "node", "--type", "permit.granted", "--data", data),
        *("--wait", wait, "--json"),
    )
    [answer] = json.loads(text)["answers"]
    found: dict[str, Any] = answer
    return found


@pytest.mark.scenario("C1", tier="P", needs="root")
def test_three_hosts_by_the_words_of_the_readme(town: Town) -> None:
    exchange(town, lambda host: ("--announce", f"/ip4/{host.address}/tcp/4710"))
    town.wait_leader(town.hosts)
    parks, water, roads = town.hosts
    assert submit(parks, "2026-117")["status"] == "committed"
    [event] = events(roads)
    assert event["data"] == {"permit": "2026-117"}
    assert event["p2pcitymember"] == "Parks"
    assert "permit.granted" in water.p2pcity(
        "tail", "--node", "node", "--from", "0", "--limit", "1"
    )
    told = json.loads(water.p2pcity("status", "--node", "node", "--json"))
    assert told["ledger"]["height"] == 1

    def is_connected() -> bool:
        peers = json.loads(water.p2pcity("peers", "--node", "node", "--json"))["peers"]
        return {row["member"] for row in peers if row["is_connected"]} == {"Parks", "Roads"}

    # A leader needs connections of its own alone.
    wait_until(is_connected, "water is connected to both")

    # The leader's cable is pulled out: the others elect, and it steps down by itself.
    old, _ = town.wait_leader(town.hosts)
    others = [host for host in town.hosts if host is not old]
    before = old.status()
    assert before is not None
    town.cut(old)
    new, took_s = town.wait_leader(others)
    assert new is not old
    after = new.status()
    assert after is not None
    assert after["raft"]["term"] > before["raft"]["term"]
    print(f"a new leader {took_s:.2f} s after the cut")

    def has_stepped_down() -> bool:
        found = old.status()
        return found is not None and found["raft"]["role"] != "leader" and not found["is_ready"]

    print(f"the old one steps down after {wait_until(has_stepped_down, 'step down'):.2f} s more")
    old.p2pcity("status", "--node", "node", exit_code=3)
    # The majority goes on; what the one that is cut off accepts waits for the others.
    assert submit(new, "2026-118")["status"] == "committed"
    assert submit(old, "2026-119", "accepted")["status"] == "pending"
    permits = [event["data"]["permit"] for event in events(others[0])]
    assert permits == ["2026-117", "2026-118"]

    # The cable is back: everything is everywhere, in one order, once.
    town.heal(old)

    def has_all() -> bool:
        # Not by a query: until it hears of a leader that is refused.
        found = old.status()
        return found is not None and found["ledger"]["events"] == 3

    healed_s = wait_until(has_all, "all three events on the healed host")
    print(f"all events everywhere {healed_s:.2f} s after the cable is back")
    town.wait_leader(town.hosts)
    town.wait_equal()
    orders = [[event["data"]["permit"] for event in events(host)] for host in town.hosts]
    assert orders == [["2026-117", "2026-118", "2026-119"]] * 3
    for host in town.hosts:
        assert "Traceback" not in host.log
        assert '"level": "error"' not in host.log


@pytest.mark.parametrize(
    "has_gateway",
    [
        pytest.param(True, id="gateway", marks=pytest.mark.long),
        pytest.param(False, id="isolated"),
    ],
)
def test_hosts_without_addresses_find_each_other_by_mdns(town: Town, has_gateway: bool) -> None:
    # Port 0 takes any, so that no card can say where its node will be.
    if has_gateway:
        for host in town.hosts:
            ip("-n", host.namespace, "route", "add", "default", "via", "10.47.10.254")
    exchange(town, lambda host: ("--listen", "/ip4/0.0.0.0/tcp/0"))
    genesis = json.loads(town.hosts[0].p2pcity("genesis", "show", "--json", "node/genesis.cbor"))
    assert [node["addresses"] for node in genesis["nodes"]] == [[], [], []]
    _, took_s = town.wait_leader(town.hosts)
    print(f"a leader {took_s:.2f} s after the start, by mDNS alone")
    assert submit(town.hosts[0], "2026-117")["status"] == "committed"
    town.wait_equal()
    for host in town.hosts:
        assert "Traceback" not in host.log
