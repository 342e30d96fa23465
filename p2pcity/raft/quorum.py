"""Majority arithmetic, for one set of voters and for two at once."""

import enum
from collections.abc import Mapping, Sequence
from typing import Final

from p2pcity.wire.raft import NodeId

UNBOUNDED: Final = 2**64 - 1
"""What an empty set of voters has committed: it holds nothing back (etcd's convention)."""


class VoteResult(enum.StrEnum):
    """The state of an election."""

    PENDING = "pending"
    WON = "won"
    LOST = "lost"


def size(voters: int) -> int:
    """How many of so many voters are a majority."""
    return voters // 2 + 1


def committed(voters: Sequence[NodeId], values: Mapping[NodeId, int]) -> int:
    """The highest value that a majority of `voters` has reached; who is missing counts as 0."""
    if not voters:
        return UNBOUNDED
    reached = sorted((values.get(voter, 0) for voter in voters), reverse=True)
    return reached[size(len(voters)) - 1]


def vote(voters: Sequence[NodeId], votes: Mapping[NodeId, bool]) -> VoteResult:
    """What `votes` decide among `voters`; votes of others do not count."""
    if not voters:
        return VoteResult.WON
    granted = sum(1 for voter in voters if votes.get(voter) is True)
    refused = sum(1 for voter in voters if votes.get(voter) is False)
    needed = size(len(voters))
    if granted >= needed:
        return VoteResult.WON
    if len(voters) - refused < needed:
        return VoteResult.LOST
    return VoteResult.PENDING


def joint_committed(
    incoming: Sequence[NodeId], outgoing: Sequence[NodeId], values: Mapping[NodeId, int]
) -> int:
    """The highest value that majorities of both sets have reached."""
    return min(committed(incoming, values), committed(outgoing, values))


def joint_vote(
    incoming: Sequence[NodeId], outgoing: Sequence[NodeId], votes: Mapping[NodeId, bool]
) -> VoteResult:
    """Won only when both sets grant, lost as soon as one of them refuses."""
    results = (vote(incoming, votes), vote(outgoing, votes))
    if VoteResult.LOST in results:
        return VoteResult.LOST
    if VoteResult.PENDING in results:
        return VoteResult.PENDING
    return VoteResult.WON
