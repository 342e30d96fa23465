"""A simulated node whose log has holes asks the others for what is missing (`node/log_repair.py`).

It takes part in nothing else, but gives the others what it has itself. What nobody keeps any more
it replaces by a base (`node/base_instead.py`).
"""

from collections.abc import Collection, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Final

from p2pcity.crypto import keys
from p2pcity.errors import LedgerError
from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.ledger.segment_repair import Mender
from p2pcity.ledger.segment_succession import supersede
from p2pcity.node.base_fetch import STILL_S, is_lost
from p2pcity.node.base_instead import is_whole_behind
from p2pcity.sync.repair import Repair
from p2pcity.wire.base import BaseHead
from p2pcity.wire.genesis import GenesisNode
from p2pcity.wire.limits import BLOCK_BYTES_MAX
from p2pcity.wire.sync import EntriesAnswer, EntriesQuery
from tests.sim.base_fetching import BaseFetch
from tests.sim.network import GOSSIP
from tests.sim.world import SECOND

if TYPE_CHECKING:
    from tests.sim.node import Node

_ROUND: Final = SECOND // 2
_ENTRIES_MAX: Final = 8
_GIVEN_UP_S: Final = 20


def answer(log: SegmentLog, question: EntriesQuery) -> EntriesAnswer | None:
    """What a node with this log answers; None when it finds its own damaged."""
    entries = []
    if log.first_index <= question.index <= log.last_index:
        end = min(log.last_index, question.index + _ENTRIES_MAX - 1) + 1
        try:
            entries = log.entries(question.index, end, BLOCK_BYTES_MAX)
        except LedgerError:
            return None
    state = log.hard_state
    return EntriesAnswer(question.index, state.term, state.commit, tuple(entries), log.first_index)


def gaps_of(log: SegmentLog) -> list[str]:
    """What a log says of its damage, in the same words as long as nothing changes."""
    # What is said of the last file is said otherwise once another one follows it.
    return [gap.partition(", and was synced before")[0] for gap in log.gaps]


class Mending:
    """One log with holes, round by round, until others gave what is missing."""

    def __init__(self, node: "Node", log: SegmentLog) -> None:
        self._node = node
        self._repair = Repair(log.holes)
        self._came = node.world.now
        self.log = log
        self.bases = BaseInstead(node, self)
        node.after(_ROUND, self._round)

    def _round(self) -> None:
        node, repair = self._node, self._repair
        if node.mending is not self:
            # It takes part again, in the same life.
            return
        node.after(_ROUND, self._round)
        if self.bases.is_busy:
            return
        tried = repair.entries, dict(repair.committed)
        repair.begin_round()
        for other in node.cluster.nodes:
            if other is not node and self._reaches(other):
                self._ask(other)
        if (repair.entries, repair.committed) != tried:
            mender = Mender(node.cluster.city.genesis.network, repair.entries, repair.committed)
            node.reopen(mender)
            return
        entries = repair.successors(self._is_quorum)
        try:
            if not entries or not supersede(self.log, entries):
                self._look()
                return
        except LedgerError as error:
            node.fail(error)
            return
        node.world.struck["log superseded"] += 1
        node.reopen(Mender(node.cluster.city.genesis.network))

    def _look(self) -> None:
        still_s = (self._node.world.now - self._came) / SECOND
        lacking = self.log.holes[0][0]
        # Who keeps all blocks waits until its operator says that they may go.
        may_go = self._node.keep_blocks or self._node.storage.bases.base.height
        is_due = may_go and self.log.is_vote_known and still_s >= STILL_S
        if is_due and is_lost(self._repair.first_kept(), lacking, still_s):
            self.bases.look()

    @property
    def is_given_up(self) -> bool:
        """Whether all that is missing was given long ago, and nothing of it mends the log.

        The records between the entries are gone too, and no checksum proves what stood there.
        """
        given = self._repair.entries
        lacking = (index for low, high in self.log.holes for index in range(low, high + 1))
        still_s = (self._node.world.now - self._came) / SECOND
        return still_s >= _GIVEN_UP_S and all(index in given for index in lacking)

    def _is_quorum(self, names: Set[str]) -> bool:
        sets = self._node.views.state.sets
        return all(
            2 * len(names & set(map(keys.peer_id, chosen))) > len(chosen)
            for chosen in (sets.voters, sets.voters_outgoing)
            if chosen
        )

    def take(self, log: SegmentLog) -> None:
        """The log was opened anew, and still has holes."""
        if log.holes != self.log.holes:
            self._repair = Repair(log.holes, self._repair.committed)
            self._came = self._node.world.now
        self.log = log

    def _reaches(self, other: "Node") -> bool:
        links = self._node.cluster.network.links[GOSSIP]
        ways = (
            links[self._node.number][other.number],
            links[other.number][self._node.number],
        )
        return all(not link.cuts and not self._loses(link.loss) for link in ways)

    def _loses(self, loss: int) -> bool:
        return self._node.random.random() * 1000 < loss

    def _ask(self, other: "Node") -> None:
        log = other.readable_log
        while log is not None and (question := self._repair.question(other.name)) is not None:
            found = answer(log, question)
            if found is None:
                self._repair.refused(other.name, question)
            else:
                assert self._repair.take(other.name, question, found), "it fits the question"


class BaseInstead(BaseFetch):
    """A base in place of what nobody keeps."""

    def __init__(self, node: "Node", mending: Mending) -> None:
        super().__init__(node)
        self._mending = mending
        self._too_low = 0

    @property
    def _voters(self) -> Sequence[Collection[str]]:
        sets = self._node.views.state.sets
        return [[*map(keys.peer_id, chosen)] for chosen in (sets.voters, sets.voters_outgoing)]

    @property
    def _nodes(self) -> Mapping[bytes, GenesisNode]:
        return self._node.views.state.nodes

    def look(self) -> None:
        """Nobody keeps what is missing: ask for a base."""
        above = max(self._node.storage.bases.base.height, self._too_low)
        self._ask_round(above, lambda agreement, commits: self._fetch(agreement))

    def _is_needed(self, head: BaseHead) -> bool:
        if is_whole_behind(self._mending.log, head.index):
            return True
        self._node.world.struck["base too low"] += 1
        self._too_low = head.height
        return False

    def _begin_anew(self) -> None:
        node = self._node
        node.world.struck["mended by a base"] += 1
        self._mending.log.close()
        node.begin_anew()
