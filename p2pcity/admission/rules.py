"""The table of admission rules, in the order in which they are judged.

protocol/03-admission.md has the same list in prose and protocol/vectors/admission has a case
for each; a test compares the three.
"""

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["accept", "ignore", "reject"]
Stage = Literal["screen", "examine", "decide"]


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule's name (the reason in a verdict), what breaking it leads to, and where it runs."""

    reason: str
    kind: Kind
    stage: Stage


RULES: Final = (
    Rule("size", "reject", "screen"),
    Rule("duplicate", "ignore", "screen"),
    Rule("peer-quota", "ignore", "screen"),
    Rule("malformed", "reject", "examine"),
    Rule("network", "reject", "examine"),
    Rule("events-missing", "reject", "examine"),
    Rule("root", "reject", "examine"),
    Rule("signature", "reject", "examine"),
    Rule("event-malformed", "reject", "examine"),
    Rule("known", "ignore", "decide"),
    Rule("expired", "ignore", "decide"),
    Rule("expires-too-far", "ignore", "decide"),
    Rule("author-unknown", "ignore", "decide"),
    Rule("type-not-allowed", "ignore", "decide"),
    Rule("author-quota", "ignore", "decide"),
    Rule("queue-full", "ignore", "decide"),
)
"""All rules. `duplicate` is judged by bytes in `screen` and again by id in `decide`."""

ACCEPTED: Final = "accepted"
REASONS: Final = frozenset((ACCEPTED, *(rule.reason for rule in RULES)))
KIND_BY_REASON: Final[dict[str, Kind]] = {rule.reason: rule.kind for rule in RULES}
