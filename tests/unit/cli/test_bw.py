"""Rates from two looks at what a node counted."""

from typing import Any

from p2pcity.cli.bw import rates


def peer(name: str, **traffic: tuple[int, int]) -> dict[str, Any]:
    said = {topic: {"bytes_in": a, "bytes_out": b} for topic, (a, b) in traffic.items()}
    return {"peer": f"12D3{name}", "name": f"{name}/{name}", "traffic": said}


def figures(rows: list[dict[str, Any]]) -> list[tuple[object, ...]]:
    names = ("topic", "in_bytes_per_s", "out_bytes_per_s", "bytes_in", "bytes_out")
    return [(row["name"].partition("/")[0], *(row[name] for name in names)) for row in rows]


def test_what_came_in_between_is_divided_by_the_time() -> None:
    before = [peer("roads", rest=(10, 0), control=(100, 1_000))]
    after = [peer("roads", rest=(10, 5), control=(300, 1_100))]
    assert figures(rates(before, after, 2.0)) == [
        ("roads", "control", 100, 50, 300, 1_100),
        ("roads", "rest", 0, 2, 10, 5),
    ]


def test_a_new_connection_begins_at_nothing() -> None:
    """Whether the peer was away, has another connection by now, or is there no more."""
    before = [peer("roads", control=(100, 1_000)), peer("parks", control=(1, 1)), peer("water")]
    after = [peer("roads", control=(50, 2_000)), peer("parks"), peer("water", bulk=(8, 4))]
    assert figures(rates(before, after, 1.0)) == [
        ("roads", "control", 50, 2_000, 50, 2_000),
        ("water", "bulk", 8, 4, 8, 4),
    ]
