"""What the node says of itself: status, peers, raft and mempool as JSON-able tables."""

import os
import resource
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import trio

from p2pcity import __version__
from p2pcity.ledger.data_directory import DataDirectory
from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.ledger.views_store import ViewsStore
from p2pcity.mempool.mempool import Mempool
from p2pcity.net.network import Network
from p2pcity.node.apply_loop import ApplyLoop
from p2pcity.node.base_fetching import BaseFetching
from p2pcity.node.config import Config
from p2pcity.node.disk_growth import DiskGrowth
from p2pcity.node.identity import Identity
from p2pcity.node.intake import Intake
from p2pcity.node.membership import Membership
from p2pcity.node.ordering_loop import OrderingLoop
from p2pcity.node.outbox_loop import OutboxLoop
from p2pcity.node.peer_status import PeerStatus
from p2pcity.node.pruning import Pruning
from p2pcity.node.standing import Standing
from p2pcity.ordering.what_if import tolerated
from p2pcity.raft.status import RaftStatus
from p2pcity.wire.hello import NEWER_EPOCH

_PAGE_BYTES = resource.getpagesize()
# Behind by more than this many blocks, or without a leader, a node is not ready.
LAG_BLOCKS_MAX = 100
NotReady = Literal[
    "not-a-member", "no-leader", "leader-silent", "behind", "disk-hangs", "older-log",
    "apply-waits", "disk-low",
]  # fmt: skip
"""Stable names of why a node is not ready, each a value of the label `reason` in /metrics."""


@dataclass(frozen=True, slots=True)
class Quorum:
    """The voters, those this node reaches, and how many more may fail; itself included."""

    voters: int
    reachable: int
    tolerates: int


