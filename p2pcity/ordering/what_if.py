"""How many more may fail, now and after a change of voters: quorum arithmetic over who is up."""

from collections.abc import Collection

from p2pcity.raft.configuration import Configuration
from p2pcity.wire.raft import NodeId


def tolerated(configuration: Configuration, up: Collection[NodeId]) -> int:
    """Return how many of the voters that are up may fail, whichever they are; 0 without a quorum.

    In a joint state both sets need their majority, so the smaller number counts.
    """
    sets = [configuration.voters]
    if configuration.voters_outgoing:
        sets.append(configuration.voters_outgoing)
    return max(0, min(sum(x in up for x in voters) - len(voters) // 2 - 1 for voters in sets))
