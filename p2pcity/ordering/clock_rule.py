"""The rule on leaders' clocks: who may put a time into a block, and who has to hand over.

A leader proposes only while its clock is right (`clocks.Clocks`), so a lone wild clock gets
into no block while a majority is right. A leader whose clock is not hands leadership to a voter
whose clock is. Followers ask nothing and keep what they heard.
"""

from dataclasses import replace
from typing import Final

from p2pcity.errors import LocalError
from p2pcity.ordering.clocks import Clocks, Verdict
from p2pcity.raft.raw_node import RawNode
from p2pcity.wire.raft import Heartbeat, HeartbeatAnswer, Message, NodeId

_PAUSE_MS_MIN: Final = 2000
_PAUSE_MS_MAX: Final = 60_000
"""After a hand-over that did not succeed the next one waits, twice as long each time."""
_UNKNOWN_MS_MAX: Final = 2000
"""A leader that can't tell for so long whether its clock is right says so, and hands over."""


class ClockRule:
    """What a node says and hears of clocks in Raft's messages, and what follows from it."""

    def __init__(self, raw_node: RawNode, own: NodeId, clocks: Clocks) -> None:
        self._raw_node = raw_node
        self._own = own
        self.clocks = clocks
        self._term = 0
        self._pause_ms = _PAUSE_MS_MIN
        self._next_try_ms = 0
        self._tried: set[NodeId] = set()
        self._not_right_since_ms: int | None = None
        # How often this node handed over because of its clock.
        self.hand_overs = 0

    def stamp(self, message: Message, wall_ms: int) -> Message:
        """Return the message as it leaves: heartbeats ask for clocks, their answers tell ours."""
        if isinstance(message, Heartbeat):
            return replace(message, sent=self.clocks.steady_ms())
        if isinstance(message, HeartbeatAnswer) and message.sent is not None:
            return replace(message, time_ms=wall_ms)
        return message

    def take(self, sender: NodeId, message: Message) -> None:
        """Note the clock in an answer that came in from a member."""
        if (
            isinstance(message, HeartbeatAnswer)
            and message.sent is not None
            and message.time_ms is not None
            and self._raw_node.configuration.is_member(sender)
        ):
            self.clocks.heard(sender, message.time_ms, message.sent)

    def verdict(self, wall_ms: int) -> Verdict:
        """What the voters' clocks say of ours."""
        return self.clocks.judge(self._raw_node.configuration, self._own, wall_ms)

    def off_ms(self, wall_ms: int) -> int | None:
        """How far our clock is ahead of the median of the other voters'; None: none was heard."""
        return self.clocks.off_ms(self._raw_node.configuration, self._own, wall_ms)

    def may_propose(self, wall_ms: int) -> bool:
        """Whether a block may have this node's time."""
        return self.verdict(wall_ms) is Verdict.RIGHT

    def corrected_ms(self, wall_ms: int) -> int:
        """The time to judge expiry by: the voters' when our clock is certainly wrong."""
        return self.clocks.corrected_ms(self._raw_node.configuration, self._own, wall_ms)

    def turn(self, wall_ms: int) -> NodeId | None:
        """Hand leadership over when our clock is wrong; the voter that is asked, if one is."""
        if not self._raw_node.is_leader:
            self._not_right_since_ms = None
            return None
        now = self.clocks.steady_ms()
        if self._raw_node.term != self._term:
            self._term = self._raw_node.term
            self._pause_ms, self._next_try_ms = _PAUSE_MS_MIN, now
            self._tried.clear()
        verdict = self.verdict(wall_ms)
        if verdict is Verdict.RIGHT:
            self._not_right_since_ms = None
        elif self._not_right_since_ms is None:
            self._not_right_since_ms = now
        if not (verdict is Verdict.WRONG or self._is_unknown_for_long()) or now < self._next_try_ms:
            return None
        return self._hand_over(now, wall_ms)

    def alarms(self, wall_ms: int) -> list[str]:
        """What an operator has to know of the clocks, with the remedy; empty when all is well."""
        alarms = []
        verdict = self.verdict(wall_ms)
        off_ms = self.off_ms(wall_ms)
        if verdict is Verdict.WRONG and off_ms is not None:
            alarms.append(
                f"this node's clock is {abs(off_ms) / 1000:.1f} s "
                f"{'ahead of' if off_ms > 0 else 'behind'} the orderers': "
                "set it, and let NTP keep it (timedatectl set-ntp true)"
            )
        if verdict is Verdict.UNKNOWN and self._is_unknown_for_long():
            alarms.append(
                "no blocks are proposed: the clocks of too few orderers are heard, or they "
                "disagree by more than 5 s; set the clocks (p2pcity peers shows how far each is "
                "off), or bring the orderers back that are down"
            )
        return alarms

    def _is_unknown_for_long(self) -> bool:
        since = self._not_right_since_ms
        return since is not None and self.clocks.steady_ms() - since >= _UNKNOWN_MS_MAX

    def _hand_over(self, now: int, wall_ms: int) -> NodeId | None:
        status = self._raw_node.status()
        if status.lead_transferee is not None:
            return None
        configuration = self._raw_node.configuration
        right = [
            peer
            for peer, progress in status.progress.items()
            if peer != self._own
            and configuration.is_voter(peer)
            and progress.recent_active
            and self.clocks.judge_peer(configuration, self._own, wall_ms, peer) is Verdict.RIGHT
        ]
        if not right:
            return None
        if self._tried.issuperset(right):
            self._tried.clear()
        fresh = [peer for peer in right if peer not in self._tried]
        chosen = max(fresh, key=lambda peer: status.progress[peer].match)
        self._tried.add(chosen)
        self._next_try_ms = now + self._pause_ms
        self._pause_ms = min(2 * self._pause_ms, _PAUSE_MS_MAX)
        try:
            self._raw_node.transfer_leader(chosen)
        except LocalError:
            return None  # Leadership ended meanwhile, or the voter is none any more.
        self.hand_overs += 1
        return chosen
