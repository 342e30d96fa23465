"""Every error p2pcity raises, split by whose fault it is.

Rooms translate foreign exceptions into these at their border; the command line and the
HTTP surface turn them into exit codes and problem documents.
"""


class P2PCityError(Exception):
    """The root of all errors of this project.

    `remedy` is one sentence that tells the reader what to do; empty when there is nothing to do.
    """

    exit_code = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


class ConfigError(P2PCityError):
    """The operator's files, flags or environment are wrong: names file, key and remedy."""

    exit_code = 2


class RemoteError(P2PCityError):
    """A peer, a client or their bytes are wrong: no traceback, costs the peer score."""


class DecodeError(RemoteError):
    """Bytes are outside the profile of protocol/; `reason` is a stable name from the registry."""

    def __init__(self, message: str, *, reason: str = "malformed", remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.reason = reason


class LocalError(P2PCityError):
    """The caller asked for what cannot be done now."""


class NotLeader(LocalError):
    """Only the leader can do this; `leader` is its peer id when one is known."""

    def __init__(self, message: str, *, leader: str | None = None) -> None:
        super().__init__(message, remedy="Ask the leader, or wait for an election to end.")
        self.leader = leader


class ProposalDropped(LocalError):
    """The leader has too much in flight or uncommitted; offer the payload again later."""


class ChangeRefused(LocalError):
    """A change of voters is not possible, or not now; nothing was proposed."""


class MempoolFull(LocalError):
    """The mempool has no room; `retry_after_ms` is when to come again."""

    def __init__(self, message: str, *, retry_after_ms: int = 1000) -> None:
        super().__init__(message, remedy="Send again after the time in Retry-After.")
        self.retry_after_ms = retry_after_ms


class Unavailable(LocalError):
    """No quorum, no leader or no peer answers right now; `retry_after_ms` is when to come again."""

    def __init__(self, message: str, *, retry_after_ms: int = 1000, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.retry_after_ms = retry_after_ms


class Pruned(LocalError):
    """What was asked for is older than what this node keeps; `first_height` is its oldest block.

    `first_height` is None where only Raft indexes are known.
    """

    def __init__(self, message: str, *, first_height: int | None = None) -> None:
        super().__init__(message, remedy="Ask a node that keeps older blocks (ledger.keep_blocks).")
        self.first_height = first_height


class LedgerError(P2PCityError):
    """The disk cannot be trusted: the node stops and never guesses."""

    exit_code = 10


class CorruptionError(LedgerError):
    """Bytes on disk fail their checksum; `index` is the Raft index (None when unknown)."""

    exit_code = 10

    def __init__(self, message: str, *, index: int | None = None, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.index = index


class SyncFailedError(LedgerError):
    """A write or sync failed; the process stops at once and never tries again."""

    exit_code = 11


class LockedError(LedgerError):
    """Another process holds the data directory."""

    exit_code = 12


class DivergedError(LedgerError):
    """This node's ledger differs from what the orderers certified."""

    exit_code = 13


class RulesTooOldError(LedgerError):
    """The ledger is under rules that this release does not know."""

    exit_code = 14
