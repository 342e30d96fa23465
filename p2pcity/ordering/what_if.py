"""What a change of voters would mean: quorum arithmetic over who is up, before it is made."""

from collections.abc import Collection
from dataclasses import dataclass

from p2pcity.raft.configuration import Configuration
from p2pcity.wire.raft import NodeId


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether a change is safe now, and the figures behind it.

    `voters_up` are voters that answer and hold almost everything. `tolerates` is how many of
    them may fail, whichever they are, with a quorum left; 0 also when there is none.
    """

    is_safe: bool
    reason: str
    voters_before: int
    voters_up_before: int
    tolerates_before: int
    voters_after: int
    voters_up_after: int
    tolerates_after: int


def tolerated(configuration: Configuration, up: Collection[NodeId]) -> int:
    """Return how many of the voters that are up may fail, whichever they are; 0 without a quorum.

    In a joint state both sets need their majority, so the smaller number counts.
    """
    return max(0, _spare(configuration, up))


def judge(
    before: Configuration, after: Configuration, up: Collection[NodeId], ready: Collection[NodeId]
) -> Judgement:
    """Judge the way from one configuration, not joint, to another by who is there.

    `up` answer, `ready` have also caught up: only these help as new voters. Unsafe is what could
    not be ordered, what would leave no quorum, and what takes the last failure to spare.
    """
    there = [peer for peer in up if peer in before.voters or peer in ready]
    spare_before, spare_after = _spare(before, there), _spare(after, there)
    return Judgement(
        is_safe=spare_before >= 0 and spare_after >= 0 and not spare_before > spare_after == 0,
        reason=_reason(before, after, there, spare_before, spare_after),
        voters_before=len(before.voters),
        voters_up_before=_count(before.voters, there),
        tolerates_before=max(0, spare_before),
        voters_after=len(after.voters),
        voters_up_after=_count(after.voters, there),
        tolerates_after=max(0, spare_after),
    )


def _reason(
    before: Configuration,
    after: Configuration,
    there: Collection[NodeId],
    spare_before: int,
    spare_after: int,
) -> str:
    if spare_before < 0:
        return (
            f"{_shown(before, there)} now, {_majority(before)} are needed: no change can be ordered"
        )
    if set(before.voters) == set(after.voters):
        return "the voters stay as they are"
    if spare_after < 0:
        return (
            f"{_shown(after, there)} afterwards, {_majority(after)} are needed: nothing could be "
            "ordered any more, not even the end of this change"
        )
    if spare_before > spare_after == 0:
        return (
            f"{_shown(after, there)} afterwards and all of these {_majority(after)} are needed: "
            f"no failure is tolerated any more, now it is {spare_before}"
        )
    more = f"{spare_after} more failure{'' if spare_after == 1 else 's'}"
    return f"{_shown(after, there)} afterwards: it tolerates {more}, now {spare_before}"


def _shown(configuration: Configuration, there: Collection[NodeId]) -> str:
    voters = configuration.voters
    return f"{_count(voters, there)} of {len(voters)} voters are there and caught up"


def _majority(configuration: Configuration) -> int:
    return len(configuration.voters) // 2 + 1


def _count(voters: Collection[NodeId], there: Collection[NodeId]) -> int:
    return sum(peer in there for peer in voters)


def _spare(configuration: Configuration, there: Collection[NodeId]) -> int:
    sets = [configuration.voters]
    if configuration.voters_outgoing:
        sets.append(configuration.voters_outgoing)
    return min(_count(voters, there) - len(voters) // 2 - 1 for voters in sets)
