"""The README's operations part, line by line, on an empty machine, as a new user would."""

import json
from collections.abc import Iterator
from typing import Final

import pytest

from tests.systemd.box import why_not
from tests.systemd.empty_box import SOURCES, USER, EmptyBox, blocks

pytestmark = [
    pytest.mark.systemd,
    pytest.mark.skipif(bool(why_not()), reason=f"no systemd in a box: {why_not()}"),
]

HOME: Final = f"/home/{USER}"
HOSTS: Final = ("parks", "water", "roads", "trees", "trams", "buses")
ORDERERS: Final = HOSTS[:3]
NEXT: Final = "0.2.0"
"""The release that the README upgrades to."""


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmptyBox]:
    """The box with p2pcity in it as the README installs it, and booted."""
    [lines] = blocks("Under systemd")
    with EmptyBox(tmp_path_factory.mktemp("readme"), lines[:2]) as made:
        for number in range(1, len(HOSTS) + 1):
            made.run("ip", "address", "add", f"192.0.2.{number}/32", "dev", "lo")
        yield made


def test_under_systemd(box: EmptyBox) -> None:
    [lines] = blocks("Under systemd")
    assert lines[0].startswith("sudo apt-get install")
    assert lines[1].startswith("sudo python3 -m venv")
    rest = lines[2:]
    assert [line for line in rest if line.startswith("#")] == [
        '# ... genesis.cbor into /etc/p2pcity/main/, as under "Three hosts" ...'
    ]
    for line in rest:
        if line.startswith("#"):
            card, genesis = "/etc/p2pcity/main/node.card", "/etc/p2pcity/main/genesis.cbor"
            line = f'sudo p2pcity genesis new --name "Our city" --card {card} -o {genesis}'
        box.say(line, directory=SOURCES)
    box.wait(lambda: "leader" in box.show("p2pcity", "StatusText"), "it leads")
    # A login after `usermod`, and no address said.
    assert "leader" in box.say("p2pcity status", directory=HOME)
    box.say("p2pcity doctor", directory=HOME)
    box.say("sudo systemctl reload p2pcity", directory=HOME)
    box.say("sudo journalctl -u p2pcity -o cat --no-pager | grep ready", directory=HOME)
    _upgrade(box)
    box.say("sudo systemctl stop p2pcity", directory=HOME)


def _upgrade(box: EmptyBox) -> None:
    version, peers, install, restart, status = blocks("Upgrading")[0]
    before = box.say(version, directory=HOME)
    box.say(peers, directory=HOME)
    assert install.endswith(f"p2pcity-{NEXT}-py3-none-any.whl")
    box.put_release(NEXT)
    box.say(install, directory=SOURCES)
    box.say(restart, directory=HOME)
    box.wait(lambda: "leader" in box.show("p2pcity", "StatusText"), "it leads again")
    assert "leader" in box.say(status, directory=HOME)
    after = box.say(version, directory=HOME)
    assert NEXT in after
    assert NEXT not in before


def test_three_hosts_and_what_is_done_to_them(box: EmptyBox) -> None:
    """On one machine that has the addresses of all; a directory stands for each host."""
    _make_three(box)
    _use(box)
    _change_who_orders(box)
    _look_at_them(box)
    _lose_a_quorum(box)


def _here(host: str) -> str:
    return f"{HOME}/{host}"


def _init(box: EmptyBox, host: str, line: str) -> None:
    """`line` with what is this host's own in it; all listen at one machine here."""
    address = f"/ip4/192.0.2.{HOSTS.index(host) + 1}/tcp/4710"
    line = line.replace("/ip4/192.0.2.1/tcp/4710", address).replace("Parks", host.title())
    box.say(f"mkdir -p {_here(host)}", directory=HOME)
    box.say(f"{line} --listen {address}", directory=_here(host))


def _run(box: EmptyBox, host: str, line: str) -> None:
    """`p2pcity run ...` in a terminal of its own, which stays open."""
    unit = f"host-{host}"
    box.run("systemctl", "reset-failed", unit, is_checked=False)
    box.run(
        *("systemd-run", "--unit", unit, "--uid", USER, "--working-directory", _here(host)),
        *("-E", "PATH=/usr/local/bin:/usr/bin:/bin", "bash", "-c", line),
    )


def _wait_status(box: EmptyBox, host: str) -> None:
    """Until a host's node is ready."""

    def is_ready() -> bool:
        said = box.run(
            *("su", "-", USER, "-c", f"p2pcity status --quiet --node {_here(host)}/node; echo $?"),
            is_checked=False,
        )
        return said.strip().endswith("0")

    box.wait(is_ready, f"{host} is ready")


def _make_three(box: EmptyBox) -> None:
    [init], [genesis], [run], _ = blocks("Three hosts, one network")
    for host in ORDERERS:
        _init(box, host, init)
        box.say(f"cp node/node.card {_here('parks')}/{host}.card", directory=_here(host))
    box.say(genesis, directory=_here("parks"))
    ids = set()
    for host in ORDERERS:
        box.say(f"cp {_here('parks')}/genesis.cbor node/", directory=_here(host))
        ids.add(box.say("p2pcity genesis show node/genesis.cbor", directory=_here(host)))
    assert len(ids) == 1
    for host in ORDERERS:
        _run(box, host, run)
    for host in ORDERERS:
        _wait_status(box, host)


