"""What faults can do to a network of containers, as far as that takes no container."""

import json
import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any, Final

import click
import pytest

from p2pcity.cli.chaos import container_links, processes
from p2pcity.cli.chaos.command import chaos
from p2pcity.cli.chaos.existing import Containers, GivenProcesses, open_ground
from p2pcity.cli.chaos.links import Wire
from p2pcity.cli.chaos.plan import CUTS, NEMESES, ONLY_ON_ITS_OWN, OPERATIONS
from p2pcity.cli.main import cli
from p2pcity.cli.scenario.command import scenario
from p2pcity.cli.testnet.containers import ContainerNetwork, read_containers
from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.cli.testnet.local_node import said_of
from p2pcity.errors import ConfigError

FACES: Final = {"a": ("10.0.0.2",), "b": ("10.0.0.3",), "c": ("10.0.0.4", "10.1.0.4")}
SETTINGS: Final = """
title = "Nobody is struck."
[network]
orderers = 3
[settings.ledger]
segment_bytes_max = 4194304
[load]
lasts = "1s"
"""


def make(directory: Path, nodes: int = 3, orderers: int = 3) -> ContainerNetwork:
    return ContainerNetwork.make(
        directory,
        nodes=nodes,
        orderers=orderers,
        authors=(),
        raft_preset="lan",
        name="city",
        has_prometheus=False,
    )


def row(service: str, **state: Any) -> dict[str, Any]:
    """A container as `docker inspect` shows it, without what nobody reads."""
    known = {"Pid": 0, "ExitCode": 0, "Paused": False, "Status": "exited"}
    return {
        "Id": f"id of {service}",
        "State": {**known, **state},
        "Config": {"Labels": {"com.docker.compose.service": service}},
        "NetworkSettings": {
            "Networks": {
                "city_default": {"IPAddress": "172.18.0.4" if state.get("Pid") else ""},
            }
        },
    }


def test_what_docker_says_of_containers_is_read() -> None:
    rows = [
        row("runs", Pid=41),
        row("sleeps", Pid=42, Paused=True),
        row("left"),
        row("failed", ExitCode=11),
        row("killed", ExitCode=137),
        row("terminated", ExitCode=143),
    ]
    found = read_containers(json.dumps(rows))
    assert {name: it.exit_code for name, it in found.items()} == {
        "runs": None,
        "sleeps": None,
        "left": 0,
        "failed": 11,
        "killed": -9,
        "terminated": -15,
    }
    assert [name for name, it in found.items() if it.is_paused] == ["sleeps"]
    assert (found["runs"].pid, found["runs"].addresses) == (41, ("172.18.0.4",))
    assert (found["left"].pid, found["left"].addresses) == (0, ())


def test_who_may_hear_nothing_from_where() -> None:
    holds: Counter[Wire] = Counter({("a", "b"): 1, ("c", "b"): 2, ("b", "a"): 0})
    assert container_links.due(holds, FACES) == {
        "a": set(),
        "b": {"10.0.0.2", "10.0.0.4", "10.1.0.4"},
        "c": set(),
    }
    # Who is down has no address and no rules; who comes back with another has that one cut.
    without_b = {name: face for name, face in FACES.items() if name != "b"}
    assert container_links.due(holds, without_b) == {"a": set(), "c": set()}
    moved = {**FACES, "a": ("10.0.0.9",)}
    assert "10.0.0.9" in container_links.due(holds, moved)["b"]


def test_what_can_never_strike_containers_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(container_links, "why_not", lambda: "")
    monkeypatch.setattr(processes, "why_no_strace", lambda: "")
    ground = Containers(make(tmp_path / "city"))
    reasons = {name: ground.why_not(name) for name in (*NEMESES, *OPERATIONS)}
    assert {name for name, reason in reasons.items() if reason} == set(ONLY_ON_ITS_OWN)
    assert all(reason.startswith(f"{name} takes") for name, reason in reasons.items() if reason)
    assert ground.cuts == "packets"


