"""Who votes and who only follows."""

from collections.abc import Mapping
from dataclasses import dataclass

from p2pcity.raft import quorum
from p2pcity.wire.raft import NodeId


@dataclass(frozen=True, slots=True)
class Configuration:
    """The voters and learners in force; order carries no meaning and is kept as given.

    While `voters_outgoing` is not empty, every decision needs a majority of both sets of
    voters (joint consensus, Raft section 6).
    """

    voters: tuple[NodeId, ...]
    learners: tuple[NodeId, ...] = ()
    voters_outgoing: tuple[NodeId, ...] = ()

    def __post_init__(self) -> None:
        """Check that voters exist, nobody is named twice and no learner votes."""
        assert self.voters, "a configuration has at least one voter"
        for names in (self.voters, self.learners, self.voters_outgoing):
            assert len(set(names)) == len(names), "nobody is named twice"
        for name in self.learners:
            assert not self.is_voter(name), "a learner does not vote"

    @property
    def members(self) -> tuple[NodeId, ...]:
        """Everybody, voters first, each once."""
        return tuple(dict.fromkeys((*self.voters, *self.voters_outgoing, *self.learners)))

    @property
    def is_alone(self) -> bool:
        """Whether one voter decides everything by itself."""
        return len(self.voters) == 1 and not self.voters_outgoing

    def is_voter(self, node: NodeId) -> bool:
        """Whether this node votes."""
        return node in self.voters or node in self.voters_outgoing

    def is_member(self, node: NodeId) -> bool:
        """Whether this node is a voter or a learner."""
        return self.is_voter(node) or node in self.learners

    def committed(self, values: Mapping[NodeId, int]) -> int:
        """The highest value that a quorum has reached, such as a match index or a round."""
        return quorum.joint_committed(self.voters, self.voters_outgoing, values)

    def vote(self, votes: Mapping[NodeId, bool]) -> quorum.VoteResult:
        """What the votes received so far decide."""
        return quorum.joint_vote(self.voters, self.voters_outgoing, votes)
