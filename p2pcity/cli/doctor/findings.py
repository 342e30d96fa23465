"""Judges what a node says of itself: status, peers and raft, without asking anybody. Pure."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from p2pcity.wire.limits import CLOCK_AHEAD_MS_MAX

Severity = Literal["error", "warning"]
Document = Mapping[str, Any]

CLOCK_OFF_MS: Final = 1_000
"""Two clocks of one city that differ by more are worth a look."""
SYNC_SLOW_MS: Final = 100.0
"""A sync that takes longer slows every commit down."""
_TRAILS_MAX: Final = 1_000
_LAG_BLOCKS_MAX: Final = 100
_FULL: Final = 0.9
_DESCRIPTORS_FULL: Final = 0.85

# By the reasons of protocol/04-gossip.md.
_REFUSALS: Final[dict[str, tuple[str, str]]] = {
    "wrong-network": (
        "belongs to another network: its genesis differs from this node's",
        "Compare `p2pcity genesis show FILE` on both, and give the wrong one the city's "
        "genesis.cbor (node.genesis).",
    ),
    "protocol-too-old": (
        "and this node have no protocol version in common: one release is too old",
        "Compare `p2pcity version` on both, and upgrade the older one.",
    ),
    "protocol-too-new": (
        "and this node have no protocol version in common: one release is too new",
        "Compare `p2pcity version` on both, and upgrade the older one.",
    ),
    "other-parameters": (
        "has other parameters of the network than this node",
        "Run the same release of p2pcity on both (`p2pcity version`).",
    ),
    "older-epoch": (
        "is still in an older epoch of the city",
        "There: `p2pcity init` in an empty directory, then `p2pcity raft add` on the leader.",
    ),
    "newer-epoch": (
        "went on under a newer epoch without this node",
        "Here: `p2pcity init` in an empty directory, then `p2pcity raft add` on the leader.",
    ),
    "banned": (
        "sent what no correct node sends, and is not listened to for a while",
        "Read this node's log for `peer`, and upgrade or stop that node.",
    ),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: under which check, why, and what mends it."""

    check: str
    severity: Severity
    cause: str
    remedy: str


def of_alarms(status: Document, found: Sequence[Finding]) -> Iterator[Finding]:
    """What the node itself calls an alarm and nothing else explains; its remedy is part of it."""
    explained = {finding.check for finding in found}
    for alarm in status["alarms"]:
        check = next((check for words, check in _ALARMS if words in alarm), "alarm")
        if check not in explained:
            cause, _, remedy = alarm.partition(": ")
            yield Finding(check, "error", cause, remedy or "Read the node's log.")


_ALARMS: Final = (
    ("no leader is known", "quorum"),
    ("the leader was not heard", "quorum"),
    ("blocks behind the others", "lag"),
    ("segment log for", "sync"),
    ("disk_free_bytes_min", "disk"),
    ("clock", "clock"),
    ("with another log", "identity"),
    ("not a member", "membership"),
    ("newer epoch", "peer"),
)


def of_quorum(raft: Document) -> Iterator[Finding]:
    """Whether enough voters are there, and how many more may fail."""
    voters = [row for row in raft["nodes"] if row["is_voter"]]
    away = [row["name"] for row in voters if not row["is_reachable"]]
    needed = len(voters) // 2 + 1
    names = ", ".join(away)
    if len(voters) - len(away) < needed:
        yield Finding(
            "quorum",
            "error",
            f"{len(voters) - len(away)} of {len(voters)} voters are reachable from here, {needed} "
            f"are needed: nothing can be ordered. Missing: {names}",
            f"Start {names}, or mend the network between them and this node. If they are gone for "
            "ever: `p2pcity raft recover` on one stopped survivor.",
        )
    elif raft["leader"] is None or not raft["has_quorum"]:
        yield Finding(
            "quorum",
            "error",
            "no leader is known here, though enough voters are reachable",
            "Wait for an election; if it lasts, run `p2pcity doctor` on the other voters: one of "
            "them is not heard or can't write.",
        )
    elif away:
        yield Finding(
            "quorum",
            "warning",
            f"not reachable from here: {names}; {raft['tolerates_more_failures']} more failures "
            "are tolerated",
            f"Start {names}, or `p2pcity raft what-if remove` and then `raft remove` who will not "
            "come back.",
        )
    for row in raft["nodes"]:
        if row["is_reachable"] and (row["trails"] or 0) > _TRAILS_MAX:
            yield Finding(
                "follower",
                "warning",
                f"{row['name']} trails the leader by {row['trails']} entries",
                f"Run `p2pcity doctor` on {row['name']}: its disk or its network is slow.",
            )


def of_identity(status: Document, raft: Document) -> Iterator[Finding]:
    """Whether the city knows this node by the log that it has."""
    own = next((row for row in raft["nodes"] if row["is_self"]), None)
    if own is not None and own["incarnation"] != status["node"]["incarnation"]:
        yield Finding(
            "identity",
            "error",
            "the city knows this node's key with another log: it was wiped, or a second node runs "
            "with the same key",
            "Stop the other node that has this node.key, or let the city take this log: `p2pcity "
            "raft replace` on the leader with this node's new card.",
        )


