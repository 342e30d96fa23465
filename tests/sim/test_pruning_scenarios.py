"""Nodes that drop old blocks, and those that come back when nobody has them any more."""

from typing import Final

import pytest

from tests.sim.city import BASE_INTERVAL
from tests.sim.faults_disk import turn_bit_over
from tests.sim.node import Node
from tests.sim.stage import SEEDS, Stage, hold, staged

_KILLS_MAX: Final = 60


def _prune(stage: Stage) -> None:
    for node in stage.nodes:
        node.keep_blocks = BASE_INTERVAL


def _leave_behind(stage: Stage, node: Node) -> None:
    """Stop a node until the others keep nothing that it could go on with."""
    node.crash()
    others = [other for other in stage.nodes if other is not node]
    stage.wait(
        lambda: min(other.log.first_index for other in others) > node.durable.written_index + 1,
        300,
        "the others pruned on",
    )


def _wait_caught_up(stage: Stage, node: Node) -> None:
    height = len(stage.checkers.chain)
    stage.wait(lambda: node.is_up and node.views.tip.height >= height, 120, f"{node} caught up")


def _wait_stopped(stage: Stage, node: Node, fetched: int) -> None:
    """It crashed at an answer, or has the base."""
    struck = stage.world.struck
    stage.wait(lambda: node.readable_log is None or struck["base fetched"] > fetched, 120, "either")


def _wait_down(stage: Stage, node: Node) -> None:
    stage.wait(lambda: not node.is_up, 120, f"{node} dies")


def _change_leader(stage: Stage, besides: Node) -> None:
    leader = stage.wait_leader()
    [other] = (node for node in stage.nodes if node not in (leader, besides))
    leader.raw_node.transfer_leader(other.name)
    leader.turn()
    stage.wait(lambda: not leader.is_leader, 60, f"{other} leads")


def _crash_at_each_answer(stage: Stage, node: Node, *, other_leaders: bool = False) -> None:
    """Start it until it has a base: it crashes at its first answer, at its second, and so on."""
    fetched = stage.world.struck["base fetched"]
    crashes = 0
    while stage.world.struck["base fetched"] == fetched:
        crashes += 1
        assert crashes < _KILLS_MAX
        node.answers_until_crash = crashes
        assert node.start()
        _wait_stopped(stage, node, fetched)
        if other_leaders and crashes % 3 == 0:
            _change_leader(stage, node)
    node.answers_until_crash = 0
    if not node.is_up:
        assert node.start()
    assert crashes > 3
    _wait_caught_up(stage, node)


@pytest.mark.scenario("D7", tier="S")
def test_a_follower_behind_the_base_comes_back_while_the_others_go_on() -> None:
    for seed in SEEDS:
        with staged(seed, 3) as stage:
            _prune(stage)
            leader = stage.wait_leader()
            node = next(node for node in stage.nodes if node is not leader)
            _leave_behind(stage, node)
            fetched = stage.world.struck["base fetched"]
            before = stage.acknowledged
            assert node.start()
            _wait_caught_up(stage, node)
            assert stage.world.struck["base fetched"] > fetched
            assert stage.world.struck["views from a base"]
            assert stage.acknowledged > before
            assert leader.is_leader


@pytest.mark.scenario("D7", tier="S")
def test_seeds_hold_when_nodes_fall_behind_every_base() -> None:
    struck = hold(("behind the base", "pruned", "loss", "transfer"), seeds=(1, 2, 3))
    assert struck["base fetched"]


def _damage(stage: Stage, node: Node) -> None:
    """Stop a node whose log goes bad in the middle, and leave it behind."""
    stage.wait_acknowledged(20, 120)
    node.crash()
    for number in range(100):
        # Not every bit makes a hole: what is no entry is made again from what stands around it.
        assert turn_bit_over(node, 0.4 + number / 1000, 3) is not None
        assert node.start()
        if node.mending is not None:
            break
        node.crash()
    assert node.mending is not None
    _leave_behind(stage, node)


