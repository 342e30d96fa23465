"""`p2pcity testnet chaos` itself: short in `make test`, for as long as one likes otherwise."""

import json
import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest

from p2pcity.cli.testnet.local_network import LocalNetwork
from tests.bad_input_city import clean_environment, command_line
from tests.json_schemas import check

pytestmark = pytest.mark.integration

SEEDS: Final = int(os.environ.get("TESTS_CHAOS_SEEDS", "2"))
FIRST_SEED: Final = int(os.environ.get("TESTS_CHAOS_FIRST_SEED", "1"))
SECONDS: Final = int(os.environ.get("TESTS_CHAOS_SECONDS", "60"))
DEADLINE_S: Final = 420.0
MEMBERS_MIN: Final = 3


def chaos(*arguments: object, deadline_s: float = DEADLINE_S) -> tuple[int, dict[str, Any]]:
    """Run the command; its exit code and its report."""
    done = subprocess.run(
        command_line("testnet", "chaos", "--json", *map(str, arguments)),
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=deadline_s,
        check=False,
    )
    print(done.stderr)
    assert done.stdout, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    check(report)
    print(json.dumps(report, indent=1))
    return done.returncode, report


@pytest.mark.scenario("C1", "C2", "E5", "E6", tier="P")
def test_a_short_run_and_its_history(tmp_path: Path) -> None:
    home = tmp_path / "chaos"
    names = "kill,pause,partition,one-way"
    code, report = chaos("--seed", 7, "--for", "13s", "--nemesis", names, "-o", home)
    assert (code, report["failures"]) == (0, [])
    assert set(report["struck"]) == set(names.split(","))
    assert min(report["struck"].values()) > 0
    assert report["acknowledged"]["during"] > 0
    assert report["findings"] == {}
    # What was kept is judged again, and differently once somebody has touched it.
    code, again = chaos("--check", home)
    assert (code, again["findings"]) == (0, {})
    assert again["operations"] == report["operations"]["total"]
    history = home / "history.ndjson"
    lines = history.read_text(encoding="utf-8").splitlines()
    at = next(number for number, line in enumerate(lines) if '"leaf_index":3,' in line)
    lines[at] = lines[at].replace('"leaf_index":3,', '"leaf_index":4,')
    history.write_text("\n".join(lines) + "\n", encoding="utf-8")
    code, again = chaos("--check", home)
    assert (code, again["findings"]) == (1, {"moved": 1})


@pytest.mark.long
def test_processes_that_are_there_are_struck_and_keep_what_they_have(tmp_path: Path) -> None:
    city, names = tmp_path / "city", ("kill", "term", "pause", "members")
    network = LocalNetwork.create(city, nodes=4)
    with network:
        network.start()
        network.wait_ready()
    before = network.nodes[0].log_file.read_text(encoding="utf-8")
    code, report = chaos(city, "--seed", 3, "--for", "30s", "--nemesis", ",".join(names))
    assert (code, report["failures"], report["findings"]) == (0, [], {})
    assert (report["nodes_are"], report["cuts"], report["nodes"]) == ("processes", "none", 4)
    assert set(report["struck"]) == set(names)
    assert min(report["struck"].values()) > 0
    assert network.running() == []
    assert network.nodes[0].log_file.read_text(encoding="utf-8").startswith(before)
    # A fault between the nodes is refused by name.
    refused = subprocess.run(
        command_line("testnet", "chaos", str(city), "--nemesis", "partition"),
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (refused.returncode, "relays between the nodes" in refused.stderr) == (2, True)


@pytest.mark.long
@pytest.mark.scenario("D1", tier="P")
def test_voters_come_and_go_under_kills_and_partitions() -> None:
    names = "members,kill,partition,one-way,pause"
    code, report = chaos("--seed", 5, "--for", "60s", "--nodes", 5, "--nemesis", names)
    assert (code, report["failures"]) == (0, [])
    # Each change goes there and back, through a joint state both times.
    assert report["struck"]["members"] >= MEMBERS_MIN
    assert min(report["struck"].values()) > 0


@pytest.mark.long
@pytest.mark.scenario("C1", "C2", "C3", "C4", "C7", "C11", "C12", tier="P")
@pytest.mark.scenario("B3", "C10", "E2", "E5", "E6", tier="P")
def test_seeds_with_everything_that_this_machine_allows() -> None:
    """TESTS_CHAOS_SEEDS runs of TESTS_CHAOS_SECONDS from TESTS_CHAOS_FIRST_SEED on."""
    sums: Counter[str] = Counter()
    for seed in range(FIRST_SEED, FIRST_SEED + SEEDS):
        nodes = 5 if seed % 4 == 0 else 3
        code, report = chaos(
            *("--seed", seed, "--for", f"{SECONDS}s", "--nodes", nodes, "--batch", 64),
            deadline_s=DEADLINE_S + 10 * SECONDS,
        )
        assert (code, report["failures"]) == (0, []), f"seed {seed}"
        sums["acknowledged"] += report["acknowledged"]["total"]
        sums["during faults"] += report["acknowledged"]["during"]
        sums["linearizable reads"] += report["operations"]["linearizable_reads"]
        sums["strikes"] += report["strikes"]
        print(f"after seed {seed}: {dict(sums)}, 0 lost, 0 twice, 0 stale")
