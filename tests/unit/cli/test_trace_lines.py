"""How `p2pcity trace` shows a node: within 80 columns, and what is not known said so."""

from typing import Any

import pytest

from p2pcity.cli.trace import node_lines


def node(**changed: Any) -> dict[str, Any]:
    plain = {
        "peer": "12D3KooW" + "x" * 44,
        "name": "works/n1",
        "is_self": False,
        "state": "known",
        "error": "",
        "clock_offset_ms": 0.2,
        "clock_error_ms": 0.9,
        "total_ms": None,
        "moments": [],
    }
    return plain | changed


def moment(stage: str, **changed: Any) -> dict[str, Any]:
    plain = {
        "stage": stage,
        "time": "2026-11-30T10:00:01.123456Z",
        "after_ms": 12.3456,
        "peer": None,
        "peer_name": None,
        "term": None,
        "index": None,
        "height": None,
        "outcome": "",
    }
    return plain | changed


def test_a_node_that_knows() -> None:
    peer = {"peer": "12D3KooW" + "y" * 44, "peer_name": "works/n2"}
    lines = node_lines(
        node(
            clock_offset_ms=-1500.0,
            total_ms=1234.5,
            moments=[
                moment("received", after_ms=0.0, **peer),
                moment("forwarded", **peer),
                moment("proposed", term=2, index=7, height=5),
                moment("applied", index=7, height=5, outcome="committed"),
                moment("answered", after_ms=61_234.5, outcome="pending"),
            ],
        )
    )
    assert lines == [
        "works/n1: clock 1.500 s behind (±0.9 ms); received to applied 1.234 s",
        "  received   10:00:01.123456     +0.000 ms  from works/n2",
        "  forwarded  10:00:01.123456    +12.346 ms  to works/n2",
        "  proposed   10:00:01.123456    +12.346 ms  term 2, index 7, height 5",
        "  applied    10:00:01.123456    +12.346 ms  index 7, height 5",
        "  answered   10:00:01.123456     +61.234 s  pending",
    ]


@pytest.mark.parametrize(
    ("changed", "head"),
    [
        ({"is_self": True}, "works/n1: the node asked"),
        ({"state": "unknown"}, "works/n1: clock equal (within 0.9 ms); remembers nothing of it"),
        (
            {"state": "unreachable", "error": "it gave no status answer in 2 s"},
            "works/n1: unreachable, it gave no status answer in 2 s",
        ),
        (
            {"state": "unsupported", "error": "its release is 0.1"},
            "works/n1: knows no traces, its release is 0.1",
        ),
    ],
)
def test_heads(changed: dict[str, Any], head: str) -> None:
    assert node_lines(node(**changed)) == [head]


def test_what_is_long_is_cut() -> None:
    peer = "12D3KooW" + "y" * 44
    lines = node_lines(
        node(name="m" * 100, moments=[moment("received", peer=peer, outcome="x" * 64)])
    )
    assert all(len(line) <= 80 for line in lines)
    assert "from …yyyyyyyy" in lines[1]
