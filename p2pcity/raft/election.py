"""Who leads: campaigns, votes, and the rules that keep a disturber from being heard."""

from p2pcity.raft import replication
from p2pcity.raft.quorum import VoteResult
from p2pcity.raft.raft import Raft, Role
from p2pcity.wire.raft import NodeId, TimeoutNow, VoteAnswer, VoteRequest


def campaign(raft: Raft) -> None:
    """Ask for pre-votes, if this node may lead; a lone voter leads at once."""
    if raft.role is Role.LEADER or not raft.is_voter:
        return
    if not raft.is_settled:
        # A committed change of voters may be among what is not in effect here: by the voters
        # of before, two leaders could each win a majority.
        return
    raft.become_pre_candidate()
    _request_votes(raft, is_pre=True, is_transfer=False)
    _decide(raft)


def campaign_now(raft: Raft, *, is_transfer: bool) -> None:
    """Begin a term and ask for votes, without asking first whether that would succeed."""
    raft.become_candidate()
    _request_votes(raft, is_pre=False, is_transfer=is_transfer)
    _decide(raft)


def handle_vote_request(raft: Raft, sender: NodeId, message: VoteRequest) -> None:
    """Grant or refuse a vote; a pre-vote changes nothing here.

    A vote is granted once a term, and only to a log at least as good as ours (Raft sections
    5.2 and 5.4.1). It may leave only when it is on disk.
    """
    may_vote = (
        raft.vote == sender
        or (raft.vote is None and raft.leader is None)
        or (message.is_pre and message.term > raft.term)
    )
    is_granted = may_vote and raft.raft_log.is_up_to_date(message.last_index, message.last_term)
    if is_granted and not message.is_pre:
        raft.vote = sender
        raft.election_elapsed = 0
    term = message.term if is_granted else raft.term
    send_answer(raft, sender, term, is_granted=is_granted, is_pre=message.is_pre)


def send_answer(raft: Raft, to: NodeId, term: int, *, is_granted: bool, is_pre: bool) -> None:
    """Answer a candidate, and tell it what is committed."""
    commit = raft.raft_log.commit
    commit_term = raft.raft_log.term(commit) or 0
    raft.send(to, VoteAnswer(term, is_granted, is_pre, commit, commit_term))


def handle_vote_answer(raft: Raft, sender: NodeId, message: VoteAnswer) -> None:
    """Count an answer to the campaign that is under way."""
    if not message.is_granted:
        learn_commit(raft, message.commit, message.commit_term)
    expected = Role.PRE_CANDIDATE if message.is_pre else Role.CANDIDATE
    if raft.role is not expected:
        raft.ignore("vote-not-asked")
        return
    asked = raft.term + 1 if message.is_pre and message.is_granted else raft.term
    if message.term != asked:
        raft.ignore("vote-not-asked")
        return
    raft.votes.setdefault(sender, message.is_granted)
    _decide(raft)


def handle_timeout_now(raft: Raft, sender: NodeId, _message: TimeoutNow) -> None:
    """Campaign at once, because the leader hands leadership over."""
    if raft.leader != sender or not raft.is_voter:
        raft.ignore("not-from-leader")
        return
    raft.handed_over_tick = raft.ticks
    continue_hand_over(raft)


def continue_hand_over(raft: Raft) -> None:
    """Campaign for the leader that handed over, once what is committed is in effect here.

    The leader waits for an election time-out; after that its request is void.
    """
    asked = raft.handed_over_tick
    if asked is None or not raft.is_settled or not raft.is_voter:
        return
    raft.handed_over_tick = None
    if raft.ticks - asked < raft.config.election_ticks:
        campaign_now(raft, is_transfer=True)


def note_unreachable(raft: Raft, peer: NodeId) -> None:
    """Wait for a leader whose connection broke no longer than the random part of the time-out.

    What is asked first are pre-votes: where others still hear the leader, nothing comes of it.
    """
    if raft.leader == peer and raft.role is not Role.LEADER:
        raft.election_elapsed = max(raft.election_elapsed, raft.config.election_ticks)


def learn_commit(raft: Raft, index: int, term: int) -> bool:
    """Take over that the entry (`index`, `term`) is committed; False: the log has it not.

    True in whatever term it was said: by a voter that refuses its vote (else voters whom a change
    removed could refuse for ever, as their logs are longer), or by a base that is agreed on.
    """
    raft_log = raft.raft_log
    if raft_log.term(index) != term:
        return False
    if raft.role is not Role.LEADER and index > raft_log.commit:
        raft_log.commit_to(index)
    return True


def _request_votes(raft: Raft, *, is_pre: bool, is_transfer: bool) -> None:
    term = raft.term + 1 if is_pre else raft.term
    request = VoteRequest(
        term, raft.raft_log.last_index, raft.raft_log.last_term, is_pre, is_transfer
    )
    for peer in raft.peers:
        if raft.configuration.is_voter(peer):
            raft.send(peer, request)


def _decide(raft: Raft) -> None:
    result = raft.configuration.vote(raft.votes)
    if result is VoteResult.LOST or (result is VoteResult.WON and not raft.is_settled):
        # Won by voters who may not be the voters any more: once that is in effect, again.
        raft.become_follower(raft.term, None)
    elif result is VoteResult.WON and raft.role is Role.PRE_CANDIDATE:
        campaign_now(raft, is_transfer=False)
    elif result is VoteResult.WON:
        raft.become_leader()
        replication.begin(raft)
