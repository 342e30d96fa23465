"""How a simulated node gets a base when nobody keeps what it lacks (`node/base_fetching.py`).

One whose log has to be mended asks and fetches in the same way (`mending`).
The rules are the real ones (`sync.bases`), and so is the disk (`ledger.base_incoming`); questions
and answers travel on the gossip plane, one after the other, and any of them may get lost.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from p2pcity.errors import LedgerError, Unavailable
from p2pcity.ledger.base_incoming import Incoming
from p2pcity.node.base_serving import answer_from
from p2pcity.sync.bases import Agreed, Agreement, HeadFetch, IntervalFetch
from p2pcity.wire import base as base_wire
from p2pcity.wire import sync as sync_wire
from p2pcity.wire.base import BaseHead
from p2pcity.wire.genesis import GenesisNode
from p2pcity.wire.sync import BaseAnswer, BaseHeadAnswer, BaseQuery, BaseQuestion, BaseRecordsAnswer
from tests.sim.checkers import check
from tests.sim.network import GOSSIP
from tests.sim.world import SECOND

if TYPE_CHECKING:
    from tests.sim.node import Node

_LOOK_TICKS: Final = 4
_WAIT_TICKS: Final = 2
_OPERATOR: Final = 2 * SECOND
_CODEC_EVERY: Final = 16
"""Every so many questions, they and their answers pass through the codec."""
_Answer = BaseAnswer | BaseHeadAnswer | BaseRecordsAnswer
_Commits = dict[str, int]


class BaseFetch(ABC):
    """The asking and the fetching of one life of a node (`node/base_fetch.py`), and its answers."""

    def __init__(self, node: "Node") -> None:
        self._node = node
        # Answers to anything but the newest question come too late.
        self._asked = 0
        self._heard: Callable[[str, BaseQuestion, _Answer, int], None] | None = None
        self._incoming: Incoming | None = None

    @property
    def is_busy(self) -> bool:
        """Whether questions are open."""
        return self._heard is not None

    @property
    @abstractmethod
    def _voters(self) -> Sequence[Collection[str]]:
        """The voter sets that this node knows."""

    @property
    @abstractmethod
    def _nodes(self) -> Mapping[bytes, GenesisNode]:
        """The nodes that this node knows, by key."""

    @abstractmethod
    def _is_needed(self, head: BaseHead) -> bool:
        """Whether the base with this head would help."""

    @abstractmethod
    def _begin_anew(self) -> None:
        """The base lies ready on the disk: begin again with it."""

    def _carry(self, number: int, deliver: Callable[["BaseFetch"], None]) -> None:
        cluster = self._node.cluster
        cluster.network.send(
            GOSSIP, 0, self._node.number, number, lambda: cluster.hand_over_bases(number, deliver)
        )

    def answer(self, asker: int, number: int, question: BaseQuestion) -> None:
        """A peer asks."""
        me = self._node
        log = me.readable_log
        assert log is not None, "it is up, or mends its log"
        try:
            found = answer_from(
                me.storage.bases.stored, log.first_index, me.views.base_digest, question
            )
        except LedgerError:
            return
        if number % _CODEC_EVERY == 0:
            check(sync_wire.decode_answer(sync_wire.encode(found)) == found, "the codec is wrong")
        # Who mends its log does not answer for its status.
        name, commit = me.name, me.raw_node.commit if me.is_up else 0
        self._carry(asker, lambda peer: peer.take(name, number, question, found, commit))

    def take(
        self, peer: str, number: int, question: BaseQuestion, found: _Answer, commit: int
    ) -> None:
        """The answer, perhaps long after it was asked for, perhaps twice."""
        if number != self._asked or self._heard is None:
            return
        me = self._node
        if me.answers_until_crash:
            me.answers_until_crash -= 1
            if not me.answers_until_crash:
                me.world.struck["crash while fetching a base"] += 1
                me.crash()
                return
        try:
            self._heard(peer, question, found, commit)
        except Unavailable:
            me.count_full_disk()
            self._stop()
        except LedgerError as error:
            me.fail(error)

    # -- asking ------------------------------------------------------------------------------

    def _sources(self) -> list["Node"]:
        """Who else has the log that is known of it."""
        me = self._node
        nodes = self._nodes
        return [
            node
            for node in me.cluster.nodes
            if node is not me
            and node.key in nodes
            and nodes[node.key].incarnation == node.incarnation
        ]

    def _begin(self, heard: Callable[[str, BaseQuestion, _Answer, int], None]) -> None:
        self._asked = next(self._node.cluster.questions)
        self._heard = heard

    def _ask(self, peer: "Node", question: BaseQuestion) -> None:
        me, number = self._node, self._asked
        if number % _CODEC_EVERY == 0:
            check(sync_wire.decode_request(sync_wire.encode(question)) == question, "the codec")
        self._carry(peer.number, lambda other: other.answer(me.number, number, question))

    def _later(self, then: Callable[[], None]) -> None:
        """Go on after a while, whatever came until then."""
        me, number = self._node, self._asked

        def over() -> None:
            if number == self._asked:
                self._heard = None
                try:
                    then()
                except Unavailable:
                    me.count_full_disk()
                    self._stop()
                except LedgerError as error:
                    me.fail(error)

        me.after(_WAIT_TICKS * me.settings.tick, over)

    def _stop(self) -> None:
        """Nothing more of this round: the next look tries again."""
        self._heard = None
        self._asked = next(self._node.cluster.questions)
        if self._incoming is not None:
            self._incoming.close()
            self._incoming = None

    def _ask_round(self, above: int, then: Callable[[Agreement, _Commits], None]) -> None:
        """Ask everybody for offers, then the voters for names; `then` judges what they said.

        It is told the commit index of each voter that answered.
        """
        voters = {name for names in self._voters for name in names}
        agreement = Agreement(self._voters, above)
        commits: _Commits = {}

        def offered(peer: str, _question: BaseQuestion, found: _Answer, commit: int) -> None:
            assert isinstance(found, BaseAnswer)
            agreement.offered(peer, found)
            if peer in voters:
                commits[peer] = commit

        def named(peer: str, question: BaseQuestion, found: _Answer, _commit: int) -> None:
            assert isinstance(question, BaseQuery)
            assert isinstance(found, BaseAnswer)
            agreement.named(peer, question, found)

        def judge() -> None:
            then(agreement, commits)

        def ask_names() -> None:
            self._begin(named)
            for question in agreement.questions():
                for node in self._sources():
                    if node.name in voters:
                        self._ask(node, question)
            self._later(judge)

        self._begin(offered)
        for node in self._sources():
            self._ask(node, BaseQuery())
        self._later(ask_names)

    # -- fetching ----------------------------------------------------------------------------

    def _fetch(self, agreement: Agreement) -> None:
        me = self._node
        agreed = agreement.agreed()
        if agreed is None:
            return
        self._incoming = me.storage.incoming()
        if self._incoming.intervals:
            me.world.struck["base fetch resumed"] += 1
        if self._incoming.digest == agreed.digest:
            self._go_on(agreed)
            return
        holder = me.random.choice(sorted(agreed.holders))
        fetch = HeadFetch(agreed, me.cluster.city.genesis.network, holder)
        self._ask_part(agreed, holder, fetch)

    def _ask_part(self, agreed: Agreed, peer: str, fetch: HeadFetch | IntervalFetch) -> None:
        def heard(_peer: str, question: BaseQuestion, found: _Answer, _commit: int) -> None:
            assert not isinstance(question, BaseQuery)
            assert not isinstance(found, BaseAnswer)
            data = fetch.take(question, found)
            if data is None:
                self._ask_part(agreed, peer, fetch)
            else:
                self._got(agreed, data, is_head=isinstance(fetch, HeadFetch))

        self._begin(heard)
        self._ask(self._node.cluster.by_name[peer], fetch.question())
        self._later(self._stop)

    def _got(self, agreed: Agreed, data: bytes, *, is_head: bool) -> None:
        assert self._incoming is not None
        if is_head:
            if not self._is_needed(base_wire.decode_head(data)):
                self._stop()
                return
            self._incoming.begin(data)
        else:
            self._incoming.add(data)
        self._go_on(agreed)

    def _go_on(self, agreed: Agreed) -> None:
        me, incoming = self._node, self._incoming
        assert incoming is not None
        head = incoming.head
        assert head is not None
        if not self._is_needed(head):
            self._stop()
            return
        while not incoming.is_complete:
            interval = IntervalFetch(head, incoming.intervals)
            if not interval.is_empty:
                self._ask_part(agreed, me.random.choice(sorted(agreed.sources)), interval)
                return
            incoming.add(interval.finish())

        def end(agreement: Agreement, commits: _Commits) -> None:
            first = agreement.first_kept(_above(commits, head.index))
            if first is not None and first > head.index + 1 and agreement.agreed() is not None:
                me.world.struck["base outrun"] += 1
                self._stop()
            elif self._is_needed(head):
                incoming.finish()
                me.world.struck["base fetched"] += 1
                self._begin_anew()
            else:
                self._stop()

        self._ask_round(head.height, end)


class BaseFetching(BaseFetch):
    """Watches whether this life of a node can still be fed, and fetches a base when it can't."""

    def __init__(self, node: "Node") -> None:
        super().__init__(node)
        self._commit = -1
        self._still = 0

    @property
    def _voters(self) -> Sequence[Collection[str]]:
        configuration = self._node.raw_node.configuration
        return [configuration.voters, configuration.voters_outgoing]

    @property
    def _nodes(self) -> Mapping[bytes, GenesisNode]:
        return self._node.members.state.nodes

    def tick(self) -> None:
        """One tick passed."""
        me = self._node
        if me.raw_node.commit != self._commit:
            self._commit, self._still = me.raw_node.commit, 0
            return
        self._still += 1
        is_due = self._still % _LOOK_TICKS == 0 and not self.is_busy
        # While everybody keeps all there is nothing to fetch, and most seeds are such.
        if is_due and not me.raw_node.is_leader and me.cluster.is_pruned:
            self._ask_round(me.views.tip.height, self._look)

    def _look(self, agreement: Agreement, commits: _Commits) -> None:
        commit = self._node.raw_node.commit
        first = agreement.first_kept(_above(commits, commit))
        if first is None or first <= commit + 1:
            return
        me = self._node
        if me.keep_blocks or me.storage.bases.base.height or not me.views.tip.height:
            self._fetch(agreement)
        else:
            # It is to keep its own blocks, until its operator has seen what it says.
            me.world.struck["base waits"] += 1
            me.after(_OPERATOR, me.cluster.operator.let_go, me)

    def _is_needed(self, head: BaseHead) -> bool:
        me = self._node
        if not me.raw_node.learn_commit(head.index, head.term):
            return True
        me.world.struck["base not needed"] += 1
        me.turn()
        return False

    def _begin_anew(self) -> None:
        self._node.begin_anew()


def _above(commits: _Commits, index: int) -> list[str]:
    return [peer for peer, commit in commits.items() if commit > index]
