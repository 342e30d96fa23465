"""What admission says about one transaction."""

from dataclasses import dataclass

from p2pcity.admission.rules import KIND_BY_REASON, Kind


@dataclass(frozen=True, slots=True)
class Verdict:
    """Accept, ignore (drop, no blame) or reject (drop, blame the peer), and why.

    `reason` is a name of protocol/registry.md. `id` is the transaction's id where it is known:
    always for accepted ones, and whenever the bytes could be decoded.
    """

    kind: Kind
    reason: str
    id: bytes | None = None

    @property
    def is_accepted(self) -> bool:
        """Whether the transaction goes into the mempool."""
        return self.kind == "accept"


def make_verdict(reason: str, id: bytes | None = None) -> Verdict:
    """Return the verdict that the table of rules gives for `reason`."""
    return Verdict(KIND_BY_REASON[reason], reason, id)
