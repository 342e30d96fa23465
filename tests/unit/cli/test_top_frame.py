"""What `p2pcity top` draws: it fits, it sorts, and its rates are those between two looks."""

import copy
from typing import Any

import pytest

from p2pcity.cli.top_frame import HEADS, KEYS, Look, Order, make_frame

STATUS: dict[str, Any] = {
    "release": "0.1.0",
    "node": {"member": "Parks", "name": "main", "uptime_s": 90_000.0},
    "network": {"name": "Our city"},
    "raft": {"role": "leader", "leader": "peer-0", "leader_name": "Parks/main", "term": 4},
    "ledger": {"height": 1_204, "tree_size": 20_000},
    "lag": {"blocks": 0, "seconds": 0.0},
    "peers": {"connected": 2, "known": 3, "mesh": 2},
    "mempool": {"transactions": 12, "bytes": 4_096, "bytes_max": 67_108_864},
    "outbox": {"pending": 0},
    "disk": {
        "free_bytes": 80 << 30,
        "log_bytes": 1 << 20,
        "base_bytes": 0,
        "views_bytes": 1 << 20,
        "outbox_bytes": 4_096,
        "sync_ms_p50": 1.5,
        "sync_ms_p99": 6.25,
    },
    "process": {"rss_bytes": 100 << 20, "cpu_s": 10.0},
    "alarms": [],
}


def node(number: int, **changed: Any) -> dict[str, Any]:
    row = {"peer": f"peer-{number}", "name": f"Member {number}/n{number}", "place": "voter"}
    return row | {"trails": number, "is_self": number == 0} | changed


def peer(number: int, **changed: Any) -> dict[str, Any]:
    row = {
        "peer": f"peer-{number}",
        "name": f"Member {number}/n{number}",
        "bytes_in": 1_000 * number,
        "bytes_out": 0,
        "height": 1_204 - number,
        "lag_blocks": number,
        "rtt_ms": 10.0 / number,
        "is_in_mesh": True,
        "state": "connected",
    }
    return row | changed


def look(at_s: float = 0.0, *, nodes: int = 4, **status: Any) -> Look:
    return Look(
        at_s,
        copy.deepcopy(STATUS) | status,
        {"peers": [peer(number) for number in range(1, nodes)]},
        {"nodes": [node(number) for number in range(nodes)], "tolerates_more_failures": 1},
    )


def names(frame: list[str]) -> list[str]:
    return [line.split()[1].partition("/")[0] for line in frame if line.startswith("Member")]


@pytest.mark.parametrize("nodes", [1, 4, 32])
@pytest.mark.parametrize("alarms", [0, 1, 9])
@pytest.mark.parametrize("size", [(80, 24), (80, 8), (40, 10), (200, 60)])
def test_it_fits(nodes: int, alarms: int, size: tuple[int, int]) -> None:
    columns, lines = size
    now = look(1.0, nodes=nodes, alarms=["the disk is nearly full, and " + "so on " * 30] * alarms)
    frame = make_frame(look(nodes=nodes), now, Order(), columns=columns, lines=lines)
    assert len(frame) == lines
    assert max(map(len, frame)) <= columns
    if columns >= 80:
        # No column is cut off, and neither is the line of keys.
        assert frame[-1].endswith("q quit") or lines < 10
        assert any(line.endswith("STATE") for line in frame) or lines < 10


def test_what_does_not_fit_is_counted() -> None:
    frame = make_frame(look(nodes=32), look(1.0, nodes=32), Order(), columns=80, lines=24)
    shown = len(names(frame))
    assert f"... {32 - shown} nodes more" in frame
    alarmed = look(1.0, alarms=["one", "two", "three", "four"])
    text = "\n".join(make_frame(look(), alarmed, Order(), columns=80, lines=24))
    assert "ALARM one\nALARM two\n... and 2 alarms more" in text


def test_rates_are_those_between_the_looks() -> None:
    now = look(2.0)
    now.status["ledger"] = {"height": 1_214, "tree_size": 20_100}
    now.status["process"]["cpu_s"] = 11.0
    now.status["disk"]["log_bytes"] += 4_096
    now.peers["peers"][0]["bytes_in"] += 20_480
    text = "\n".join(make_frame(look(), now, Order(), columns=80, lines=24))
    assert "height 1,214 (+5.0/s)" in text
    assert "20,100 (+50.0/s)" in text
    assert "cpu 50%" in text
    assert "+2.0 KiB/s" in text
    [row] = [line for line in text.splitlines() if line.startswith("Member 1")]
    assert "10.0 KiB" in row
    # A node that began anew counts from zero again: no rate is below zero.
    now.status["process"]["cpu_s"] = 1.0
    assert "cpu 0%" in "\n".join(make_frame(look(), now, Order(), columns=80, lines=24))


def test_a_key_sorts_and_the_same_again_turns() -> None:
    order = Order()
    frames = {}
    for key in KEYS:
        order = order.after(key) if KEYS[key] != order.column else order
        frames[key] = names(make_frame(look(), look(1.0), order, columns=80, lines=24))
    assert frames["n"] == ["0", "1", "2", "3"]
    assert frames["t"] == ["3", "2", "1", "0"]
    assert frames["l"] == ["3", "2", "1", "0"]
    # This node has no round trip to itself: what is not known comes last.
    assert frames["r"] == ["1", "2", "3", "0"]
    turned = Order().after("r").after("r")
    assert names(make_frame(look(), look(1.0), turned, columns=80, lines=24))[-1] == "0"
    assert Order().after("x") == Order()
    assert set(KEYS.values()) < set(HEADS)


def test_whoever_is_connected_and_no_node_is_shown_too() -> None:
    now = look(1.0)
    now.peers["peers"].append(peer(7, name="", state="refused", is_in_mesh=False, height=None))
    now.raft["nodes"].append(node(8))
    frame = make_frame(look(), now, Order(), columns=80, lines=24)
    assert any("peer-7" in line and "refused" in line for line in frame)
    assert any("Member 8" in line and "unknown" in line for line in frame)