@pytest.mark.scenario("A5", "D7", tier="S")
def test_a_hole_below_every_base_is_left_behind() -> None:
    for seed in SEEDS:
        with staged(seed, 3) as stage:
            _prune(stage)
            leader = stage.wait_leader()
            node = next(node for node in stage.nodes if node is not leader)
            _damage(stage, node)
            assert node.start()
            _wait_caught_up(stage, node)
            assert stage.world.struck["mended by a base"] == 1
            # Without the other one each commit needs it.
            [other] = (x for x in stage.nodes if x not in (node, stage.wait_leader()))
            other.crash()
            stage.wait_acknowledged(5, 120)
            assert other.start()


@pytest.mark.scenario("A5", "D8", tier="S")
def test_a_mending_goes_on_over_a_crash_at_each_answer() -> None:
    for seed in SEEDS:
        with staged(seed, 3) as stage:
            _prune(stage)
            leader = stage.wait_leader()
            node = next(node for node in stage.nodes if node is not leader)
            _damage(stage, node)
            _crash_at_each_answer(stage, node)
            assert stage.world.struck["mended by a base"] == 1


@pytest.mark.scenario("A5", "D7", tier="S")
def test_seeds_hold_when_bits_turn_over_below_every_base() -> None:
    """Nobody keeps all blocks."""
    kinds = ("corruption", "behind the base", "pruned", "crash while fetching a base")
    struck = hold(kinds, seeds=(1, 8, 9, 10))
    assert struck["log repaired"]
    assert struck["mended by a base"]


@pytest.mark.scenario("D8", tier="S")
def test_a_fetch_goes_on_over_a_crash_at_each_answer_and_other_leaders() -> None:
    """Then it is left behind once more: two bases in short order."""
    for seed in SEEDS:
        with staged(seed, 3) as stage:
            _prune(stage)
            leader = stage.wait_leader()
            node = next(node for node in stage.nodes if node is not leader)
            _leave_behind(stage, node)
            fetched = stage.world.struck["base fetched"]
            _crash_at_each_answer(stage, node, other_leaders=True)
            _leave_behind(stage, node)
            assert node.start()
            _wait_caught_up(stage, node)
            assert stage.world.struck["base fetched"] >= fetched + 2


@pytest.mark.scenario("D8", tier="S")
def test_seeds_hold_when_fetches_of_a_base_are_interrupted() -> None:
    kinds = ("behind the base", "crash while fetching a base", "campaign", "sync error")
    struck = hold(kinds, seeds=(1, 2, 3, 4))
    assert struck["base fetched"]


@pytest.mark.scenario("D10", tier="S")
def test_seeds_hold_when_nodes_die_while_they_prune() -> None:
    struck = hold(("crash while pruning", "power loss", "disk full"), seeds=(1, 2, 3))
    assert struck["pruned"]


@pytest.mark.scenario("D10", "A3", tier="S")
def test_a_base_that_a_start_found_is_not_lost_with_power() -> None:
    """Killed at each call to the disk while it prunes; then the power is lost, once it started."""
    for seed in range(1, 9):
        with staged(seed, 3) as stage:
            _prune(stage)
            node = next(node for node in stage.nodes if node is not stage.wait_leader())
            for calls in range(1, 16):
                node.dies_pruning = calls
                _wait_down(stage, node)
                assert node.start()
                found = node.storage.bases.base.height
                node.lose_power()
                assert node.start()
                assert node.storage.bases.base.height >= found
                _wait_caught_up(stage, node)


@pytest.mark.scenario("E2", tier="S")
def test_seeds_hold_when_what_was_pruned_comes_again() -> None:
    """On nodes that know of it by their base alone."""
    struck = hold(("sent again", "pruned", "views lost", "transfer"))
    assert struck["pruned and sent again"]
    assert struck["views from a base"]
