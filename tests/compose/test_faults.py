"""`testnet chaos` and `testnet scenario` on networks of containers (`make test-compose`)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from p2pcity.cli.chaos import container_links
from p2pcity.cli.testnet.containers import ContainerNetwork
from tests.compose.rig import IMAGE, needs_containers, p2pcity_testnet, run
from tests.json_schemas import check

pytestmark = [
    *needs_containers,
    pytest.mark.skipif(bool(container_links.why_not()), reason=container_links.why_not()),
]

NEMESES: Final = ("kill", "term", "pause", "partition", "one-way", "flap", "members")
SCENARIO: Final = """
title = "The leader's container is killed, then it hears nobody, then all are cut off at once."
[network]
orderers = 3
observers = 1
[settings.ledger]
segment_bytes_max = 4194304
[load]
lasts = "22s"
rate = 50
[[fault]]
kind = "kill"
on = "leader"
at = "1s"
lasts = "3s"
[[fault]]
kind = "one-way"
way = "deaf"
on = "leader"
at = "9s"
lasts = "3s"
[[fault]]
kind = "partition"
on = "all"
at = "16s"
lasts = "3s"
[expect]
acknowledged_min = 100
ready_again_max = "1m"
logged = ["opened"]
"""


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A network made by `testnet init --compose`: three orderers and an observer, all down."""
    home = tmp_path_factory.mktemp("faults") / "city"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("P2PCITY_IMAGE", IMAGE)
        p2pcity_testnet("init", "-n", "4", "--compose", "-o", str(home))
        try:
            yield home
        finally:
            p2pcity_testnet("down", str(home))


def report_of(*arguments: object) -> dict[str, Any]:
    """Run `p2pcity testnet ... --json`, which must succeed; its report."""
    report: dict[str, Any] = json.loads(p2pcity_testnet(*map(str, arguments), "--json"))
    check(report)
    print(json.dumps(report, indent=1))
    return report


def left_over(city: Path) -> str:
    place = f"label=com.docker.compose.project.working_dir={city.resolve()}"
    return run("docker", "ps", "-aq", "--filter", place)


def test_nothing_is_lost_when_faults_strike_containers(city: Path, tmp_path: Path) -> None:
    kept = tmp_path / "chaos"
    options = ("--seed", 7, "--for", "30s", "--nemesis", ",".join(NEMESES), "-o", kept)
    report = report_of("chaos", city, *options)
    assert (report["failures"], report["findings"]) == ([], {})
    assert (report["nodes_are"], report["cuts"], report["nodes"]) == ("containers", "packets", 4)
    assert set(report["struck"]) == set(NEMESES)
    assert min(report["struck"].values()) > 0
    assert report["acknowledged"]["during"] > 0
    assert '"event": "ready"' in (kept / "node1.log").read_text(encoding="utf-8")
    again = json.loads(p2pcity_testnet("chaos", "--check", str(kept), "--json"))
    assert (again["operations"], again["findings"]) == (report["operations"]["total"], {})
    assert not left_over(city)


def test_a_scenario_file_holds_on_what_the_run_before_left(city: Path, tmp_path: Path) -> None:
    file = tmp_path / "file.toml"
    file.write_text(SCENARIO, encoding="utf-8")
    report = report_of("scenario", file, city)
    assert report["is_ok"]
    assert [fault["struck"] for fault in report["faults"]] == [1, 1, 1]
    assert len(report["faults"][2]["nodes"]) == 4
    assert report["ledger"]["transactions"] >= report["acknowledged"]["total"]
    assert not left_over(city)
    network = ContainerNetwork(city)
    assert {node.config.ledger.segment_bytes_max for node in network.nodes} == {4194304}


def test_damage_in_a_directory_is_found_by_the_image_itself(city: Path) -> None:
    node = ContainerNetwork(city).node("node2")
    assert node.find_damage() == ""
    log = node.config.node.data_dir / "log"
    segment = max(log.glob("*.segment"), key=lambda path: path.stat().st_size)
    data = bytearray(segment.read_bytes())
    # Room that is made ahead is no part of the log.
    data[len(data.rstrip(b"\0")) // 2] ^= 1
    segment.write_bytes(data)
    assert "segment" in node.find_damage()
    assert not left_over(city)
