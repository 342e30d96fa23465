"""Which peer a word means."""

from typing import Any

import pytest

from p2pcity.cli.ping import find_peer
from p2pcity.errors import ConfigError

ROWS: list[dict[str, Any]] = [
    {"peer": "12D3A", "name": "Parks/main"},
    {"peer": "12D3B", "name": "Water/main"},
    {"peer": "12D3C", "name": "Water/second"},
    {"peer": "12D3D", "name": None},
]


@pytest.mark.parametrize(
    ("name", "peer"),
    [("12D3B", "12D3B"), ("Parks/main", "12D3A"), ("second", "12D3C"), ("12D3D", "12D3D")],
)
def test_a_peer_by_id_or_name(name: str, peer: str) -> None:
    assert find_peer(ROWS, name)["peer"] == peer


@pytest.mark.parametrize(("name", "what"), [("main", "means 2 peers"), ("", "no peer")])
def test_what_names_none_or_many(name: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        find_peer(ROWS, name)
    assert "p2pcity peers -v" in caught.value.remedy
