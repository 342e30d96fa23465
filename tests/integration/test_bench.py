"""`p2pcity bench` from end to end, short: that it measures what it says and loses nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.json_schemas import check

pytestmark = pytest.mark.integration


@pytest.mark.long
def test_bench_measures_all_phases_and_finds_nothing_lost(tmp_path: Path) -> None:
    options = ("--for", "1s", "--rate", "20", "--no-etcd", "--json", "--dir", str(tmp_path / "b"))
    done = subprocess.run(
        [sys.executable, "-m", "p2pcity", "bench", *options],
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    document = json.loads(done.stdout)
    check(document)
    assert document["schema"] == "p2pcity/bench/1"
    assert document["is_good"]
    assert document["etcd"] == []
    assert "--no-etcd" in document["etcd_note"]
    phases = document["phases"]
    assert [(phase["wait"], phase["events_per_transaction"]) for phase in phases] == [
        (wait, count) for count in (1, 1, 64) for wait in ("accepted", "committed")
    ]
    for phase in phases:
        assert phase["problems"] == []
        assert phase["unanswered"] == 0
        assert phase["transactions"] > 0
        assert phase["events"] == phase["transactions"] * phase["events_per_transaction"]
        assert 0 < phase["p50_ms"] <= phase["p99_ms"]
        assert [node["name"] for node in phase["nodes"]] == ["node1", "node2", "node3"]
        assert sum(node["is_leader"] for node in phase["nodes"]) <= 1
        for node in phase["nodes"]:
            assert node["rss_bytes"] > 0
            assert node["cpu_s_per_1000_events"] > 0
            assert node["log_bytes_per_event"] > 300
    # On schedule: 20 a second for a second, by both clients together.
    assert [phase["transactions"] for phase in phases[:2]] == [20, 20]
    ledger = document["ledger"]
    assert ledger["events"] == sum(phase["events"] for phase in phases)
    assert ledger["transactions"] == sum(phase["transactions"] for phase in phases)
    assert all(ledger["disk_bytes_per_event"][part] > 0 for part in ("log", "views", "outbox"))
