"""What `p2pcity status` says of growth and clock."""

from typing import Any

import pytest

from p2pcity.cli.status import clock_text, growth_text

GIB = 1024**3


@pytest.mark.parametrize(
    ("bytes_per_day", "says"),
    [
        (None, "not known yet: it is looked at every ten minutes"),
        (GIB, "1.0 GiB a day (seen over 2.0 h): the disk is full in 50.0 days"),
        (0, "none (seen over 2.0 h)"),
        (-GIB, "1.0 GiB a day less (seen over 2.0 h)"),
    ],
)
def test_growth(bytes_per_day: int | None, says: str) -> None:
    disk: dict[str, Any] = {
        "free_bytes": 50 * GIB,
        "grows_bytes_per_day": bytes_per_day,
        "grows_seen_s": None if bytes_per_day is None else 7_200,
    }
    assert growth_text(disk) == says


@pytest.mark.parametrize(
    ("offset_ms", "says"),
    [
        (None, "no peer was heard"),
        (12, "12 ms behind its peers' (the middle of 3)"),
        (-90_000, "90000 ms ahead of its peers' (the middle of 3)"),
    ],
)
def test_clock(offset_ms: int | None, says: str) -> None:
    assert clock_text({"offset_ms": offset_ms, "peers": 3}) == says
