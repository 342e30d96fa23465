"""Changes of voters for operators: what was asked, whether it is safe, and the wait for it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Final

import structlog
import trio

from p2pcity.api.service import ChangeWanted
from p2pcity.city.membership import State
from p2pcity.crypto import keys
from p2pcity.errors import ChangeRefused, ConfigError, NotLeader, ProposalDropped, Unavailable
from p2pcity.node.membership import Membership
from p2pcity.node.ordering_loop import OrderingLoop
from p2pcity.ordering.members import Members, apply_change, configuration
from p2pcity.ordering.steward import has_answered, has_caught_up
from p2pcity.ordering.what_if import Judgement, judge
from p2pcity.raft.configuration import Configuration
from p2pcity.wire import card as card_wire
from p2pcity.wire.card import Card
from p2pcity.wire.change import Change, ChangeVoters, LeaveJoint, NewNode, Operation, Step

_RETRY_S = 0.1
_OPERATIONS: Final[dict[str, Operation]] = {
    "remove": "remove",
    "promote": "voter",
    "demote": "learner",
}

_logger = structlog.get_logger("p2pcity.node.administration")


class Administration:
    """Carries out what an operator asks of the leader, one change after the other."""

    def __init__(
        self,
        *,
        ordering: OrderingLoop,
        members: Members,
        membership: Membership,
        now_ms: Callable[[], int],
    ) -> None:
        self._ordering = ordering
        self._members = members
        self._membership = membership
        self._now_ms = now_ms
        self._turn = trio.Lock()

    async def change(self, wanted: ChangeWanted) -> Mapping[str, object]:
        """Make the change and return once it is in effect here.

        Raises NotLeader, ConfigError for a node or card that does not fit, ChangeRefused for an
        unsafe change that is not forced, Unavailable when it is not in effect in time.
        """
        # One of these at a time on a node: the second one is judged by what the first one left.
        async with self._turn:
            with trio.move_on_after(wanted.timeout_ms / 1000):
                judgement = await self._carry_out(wanted)
                return self._document(judgement)
        raise Unavailable(
            "the change is not in effect yet",
            remedy="Look at p2pcity raft status: it goes on by itself once a quorum is there.",
        )

    def what_if(self, wanted: ChangeWanted) -> Mapping[str, object]:
        """Judge the change without making it; raises as `change` does.

        New voters are judged as they will be when they vote: there, and caught up. One that is
        added and that nobody knows yet may be named by any name.
        """
        self._check_leads()
        if wanted.operation in ("add", "replace"):
            found = self._judge_new(wanted)
        else:
            found = self._judge(self._change(wanted))
        return {
            "version": 1,
            "verdict": "SAFE" if found.is_safe else "UNSAFE",
            "operation": wanted.operation,
            **asdict(found),
        }

    def _judge_new(self, wanted: ChangeWanted) -> Judgement:
        before = configuration(self._settled_state())
        up, ready = self._seen()
        cards = [_card(data) for data in wanted.cards]
        new = [keys.peer_id(card.key) for card in cards if _votes(card, wanted)]
        gone: list[str] = []
        if wanted.operation == "replace":
            gone = [keys.peer_id(self._find(name)) for name in wanted.nodes]
        elif not wanted.is_observer:
            new += [self._peer_of(name) or name for name in wanted.nodes]
        kept = [peer for peer in before.voters if peer not in gone and peer not in new]
        if not kept and not new:
            raise ChangeRefused("nobody would vote any more", remedy="Add a voter as well.")
        coming = [peer for peer in new if not before.is_member(peer) or peer in gone]
        after = Configuration((*kept, *dict.fromkeys(new)))
        return judge(before, after, [*up, *coming], [*ready, *coming])

    async def _carry_out(self, wanted: ChangeWanted) -> Judgement:
        self._check_leads()
        if wanted.operation == "replace":
            return await self._replace(wanted)
        return await self._make(self._change(wanted), wanted.force)

    async def _replace(self, wanted: ChangeWanted) -> Judgement:
        """Take in the new nodes, wait until they keep up, then exchange all in one change."""
        cards = [_card(data) for data in wanted.cards]
        gone = [self._find(name) for name in wanted.nodes]
        if not cards or not gone:
            raise ConfigError(
                "replace needs nodes to remove and cards to add",
                remedy="Give both: --remove NODE --add CARD.",
            )
        wiped = [key for key in gone if key in {card.key for card in cards}]
        if wiped:
            # The same key with a new log: it must be gone before it can come again.
            await self._make(_steps("remove", wiped), wanted.force)
        await self._make(ChangeVoters(tuple(_added(card) for card in cards)), wanted.force)
        new = [card.key for card in cards if card.role == "orderer"]
        await self._wait_kept_up(new)
        steps = [Step("voter", key) for key in new if key not in self._members.state.sets.voters]
        steps += [Step("remove", key) for key in gone if key not in wiped]
        if not steps:
            return await self._make(_steps("voter", new), wanted.force)
        return await self._make(ChangeVoters(tuple(steps)), wanted.force)

    async def _wait_kept_up(self, new: Sequence[bytes]) -> None:
        while True:
            self._check_leads()
            status = self._ordering.raw_node.status()
            if all(
                has_caught_up(status.progress.get(keys.peer_id(key)), status.last_index)
                for key in new
            ):
                return
            await trio.sleep(_RETRY_S)

    async def _make(self, change: ChangeVoters, force: Sequence[str]) -> Judgement:
        """Judge, propose and wait until the change, its joint state included, is in effect."""
        judgement = self._judge(change)
        self._check_safe(change, judgement, force)
        index = await self._propose(change)
        _logger.info(
            "change_proposed", index=index, nodes=[self._shown(step) for step in change.steps]
        )
        self._ordering.wake()
        await self._membership.wait_until(lambda: self._is_in_effect(change))
        return judgement

    async def _propose(self, change: ChangeVoters) -> int:
        while True:
            try:
                return self._ordering.proposer.propose_change(change, self._now_ms())[0]
            except ProposalDropped:
                # Leadership moves, or too much waits to be stored: it may be over in a moment.
                await trio.sleep(_RETRY_S)

    def _is_in_effect(self, change: ChangeVoters) -> bool:
        state = self._members.state
        if state.sets.voters_outgoing:
            return False
        return all(_is_done(state, step) for step in change.steps)

    def _judge(self, change: ChangeVoters) -> Judgement:
        self._check_leads()
        state = self._settled_state()
        after = _applied(state, change)
        return judge(configuration(state), configuration(after), *self._seen())

    def _settled_state(self) -> State:
        """The city as it is; ChangeRefused in a joint state, when no change can be made."""
        state = self._members.state
        if state.sets.voters_outgoing:
            raise ChangeRefused(
                "a change of voters is under way already", remedy="Wait until it has ended."
            )
        return state

    def _seen(self) -> tuple[list[str], list[str]]:
        """Who answers this leader with the log that counts, and who of them has caught up."""
        status = self._ordering.raw_node.status()
        progress, own = status.progress, status.id
        up = [
            peer
            for peer, known in progress.items()
            if peer == own or (has_answered(known) and self._membership.has_same_log(peer))
        ]
        ready = [x for x in up if x == own or has_caught_up(progress[x], status.last_index)]
        return up, ready

    def _check_safe(self, change: ChangeVoters, found: Judgement, force: Sequence[str]) -> None:
        if found.is_safe:
            return
        forced = {self._find(name) for name in force}
        if all(step.key in forced for step in change.steps):
            _logger.warning("change_forced", reason=found.reason, nodes=list(force))
            return
        names = " ".join(f"--force {self._shown(step)}" for step in change.steps)
        raise ChangeRefused(
            f"UNSAFE: {found.reason}",
            remedy=f"Start or add nodes first. If it must be: {names}.",
        )

    def _check_leads(self) -> None:
        raw_node = self._ordering.raw_node
        if raw_node.is_leader:
            return
        name = self._membership.name(raw_node.leader)
        if raw_node.leader is None:
            raise NotLeader("this node does not lead, and knows no leader")
        raise NotLeader(
            f"this node does not lead: {name or raw_node.leader} does; run the command there",
            leader=raw_node.leader,
        )

    def peer(self, name: str) -> str:
        """Return the peer id of the node that `name` means; ConfigError when there is not one."""
        return keys.peer_id(self._find(name))

    # -- names and cards ---------------------------------------------------------------------

    def _change(self, wanted: ChangeWanted) -> ChangeVoters:
        if wanted.operation == "add":
            steps = tuple(_added(_card(data), wanted.is_observer) for data in wanted.cards)
            if not steps or wanted.nodes:
                raise ConfigError(
                    "a node is added with its card", remedy="Give the new node's node.card."
                )
            return ChangeVoters(steps)
        if not wanted.nodes or wanted.cards:
            raise ConfigError(
                f"{wanted.operation} needs the nodes it is about, by name",
                remedy="Name at least one node: p2pcity raft status lists them.",
            )
        found = dict.fromkeys(self._find(name) for name in wanted.nodes)
        return _steps(_OPERATIONS[wanted.operation], list(found))

    def _peer_of(self, name: str) -> str | None:
        """The peer id of the one node that `name` means, None when there is none."""
        try:
            return keys.peer_id(self._find(name))
        except ConfigError:
            return None

    def _find(self, name: str) -> bytes:
        """The key of the node that `name` means: a peer id, member/name, name or member."""
        nodes = self._membership.nodes
        found = [
            node.key for peer, node in nodes.items() if name in (peer, f"{node.member}/{node.name}")
        ] or [node.key for node in nodes.values() if name in (node.name, node.member)]
        known = ", ".join(f"{node.member}/{node.name}" for node in self._membership.nodes.values())
        if not found:
            raise ConfigError(
                f"{name[:200]!r} is no node of this city", remedy=f"Name one of: {known}."
            )
        if len(found) > 1:
            raise ConfigError(
                f"{name[:200]!r} means several nodes", remedy=f"Name one of: {known}."
            )
        return found[0]

    def _shown(self, step: Step) -> str:
        peer = keys.peer_id(step.key)
        if step.node is not None:
            return f"{step.node.member}/{step.node.name}"
        return self._membership.name(peer) or peer

    def _document(self, judgement: Judgement) -> Mapping[str, object]:
        sets = self._members.state.sets
        named = {
            name: [self._membership.name(keys.peer_id(key)) for key in getattr(sets, name)]
            for name in ("voters", "learners", "observers")
        }
        return {"version": 1, "is_in_effect": True, **named, "judgement": asdict(judgement)}


def _card(data: bytes) -> Card:
    return card_wire.decode(data)


def _votes(card: Card, wanted: ChangeWanted) -> bool:
    return card.role == "orderer" and not wanted.is_observer


def _added(card: Card, is_observer: bool = False) -> Step:
    node = NewNode(card.member, card.name, card.incarnation, card.addresses)
    is_orderer = card.role == "orderer" and not is_observer
    return Step("learner" if is_orderer else "observer", card.key, node)


def _steps(operation: Operation, found: Sequence[bytes]) -> ChangeVoters:
    return ChangeVoters(tuple(Step(operation, key) for key in found))


def _applied(state: State, change: Change) -> State:
    after = apply_change(state, change)
    return apply_change(after, LeaveJoint()) if after.sets.voters_outgoing else after


def _is_done(state: State, step: Step) -> bool:
    if step.operation == "remove":
        return step.key not in state.nodes
    if step.operation == "voter":
        return step.key in state.sets.voters
    if step.node is not None:
        # It may vote already: a learner is promoted when it has caught up.
        return step.key in state.nodes
    return step.key in state.nodes and step.key not in state.sets.voters
