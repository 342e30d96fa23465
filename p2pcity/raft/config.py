"""The core's settings: whole ticks, bytes and counts, never seconds."""

from dataclasses import dataclass

from p2pcity.errors import ConfigError
from p2pcity.wire.limits import (
    APPEND_IN_FLIGHT_BYTES_MAX,
    BLOCK_BYTES_MAX,
    UNCOMMITTED_BYTES_MAX,
)
from p2pcity.wire.raft import NodeId


@dataclass(frozen=True, slots=True)
class RaftConfig:
    """How one node takes part; the ticks must be equal on all nodes of a city.

    Raises ConfigError when values contradict each other.
    """

    id: NodeId
    """This node's own peer id."""

    heartbeat_ticks: int = 1
    """Ticks between a leader's heartbeats; more saves messages, less finds losses sooner."""

    election_ticks: int = 10
    """Ticks of silence after which a follower campaigns, plus a random extra up to as many."""

    retry_ticks: int = 2
    """Ticks without an append answer after which a peer that answers heartbeats is probed."""

    append_bytes_max: int = BLOCK_BYTES_MAX
    """Payload bytes of one append; a single larger entry still travels, alone."""

    in_flight_messages_max: int = 256
    """Appends sent to one follower and not answered yet."""

    in_flight_bytes_max: int = APPEND_IN_FLIGHT_BYTES_MAX
    """Payload bytes sent to one follower and not answered yet."""

    uncommitted_bytes_max: int = UNCOMMITTED_BYTES_MAX
    """Payload bytes proposed and not committed yet; beyond, proposals are dropped."""

    apply_bytes_max: int = 4 * 1024 * 1024
    """Payload bytes handed out for apply and not reported as applied yet."""

    tail_bytes_max: int = 8 * 1024 * 1024
    """Payload bytes of recent entries kept in memory, beside those not on disk yet."""

    far_entries_max: int = 4_096
    """Committed entries that a leader reads from its disk for one follower; beyond: `behind`."""

    far_bytes_max: int = 8 * 1024 * 1024
    """Payload bytes that a leader reads from its disk for one follower, likewise."""

    reads_max: int = 10_000
    """Reads under way at once; beyond, local ones raise Unavailable and others are ignored."""

    term_ahead_max: int = 2**32
    """How far a peer's term may lie beyond ours before its messages are ignored."""

    def __post_init__(self) -> None:
        """Refuse values under which the core cannot make progress."""
        if self.heartbeat_ticks < 1 or self.election_ticks <= self.heartbeat_ticks:
            raise ConfigError(
                "raft: election_ticks must be above heartbeat_ticks, which must be at least 1",
                remedy="Take an election time-out of about ten heartbeats.",
            )
        if self.retry_ticks < 1 or self.in_flight_messages_max < 1 or self.reads_max < 1:
            raise ConfigError("raft: retry_ticks, in_flight_messages_max and reads_max are below 1")
        if not 0 < self.append_bytes_max <= self.in_flight_bytes_max:
            raise ConfigError(
                "raft: append_bytes_max must lie between 1 and in_flight_bytes_max",
                remedy="Let at least one full append be in flight.",
            )
        if min(self.uncommitted_bytes_max, self.apply_bytes_max, self.term_ahead_max) < 1:
            raise ConfigError("raft: a bound is below 1")
