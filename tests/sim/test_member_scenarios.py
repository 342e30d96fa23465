"""What changes of who orders may not do: each scenario by itself, with its own promise."""

from collections.abc import Sequence

import pytest

from p2pcity.wire.change import Step
from tests.sim.node import Node
from tests.sim.stage import SEEDS, Stage, hold, staged

CHANGES = ("node added", "node removed", "node promoted", "node demoted", "nodes replaced")


def _change(stage: Stage, steps: Sequence[Step]) -> None:
    """Have the change proposed, and wait until it is in effect and no state is joint."""
    operator = stage.cluster.operator
    operator.voters_min = 1
    stage.wait(lambda: operator.propose(steps), 30, "a leader takes the change")
    before = operator.state
    stage.wait(lambda: operator.state is not before, 30, "the change is applied")
    stage.wait(lambda: not operator.state.sets.voters_outgoing, 30, "the joint state ends")


def _add(stage: Stage) -> Node:
    node = stage.cluster.install()
    assert node is not None
    assert node.start()
    _change(stage, [stage.cluster.operator.adding(node)])
    return node


def _wait_voter(stage: Stage, node: Node) -> None:
    """It is promoted by itself, and the joint state has ended."""
    operator = stage.cluster.operator
    stage.wait(
        lambda: _is_voter(stage, node) and not operator.state.sets.voters_outgoing,
        60,
        "the learner votes",
    )


def _wait_step_down(stage: Stage, node: Node) -> None:
    stage.wait(lambda: not node.is_leader, 30, "the removed leader steps down")


def _is_voter(stage: Stage, node: Node) -> bool:
    return node.key in stage.cluster.operator.state.sets.voters


@pytest.mark.scenario("D1", tier="S")
def test_voters_come_and_go_under_crashes_and_cuts() -> None:
    hold((*CHANGES, "crash", "isolation", "halves", "loss"), seeds=(1, 2, 3))


@pytest.mark.scenario("D3", tier="S")
@pytest.mark.parametrize("size", [3, 5])
def test_the_leader_is_removed_and_another_one_goes_on(size: int) -> None:
    for seed in SEEDS:
        with staged(seed, size) as stage:
            leader = stage.wait_leader()
            _change(stage, [Step("remove", leader.key)])
            other = stage.wait_leader(besides=leader)
            _wait_step_down(stage, leader)
            assert not _is_voter(stage, leader)
            stage.wait_acknowledged(5, 60)
            assert other.is_leader


@pytest.mark.scenario("D3", tier="S")
def test_who_was_removed_while_it_was_cut_off_disturbs_nobody() -> None:
    """It does not know that it is out, and campaigns on and on."""
    for seed in SEEDS:
        with staged(seed, 4) as stage:
            gone = stage.wait_leader()
            stage.cut([pair for pair in stage.network.pairs() if gone.number in pair])
            stage.wait_leader(besides=gone)
            stage.wait_acknowledged(3, 60)
            _change(stage, [Step("remove", gone.key)])
            stage.mend()
            term = stage.wait_leader(besides=gone).raw_node.term
            stage.run(20 * stage.election_s)
            assert stage.wait_leader(besides=gone).raw_node.term == term
            stage.wait_acknowledged(5, 60)


@pytest.mark.scenario("D4", tier="S")
def test_a_crash_in_the_middle_of_a_change_leaves_it_whole_or_undone() -> None:
    hold((*CHANGES, "crash of all", "power loss", "power loss of all", "restart storm"))


@pytest.mark.scenario("D5", tier="S")
def test_a_learner_is_promoted_while_it_trails_and_while_the_leader_dies() -> None:
    for seed in SEEDS:
        with staged(seed, 3) as stage:
            node = _add(stage)
            # It misses what comes now, and is to vote all the same.
            stage.cut([pair for pair in stage.network.pairs() if node.number in pair])
            stage.wait_acknowledged(10, 60)
            if not _is_voter(stage, node):
                _change(stage, [Step("voter", node.key)])
            leader = stage.wait_leader()
            leader.crash()
            stage.mend()
            stage.wait_leader()
            stage.wait_acknowledged(5, 60)
            assert _is_voter(stage, node)
            assert leader.start()


@pytest.mark.scenario("D5", tier="S")
def test_who_caught_up_is_promoted_by_itself() -> None:
    for seed in SEEDS:
        with staged(seed, 3) as stage:
            node = _add(stage)
            _wait_voter(stage, node)
            stage.wait_acknowledged(5, 60)


@pytest.mark.scenario("D6", tier="S")
def test_a_wiped_voter_counts_for_nobody_until_it_is_replaced() -> None:
    for seed in SEEDS:
        with staged(seed, 3) as stage:
            leader = stage.wait_leader()
            wiped, other = (node for node in stage.nodes if node is not leader)
            wiped.wipe()
            assert wiped.start()
            stage.wait_acknowledged(5, 60)
            # Two logs of three are left: with one of them away nobody orders.
            other.crash()
            stage.run(4 * stage.election_s)
            height = len(stage.checkers.chain)
            stage.run(10 * stage.election_s)
            assert len(stage.checkers.chain) == height
            assert not any(node.is_leader for node in stage.nodes)
            assert other.start()
            stage.wait_leader()
            _change(stage, [Step("remove", wiped.key)])
            _change(stage, [stage.cluster.operator.adding(wiped)])
            _wait_voter(stage, wiped)
            other.crash()
            stage.wait_acknowledged(10, 60)


@pytest.mark.scenario("C15", tier="S")
def test_messages_of_old_terms_and_voters_come_late() -> None:
    hold((*CHANGES, "clog", "swizzle clog", "delay", "reorder"))


@pytest.mark.scenario("D1", "D4", tier="S")
@pytest.mark.long
def test_all_nodes_are_replaced_again_and_again_under_all_kinds_of_fault() -> None:
    hold((*CHANGES, "wiped", "crash", "power loss", "isolation"), seeds=tuple(range(10, 60)))