class Status:
    """Reads every room's counters; changes nothing."""

    def __init__(
        self,
        *,
        config: Config,
        identity: Identity,
        membership: Membership,
        directory: DataDirectory,
        raft_log: SegmentLog,
        views: ViewsStore,
        mempool: Mempool,
        outbox: OutboxLoop,
        intake: Intake,
        ordering: OrderingLoop,
        apply: ApplyLoop,
        network: Network,
        peer_status: PeerStatus,
        standing: Standing,
        pruning: Pruning,
        base_fetching: BaseFetching,
        now_ms: Callable[[], int],
    ) -> None:
        self._config = config
        self._genesis = identity.genesis
        self._own_id = identity.peer_id
        self._membership = membership
        self._directory = directory
        self._raft_log = raft_log
        self._views = views
        self._mempool = mempool
        self._outbox = outbox
        self._intake = intake
        self._ordering = ordering
        self._apply = apply
        self._network = network
        self._peer_status = peer_status
        self._standing = standing
        self._pruning = pruning
        self._base_fetching = base_fetching
        self._now_ms = now_ms
        self._started_s = trio.current_time()
        self.disk_growth = DiskGrowth(self._stored_bytes)

    def reasons_not_ready(self) -> tuple[str, ...]:
        """Why clients should rather ask another node; empty when all is well."""
        return tuple(self.not_ready().values())

    def not_ready(self) -> Mapping[NotReady, str]:
        """Why clients should rather ask another node: each reason's name, and a sentence."""
        reasons: dict[NotReady, str] = {"not-a-member": self._membership.alarm}
        raft = self._ordering.raw_node.status()
        if raft.leader is None:
            reasons["no-leader"] = (
                "no leader is known: an election is under way, or a quorum is missing"
            )
        elif not raft.has_quorum:
            reasons["leader-silent"] = "the leader was not heard within the election time-out"
        lag = self.lag_blocks()
        if lag > LAG_BLOCKS_MAX:
            reasons["behind"] = f"{lag} blocks behind the others"
        if hang_s := self._ordering.hang_s:
            reasons["disk-hangs"] = (
                f"the disk has not finished a write to the segment log for {hang_s:.1f} s: "
                "this node neither votes nor acknowledges until it does"
            )
        reasons["older-log"] = self._standing.own_alarm
        reasons["apply-waits"] = self._apply.alarm
        if self.is_disk_low():
            reasons["disk-low"] = (
                "the disk has less free than ledger.disk_free_bytes_min: "
                "no transactions are taken until there is room"
            )
        return {name: reason for name, reason in reasons.items() if reason}

    def alarms(self, reasons: Iterable[str]) -> list[str]:
        """Everything that an operator should see to, `reasons` not to be ready first."""
        return list(dict.fromkeys([*reasons, *self._more_alarms()]))

    def _more_alarms(self) -> list[str]:
        """What an operator should see to, while this node serves clients all the same."""
        about_blocks = filter(None, [self._pruning.alarm, self._base_fetching.alarm])
        alarms = [*self._standing.alarms, *about_blocks]
        if any(peer.last_refusal == NEWER_EPOCH for peer in self._network.peers()):
            alarms.append(
                "the city went on under a newer epoch without this node (p2pcity raft recover): "
                "join anew with p2pcity init in an empty directory, then p2pcity raft add"
            )
        return [*alarms, *self._ordering.clock_rule.alarms(self._now_ms())]

    def is_disk_low(self) -> bool:
        """Whether the data directory's disk is so full that clients are turned away."""
        return self._directory.free_bytes() < self._config.ledger.disk_free_bytes_min

    def line(self) -> str:
        """The node in one line, as `systemctl status` shows it; cheap enough for every second."""
        raft, quorum = self._ordering.raw_node.status(), self.quorum()
        place = self._membership.place(self._own_id)
        return status_line(
            raft.role.value if place in ("voter", "leaving") else place,
            height=self._views.meta.tip.height,
            reachable=quorum.reachable,
            voters=quorum.voters,
            lag_blocks=self.lag_blocks(),
            reasons=self.reasons_not_ready(),
        )

    def status(self) -> Mapping[str, object]:
        """What `p2pcity status` shows."""
        raft = self._ordering.raw_node.status()
        meta = self._views.meta
        peers = self._network.peers()
        pool = self._mempool.statistics()
        reasons = self.reasons_not_ready()
        return {
            "version": 1,
            "release": __version__,
            "node": {
                "name": self._config.node.name,
                "member": self._member(self._own_id) or self._config.node.member,
                "role": self._config.node.role,
                "place": self._membership.place(self._own_id),
                "peer": self._own_id,
                "incarnation": self._raft_log.incarnation.hex(),
                "addresses": list(self._config.net.announce or self._network.addresses()),
                "pid": os.getpid(),
                "uptime_s": round(trio.current_time() - self._started_s, 1),
            },
            "network": {"name": self._genesis.name, "id": self._genesis.network.hex()},
            "raft": {
                "role": raft.role.value,
                "term": raft.term,
                "leader": raft.leader,
                "leader_name": self._membership.name(raft.leader),
                "has_quorum": raft.has_quorum,
                "commit_index": raft.commit,
                "last_index": raft.last_index,
                "applied_index": self._apply.applied_index,
                "leader_changes": self._ordering.leader_changes,
            },
            "ledger": {
                "height": meta.tip.height,
                "first_height": self._pruning.first_height,
                "head": meta.tip.hash.hex(),
                "time_ms": meta.tip.time_ms,
                "tree_size": meta.tip.frontier.size,
                "root": meta.tip.frontier.root.hex(),
                "events": meta.events,
                "dropped": meta.dropped,
            },
            "lag": {
                "blocks": self.lag_blocks(),
                "seconds": round(self.lag_s(), 1),
            },
            "peers": {
                "known": len(peers),
                "connected": sum(peer.is_connected for peer in peers),
                "mesh": sum(peer.is_in_mesh for peer in peers),
            },
            "mempool": {
                "transactions": pool.transactions,
                "bytes": pool.bytes,
                "bytes_max": pool.bytes_max,
            },
            "outbox": {"pending": self._outbox.pending_count},
            "disk": self._disk(),
            "clock": self._clock(),
            "process": process_figures(),
            "verdicts": {
                f"{kind}.{reason}": count
                for (kind, reason), count in sorted(self._intake.verdicts.items())
            },
            "is_ready": not reasons,
            "alarms": self.alarms(reasons),
        }

    def _stored(self) -> dict[str, int]:
        """How large each part of the data directory is, in bytes."""
        return {
            "log_bytes": self._raft_log.size_bytes,
            "base_bytes": file_bytes(self._directory.base / "records"),
            "views_bytes": file_bytes(self._directory.views),
            "outbox_bytes": file_bytes(self._directory.outbox),
        }

    def _stored_bytes(self) -> int:
        return sum(self._stored().values())

    def _clock(self) -> Mapping[str, object]:
        """How far the peers' clocks are ahead of ours, the middle of them."""
        offsets = [
            offset
            for peer in self._network.peers()
            if (offset := self._peer_status.clock_offset_ms(peer.peer)) is not None
        ]
        return {
            "offset_ms": round(statistics.median(offsets)) if offsets else None,
            "peers": len(offsets),
        }

    def _disk(self) -> Mapping[str, object]:
        disk = self._raft_log.statistics()
        growth = self.disk_growth.seen()
        return {
            "free_bytes": self._directory.free_bytes(),
            **self._stored(),
            "grows_bytes_per_day": None if growth is None else growth.bytes_per_day,
            "grows_seen_s": None if growth is None else round(growth.seen_s),
            "syncs": disk.syncs,
            "sync_ms_p50": round(disk.sync_ms_quantile(0.5), 3),
            "sync_ms_p99": round(disk.sync_ms_quantile(0.99), 3),
        }

    def peers(self) -> Mapping[str, object]:
        """What `p2pcity peers` shows."""
        raft = self._ordering.raw_node.status()
        height = self._views.meta.tip.height
        rows = []
        for peer in self._network.peers():
            node = self._membership.nodes.get(peer.peer)
            said = self._peer_status.of(peer.peer)
            reached = peer.height if said is None else said.height
            rows.append(
                {
                    "peer": peer.peer,
                    "name": self._membership.name(peer.peer),
                    "member": self._member(peer.peer),
                    "role": "unknown" if node is None else node.role,
                    "place": self._membership.place(peer.peer),
                    "is_leader": peer.peer == raft.leader,
                    "direction": peer.direction,
                    "address": peer.address,
                    "addresses": list(peer.addresses),
                    "rtt_ms": peer.rtt_ms,
                    "is_connected": peer.is_connected,
                    "is_in_mesh": peer.is_in_mesh,
                    "bytes_in": peer.bytes_in,
                    "bytes_out": peer.bytes_out,
                    "in_bytes_per_s": peer.in_bytes_per_s,
                    "out_bytes_per_s": peer.out_bytes_per_s,
                    "duplicate_percent": peer.duplicate_percent,
                    "traffic": {
                        topic: traffic._asdict() for topic, traffic in peer.traffic.items()
                    },
                    "height": reached,
                    "lag_blocks": None if reached is None else max(0, height - reached),
                    "clock_offset_ms": self._peer_status.clock_offset_ms(peer.peer),
                    "incarnation": None if peer.incarnation is None else peer.incarnation.hex(),
                    "score": peer.score,
                    "state": peer.state,
                    "refusal": peer.last_refusal,
                    "release": peer.release,
                }
            )
        return {"version": 1, "peers": rows}

    def _sync_ms(self, peer: str) -> float | None:
        """The 99th percentile of a node's newest syncs in ms, None where it is not known."""
        if peer == self._own_id:
            return round(self._raft_log.statistics().sync_ms_quantile(0.99), 1) or None
        said = self._peer_status.of(peer)
        return round(said.sync_us / 1000, 1) if said is not None and said.sync_us else None

    def _term_and_applied(self, peer: str, raft: RaftStatus) -> tuple[int | None, int | None]:
        """By what the node itself said; None where it has said nothing."""
        if peer == self._own_id:
            return raft.term, raft.applied
        said = self._peer_status.of(peer)
        return (None, None) if said is None else (said.term, said.applied)

    def raft(self) -> Mapping[str, object]:
        """What `p2pcity raft status` shows; the figures of the others are known to a leader."""
        raft = self._ordering.raw_node.status()
        configuration = self._ordering.raw_node.configuration
        reachable = self._reachable()
        rows = []
        for peer, node in self._membership.nodes.items():
            known = raft.progress.get(peer)
            term, applied = self._term_and_applied(peer, raft)
            rows.append(
                {
                    "peer": peer,
                    "name": self._membership.name(peer),
                    "member": node.member,
                    "role": node.role,
                    "place": self._membership.place(peer),
                    "is_self": peer == self._own_id,
                    "is_leader": peer == raft.leader,
                    "is_voter": configuration.is_voter(peer),
                    "is_reachable": peer in reachable,
                    "term": term,
                    "applied_index": applied,
                    "match_index": None if known is None else known.match,
                    "trails": None if known is None else max(0, raft.last_index - known.match),
                    "state": None if known is None else known.state.value,
                    "contact_ticks": None if known is None else known.contact_ticks,
                    "sync_ms_p99": self._sync_ms(peer),
                    "incarnation": node.incarnation.hex(),
                }
            )
        quorum = self.quorum()
        return {
            "version": 1,
            "term": raft.term,
            "leader": raft.leader,
            "leader_name": self._membership.name(raft.leader),
            "role": raft.role.value,
            "commit_index": raft.commit,
            "applied_index": self._apply.applied_index,
            "last_index": raft.last_index,
            "has_quorum": raft.has_quorum,
            "is_joint": configuration.is_joint,
            "voters": quorum.voters,
            "voters_reachable": quorum.reachable,
            "tolerates_more_failures": quorum.tolerates,
            "ignored": dict(raft.ignored),
            "nodes": rows,
        }

    def quorum(self) -> Quorum:
        """How many voters there are, and how many of them this node could lose."""
        configuration = self._ordering.raw_node.configuration
        reachable = self._reachable()
        voters = [peer for peer in configuration.members if configuration.is_voter(peer)]
        return Quorum(
            len(voters),
            sum(peer in reachable for peer in voters),
            tolerated(configuration, reachable),
        )

    def _reachable(self) -> set[str]:
        """The members that are connected with the log that the city knows, and this node."""
        configuration = self._ordering.raw_node.configuration
        is_connected, has_same_log = self._network.is_connected, self._membership.has_same_log
        return {
            peer
            for peer in configuration.members
            if peer == self._own_id or (is_connected(peer) and has_same_log(peer))
        }

    def mempool(self) -> Mapping[str, object]:
        """Counts, bytes and bounds of the mempool."""
        pool = self._mempool.statistics()
        return {
            "version": 1,
            "transactions": pool.transactions,
            "bytes": pool.bytes,
            "bytes_max": pool.bytes_max,
            "authors": pool.authors,
            "blocks_in_flight": self._ordering.proposer.blocks_in_flight,
            "outbox_pending": self._outbox.pending_count,
        }

    def lag_blocks(self) -> int:
        """How far the ledger here is behind the highest that a connected peer said it has."""
        unapplied = self._apply.target_index - self._apply.applied_index
        return max(0, unapplied, self._peer_status.highest() - self._views.meta.tip.height)

    def lag_s(self) -> float:
        """How old the newest block here is, in s, while this node is behind; else 0."""
        if not self.lag_blocks():
            return 0.0
        return max(0, self._now_ms() - self._views.meta.tip.time_ms) / 1000

    def _member(self, peer: str) -> str | None:
        node = self._membership.nodes.get(peer)
        return None if node is None else node.member


def status_line(
    role: str,
    *,
    height: int,
    reachable: int,
    voters: int,
    lag_blocks: int,
    reasons: Sequence[str] = (),
) -> str:
    """Return "leader, height 1,204, 3 of 3 orderers, lag 0", and why it is not ready if so."""
    line = f"{role}, height {height:,}, {reachable} of {voters} orderers, lag {lag_blocks:,}"
    return "; ".join((line, *reasons))


def process_figures() -> dict[str, object]:
    """Resident memory in bytes, CPU seconds so far and open descriptors of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    with open("/proc/self/statm", encoding="ascii") as file:
        resident = int(file.read().split()[1]) * _PAGE_BYTES
    return {
        "rss_bytes": resident,
        "cpu_s": round(used.ru_utime + used.ru_stime, 3),
        "descriptors": len(os.listdir("/proc/self/fd")),
    }


def file_bytes(path: Path) -> int:
    """How many bytes a file of SQLite has with its WAL; 0 when it is not there."""
    total = 0
    for name in (path.name, path.name + "-wal"):
        # It may go at any moment: its owner is another thread.
        with suppress(FileNotFoundError):
            total += path.with_name(name).stat().st_size
    return total
