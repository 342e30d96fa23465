"""What disks, clocks, crashes and clients may not do: each scenario by itself."""

import pytest

from tests.sim.faults_disk import turn_bit_over
from tests.sim.run import run_seed
from tests.sim.stage import hold, staged


@pytest.mark.scenario("A3", tier="S")
def test_seeds_hold_when_unsynced_writes_are_lost() -> None:
    struck = hold(("power loss", "power loss of all", "slow sync"))
    assert struck["unsynced lost"]


@pytest.mark.scenario("A4", tier="S")
def test_seeds_hold_when_writes_are_torn() -> None:
    struck = hold(("power loss", "power loss of all", "crash"), seeds=(1, 2, 3))
    assert struck["torn tail"]


@pytest.mark.scenario("A5", tier="S")
def test_seeds_hold_when_bits_of_a_minority_turn_over() -> None:
    struck = hold(("corruption",))
    assert struck["log repaired"]


@pytest.mark.scenario("A6", tier="S")
def test_nodes_that_are_all_damaged_elsewhere_mend_each_other() -> None:
    for seed in range(1, 9):
        with staged(seed, 3) as stage:
            stage.wait_acknowledged(30, 120)
            for node in stage.nodes:
                node.crash()
            for number, node in enumerate(stage.nodes):
                assert turn_bit_over(node, (number + 0.5) / 3, seed % 8) is not None
            for node in stage.nodes:
                assert node.start()
            stage.wait_acknowledged(10, 120)
            assert all(node.is_up for node in stage.nodes)
            assert stage.world.struck["log repaired"]


@pytest.mark.scenario("A10", "A11", "A12", "A13", tier="S")
def test_seeds_hold_when_disks_are_full_or_fail_or_are_slow() -> None:
    hold(("disk full", "sync error", "slow sync", "hung sync"), seeds=(1, 2, 3))


@pytest.mark.scenario("A15", "A16", tier="S")
def test_seeds_hold_in_a_storm_of_restarts() -> None:
    hold(("restart storm", "crash of all", "power loss of all"))


@pytest.mark.scenario("B1", tier="S")
def test_seeds_hold_when_wall_clocks_jump() -> None:
    hold(("clock jump", "expiring"))


@pytest.mark.scenario("B2", tier="S")
@pytest.mark.parametrize("rate", [500, 2000])
@pytest.mark.parametrize("is_leader", [False, True])
def test_a_clock_at_another_rate_changes_the_leader_once_at_most(
    rate: int, is_leader: bool
) -> None:
    for seed in (1, 2):
        with staged(seed, 3) as stage:
            leader, term = stage.wait_leader(), stage.term
            others = [node for node in stage.nodes if node is not leader]
            (leader if is_leader else others[0]).clock_rate = rate
            stage.wait_acknowledged(10, 60)
            stage.run(40 * stage.election_s)
            assert stage.term <= term + 1


@pytest.mark.scenario("B3", "E5", tier="S")
def test_reads_across_pauses_and_cuts_are_never_stale() -> None:
    """Linearizable ones and those of sessions, on leaders that were, and on followers."""
    kinds = ("reads across a pause", "pause", "isolation", "one way cut", "transfer")
    reads = 0
    for seed in (1, 2, 3):
        outcome = run_seed(seed, kinds=kinds)
        assert not outcome.failure, f"seed {seed} with {kinds}: {outcome.failure}"
        assert outcome.struck["reads across a pause"]
        reads += outcome.reads
    assert reads > 300


@pytest.mark.scenario("E2", tier="S")
def test_seeds_hold_when_ids_come_again_after_restarts_and_changes_of_leader() -> None:
    hold(("duplicate submit", "lost answers", "restart", "views lost", "transfer"))
