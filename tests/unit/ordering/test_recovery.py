"""One node goes on alone: what is counted as kept, and the entry that begins the epoch."""

from dataclasses import dataclass, replace

import pytest

from p2pcity.city.membership import State
from p2pcity.errors import ConfigError, DivergedError
from p2pcity.ordering import recovery
from p2pcity.ordering.apply import Applier, Tip
from p2pcity.wire import block as block_wire
from p2pcity.wire import change as change_wire
from p2pcity.wire import genesis as genesis_wire
from p2pcity.wire.change import ChangeVoters, Recover, Step
from p2pcity.wire.genesis import GenesisNode, Member
from p2pcity.wire.raft import Entry, HardState
from tests.chain_case import NODE as OWN
from tests.chain_case import NOW_MS, STRANGER, Chain, make_genesis

pytestmark = pytest.mark.scenario("D13", tier="U")
INCARNATION = b"i" * 16


@dataclass
class Log:
    """A raft log as the survey reads it."""

    kept: list[Entry]
    hard_state: HardState

    @property
    def last_index(self) -> int:
        return len(self.kept)

    def entries(self, low: int, high: int, bytes_max: int, /) -> list[Entry]:
        return self.kept[low - 1 : min(high, low + 2) - 1]


def _city() -> Chain:
    """A city of three orderers, one of them OWN."""
    [author] = [item for item in make_genesis().authors if item.name == "all"]
    nodes = [
        GenesisNode(key, INCARNATION if key == OWN.public else key[:16], "orderer", (), "works", n)
        for n, key in (("0", OWN.public), ("1", STRANGER.public), ("2", bytes([2]) * 32))
    ]
    member = Member("works", tuple(nodes), (author,))
    return Chain(genesis_wire.make("test", NOW_MS - 1000, b"g" * 16, [member]))


def _log(chain: Chain, commit: int, *, term: int = 4, vote: str | None = "x") -> Log:
    entries = [Entry(1, index, payload or b"") for index, payload in chain.pairs()]
    return Log(entries, HardState(term, vote, commit))


def _chain_of_four() -> Chain:
    chain = _city()
    chain.add_nothing()
    chain.add(chain.carried())
    chain.add(chain.carried(), chain.carried())
    chain.add(chain.carried())
    return chain


def test_what_is_surely_committed_and_what_is_only_kept() -> None:
    chain = _chain_of_four()
    found = recovery.survey(chain.genesis, _log(chain, 2))
    assert (found.last_index, found.last_term, found.committed) == (4, 1, 2)
    assert (found.height_committed, found.tip.height) == (1, 3)
    assert (found.kept_entries, found.kept_transactions) == (2, 3)
    assert found.tip.hash == chain.blocks[-1].hash
    whole = recovery.survey(chain.genesis, _log(chain, 9))
    assert (whole.committed, whole.kept_entries, whole.kept_transactions) == (4, 0, 0)
    assert recovery.others(found, OWN.public) == ["works/1", "works/2"]


def test_the_block_begins_the_next_epoch_and_nothing_else() -> None:
    chain = _chain_of_four()
    found = recovery.survey(chain.genesis, _log(chain, 2))
    entry, hard_state = recovery.begin_epoch(found, OWN.public, INCARNATION, NOW_MS + 5)
    assert (entry.term, entry.index) == (5, 5)
    assert (hard_state.term, hard_state.commit) == (5, 5)
    block = block_wire.decode(entry.payload)
    assert block.transactions == ()
    assert block.change == change_wire.encode(Recover(OWN.public, INCARNATION))
    applier = Applier(chain.genesis.network, found.state, found.tip)
    done = applier.apply(5, block, None, lambda _: None)  # type: ignore[arg-type]  # unused
    assert done.change_refusal == ""
    assert applier.state.epoch == 1
    assert applier.state.sets.voters == (OWN.public,)
    assert list(applier.state.nodes) == [OWN.public]
    assert applier.state.nodes[OWN.public].role == "orderer"


def test_its_time_is_not_before_the_last_block() -> None:
    chain = _city()
    chain.add(chain.carried(), time_ms=NOW_MS + 500)
    found = recovery.survey(chain.genesis, _log(chain, 1))
    entry, _ = recovery.begin_epoch(found, OWN.public, INCARNATION, NOW_MS)
    assert block_wire.decode(entry.payload).header.time_ms == NOW_MS + 500


def test_a_change_under_way_ends_with_it() -> None:
    chain = _city()
    chain.add_change(ChangeVoters((Step("remove", STRANGER.public),)))
    found = recovery.survey(chain.genesis, _log(chain, 0))
    assert found.state.sets.voters_outgoing
    entry, _ = recovery.begin_epoch(found, OWN.public, INCARNATION, NOW_MS)
    applier = Applier(chain.genesis.network, found.state, found.tip)
    block = block_wire.decode(entry.payload)
    applier.apply(2, block, None, lambda _: None)  # type: ignore[arg-type]  # no transactions
    assert applier.state.sets == State.from_genesis(make_genesis()).sets


@pytest.mark.parametrize(
    ("key", "incarnation"), [(OWN.public, bytes(16)), (bytes([9]) * 32, INCARNATION)]
)
def test_a_node_that_the_city_does_not_know_is_refused(key: bytes, incarnation: bytes) -> None:
    chain = _chain_of_four()
    found = recovery.survey(chain.genesis, _log(chain, 2))
    with pytest.raises(ConfigError, match="does not know this node"):
        recovery.begin_epoch(found, key, incarnation, NOW_MS)


def test_a_node_that_is_alone_has_nothing_to_recover() -> None:
    chain = Chain()
    chain.add(chain.carried())
    found = recovery.survey(chain.genesis, _log(chain, 1))
    with pytest.raises(ConfigError, match="decides alone already"):
        recovery.check_recoverable(found, OWN.public, INCARNATION)


def test_an_empty_log_can_be_gone_on_with() -> None:
    chain = _city()
    found = recovery.survey(chain.genesis, _log(chain, 0))
    assert found.tip == Tip.from_genesis(chain.genesis)
    entry, hard_state = recovery.begin_epoch(found, OWN.public, INCARNATION, NOW_MS)
    assert (entry.index, hard_state.commit) == (1, 1)


def test_blocks_that_do_not_follow_are_refused() -> None:
    chain = _chain_of_four()
    log = _log(chain, 2)
    log.kept[2], log.kept[3] = (
        replace(log.kept[3], index=3),
        replace(log.kept[2], index=4),
    )
    with pytest.raises(DivergedError, match="entry 3 does not follow"):
        recovery.survey(chain.genesis, log)
    log.kept[1] = Entry(1, 2, b"rubbish")
    with pytest.raises(DivergedError, match="entry 2 is no block"):
        recovery.survey(chain.genesis, log)