def _use(box: EmptyBox) -> None:
    *_, lines = blocks("Three hosts, one network")
    status, submit, query, tail = lines
    assert "leader" in box.say(status, directory=_here("parks"))
    assert "committed" in box.say(submit, directory=_here("parks"))
    assert "permit.granted" in box.say(query, directory=_here("water"))
    # A stream has no end of its own.
    assert "permit.granted" in box.say(f"timeout 5 {tail}", directory=_here("roads"), code=124)


def _leader(box: EmptyBox) -> str:
    told = box.say(f"p2pcity raft status --node {_here('parks')}/node", directory=HOME)
    [line] = [line for line in told.splitlines() if " leader " in line]
    return line.partition("/")[0].lower()


def _add_node(box: EmptyBox, host: str) -> str:
    """A node as the section on changes makes one; the place of its card."""
    _init(box, host, 'p2pcity init node --member "Parks" --announce /ip4/192.0.2.1/tcp/4710')
    box.say(f"cp {_here('parks')}/genesis.cbor node/", directory=_here(host))
    _run(box, host, "p2pcity run --config node/p2pcity.toml")
    return f"{_here(host)}/node/node.card"


def _change_who_orders(box: EmptyBox) -> None:
    """Each line once, in an order in which each has something to do."""
    what_if, add, add_observer, remove, demote, replace, transfer = blocks("Change who orders")[0]

    def on_leader(line: str) -> None:
        box.say(line, directory=_on_leader(box))

    assert "SAFE" in box.say(what_if, directory=_on_leader(box), code=5)
    on_leader(transfer)
    card = _add_node(box, "trees")
    on_leader(add.replace("node.card", card, 1))
    box.wait(lambda: _voters(box) == len(ORDERERS) + 1, "trees votes")
    card = _add_node(box, "trams")
    on_leader(add_observer.replace("node.card", card, 1))
    _wait_status(box, "trams")
    on_leader(demote)
    on_leader("p2pcity raft promote Roads")
    # Its disk is lost, and it takes its own place with a new log.
    rejoin, run, replace_itself = blocks("Change who orders")[1]
    box.run("systemctl", "stop", "host-trams")
    box.say("rm -r node/data", directory=_here("trams"))
    box.say(rejoin.replace("DIR", "node", 1), directory=_here("trams"))
    _run(box, "trams", run.replace("DIR", "node", 1))
    place = f"{_here('trams')}/node"
    on_leader(replace_itself.replace("NODE", "Trams", 1).replace("DIR", place, 1))
    _wait_status(box, "trams")
    on_leader(remove.replace("Roads", "Trams", 1))
    on_leader(replace.replace("new.card", _add_node(box, "buses"), 1))
    _wait_status(box, "buses")


def _voters(box: EmptyBox) -> int:
    told = box.say(f"p2pcity raft status --json --node {_on_leader(box)}", directory=HOME)
    return int(json.loads(told)["voters"])


def _on_leader(box: EmptyBox) -> str:
    """The directory of the node that leads."""
    return f"{_here(_leader(box))}/node"


def _look_at_them(box: EmptyBox) -> None:
    [doctor], lines = blocks("When something is wrong")
    top, compare, ping, bw, trace, inspect, bundle = lines
    for host in HOSTS:
        box.say(f"ln -s {_here(host)}/node ~/nodes-{host}", directory=HOME)
    box.say("mkdir nodes", directory=HOME)
    for host in HOSTS:
        box.say(f"mv ~/nodes-{host} ~/nodes/{host}", directory=HOME)
    there = f"{HOME}/nodes"
    box.say(doctor.replace("doctor", "doctor --config parks", 1), directory=there)
    # Without a terminal it is shown once.
    assert "height" in box.say(top, directory=there)
    box.say(compare, directory=there)
    box.say(ping.replace("roads", "trees", 1), directory=there)
    box.say(bw, directory=there)
    submit = blocks("Three hosts, one network")[3][1].replace("--node node", "--node parks")
    id_ = json.loads(box.say(f"{submit} --json", directory=there))["answers"][0]["id"]
    assert "applied" in box.say(trace.replace("ID", id_, 1), directory=there)
    box.say(bundle, directory=there)
    box.run("systemctl", "stop", "host-parks")
    assert "commit" in box.say(inspect, directory=there)


def _lose_a_quorum(box: EmptyBox) -> None:
    """All but one are gone for ever: that one goes on alone."""
    [recover] = blocks("Change who orders")[2]
    for host in HOSTS:
        box.run("systemctl", "stop", f"host-{host}", is_checked=False)
    line = recover.replace("DIR", "node", 1)
    # Without a terminal it asks nothing, and says what to add.
    told = box.say(line, directory=_here("parks"), code=2)
    assert "LOST" in told
    option = told.split("Accept the loss with ")[1].strip().removesuffix(".")
    box.say(f"{line} {option}", directory=_here("parks"))
    _run(box, "parks", "p2pcity run --config node/p2pcity.toml")
    _wait_status(box, "parks")
