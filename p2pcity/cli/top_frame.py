"""What `p2pcity top` shows: two looks at a node, made into lines of text. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final

from p2pcity.cli.output import show, show_bytes

HEADS: Final = ("NODE", "ROLE", "TRAILS", "HEIGHT", "LAG", "RTT", "IN/s", "OUT/s", "STATE")
_TO_RIGHT: Final = frozenset({"TRAILS", "HEIGHT", "LAG", "RTT", "IN/s", "OUT/s"})
_WIDTHS: Final = (16, 8, 6, 8, 4, 5, 8, 8, 9)
KEYS: Final[Mapping[str, str]] = {
    "n": "NODE", "t": "TRAILS", "h": "HEIGHT", "l": "LAG", "r": "RTT", "i": "IN/s", "o": "OUT/s",
}  # fmt: skip
"""Which key sorts by which column."""
_HELP: Final = "sort: n node  t trails  h height  l lag  r rtt  i in  o out (again: turn) q quit"
_ALARMS_MAX: Final = 2
_DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class Look:
    """What a node said at a moment: `at_s` of a clock that only goes on."""

    at_s: float
    status: dict[str, Any]
    peers: dict[str, Any]
    raft: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Order:
    """By which column the nodes are sorted."""

    column: str = "NODE"
    is_descending: bool = False

    def after(self, key: str) -> Order:
        """The order after a key was pressed; the same key turns it round."""
        column = KEYS.get(key)
        if column is None:
            return self
        if column == self.column:
            return Order(column, not self.is_descending)
        return Order(column, is_descending=column in _TO_RIGHT)


def make_frame(before: Look, now: Look, order: Order, *, columns: int, lines: int) -> list[str]:
    """Return the screen: at most `lines` lines of at most `columns` characters.

    Rates are what changed since `before`, for each second in between.
    """
    alarms = now.status["alarms"]
    head = [*_summary(before, now), *(f"ALARM {text}" for text in alarms[:_ALARMS_MAX])]
    if len(alarms) > _ALARMS_MAX:
        head.append(f"... and {len(alarms) - _ALARMS_MAX} alarms more: p2pcity status")
    head += ["", _line([_marked(name, order) for name in HEADS], HEADS)]
    room = max(0, lines - len(head) - 1)
    rows = sorted_rows(_rows(before, now), order)
    body = [_line(_cells(row), HEADS) for row in rows[:room]]
    if len(rows) > room > 0:
        body[-1] = f"... {len(rows) - room + 1} nodes more"
    filler = [""] * (lines - len(head) - len(body) - 1)
    return [line[:columns].rstrip() for line in [*head, *body, *filler, _HELP]][:lines]


def sorted_rows(rows: Sequence[tuple[object, ...]], order: Order) -> list[tuple[object, ...]]:
    """Sort by a column; what is not known comes last."""
    at = HEADS.index(order.column)
    known = [row for row in rows if row[at] is not None]
    known.sort(key=itemgetter(at), reverse=order.is_descending)
    return [*known, *(row for row in rows if row[at] is None)]


def _summary(before: Look, now: Look) -> list[str]:
    status, old = now.status, before.status
    node, raft, ledger = status["node"], status["raft"], status["ledger"]
    lag, pool, disk = status["lag"], status["mempool"], status["disk"]
    seconds = max(now.at_s - before.at_s, 1e-9)

    def rate(part: str, name: str) -> float:
        return max(0.0, float(status[part][name] - old[part][name]) / seconds)

    stored = ("log_bytes", "base_bytes", "views_bytes", "outbox_bytes")
    growth = sum(disk[name] - old["disk"][name] for name in stored) / seconds
    leader = raft["leader_name"] or "nobody"
    peers = status["peers"]
    return [
        f"{node['member']} / {node['name']}  {raft['role']}  city {status['network']['name']}  "
        f"up {_age(node['uptime_s'])}  release {status['release']}",
        f"leader {leader}, term {raft['term']}, tolerates {now.raft['tolerates_more_failures']} "
        f"failures more; peers {peers['connected']} of {peers['known']}, {peers['mesh']} in mesh",
        f"height {ledger['height']:,} (+{rate('ledger', 'height'):.1f}/s)  transactions "
        f"{ledger['tree_size']:,} (+{rate('ledger', 'tree_size'):.1f}/s)  lag {lag['blocks']} "
        f"blocks, {lag['seconds']} s",
        f"mempool {pool['transactions']:,} ({show_bytes(pool['bytes'])} of "
        f"{show_bytes(pool['bytes_max'])})  outbox {status['outbox']['pending']:,}  memory "
        f"{show_bytes(status['process']['rss_bytes'])}  cpu {rate('process', 'cpu_s'):.0%}",
        f"disk {show_bytes(disk['free_bytes'])} free, {_signed(growth)}/s; sync p50 "
        f"{disk['sync_ms_p50']:.1f} ms, p99 {disk['sync_ms_p99']:.1f} ms",
    ]


def _signed(growth: float) -> str:
    return ("+" if growth >= 0 else "-") + show_bytes(abs(growth))


def _age(seconds: float) -> str:
    if seconds < 3600:
        return f"{seconds // 60:.0f} min"
    return f"{seconds // _DAY_S:.0f} d {seconds % _DAY_S // 3600:.0f} h"


def _rows(before: Look, now: Look) -> list[tuple[object, ...]]:
    """One row a node: those that order or follow, and whoever else is connected."""
    seconds = max(now.at_s - before.at_s, 1e-9)
    old = {row["peer"]: row for row in before.peers["peers"]}
    peers = {row["peer"]: row for row in now.peers["peers"]}
    rows = []
    for node in now.raft["nodes"]:
        peer = peers.pop(node["peer"], None)
        rows.append(_row(node, peer, old.get(node["peer"]), seconds, now))
    rows += [_row(None, peer, old.get(peer["peer"]), seconds, now) for peer in peers.values()]
    return rows


def _row(
    node: dict[str, Any] | None,
    peer: dict[str, Any] | None,
    old: dict[str, Any] | None,
    seconds: float,
    now: Look,
) -> tuple[object, ...]:
    known = node or peer or {}
    name = known.get("name") or f"…{known['peer'][-8:]}"
    is_leader = known["peer"] == now.status["raft"]["leader"]
    role = "leader" if is_leader else (node["place"] if node else "-")
    trails = node["trails"] if node else None
    if node is not None and node["is_self"]:
        height = now.status["ledger"]["height"]
        return (
            name,
            role,
            trails,
            height,
            now.status["lag"]["blocks"],
            None,
            None,
            None,
            "this node",
        )
    if peer is None:
        return name, role, trails, None, None, None, None, None, "unknown"
    rates = [
        None if old is None else max(0.0, (peer[way] - old[way]) / seconds)
        for way in ("bytes_in", "bytes_out")
    ]
    state = "mesh" if peer["is_in_mesh"] else peer["state"]
    height, lag, rtt = peer["height"], peer["lag_blocks"], peer["rtt_ms"]
    return name, role, trails, height, lag, rtt, *rates, state


def _cells(row: tuple[object, ...]) -> list[str]:
    return [
        show_bytes(cell) if head in ("IN/s", "OUT/s") and isinstance(cell, float) else show(cell)
        for head, cell in zip(HEADS, row, strict=True)
    ]


def _marked(name: str, order: Order) -> str:
    if name != order.column:
        return name
    return f"{name}{'v' if order.is_descending else '^'}"


def _line(cells: Sequence[str], heads: Sequence[str]) -> str:
    parts = []
    for cell, head, width in zip(cells, heads, _WIDTHS, strict=True):
        text = cell if len(cell) <= width else cell[: width - 1] + "…"
        parts.append(text.rjust(width) if head in _TO_RIGHT else text.ljust(width))
    return " ".join(parts)
