"""What each room is told of the settings: its own configuration, made of the node's."""

from p2pcity.admission.admission import AdmissionConfig
from p2pcity.mempool.mempool import MempoolConfig
from p2pcity.net.config import NetConfig
from p2pcity.node.config import AdmissionSection, MempoolSection, NetSection, RaftSection
from p2pcity.raft.config import RaftConfig

# A tick is half a heartbeat, so that the random part of the election time-out has fine steps.
_TICKS_PER_HEARTBEAT = 2
_PINGS_PER_SILENCE = 3


def admission_config(section: AdmissionSection) -> AdmissionConfig:
    """Return the quotas of peers and authors; a burst is two seconds' worth."""
    return AdmissionConfig(
        peer_per_second=section.peer_transactions_per_second_max,
        peer_burst=2 * section.peer_transactions_per_second_max,
        author_per_second=section.author_transactions_per_second_max,
        author_burst=2 * section.author_transactions_per_second_max,
    )


def mempool_config(section: MempoolSection) -> MempoolConfig:
    """Return the bounds of the mempool."""
    return MempoolConfig(
        bytes_max=section.bytes_max,
        author_bytes_max=section.author_bytes_max,
        transactions_max=section.transactions_max,
    )


def net_config(section: NetSection) -> NetConfig:
    """Return where to listen, and how many connections to keep for how long."""
    return NetConfig(
        listen=section.listen,
        has_mdns=section.mdns,
        connections_max=section.connections_max,
        silence_s=section.silence_ms / 1000,
        ping_interval_s=min(1.0, section.silence_ms / 1000 / _PINGS_PER_SILENCE),
    )


def tick_ms(section: RaftSection) -> float:
    """Return how long a tick lasts, in ms."""
    return section.times_ms[0] / _TICKS_PER_HEARTBEAT


def raft_config(section: RaftSection, peer: str) -> RaftConfig:
    """Return the times of ordering in ticks, for the node `peer`."""
    return RaftConfig(
        id=peer,
        heartbeat_ticks=_TICKS_PER_HEARTBEAT,
        election_ticks=round(section.times_ms[1] / tick_ms(section)),
        retry_ticks=2 * _TICKS_PER_HEARTBEAT,
    )
