"""The files for Compose: what is generated, and that the checked-in one says the same."""

from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # it has no stubs

from p2pcity.cli.testnet.compose_file import IMAGE_USER_ID, compose_text, prometheus_text
from p2pcity.cli.testnet.containers import ContainerNetwork, open_network
from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.errors import ConfigError, Unavailable

ROOT = Path(__file__).resolve().parent.parent.parent.parent
NAMES = ["node1", "node2", "node3", "node4"]
# Keys that docker-compose 1.29 does not know, though Compose v2 does.
TOO_NEW = {"name", "include", "version"}


def services(text: str) -> dict[str, Any]:
    document = yaml.safe_load(text)
    assert not TOO_NEW & set(document)
    found: dict[str, Any] = document["services"]
    return found


def generated(**named: Any) -> dict[str, Any]:
    return services(compose_text(NAMES, **{"user": None, "has_prometheus": False} | named))


def test_each_node_has_its_own_directory_and_no_other() -> None:
    found = generated()
    assert list(found) == NAMES
    for name, service in found.items():
        assert service["volumes"] == [f"./{name}:/network/{name}"]
        assert service["command"] == ["run", "--config", f"/network/{name}/p2pcity.toml"]
        assert service["environment"] == {"P2PCITY_NODE": f"/network/{name}"}


def test_the_checked_in_file_is_as_hard_as_a_generated_one() -> None:
    own = services((ROOT / "testnet" / "compose.yaml").read_text(encoding="utf-8"))
    differs = {"command", "environment", "hostname", "volumes", "depends_on"}
    for name, service in generated().items():
        assert {key: value for key, value in service.items() if key not in differs} == {
            key: value for key, value in own[name].items() if key not in differs
        }
        assert own[name]["command"] == service["command"]
    assert set(own) == {*NAMES, "network", "observer"}


def test_the_image_and_the_files_name_one_user() -> None:
    text = (ROOT / "testnet" / "Dockerfile").read_text(encoding="utf-8")
    assert f"USER {IMAGE_USER_ID}:{IMAGE_USER_ID}\n" in text
    assert "user" not in generated()["node1"]
    assert generated(user=(1000, 100))["node1"]["user"] == "1000:100"


def test_larger_networks_are_asked_less_often() -> None:
    many = [f"node{number}" for number in range(1, 13)]
    text = compose_text(many, user=None, has_prometheus=False)
    assert services(text)["node12"]["healthcheck"]["interval"] == "36s"
    assert generated()["node1"]["healthcheck"]["interval"] == "5s"


def test_prometheus_asks_every_node() -> None:
    assert "prometheus" in generated(has_prometheus=True)
    [job] = yaml.safe_load(prometheus_text(NAMES))["scrape_configs"]
    [targets] = job["static_configs"]
    assert targets["targets"] == [f"{name}:4711" for name in NAMES]


def make(directory: Path) -> ContainerNetwork:
    return ContainerNetwork.make(
        directory,
        nodes=2,
        orderers=1,
        authors=(),
        raft_preset="lan",
        name="city",
        has_prometheus=True,
    )


def test_nodes_find_each_other_by_their_names(tmp_path: Path) -> None:
    network = make(tmp_path / "city")
    for node in network.nodes:
        assert node.config.net.listen == ("/ip4/0.0.0.0/tcp/4710",)
        assert node.config.net.announce == (f"/dns4/{node.name}/tcp/4710",)
        assert node.config.http.bind == "0.0.0.0:4711"
        # A socket in the node's own directory, where the host finds it too.
        assert node.socket == node.directory / "node.sock"
    assert isinstance(open_network(tmp_path / "city"), ContainerNetwork)


def test_processes_stay_processes(tmp_path: Path) -> None:
    LocalNetwork.create(tmp_path / "city", nodes=1, orderers=1)
    assert not isinstance(open_network(tmp_path / "city"), ContainerNetwork)


def test_a_directory_too_deep_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too deep") as caught:
        make(tmp_path / ("x" * 100))
    assert "shorter path" in caught.value.remedy


def test_without_docker_nothing_runs_and_up_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = make(tmp_path / "city")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert network.running() == []
    with pytest.raises(ConfigError, match="no Compose") as caught:
        network.start()
    assert "docker-compose" in caught.value.remedy


def test_an_engine_that_fails_is_reported_with_its_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = make(tmp_path / "city")
    program = tmp_path / "bin" / "docker-compose"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'Couldn'\"'\"'t connect to Docker daemon' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/bin")
    monkeypatch.setattr("shutil.which", lambda name: name == "docker-compose" or None)
    with pytest.raises(Unavailable, match="connect to Docker daemon") as caught:
        network.start()
    assert "systemctl start docker" in caught.value.remedy
