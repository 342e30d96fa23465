"""Handing leadership to another voter (Raft's dissertation, section 3.10)."""

from p2pcity.errors import LocalError, NotLeader
from p2pcity.raft.raft import Raft, Role
from p2pcity.wire.raft import CommitNotice, NodeId, TimeoutNow


def transfer_leader(raft: Raft, to: NodeId) -> None:
    """Stop proposing, bring `to` up to date, and let it campaign at once.

    Given up after an election time-out. Raises NotLeader, and LocalError when `to` does not
    vote. Asking for the node that leads already ends a transfer under way.
    """
    if raft.role is not Role.LEADER:
        raise NotLeader("only the leader hands leadership over", leader=raft.leader)
    if not raft.configuration.is_voter(to):
        raise LocalError(f"{to} does not vote", remedy="Name one of the orderers.")
    if to == raft.id:
        raft.lead_transferee = None
        return
    if to == raft.lead_transferee:
        return
    raft.lead_transferee = to
    raft.transfer_elapsed = 0
    raft.is_flush_due = True
    continue_transfer(raft, to)


def continue_transfer(raft: Raft, peer: NodeId) -> None:
    """Tell `peer` to campaign, if it is the transferee and has every entry.

    What is committed goes first: with it in effect the new leader can propose in its first moment.
    """
    progress = raft.progress[peer]
    if peer != raft.lead_transferee or progress.match != raft.raft_log.last_index:
        return
    if progress.commit_sent < raft.raft_log.commit:
        progress.commit_sent = raft.raft_log.commit
        raft.send(peer, CommitNotice(raft.term, raft.raft_log.commit))
    raft.send(peer, TimeoutNow(raft.term))


def tick_transfer(raft: Raft) -> None:
    """Give up after an election time-out; proposals are welcome again."""
    if raft.lead_transferee is None:
        return
    raft.transfer_elapsed += 1
    if raft.transfer_elapsed >= raft.config.election_ticks:
        raft.lead_transferee = None
