"""The room's configuration: what the node hands to `Network`."""

from dataclasses import dataclass, field

from p2pcity.wire.limits import (
    BULK_PIECE_BYTES_MAX,
    GOSSIP_MESSAGES_PER_SECOND_MAX,
    RAFT_MESSAGE_BYTES_MAX,
)


@dataclass(frozen=True, slots=True)
class LaneConfig:
    """One kept stream: how much may wait, and how much goes into one write.

    `queue_bytes_max` bounds what `send` takes while the peer does not read; `write_bytes_max`
    is the most that is coalesced into one write; a write that takes longer than
    `write_deadline_s` ends the connection.
    """

    queue_bytes_max: int
    write_bytes_max: int
    message_bytes_max: int = RAFT_MESSAGE_BYTES_MAX
    write_deadline_s: float = 10.0


@dataclass(frozen=True, slots=True)
class NetConfig:
    """Settings of the network room; times in seconds, sizes in bytes.

    `listen` are multiaddrs without `/p2p/`; port 0 takes a free one. The rest has defaults that
    fit a city of some dozen nodes and is there for tests and unusual links.
    """

    listen: tuple[str, ...] = ("/ip4/0.0.0.0/tcp/4710",)
    has_mdns: bool = True

    # A peer that was not heard for `silence_s` is cut off. Whoever is not heard for
    # `ping_interval_s` is pinged that often; who is heard anyway, only to measure the round trip.
    ping_interval_s: float = 1.0
    round_trip_interval_s: float = 4.0
    silence_s: float = 3.0
    # A connection without a control lane (a peer that only gossips) lives on library pings.
    silence_without_lane_s: float = 90.0

    dial_timeout_s: float = 5.0
    hello_timeout_s: float = 5.0
    dial_backoff_min_s: float = 0.2
    dial_backoff_max_s: float = 10.0
    refused_backoff_min_s: float = 5.0
    refused_backoff_max_s: float = 60.0

    connections_max: int = 256
    connections_per_peer_max: int = 4
    handshakes_max: int = 64
    streams_per_connection_max: int = 64
    unread_bytes_max: int = 24 * 1024 * 1024

    control: LaneConfig = field(
        default_factory=lambda: LaneConfig(queue_bytes_max=512 * 1024, write_bytes_max=64 * 1024)
    )
    bulk: LaneConfig = field(
        default_factory=lambda: LaneConfig(
            queue_bytes_max=8 * 1024 * 1024, write_bytes_max=BULK_PIECE_BYTES_MAX + 4
        )
    )
    requests: LaneConfig = field(
        default_factory=lambda: LaneConfig(
            queue_bytes_max=8 * 1024 * 1024, write_bytes_max=BULK_PIECE_BYTES_MAX + 4
        )
    )
    requests_outstanding_max: int = 64
    request_handlers_max: int = 4

    # A mesh peer forwards what all others say, so its bucket is larger than one origin's.
    gossip_per_origin_s: float = 1.5 * GOSSIP_MESSAGES_PER_SECOND_MAX
    gossip_per_forwarder_s: float = 10.0 * GOSSIP_MESSAGES_PER_SECOND_MAX
    gossip_publish_queue_max: int = 64

    demerits_max: float = 100.0
    demerits_half_life_s: float = 60.0
    ban_s: float = 60.0
