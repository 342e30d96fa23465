"""How a simulated node gets a base when nobody keeps what it lacks (`node/base_fetching.py`).

The rules are the real ones (`sync.bases`), and so is the disk (`ledger.base_incoming`); questions
and answers travel on the gossip plane, one after the other, and any of them may get lost.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from p2pcity.errors import LedgerError, Unavailable
from p2pcity.ledger.base_incoming import Incoming
from p2pcity.node.base_serving import answer_from
from p2pcity.sync.bases import Agreed, Agreement, HeadFetch, IntervalFetch
from p2pcity.wire import base as base_wire
from p2pcity.wire import sync as sync_wire
from p2pcity.wire.base import BaseHead
from p2pcity.wire.sync import BaseAnswer, BaseHeadAnswer, BaseQuery, BaseQuestion, BaseRecordsAnswer
from tests.sim.checkers import check

if TYPE_CHECKING:
    from tests.sim.node import Node

_LOOK_TICKS: Final = 4
_WAIT_TICKS: Final = 2
_Answer = BaseAnswer | BaseHeadAnswer | BaseRecordsAnswer
_Carry = Callable[[int, Callable[["Node"], None]], None]


class BaseFetching:
    """Watches whether this life of a node can still be fed, and fetches a base when it can't."""

    def __init__(self, node: "Node", carry: _Carry) -> None:
        self._node = node
        self._carry = carry
        self._commit = -1
        self._still = 0
        # Answers to anything but the newest question come too late.
        self._asked = 0
        self._heard: Callable[[str, BaseQuestion, _Answer, int], None] | None = None
        self._incoming: Incoming | None = None

    def tick(self) -> None:
        """One tick passed."""
        me = self._node
        if me.raw_node.commit != self._commit:
            self._commit, self._still = me.raw_node.commit, 0
            return
        self._still += 1
        is_due = self._still % _LOOK_TICKS == 0 and self._heard is None
        if is_due and not me.raw_node.is_leader:
            self._ask_round(me.views.tip.height, self._look)

    def answer(self, asker: int, number: int, question: BaseQuestion) -> None:
        """A peer asks."""
        me = self._node
        try:
            found = answer_from(
                me.storage.bases.stored, me.log.first_index, me.views.base_digest, question
            )
        except LedgerError:
            return
        check(sync_wire.decode_answer(sync_wire.encode(found)) == found, "the codec is not exact")
        name, commit = me.name, me.raw_node.commit
        self._carry(
            asker, lambda peer: peer.gossip.bases.take(name, number, question, found, commit)
        )

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
        nodes = me.members.state.nodes
        return [
            node
            for node in me.cluster.nodes
            if node is not me
            and node.key in nodes
            and nodes[node.key].incarnation == node.incarnation
        ]

    def _begin(self, heard: Callable[[str, BaseQuestion, _Answer, int], None]) -> None:
        self._asked += 1
        self._heard = heard

    def _ask(self, peer: "Node", question: BaseQuestion) -> None:
        me, number = self._node, self._asked
        check(sync_wire.decode_request(sync_wire.encode(question)) == question, "the codec")
        self._carry(
            peer.number, lambda other: other.gossip.bases.answer(me.number, number, question)
        )

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
        self._asked += 1
        if self._incoming is not None:
            self._incoming.close()
            self._incoming = None

    def _ask_round(self, above: int, then: Callable[[Agreement, dict[str, int]], None]) -> None:
        """Ask everybody for offers, then the voters for names; `then` judges what they said.

        It is told the commit index of each voter that answered.
        """
        configuration = self._node.raw_node.configuration
        voters = {*configuration.voters, *configuration.voters_outgoing}
        agreement = Agreement([configuration.voters, configuration.voters_outgoing], above)
        commits: dict[str, int] = {}

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

    def _look(self, agreement: Agreement, commits: dict[str, int]) -> None:
        me = self._node
        first = agreement.first_kept(_above(commits, me.raw_node.commit))
        if first is None or first <= me.raw_node.commit + 1:
            return
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
            if self._is_in_log(base_wire.decode_head(data)):
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
        if self._is_in_log(head):
            return
        while not incoming.is_complete:
            interval = IntervalFetch(head, incoming.intervals)
            if not interval.is_empty:
                self._ask_part(agreed, me.random.choice(sorted(agreed.sources)), interval)
                return
            incoming.add(interval.finish())

        def end(agreement: Agreement, commits: dict[str, int]) -> None:
            first = agreement.first_kept(_above(commits, head.index))
            if first is not None and first > head.index + 1 and agreement.agreed() is not None:
                me.world.struck["base outrun"] += 1
                self._stop()
            elif not self._is_in_log(head):
                incoming.finish()
                me.world.struck["base fetched"] += 1
                me.begin_anew()

        self._ask_round(head.height, end)

    def _is_in_log(self, head: BaseHead) -> bool:
        me = self._node
        if not me.raw_node.learn_commit(head.index, head.term):
            return False
        me.world.struck["base not needed"] += 1
        self._stop()
        me.turn()
        return True


def _above(commits: dict[str, int], index: int) -> list[str]:
    return [peer for peer, commit in commits.items() if commit > index]
