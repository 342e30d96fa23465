"""What cut, slow and lying links may not do: each scenario by itself, with its own promise."""

import pytest

from tests.sim.faults_network import ring
from tests.sim.network import GOSSIP, RAFT
from tests.sim.node import Node
from tests.sim.stage import SEEDS, Stage, hold, staged
from tests.sim.world import SECOND

SIZES = pytest.mark.parametrize("size", [3, 4, 5, pytest.param(7, marks=pytest.mark.long)])


def _around(stage: Stage, node: Node) -> list[tuple[int, int]]:
    return [pair for pair in stage.network.pairs() if node.number in pair]


def _wait_step_down(stage: Stage, leader: Node) -> None:
    """Check-quorum: within one election time-out (and the tick that it is noticed at)."""
    raft = stage.cluster.settings.raft
    ticks = raft["election_ticks"] + raft["heartbeat_ticks"] + 1
    stage.wait(
        lambda: not leader.is_leader,
        ticks * stage.cluster.settings.tick / SECOND,
        "a leader without a quorum steps down",
    )


@pytest.mark.scenario("C1", tier="S")
@SIZES
def test_an_isolated_leader_acknowledges_nothing(size: int) -> None:
    for seed in SEEDS:
        with staged(seed, size) as stage:
            leader = stage.wait_leader()
            stage.cut(_around(stage, leader))
            # What its log has may still be applied, nothing more.
            last = leader.raw_node.last_index
            _wait_step_down(stage, leader)
            stage.wait_leader(besides=leader)
            stage.wait_acknowledged(10, 60)
            assert leader.views.applied_index <= last
            assert not leader.is_leader


@pytest.mark.scenario("C2", tier="S")
@SIZES
def test_a_leader_that_hears_nothing_steps_down(size: int) -> None:
    for seed in SEEDS:
        with staged(seed, size) as stage:
            leader = stage.wait_leader()
            stage.cut([pair for pair in stage.network.pairs() if pair[1] == leader.number])
            _wait_step_down(stage, leader)
            stage.wait_leader(besides=leader)
            term = stage.term
            stage.wait_acknowledged(10, 60)
            stage.run(10 * stage.election_s)
            # It goes on to ask for votes, and everybody hears it: nobody may follow.
            assert stage.term == term


@pytest.mark.scenario("C3", tier="S")
@SIZES
def test_a_mute_leader_is_replaced_within_two_terms(size: int) -> None:
    for seed in SEEDS:
        with staged(seed, size) as stage:
            leader, term = stage.wait_leader(), stage.term
            stage.cut([pair for pair in stage.network.pairs() if pair[0] == leader.number])
            stage.wait_leader(besides=leader)
            stage.wait_acknowledged(10, 60)
            stage.run(10 * stage.election_s)
            assert stage.term <= term + 2