def test_without_root_nobody_is_cut_off_or_traced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = make(tmp_path / "city")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    ground = Containers(network)
    assert {name for name in NEMESES if ground.why_not(name)} == {
        *CUTS,
        "slow-disk",
        *(set(ONLY_ON_ITS_OWN) - set(OPERATIONS)),
    }
    assert "root" in ground.why_not("partition")
    assert "root" in ground.why_not("slow-disk")
    assert ground.cuts == "none"


def test_processes_that_are_there_are_struck_but_never_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    LocalNetwork.create(tmp_path / "city", nodes=4)
    monkeypatch.setattr(processes, "why_no_strace", lambda: "")
    ground = open_ground(tmp_path / "city")
    assert isinstance(ground, GivenProcesses)
    assert (ground.size, ground.nodes_are, ground.cuts) == ((3, 1), "processes", "none")
    reasons = {name: ground.why_not(name) for name in (*NEMESES, *OPERATIONS)}
    assert {name for name, reason in reasons.items() if reason} == {*ONLY_ON_ITS_OWN, *CUTS}
    assert "relays between the nodes" in reasons["partition"]
    assert "Name no network" in ground.remedy


def test_a_network_of_processes_with_too_few_orderers_shows_nothing(tmp_path: Path) -> None:
    LocalNetwork.create(tmp_path / "city", nodes=2, orderers=2)
    with pytest.raises(ConfigError, match="fewer than 3 orderers") as caught:
        open_ground(tmp_path / "city")
    assert "testnet init -n 3 --orderers 3 -o DIR" in caught.value.remedy


def test_a_network_with_too_few_orderers_shows_nothing(tmp_path: Path) -> None:
    make(tmp_path / "city", nodes=2, orderers=2)
    with pytest.raises(ConfigError, match="fewer than 3 orderers") as caught:
        open_ground(tmp_path / "city")
    assert "testnet init -n 3 --orderers 3 --compose" in caught.value.remedy


def called(*arguments: object) -> int:
    return int(cli.main(list(map(str, arguments)), standalone_mode=False) or 0)


def test_a_scenario_wants_a_network_of_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "city", nodes=4)
    file = tmp_path / "file.toml"
    file.write_text(SETTINGS, encoding="utf-8")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ConfigError, match=r"has 3 orderers and 1 observers, .* wants 3 and 0"):
        called("testnet", "scenario", file, tmp_path / "city")
    # Nothing was run, and no directory stays behind.
    assert {path.name for path in tmp_path.iterdir()} == {"city", "file.toml"}


def test_an_earlier_history_is_not_written_over(tmp_path: Path) -> None:
    make(tmp_path / "city")
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "history.ndjson").write_text("{}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="holds the history of a run already"):
        called("testnet", "chaos", tmp_path / "city", "--nemesis", "kill", "-o", kept)
    assert (kept / "history.ndjson").read_text(encoding="utf-8") == "{}\n"


def test_a_number_of_nodes_is_for_processes(tmp_path: Path) -> None:
    make(tmp_path / "city")
    with pytest.raises(click.UsageError, match="NETWORK has its nodes"):
        called("testnet", "chaos", tmp_path / "city", "--nodes", 3, "--nemesis", "kill")


def test_chaos_and_scenario_have_the_same_options() -> None:
    def shown(command: click.Command) -> dict[str, tuple[Any, ...]]:
        return {
            parameter.name or "": (type(parameter), parameter.opts, parameter.default)
            for parameter in command.params
        }

    both = {"network", "seed", "directory", "is_json"}
    assert {name: shown(chaos)[name] for name in both} == {
        name: shown(scenario)[name] for name in both
    }


@pytest.mark.parametrize(
    ("code", "out", "err", "said"),
    [(0, "fine", "noise", ""), (5, "no", "noise", "no"), (4, "", "why\n", "why")],
)
def test_what_a_program_said_that_failed(code: int, out: str, err: str, said: str) -> None:
    assert said_of(subprocess.CompletedProcess([], code, out, err)) == said
    assert said_of(subprocess.CompletedProcess([], 3, "", "")) == "exit code 3"
