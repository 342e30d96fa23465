"""What is known about each peer: addresses, score, refusals; and what is shown of it."""

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import trio
from multiaddr import Multiaddr  # type: ignore[import-untyped]  # it has no stubs
from multiaddr.exceptions import (  # type: ignore[import-untyped]  # likewise
    MultiaddrError,
    ProtocolLookupError,
)

from p2pcity.net.config import NetConfig
from p2pcity.net.pacing import Backoff, Demerits
from p2pcity.wire.hello import Hello

ADDRESSES_PER_PEER_MAX: Final = 8
PEERS_MAX: Final = 1024
_BAN_S_MAX: Final = 3600.0
_HOSTS: Final = ("ip4", "ip6", "dns", "dns4", "dns6")


class Traffic(NamedTuple):
    """Bytes that came and went."""

    bytes_in: int
    bytes_out: int


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """One peer as the surfaces show it.

    `state` is one of connected, connecting, refused, banned, disconnected and unknown-address;
    `address` is the one in use, `addresses` are those at which it is to be found;
    `direction` is out when this node dialled, in when the peer did; `score` is 0 for a peer
    without demerits and falls below it; `last_refusal` is the last reason for which one side
    sent the other away; `release` is what it said that it runs. The rates are of the last ten
    seconds or so; of its gossip messages so many in a hundred were known here already.
    """

    peer: str
    state: str
    is_connected: bool
    direction: str = ""
    address: str = ""
    addresses: tuple[str, ...] = ()
    rtt_ms: float | None = None
    is_in_mesh: bool = False
    bytes_in: int = 0
    bytes_out: int = 0
    in_bytes_per_s: int = 0
    out_bytes_per_s: int = 0
    duplicate_percent: float | None = None
    traffic: Mapping[str, Traffic] = field(default_factory=dict)
    queued_bytes: int = 0
    dropped: int = 0
    height: int | None = None
    incarnation: bytes | None = None
    hello: Hello | None = None
    release: str = ""
    score: float = 0.0
    last_refusal: str = ""
    last_error: str = ""


def normalise_address(text: str, peer: str) -> str | None:
    """Return the multiaddr of `text` for dialling `peer`, without `/p2p/`; None when unusable.

    Usable is a TCP address of a host and a port above 0 that names no other peer.
    """
    try:
        address = Multiaddr(text)
        names = [protocol.name for protocol in address.protocols()]
        if len(names) not in (2, 3) or names[0] not in _HOSTS or names[1] != "tcp":
            return None
        if len(names) == 3 and (names[2] != "p2p" or address.value_for_protocol("p2p") != peer):
            return None
        host = address.value_for_protocol(names[0])
        port = address.value_for_protocol("tcp")
    except (MultiaddrError, ProtocolLookupError, ValueError, TypeError):
        return None
    if not port or int(port) == 0 or host in ("0.0.0.0", "::"):
        return None
    return f"/{names[0]}/{host}/tcp/{port}"


@dataclass(eq=False, slots=True)
class PeerRecord:
    """What this node keeps about one peer it may talk to."""

    peer: str
    backoff: Backoff
    refused_backoff: Backoff
    demerits: Demerits
    # Address -> where it came from, in the order of dialling.
    addresses: dict[str, str] = field(default_factory=dict)
    # Set and replaced when a sleeping dialler should look again.
    changed: trio.Event = field(default_factory=trio.Event)
    is_dialled: bool = False
    is_refused: bool = False
    last_refusal: str = ""
    last_error: str = ""
    release: str = ""
    banned_until_s: float = 0.0
    ban_s: float = 0.0

    def wake(self) -> None:
        """Let the dialler look again at once."""
        self.changed.set()
        self.changed = trio.Event()

    def add_addresses(self, addresses: Iterable[str], source: str) -> None:
        """Add what is usable of `addresses`; beyond the bound the oldest from peers go."""
        is_new = False
        for text in addresses:
            address = normalise_address(text, self.peer)
            if address is None or address in self.addresses:
                continue
            if len(self.addresses) >= ADDRESSES_PER_PEER_MAX and not self._evict(source):
                continue
            self.addresses[address] = source
            is_new = True
        if is_new:
            self.backoff.reset()
            self.wake()

    def _evict(self, source: str) -> bool:
        for address, origin in self.addresses.items():
            # What the operator or the ledger named stays.
            if origin not in ("config", "ledger") or origin == source:
                del self.addresses[address]
                return True
        return False

    def prefer(self, address: str) -> None:
        """Dial `address` first the next time: it worked."""
        source = self.addresses.pop(address, None)
        if source is not None:
            self.addresses = {address: source, **self.addresses}


class PeerBook:
    """The records of all peers that are allowed; bounded."""

    def __init__(
        self, config: NetConfig, own: str, is_allowed: Callable[[str], bool], rng: random.Random
    ) -> None:
        self._config = config
        self._own = own
        self._is_allowed = is_allowed
        self._rng = rng
        self._records: dict[str, PeerRecord] = {}
        # Called with each new record: the dialler starts a loop for it.
        self.on_record: Callable[[PeerRecord], None] = lambda record: None

    def record(self, peer: str) -> PeerRecord | None:
        """Return the record of `peer`, made anew for an allowed one; None for all others."""
        known = self._records.get(peer)
        if known is not None:
            return known
        if peer == self._own or len(self._records) >= PEERS_MAX or not self._is_allowed(peer):
            return None
        config = self._config
        record = PeerRecord(
            peer,
            Backoff(config.dial_backoff_min_s, config.dial_backoff_max_s, self._rng),
            Backoff(config.refused_backoff_min_s, config.refused_backoff_max_s, self._rng),
            Demerits(config.demerits_half_life_s),
        )
        self._records[peer] = record
        self.on_record(record)
        return record

    def records(self) -> tuple[PeerRecord, ...]:
        """Return all records."""
        return tuple(self._records.values())

    def is_current(self, record: PeerRecord) -> bool:
        """Tell whether `record` is still the one of its peer."""
        return self._records.get(record.peer) is record

    def prune(self) -> None:
        """Drop the records of peers that are not allowed any more: room for others."""
        for peer in [peer for peer in self._records if not self._is_allowed(peer)]:
            self._records.pop(peer).wake()

    def is_admitted(self, peer: str) -> bool:
        """Tell whether `peer` may connect now: allowed and not banned."""
        if not self._is_allowed(peer):
            return False
        record = self._records.get(peer)
        return record is None or record.banned_until_s <= trio.current_time()

    def penalise(self, peer: str, points: float) -> bool:
        """Add demerits; True when the peer is banned by them.

        A ban lasts `ban_s` and twice as long each time, up to an hour.
        """
        record = self.record(peer)
        if record is None:
            return True
        now_s = trio.current_time()
        if record.demerits.add(points, now_s) < self._config.demerits_max:
            return False
        record.ban_s = min(2 * record.ban_s or self._config.ban_s, _BAN_S_MAX)
        record.banned_until_s = now_s + record.ban_s
        record.demerits.points = 0.0
        record.last_refusal = "banned"
        return True