@pytest.mark.scenario("C4", tier="S")
@pytest.mark.parametrize("size", [3, 5])
def test_only_the_majority_side_goes_on(size: int) -> None:
    for seed in SEEDS:
        with staged(seed, size) as stage:
            leader = stage.wait_leader()
            numbers = [leader.number, *(n for n in range(size) if n != leader.number)]
            few = numbers[: size // 2]
            stage.cut([(a, b) for a, b in stage.network.pairs() if (a in few) != (b in few)])
            last = leader.raw_node.last_index
            _wait_step_down(stage, leader)
            stage.wait_leader(besides=leader)
            stage.wait_acknowledged(10, 60)
            for number in few:
                assert stage.nodes[number].views.applied_index <= last
                assert not stage.nodes[number].is_leader


@pytest.mark.scenario("C5", tier="S")
@pytest.mark.parametrize(
    "size", [3, *(pytest.param(size, marks=pytest.mark.long) for size in (5, 7))]
)
def test_a_bridge_between_two_groups_keeps_them_ordering(size: int) -> None:
    for seed in SEEDS:
        for leads in (0, 1, size - 1):
            with staged(seed, size) as stage:
                leader, term = stage.wait_leader(), stage.term
                numbers = [n for n in range(size) if n != leader.number]
                numbers.insert(leads, leader.number)
                bridge, left = numbers[0], numbers[1 : 1 + size // 2]
                stage.cut(
                    [
                        (a, b)
                        for a, b in stage.network.pairs()
                        if bridge not in (a, b) and (a in left) != (b in left)
                    ]
                )
                stage.wait_acknowledged(10, 60)
                stage.run(20 * stage.election_s)
                stage.wait_acknowledged(5, 60)
                assert stage.term <= term + 2


@pytest.mark.scenario("C6", tier="S")
@pytest.mark.parametrize(
    "size", [4, *(pytest.param(size, marks=pytest.mark.long) for size in (5, 7))]
)
def test_a_ring_of_majorities_does_not_raise_terms(size: int) -> None:
    for seed in SEEDS:
        for is_one_way in (False, True):
            with staged(seed, size) as stage:
                term = stage.term
                stage.cut(ring(range(size), is_one_way=is_one_way))
                if not is_one_way:
                    stage.wait_acknowledged(10, 60)
                stage.run(40 * stage.election_s)
                assert stage.term <= term + 3


@pytest.mark.scenario("C7", tier="S")
@SIZES
@pytest.mark.parametrize("is_one_link", [False, True])
def test_flapping_links_raise_few_terms(size: int, is_one_link: bool) -> None:
    """A minute of it: at most five terms."""
    for seed in SEEDS:
        with staged(seed, size) as stage:
            term = stage.term
            leader = stage.wait_leader()
            pairs = _around(stage, leader)
            if is_one_link:
                other = (leader.number + 1) % size
                pairs = [(leader.number, other), (other, leader.number)]
            random = stage.world.random("flapping")
            end = stage.world.now + 60 * SECOND
            while stage.world.now < end:
                stage.cut(pairs)
                stage.run(random.randint(100, 500) / 1000)
                stage.mend()
                stage.run(random.randint(100, 500) / 1000)
            assert stage.term <= term + 5


@pytest.mark.scenario("C8", tier="S")
def test_seeds_hold_on_a_bad_network() -> None:
    hold(("loss", "duplication", "delay", "reorder", "clog"))


@pytest.mark.scenario("C9", tier="S")
def test_seeds_hold_under_swizzle_clogging() -> None:
    hold(("swizzle clog",))


@pytest.mark.scenario("C10", tier="S")
def test_seeds_hold_when_answers_get_lost_and_clients_retry() -> None:
    hold(("lost answers", "duplicate submit"))


@pytest.mark.scenario("C13", tier="S")
def test_what_gossip_spreads_while_raft_is_cut_is_ordered_after() -> None:
    for seed in SEEDS:
        with staged(seed, 5) as stage:
            stage.cut(stage.network.pairs(), (RAFT,))
            stage.run(2 * stage.election_s)
            before = max(node.raw_node.commit for node in stage.nodes)
            samples = [stage.cluster.city.good(stage.clients.next_number()) for _ in range(5)]
            stage.clients.submit(samples)
            stage.run(5 * stage.election_s)
            # What was committed before the cut may be told of now; nothing new is.
            assert max(node.raw_node.commit for node in stage.nodes) == before
            for sample in samples:
                assert sample.id not in stage.checkers.acknowledged
                assert sum(sample.id in node.door.mempool for node in stage.nodes) > 1
            stage.mend()
            stage.wait_told([sample.id for sample in samples], 60)


@pytest.mark.scenario("C13", tier="S")
def test_ordering_goes_on_without_gossip() -> None:
    """What the leader's own clients bring is ordered; the others' waits, and comes after."""
    for seed in SEEDS:
        with staged(seed, 5) as stage:
            stage.cut(stage.network.pairs(), (GOSSIP,))
            term = stage.term
            stage.wait_blocks(3, 60)
            assert stage.term == term
