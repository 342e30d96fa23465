"""From one configuration to the next: arithmetic alone, the same on every node.

A change of voters goes through a joint state: `enter_joint`, and once that is committed
`leave_joint` (Raft section 6). A change that leaves the voters as they are, or moves a single
one, can be made in one step with `simple`; two overlapping steps of that kind are what the
leader's rule of one change at a time prevents (`replication.propose`).
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace

from p2pcity.errors import ChangeRefused
from p2pcity.raft.configuration import Configuration
from p2pcity.wire.raft import NodeId


class Operation(enum.StrEnum):
    """What happens to one node."""

    VOTER = "voter"
    """It votes: added, or promoted."""
    LEARNER = "learner"
    """It follows and does not vote: added, or demoted."""
    OBSERVER = "observer"
    """A new node follows for ever; it has to be removed before it can become anything else."""
    REMOVE = "remove"
    """It is no member any more."""


@dataclass(frozen=True, slots=True)
class Step:
    """One operation on one node; a change is a sequence of them, each upon the ones before."""

    operation: Operation
    node: NodeId


def enter_joint(configuration: Configuration, steps: Sequence[Step]) -> Configuration:
    """Return the joint state of the present voters and those after `steps`.

    Raises ChangeRefused when the configuration is joint already, or nobody would vote.
    """
    if configuration.is_joint:
        raise ChangeRefused(
            "a change of voters is under way already", remedy="Wait until it has ended."
        )
    if not configuration.voters:
        raise ChangeRefused("there are no voters to change")
    joint = replace(configuration, voters_outgoing=configuration.voters)
    return _applied(joint, steps)


def leave_joint(configuration: Configuration) -> Configuration:
    """Return what follows the joint state: the incoming voters alone.

    Raises ChangeRefused when the configuration is not joint.
    """
    if not configuration.is_joint:
        raise ChangeRefused("no change of voters is under way that could end")
    learners = (*configuration.learners, *configuration.learners_next)
    return replace(configuration, learners=learners, voters_outgoing=(), learners_next=())


def simple(configuration: Configuration, steps: Sequence[Step]) -> Configuration:
    """Return the configuration after `steps`, of which at most one voter comes or goes.

    Raises ChangeRefused when more than that changes, nobody would vote, or the configuration
    is joint.
    """
    if configuration.is_joint:
        raise ChangeRefused(
            "a change of voters is under way already", remedy="Wait until it has ended."
        )
    after = _applied(configuration, steps)
    if len(set(configuration.voters) ^ set(after.voters)) > 1:
        raise ChangeRefused(
            "more than one voter changes in one step", remedy="Enter a joint state."
        )
    return after


def _applied(configuration: Configuration, steps: Sequence[Step]) -> Configuration:
    for step in steps:
        configuration = _stepped(configuration, step)
    if not configuration.voters:
        raise ChangeRefused("nobody would vote any more", remedy="Add a voter in the same change.")
    return configuration


def _stepped(before: Configuration, step: Step) -> Configuration:
    node = step.node
    if step.operation is Operation.OBSERVER:
        if node in before.observers:
            return before
        if before.is_member(node):
            raise ChangeRefused(f"{node} is a member already", remedy="Remove it first.")
        return replace(before, observers=(*before.observers, node))
    if node in before.observers and step.operation is not Operation.REMOVE:
        raise ChangeRefused(
            f"{node} is an observer, which is never promoted",
            remedy="Remove it first, then add it as a learner.",
        )
    if step.operation is Operation.VOTER and node in before.voters:
        return before
    if step.operation is Operation.LEARNER and node in before.learners:
        return before
    gone = Configuration(
        voters=_without(before.voters, node),
        learners=_without(before.learners, node),
        voters_outgoing=before.voters_outgoing,
        learners_next=_without(before.learners_next, node),
        observers=_without(before.observers, node),
    )
    if step.operation is Operation.VOTER:
        return replace(gone, voters=(*gone.voters, node))
    if step.operation is Operation.LEARNER and node in gone.voters_outgoing:
        # Whoever votes in the outgoing set can't be a learner before that set is gone.
        return replace(gone, learners_next=(*gone.learners_next, node))
    if step.operation is Operation.LEARNER:
        return replace(gone, learners=(*gone.learners, node))
    return gone


def _without(names: tuple[NodeId, ...], node: NodeId) -> tuple[NodeId, ...]:
    return tuple(name for name in names if name != node)