def of_peers(peers: Document) -> Iterator[Finding]:
    """Who is not connected for a reason that was said, and whether anybody is."""
    rows = peers["peers"]
    for row in rows:
        reason = row["refusal"]
        if not row["is_connected"] and reason in _REFUSALS:
            cause, remedy = _REFUSALS[reason]
            yield Finding("peer", "error", f"{_name(row)} {cause}", remedy)
    if rows and not any(row["is_connected"] for row in rows):
        yield Finding(
            "isolated",
            "error",
            f"none of {len(rows)} peers is connected",
            "Let TCP to the addresses in `p2pcity peers -v` through, and this node's port in; "
            "name today's nodes in net.peers.",
        )
    offsets = [row["clock_offset_ms"] for row in rows if row["clock_offset_ms"] is not None]
    if offsets:
        yield from _of_clock(offsets, rows)


def _of_clock(offsets: Sequence[float], rows: Sequence[Document]) -> Iterator[Finding]:
    middle = statistics.median(offsets)
    if abs(middle) >= CLOCK_OFF_MS:
        direction = "behind" if middle > 0 else "ahead of"
        yield Finding(
            "clock",
            "error" if abs(middle) >= CLOCK_AHEAD_MS_MAX else "warning",
            f"this node's clock is {abs(middle) / 1000:.1f} s {direction} its peers'",
            "Set the clock and keep it: `timedatectl set-ntp true`, or chrony.",
        )
        return
    for row in rows:
        offset = row["clock_offset_ms"]
        if offset is not None and abs(offset) >= CLOCK_AHEAD_MS_MAX:
            yield Finding(
                "clock",
                "warning",
                f"the clock of {_name(row)} is {abs(offset) / 1000:.1f} s off",
                "There: `timedatectl set-ntp true`, or chrony.",
            )


def of_status(status: Document) -> Iterator[Finding]:
    """What the node's own figures say: its disk, its lag, its mempool."""
    lag, pool, disk = status["lag"], status["mempool"], status["disk"]
    if lag["blocks"] > _LAG_BLOCKS_MAX:
        yield Finding(
            "lag",
            "error",
            f"this node is {lag['blocks']} blocks ({lag['seconds']} s) behind",
            "Wait while it catches up (`p2pcity status --watch`); if the lag grows, its disk or "
            "its network is too slow.",
        )
    if disk["sync_ms_p99"] > SYNC_SLOW_MS:
        yield Finding(
            "sync",
            "warning",
            f"syncs of the log take {disk['sync_ms_p99']:.0f} ms (p99): commits wait for them",
            "Put node.data_dir on a faster disk, or find who else writes to it (`iostat -x 1`).",
        )
    if pool["bytes"] > _FULL * pool["bytes_max"]:
        yield Finding(
            "mempool",
            "error",
            f"the mempool holds {pool['bytes']:,} of {pool['bytes_max']:,} bytes: transactions "
            "come faster than they are ordered",
            "See to the quorum and to slow disks first; then slow the senders down, or raise "
            "mempool.bytes_max.",
        )


def of_progress(before: Document, after: Document) -> Iterator[Finding]:
    """Whether what waits is ordered: two looks, some time apart."""
    waits = before["mempool"]["transactions"] and after["mempool"]["transactions"]
    if waits and before["raft"]["commit_index"] == after["raft"]["commit_index"]:
        yield Finding(
            "mempool",
            "error",
            f"{after['mempool']['transactions']} transactions wait and nothing was ordered "
            "meanwhile",
            "Run `p2pcity doctor` on the leader: the quorum, its disk or its clock stands in the "
            "way.",
        )


def of_descriptors(used: int, limit: int) -> Iterator[Finding]:
    """Whether the process is about to run out of file descriptors."""
    if used > _DESCRIPTORS_FULL * limit:
        yield Finding(
            "descriptors",
            "error",
            f"{used} of {limit} file descriptors are in use",
            "Raise LimitNOFILE= of the unit (or `ulimit -n`), or lower net.connections_max.",
        )


def of_reach(
    name: str, address: str, error: str, *, is_connected: bool, is_inbound: bool
) -> Iterator[Finding]:
    """What it means that this host can't open a TCP connection to a peer's address."""
    if is_connected and is_inbound:
        yield Finding(
            "reach",
            "warning",
            f"{name} reaches this node, but {address} can't be reached from here: {error}",
            f"Let TCP from this host to {address} through, or correct what {name} announces "
            "(net.announce there).",
        )
    elif not is_connected:
        what = "nobody listens there" if "refused" in error else "no answer: a firewall or a cable"
        yield Finding(
            "reach",
            "error",
            f"{name} is not connected, and {address} can't be reached: {error} ({what})",
            f"Start {name}, or let TCP from this host to {address} through; if it has moved, name "
            "its address in net.peers.",
        )


def of_own_reach(errors: Mapping[str, str]) -> Iterator[Finding]:
    """What it means that no address that the node names can be reached from here, and why."""
    if errors and all(errors.values()):
        tried = ", ".join(f"{address} ({error})" for address, error in errors.items())
        yield Finding(
            "reach",
            "warning",
            f"it answers, but none of its addresses for peers can be reached from here: {tried}",
            "Let TCP to its port for peers through, or correct what it announces (net.announce). "
            "If peers are not to come from where you are, nothing is wrong.",
        )


def _name(row: Document) -> str:
    return str(row["name"] or row["peer"])
