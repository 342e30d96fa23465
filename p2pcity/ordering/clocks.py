"""What this node knows of the voters' wall clocks, and whether a clock agrees with them.

Every report is kept as bounds on how far the peer's wall clock is ahead of this node's steady
clock (one that never steps): the peer's clock was read between the question and the answer. So a
report stays good while nobody steps a clock, and a step of our own clock shows at once.

A clock is **right** when it lies within `CLOCK_AHEAD_MS_MAX` of the median of the voters' clocks,
whatever the clocks say that were not heard (protocol/05-ordering.md, "Clocks").
"""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from p2pcity.raft.configuration import Configuration
from p2pcity.wire.limits import CLOCK_AHEAD_MS_MAX
from p2pcity.wire.raft import NodeId

REPORT_AGE_MS_MAX: Final = 10 * 60 * 1000
"""A report is forgotten after so long: voters restart within it, and steady clocks drift less
than a second in it."""
_TIGHT_AGE_MS: Final = 60 * 1000
"""For so long a close report is better than a newer one whose answer took its time."""


class Verdict(enum.StrEnum):
    """What the voters' clocks say of one clock."""

    RIGHT = "right"
    WRONG = "wrong"
    """It is off by more than the tolerance, whatever the clocks that were not heard say."""
    UNKNOWN = "unknown"
    """Too few clocks were heard, or they disagree."""


@dataclass(frozen=True, slots=True)
class Lead:
    """How far a wall clock is ahead of our steady clock: at least `low`, at most `high` ms."""

    low: int
    high: int
    heard_ms: int
    """When, by our steady clock."""

    @property
    def middle(self) -> int:
        """The best guess."""
        return (self.low + self.high) // 2


class Clocks:
    """The newest report of each peer. `steady_ms` reads this node's steady clock."""

    def __init__(
        self, steady_ms: Callable[[], int], *, report_age_ms_max: int = REPORT_AGE_MS_MAX
    ) -> None:
        self._steady_ms = steady_ms
        self._age_ms_max = report_age_ms_max
        self._tight_age_ms = min(_TIGHT_AGE_MS, report_age_ms_max // 2)
        self._leads: dict[NodeId, Lead] = {}

    def steady_ms(self) -> int:
        """This node's steady clock, in ms."""
        return self._steady_ms()

    def heard(self, peer: NodeId, time_ms: int, asked_ms: int) -> None:
        """A peer answers with its wall clock; `asked_ms` is when it was asked (steady clock).

        An answer that took longer than the tolerance says nothing, nor does one to a question
        of the future, which is not ours.
        """
        now = self._steady_ms()
        if not 0 <= now - asked_ms <= CLOCK_AHEAD_MS_MAX:
            return
        new = Lead(time_ms - now, time_ms - asked_ms, now)
        old = self._leads.get(peer)
        if (
            old is not None
            and now - old.heard_ms < self._tight_age_ms
            and new.low <= old.low
            and old.high <= new.high
        ):
            return  # It says the same, less exactly.
        if old is None:
            # Room is made by those who are members no more.
            self._leads = {name: lead for name, lead in self._leads.items() if self._is_kept(lead)}
        self._leads[peer] = new

    def judge(self, configuration: Configuration, own: NodeId, wall_ms: int) -> Verdict:
        """Judge this node's wall clock, which says `wall_ms` now; in a joint state by both sets."""
        lead = self._own(wall_ms)
        return self._judge_lead(configuration, {own: lead}, lead)

    def judge_peer(
        self, configuration: Configuration, own: NodeId, wall_ms: int, peer: NodeId
    ) -> Verdict:
        """Judge the clock of `peer` by the middle of its bounds."""
        lead = self._known(peer)
        if lead is None:
            return Verdict.UNKNOWN
        middle = Lead(lead.middle, lead.middle, lead.heard_ms)
        return self._judge_lead(configuration, {own: self._own(wall_ms), peer: middle}, middle)

    def off_ms(self, configuration: Configuration, own: NodeId, wall_ms: int) -> int | None:
        """How far `wall_ms` is ahead of the median of the other voters' clocks; None: not heard."""
        times = self._others(configuration, own)
        return wall_ms - sorted(times)[(len(times) - 1) // 2] if times else None

    def corrected_ms(self, configuration: Configuration, own: NodeId, wall_ms: int) -> int:
        """`wall_ms`, or the voters' time when this node's clock is certainly wrong (Unix ms).

        When nobody can tell it is the earliest of the clocks that were heard and our own.
        """
        verdict = self.judge(configuration, own, wall_ms)
        if verdict is Verdict.RIGHT:
            return wall_ms
        if verdict is Verdict.UNKNOWN:
            return min([wall_ms, *self._others(configuration, own)])
        off = self.off_ms(configuration, own, wall_ms)
        assert off is not None, "who is wrong was judged by others"
        return wall_ms - off

    def _others(self, configuration: Configuration, own: NodeId) -> list[int]:
        """What the clocks of the other voters say now, as far as they were heard."""
        now = self._steady_ms()
        return [
            now + lead.middle
            for voter in configuration.voters
            if voter != own and (lead := self._known(voter)) is not None
        ]

    def _own(self, wall_ms: int) -> Lead:
        now = self._steady_ms()
        return Lead(wall_ms - now, wall_ms - now, now)

    def _is_kept(self, lead: Lead) -> bool:
        return self._steady_ms() - lead.heard_ms <= self._age_ms_max

    def _known(self, peer: NodeId) -> Lead | None:
        lead = self._leads.get(peer)
        return lead if lead is not None and self._is_kept(lead) else None

    def _judge_lead(
        self, configuration: Configuration, known: Mapping[NodeId, Lead], judged: Lead
    ) -> Verdict:
        verdicts = set()
        for voters in (configuration.voters, configuration.voters_outgoing):
            if voters:
                leads = [known.get(voter) or self._known(voter) for voter in voters]
                verdicts.add(_judge([lead for lead in leads if lead], len(voters), judged))
        if verdicts == {Verdict.RIGHT}:
            return Verdict.RIGHT
        return Verdict.WRONG if Verdict.WRONG in verdicts else Verdict.UNKNOWN


def _judge(leads: list[Lead], voters: int, judged: Lead) -> Verdict:
    """Compare `judged` with the median of so many voters, of whom `leads` were heard.

    The median is at most x when half of the voters (rounded up) are, and at least x likewise.
    """
    half = (voters + 1) // 2
    top, bottom = judged.low + CLOCK_AHEAD_MS_MAX, judged.low - CLOCK_AHEAD_MS_MAX
    if (
        sum(lead.high <= top for lead in leads) >= half
        and sum(lead.low >= bottom for lead in leads) >= half
    ):
        return Verdict.RIGHT
    others = voters - half
    if (
        sum(lead.high < bottom for lead in leads) > others
        or sum(lead.low > top for lead in leads) > others
    ):
        return Verdict.WRONG
    return Verdict.UNKNOWN
