"""Who votes, who may come to vote, and who only ever follows."""

from collections.abc import Mapping
from dataclasses import dataclass

from p2pcity.raft import quorum
from p2pcity.wire.raft import NodeId


@dataclass(frozen=True, slots=True)
class Configuration:
    """The voters and learners in force; order carries no meaning and is kept as given.

    While `voters_outgoing` is not empty, every decision needs a majority of both sets of
    voters (joint consensus, Raft section 6). `learners_next` are outgoing voters that stay as
    learners when the joint state ends. `observers` follow like learners and are never promoted,
    so nothing that one of them says can come from a leader that this node does not know yet.
    """

    voters: tuple[NodeId, ...]
    learners: tuple[NodeId, ...] = ()
    voters_outgoing: tuple[NodeId, ...] = ()
    learners_next: tuple[NodeId, ...] = ()
    observers: tuple[NodeId, ...] = ()

    def __post_init__(self) -> None:
        """Check that nobody is named twice, and that no learner votes."""
        for names in (
            self.voters,
            self.voters_outgoing,
            self.learners_next,
            (*self.learners, *self.observers),
        ):
            assert len(set(names)) == len(names), "nobody is named twice"
        for name in (*self.learners, *self.observers):
            assert not self.is_voter(name), "a learner does not vote"
        for name in self.learners_next:
            assert name in self.voters_outgoing, "who is to be a learner votes until then"
            assert name not in self.voters, "who is to be a learner does not stay a voter"

    @property
    def members(self) -> tuple[NodeId, ...]:
        """Everybody, voters first, each once."""
        names = (*self.voters, *self.voters_outgoing, *self.learners, *self.observers)
        return tuple(dict.fromkeys(names))

    @property
    def is_alone(self) -> bool:
        """Whether one voter decides everything by itself."""
        return len(self.voters) == 1 and not self.voters_outgoing

    @property
    def is_joint(self) -> bool:
        """Whether two sets of voters decide together."""
        return bool(self.voters_outgoing)

    def is_voter(self, node: NodeId) -> bool:
        """Whether this node votes."""
        return node in self.voters or node in self.voters_outgoing

    def is_member(self, node: NodeId) -> bool:
        """Whether this node is a voter, a learner or an observer."""
        return self.is_voter(node) or node in self.learners or node in self.observers

    def committed(self, values: Mapping[NodeId, int]) -> int:
        """The highest value that a quorum has reached, such as a match index or a round."""
        return quorum.joint_committed(self.voters, self.voters_outgoing, values)

    def vote(self, votes: Mapping[NodeId, bool]) -> quorum.VoteResult:
        """What the votes received so far decide."""
        return quorum.joint_vote(self.voters, self.voters_outgoing, votes)
