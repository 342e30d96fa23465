"""What a leader changes by itself: it ends joint states, and lets learners vote that caught up.

Learners are promoted whose role is `orderer`: those that an operator added to vote. One that
was demoted waits for an operator; observers are never promoted (protocol/05-ordering.md).
"""

from typing import Final

from p2pcity.crypto import keys
from p2pcity.errors import ChangeRefused, NotLeader, ProposalDropped
from p2pcity.ordering.members import Members
from p2pcity.ordering.proposer import Proposer
from p2pcity.raft.progress import ProgressState
from p2pcity.raft.raw_node import RawNode
from p2pcity.raft.status import PeerStatus
from p2pcity.wire.block import Block
from p2pcity.wire.change import Change, ChangeVoters, LeaveJoint, Step
from p2pcity.wire.limits import CHANGE_STEPS_MAX

TRAILS_MAX: Final = 16
"""A learner that trails by so many entries at most has caught up: a few blocks in flight."""


def has_answered(known: PeerStatus) -> bool:
    """Whether a peer said to this leader, not to an earlier one, what it holds, and is there.

    A new leader counts everybody as there for its first election time-out, the dead too. Who lacks
    what was pruned may wait for somebody else for ever, and is not counted on.
    """
    return known.recent_active and known.match > 0 and not known.lacks_pruned


def has_caught_up(known: PeerStatus | None, last_index: int) -> bool:
    """Whether a peer, as its leader sees it, is there and holds almost everything."""
    return (
        known is not None
        and known.recent_active
        and known.state is ProgressState.REPLICATE
        and last_index - known.match <= TRAILS_MAX
    )


class Steward:
    """Counts, on a leader, how long learners keep up; proposes what nobody needs to order.

    `promotion_ticks` is how long a learner must have kept up without a break.
    """

    def __init__(
        self, raw_node: RawNode, members: Members, proposer: Proposer, *, promotion_ticks: int
    ) -> None:
        self._raw_node = raw_node
        self._members = members
        self._proposer = proposer
        self._promotion_ticks = promotion_ticks
        self._kept_up: dict[bytes, int] = {}

    def tick(self) -> None:
        """One tick of the clock passed."""
        waiting = self._waiting() if self._raw_node.is_leader else ()
        if not waiting:
            self._kept_up.clear()
            return
        status = self._raw_node.status()
        self._kept_up = {
            key: self._kept_up.get(key, 0) + 1
            for key in waiting
            if has_caught_up(status.progress.get(keys.peer_id(key)), status.last_index)
        }

    def act(self, now_ms: int) -> Block | None:
        """Propose what is due; the block, if there is one. `now_ms` is the wall clock, Unix ms."""
        if not self._raw_node.is_leader or self._proposer.is_changing:
            return None
        change = self._due()
        if change is None:
            return None
        try:
            return self._proposer.propose_change(change, now_ms)[1]
        except (NotLeader, ProposalDropped, ChangeRefused):
            # Not now: the term has only just begun, or leadership moves. It is due again then.
            return None

    def _due(self) -> Change | None:
        if self._members.state.sets.voters_outgoing:
            return LeaveJoint()
        ready = [
            key for key in self._waiting() if self._kept_up.get(key, 0) >= self._promotion_ticks
        ]
        if not ready:
            return None
        return ChangeVoters(tuple(Step("voter", key) for key in ready[:CHANGE_STEPS_MAX]))

    def _waiting(self) -> tuple[bytes, ...]:
        state = self._members.state
        return tuple(key for key in state.sets.learners if state.nodes[key].role == "orderer")
