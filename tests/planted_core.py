"""Bugs of the core: elections, replication, changes of voters, reads."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any, Final
from unittest import mock

from p2pcity.raft import election, quorum, reading, replication, step, transfer
from p2pcity.raft.configuration import Configuration
from p2pcity.raft.progress import Progress
from p2pcity.raft.raft import Raft, Role
from p2pcity.raft.raft_log import RaftLog
from p2pcity.raft.raw_node import RawNode
from p2pcity.raft.reads import LeaderReads, Read, ReadState
from p2pcity.raft.ready import Ready
from p2pcity.wire.raft import Entry, Heartbeat, NodeId, TimeoutNow, VoteAnswer
from tests.planted_case import Planted


def _vote_not_synced() -> AbstractContextManager[Any]:
    real = RawNode.ready

    def ready(self: RawNode) -> Ready:
        taken = real(self)
        if taken.must_sync and not taken.entries:
            taken = self._outstanding = replace(taken, must_sync=False)
        return taken

    return mock.patch.object(RawNode, "ready", ready)


def _older_term_committed_by_counting() -> AbstractContextManager[Any]:
    def commit(raft: Raft) -> None:
        matches = {peer: progress.match for peer, progress in raft.progress.items()}
        if not raft.raft_log.commit_to(raft.configuration.committed(matches)):
            return
        while raft.uncommitted and raft.uncommitted[0][0] <= raft.raft_log.commit:
            raft.uncommitted_bytes -= raft.uncommitted.popleft()[1]
        raft.is_flush_due = True
        reading.release(raft)

    return mock.patch.object(replication, "_commit", commit)


def _read_round_reused() -> AbstractContextManager[Any]:
    real = LeaderReads.open_round

    def open_round(self: LeaderReads, read: Read, index: int) -> None:
        is_first = self.round == 0
        real(self, read, index)
        if not is_first:
            # As if the round that is under way, or answered already, would do.
            self.round -= 1
            self._rounds[-1] = (self.round, self._rounds[-1][1])

    return mock.patch.object(LeaderReads, "open_round", open_round)


def _no_pre_vote() -> AbstractContextManager[Any]:
    def campaign(raft: Raft) -> None:
        if raft.role is not Role.LEADER and raft.is_voter and raft.is_settled:
            election.campaign_now(raft, is_transfer=False)

    return mock.patch.object(election, "campaign", campaign)


def _leader_not_sticky() -> AbstractContextManager[Any]:
    return mock.patch.object(Raft, "is_leader_alive", False)


def _no_check_quorum() -> AbstractContextManager[Any]:
    def active_voters(self: Raft) -> dict[NodeId, bool]:
        return dict.fromkeys(self.progress, True)

    return mock.patch.object(Raft, "active_voters", active_voters)


def _half_is_enough() -> AbstractContextManager[Any]:
    return mock.patch.object(quorum, "size", lambda voters: voters // 2)


def _vote_for_any_log() -> AbstractContextManager[Any]:
    return mock.patch.object(RaftLog, "is_up_to_date", return_value=True)


@contextmanager
def _votes_of_another_term() -> Iterator[None]:
    def handle(raft: Raft, sender: NodeId, message: VoteAnswer) -> None:
        if raft.role in (Role.PRE_CANDIDATE, Role.CANDIDATE):
            raft.votes.setdefault(sender, message.is_granted)
            election._decide(raft)

    def answer(raft: Raft, sender: NodeId, message: Any) -> None:
        if isinstance(message, VoteAnswer):
            handle(raft, sender, message)

    with (
        mock.patch.dict(step._HANDLERS, {VoteAnswer: handle}),
        mock.patch.object(step, "_answer_old_term", answer),
    ):
        yield


def _learner_counted() -> AbstractContextManager[Any]:
    def committed(self: Configuration, values: Mapping[NodeId, int]) -> int:
        reached = sorted((values.get(name, 0) for name in self.members), reverse=True)
        return reached[quorum.size(len(self.voters)) - 1]

    return mock.patch.object(Configuration, "committed", committed)


def _joint_by_new_voters_alone() -> AbstractContextManager[Any]:
    def committed(self: Configuration, values: Mapping[NodeId, int]) -> int:
        return quorum.committed(self.voters, values)

    return mock.patch.object(Configuration, "committed", committed)


def _changes_overlap() -> AbstractContextManager[Any]:
    real = replication.propose

    def propose(raft: Raft, payload: bytes, *, is_change: bool) -> tuple[int, int]:
        return real(raft, payload, is_change=False)

    return mock.patch.object(replication, "propose", propose)


def _removed_leader_stays() -> AbstractContextManager[Any]:
    return mock.patch.object(replication, "_resign")


def _leads_before_it_is_settled() -> AbstractContextManager[Any]:
    return mock.patch.object(Raft, "is_settled", True)


def _reads_before_own_commit() -> AbstractContextManager[Any]:
    return mock.patch.object(Raft, "has_own_commit", True)


def _follower_reads_by_itself() -> AbstractContextManager[Any]:
    real = reading.read_index

    def read_index(raft: Raft, context: bytes) -> None:
        if raft.role is Role.LEADER:
            real(raft, context)
        else:
            raft.read_states.append(ReadState(context, raft.raft_log.commit))

    return mock.patch.object(reading, "read_index", read_index)


def _conflict_kept() -> AbstractContextManager[Any]:
    def first_conflict(self: RaftLog, entries: Sequence[Entry]) -> int | None:
        return next((one.index for one in entries if one.index > self.last_index), None)

    return mock.patch.object(RaftLog, "first_conflict", first_conflict)


def _commit_beyond_match_told() -> AbstractContextManager[Any]:
    def send_heartbeats(raft: Raft) -> None:
        raft.is_round_due = False
        raft.heartbeat_elapsed = 0
        for peer in raft.peers:
            commit = raft.raft_log.commit
            raft.send(peer, Heartbeat(raft.term, commit, raft.leader_reads.round))

    return mock.patch.object(replication, "send_heartbeats", send_heartbeats)


def _handed_over_to_any_log() -> AbstractContextManager[Any]:
    def continue_transfer(raft: Raft, peer: NodeId) -> None:
        if peer == raft.lead_transferee:
            raft.send(peer, TimeoutNow(raft.term))

    return mock.patch.object(transfer, "continue_transfer", continue_transfer)


def _older_save_counted() -> AbstractContextManager[Any]:
    def mark_stable(self: RaftLog, index: int) -> None:
        self.stable = max(self.stable, min(index, self.last_index))
        self._trim()

    return mock.patch.object(RaftLog, "mark_stable", mark_stable)


def _applied_twice() -> AbstractContextManager[Any]:
    real = RawNode.__init__

    def init(self: RawNode, *arguments: Any, applied: int = 0) -> None:
        real(self, *arguments, applied=max(0, applied - 1))

    return mock.patch.object(RawNode, "__init__", init)


def _joint_state_not_seen() -> AbstractContextManager[Any]:
    return mock.patch.object(Configuration, "is_joint", False)


def _change_before_commit() -> AbstractContextManager[Any]:
    """A leader that proposes a change lets it begin at once, for itself."""
    real = replication.propose

    def propose(raft: Raft, payload: bytes, *, is_change: bool) -> tuple[int, int]:
        made = real(raft, payload, is_change=is_change)
        if is_change:
            raft.settled_index = max(raft.settled_index, made[1])
        return made

    return mock.patch.object(replication, "propose", propose)


def _pruned_follower_forgotten() -> AbstractContextManager[Any]:
    real = Progress.is_retry_due
    return mock.patch.object(
        Progress, "is_retry_due", lambda self, tick, config, first: real(self, tick, config, 0)
    )


def _change_before_own_entry() -> AbstractContextManager[Any]:
    real = Raft.become_leader

    def become_leader(self: Raft) -> None:
        before = self.change_index
        real(self)
        self.change_index = before

    return mock.patch.object(Raft, "become_leader", become_leader)


def _older_refusal_unheard() -> AbstractContextManager[Any]:
    real = step._answer_old_term

    def answer(raft: Raft, sender: NodeId, message: Any) -> None:
        if isinstance(message, VoteAnswer):
            raft.ignore("old-term")
        else:
            real(raft, sender, message)

    return mock.patch.object(step, "_answer_old_term", answer)


CORE: Final[dict[str, Planted]] = {
    "vote-not-synced": Planted(
        "a vote leaves before it is on disk", _vote_not_synced, 3, "vote_once"
    ),
    "older-term-counted": Planted(
        "an entry of an older term is committed by counting (figure 8)",
        _older_term_committed_by_counting,
        story="figure_8_counting",
    ),
    "read-round-reused": Planted(
        "a read is confirmed by answers from before it was asked",
        _read_round_reused,
        story="read_paused_leader",
    ),
    "no-pre-vote": Planted(
        "a campaign raises the term before anybody says that it could win",
        _no_pre_vote,
        story="prevote",
    ),
    "leader-not-sticky": Planted(
        "votes are given although a leader is heard", _leader_not_sticky, story="election"
    ),
    "no-check-quorum": Planted(
        "a leader that hears nobody leads on", _no_check_quorum, story="check_quorum"
    ),
    "half-is-enough": Planted(
        "half of the voters pass for a majority", _half_is_enough, story="partitioned_leader"
    ),
    "vote-for-any-log": Planted(
        "a vote is given to a log that lacks entries", _vote_for_any_log, story="prevote_logs"
    ),
    "votes-of-another-term": Planted(
        "answers to an earlier campaign count", _votes_of_another_term, story="votes_late"
    ),
    "learner-counted": Planted(
        "a learner's acknowledgement counts for the quorum",
        _learner_counted,
        story="change_learner_promoted",
    ),
    "joint-by-new-alone": Planted(
        "in a joint state the new voters decide alone",
        _joint_by_new_voters_alone,
        story="change_joint_needs_both",
    ),
    "changes-overlap": Planted(
        "a second change is proposed before the first is in effect",
        _changes_overlap,
        story="change_one_at_a_time",
    ),
    "applied-twice": Planted(
        "the last change before a restart is handed out once more",
        _applied_twice,
        story="change_crash_in_joint",
    ),
    "joint-state-not-seen": Planted(
        "a joint state is entered a second time, and never left",
        _joint_state_not_seen,
        story="change_joint_needs_both",
    ),
    "change-in-effect-early": Planted(
        "a change counts as in effect when it is proposed",
        _change_before_commit,
        story="change_one_at_a_time",
    ),
    "removed-leader-stays": Planted(
        "a leader leads on although it votes no more",
        _removed_leader_stays,
        story="change_remove_leader",
    ),
    "leads-unsettled": Planted(
        "a node is elected by the voters of before a change that is committed",
        _leads_before_it_is_settled,
        story="change_not_settled",
    ),
    "reads-before-own-commit": Planted(
        "a new leader answers reads before its own first entry is committed",
        _reads_before_own_commit,
        story="read_before_own_entry",
    ),
    "follower-reads-alone": Planted(
        "a follower answers a read from what it has", _follower_reads_by_itself, story="read_index"
    ),
    "conflict-kept": Planted(
        "a follower keeps entries that the leader has otherwise", _conflict_kept, story="figure_7"
    ),
    "commit-beyond-match": Planted(
        "a heartbeat tells a follower a commit index beyond what it acknowledged",
        _commit_beyond_match_told,
        story="heartbeat_commit",
    ),
    "handed-over-behind": Planted(
        "leadership is handed to a voter that lacks entries",
        _handed_over_to_any_log,
        story="transfer_with_slow_disk",
    ),
    "older-save-counted": Planted(
        "the end of a save counts for entries that replaced what it saved",
        _older_save_counted,
        story="save_replaced_meanwhile",
    ),
    "pruned-follower-forgotten": Planted(
        "a follower that lacked what was pruned is never asked again",
        _pruned_follower_forgotten,
        story="pruned_alone",
    ),
    "change-before-own-entry": Planted(
        "a new leader changes the voters before its own first entry is committed (2015)",
        _change_before_own_entry,
        story="change_before_own_entry",
    ),
    "older-refusal-unheard": Planted(
        "a candidate does not learn what is committed from voters of an older term",
        _older_refusal_unheard,
        story="change_refused_by_older_term",
    ),
}
