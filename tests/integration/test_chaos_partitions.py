"""Nodes that are cut off: one way, both ways, by halves, bridged, in a ring, by a flapping link."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from p2pcity.cli.chaos.links import Wire
from p2pcity.cli.chaos.wires import Wires
from tests.integration.process_case import (
    Author,
    Load,
    others,
    verify,
    wait_leader,
)
from tests.integration.relayed_case import (
    check_promises_nothing,
    raft_of,
    running_relayed,
    term_of,
    wait_committed,
    wait_not_leading,
)

pytestmark = pytest.mark.integration

TERMS_MAX = 5
"""How far the term may grow in a test of some seconds: an election that is lost now and then on a
busy machine, and no storm."""
FLAP_S = 60.0


def check_cut_off_leader(
    tmp_path: Path, choose: Callable[[Wires, str], list[Wire]], terms_max: int = TERMS_MAX
) -> None:
    """The leader is cut off: the others elect and go on, and it promises nothing any more."""
    with running_relayed(tmp_path) as (network, wires):
        author = Author(network)
        with Load(network) as load:
            load.wait_more(30)
            old = wait_leader(network)
            rest = others(network, old)
            term = term_of(network, rest)
            cut, cut_s = choose(wires, old), time.monotonic()
            wires.hold(cut)
            load.targets = rest
            stepped_s = wait_not_leading(network, old)
            new = wait_leader(network, rest)
            elected_s = time.monotonic() - cut_s
            load.wait_more(30)
            told = load.since(cut_s)[-1]
            id_ = check_promises_nothing(network, old, author, told)
            grown = term_of(network, rest) - term
            wires.release(cut)
            load.targets = [node.name for node in network.nodes]
            wait_committed(network, id_)
            load.wait_more(30)
        assert sum(wires.held_bytes[wire] for wire in cut) > 0, "nothing was cut"
        assert 1 <= grown <= terms_max
        print(
            f"{old} stepped down {stepped_s:.2f} s after the cut, {new} led after {elected_s:.2f} "
            f"s, {grown} terms on; {load.count} acknowledged"
        )
        verify(network, load.acknowledged.values())


@pytest.mark.long
@pytest.mark.scenario("C1", "E5", tier="P")
def test_the_leader_is_cut_off_both_ways(tmp_path: Path) -> None:
    check_cut_off_leader(tmp_path, lambda wires, leader: wires.around([leader]))


@pytest.mark.long
@pytest.mark.scenario("C2", "E5", tier="P")
def test_the_leader_can_say_and_not_hear(tmp_path: Path) -> None:
    check_cut_off_leader(tmp_path, lambda wires, leader: wires.into(leader))


@pytest.mark.long
@pytest.mark.scenario("C3", "E5", tier="P")
def test_the_leader_can_hear_and_not_say(tmp_path: Path) -> None:
    check_cut_off_leader(tmp_path, lambda wires, leader: wires.out_of(leader), terms_max=2)


@pytest.mark.long
@pytest.mark.scenario("C4", tier="P")
@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("is_leader_inside", [True, False], ids=["with-leader", "without"])
def test_a_minority_is_cut_off(tmp_path: Path, size: int, is_leader_inside: bool) -> None:
    with running_relayed(tmp_path, size) as (network, wires):
        author = Author(network)
        with Load(network) as load:
            load.wait_more(30)
            leader = wait_leader(network)
            names = sorted(wires.nodes, key=lambda name: (name == leader) != is_leader_inside)
            minority, majority = names[: (size - 1) // 2], names[(size - 1) // 2 :]
            cut, cut_s = wires.around(minority), time.monotonic()
            wires.hold(cut)
            load.targets = majority
            wait_leader(network, majority)
            load.wait_more(30)
            told = load.since(cut_s)[-1]
            for name in minority:
                wait_not_leading(network, name)
            ids = [check_promises_nothing(network, name, author, told) for name in minority]
            wires.release(cut)
            load.targets = list(wires.nodes)
            for id_ in ids:
                wait_committed(network, id_)
            load.wait_more(30)
        print(f"{minority} of {size} were cut off; {load.count} acknowledged")
        verify(network, load.acknowledged.values())


def check_bent(tmp_path: Path, cut: Callable[[Sequence[str]], list[Wire]]) -> None:
    """Five nodes that not all hear each other, each a majority: one order, and no storm."""
    with running_relayed(tmp_path, 5) as (network, wires):
        with Load(network) as load:
            load.wait_more(30)
            chosen = cut(wires.nodes)
            wires.hold(chosen)
            term = term_of(network, wires.nodes)
            # Who does not hear the leader acknowledges nothing: its clients go on to another node.
            load.wait_more(60, deadline_s=90)
            grown = term_of(network, wires.nodes) - term
            roles = {name: raft_of(network, name).get("role") for name in wires.nodes}
            wires.release(chosen)
            load.wait_more(30)
        assert sum(wires.held_bytes[wire] for wire in chosen) > 0, "nothing was cut"
        print(f"{grown} terms on, {roles}; {load.count} acknowledged")
        assert grown <= TERMS_MAX
        verify(network, load.acknowledged.values())


@pytest.mark.long
@pytest.mark.scenario("C5", tier="P")
def test_a_bridge_between_two_groups(tmp_path: Path) -> None:
    def cut(names: Sequence[str]) -> list[Wire]:
        left, right = names[:2], names[3:]
        return [wire for a in left for b in right for wire in ((a, b), (b, a))]

    check_bent(tmp_path, cut)


@pytest.mark.long
@pytest.mark.scenario("C6", tier="P")
def test_a_ring_of_majorities(tmp_path: Path) -> None:
    def cut(names: Sequence[str]) -> list[Wire]:
        count = len(names)
        return [
            (a, b)
            for i, a in enumerate(names)
            for k, b in enumerate(names)
            if (i - k) % count in (2, 3)
        ]

    check_bent(tmp_path, cut)


@pytest.mark.long
@pytest.mark.scenario("C7", tier="P")
def test_a_flapping_link(tmp_path: Path) -> None:
    """The link between the leader and a follower comes and goes every 100 to 500 ms."""
    with running_relayed(tmp_path) as (network, wires):
        with Load(network) as load:
            load.wait_more(30)
            leader = wait_leader(network)
            link = [(leader, others(network, leader)[0]), (others(network, leader)[0], leader)]
            term, begin_s = term_of(network, wires.nodes), time.monotonic()
            turns = 0
            while time.monotonic() - begin_s < FLAP_S:
                period_s = 0.1 + 0.1 * (turns % 5)
                wires.hold(link)
                threading.Event().wait(period_s)
                wires.release(link)
                threading.Event().wait(period_s)
                turns += 1
            gap_s = load.longest_gap_s(begin_s, time.monotonic())
            count = len(load.since(begin_s))
            grown = term_of(network, wires.nodes) - term
            load.wait_more(30)
        assert min(wires.held_bytes[wire] for wire in link) > 0
        print(
            f"{turns} flaps in {FLAP_S:.0f} s: {grown} terms on, {count} acknowledged, longest "
            f"gap {gap_s:.2f} s"
        )
        assert grown <= TERMS_MAX
        verify(network, load.acknowledged.values())
