"""The units: what systemd itself says of them, and what `p2pcity systemd install` writes."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from p2pcity.cli.main import main
from p2pcity.cli.systemd import command
from p2pcity.cli.systemd.command import SHIPPED_PROGRAM, hidden_parts, rendered
from p2pcity.errors import ConfigError
from p2pcity.node.config_reading import load

UNITS: Final = ("p2pcity.service", "p2pcity@.service")
EXPOSURE_MAX: Final = 11  # in tenths: 1.1
needs_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="systemd-analyze is missing: apt-get install -y --no-install-recommends systemd",
)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    return int(caught.value.code or 0)


@pytest.fixture
def unit(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A unit as it would be installed, with a program that is there."""
    path = tmp_path / request.param
    path.write_text(rendered(request.param, Path("/bin/true")))
    return path


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *map(str, arguments)], capture_output=True, text=True, timeout=60
    )


@needs_analyze
@pytest.mark.parametrize("unit", UNITS, indirect=True)
def test_systemd_finds_nothing_wrong(unit: Path) -> None:
    done = analyze("verify", "--man=no", "--recursive-errors=no", unit)
    assert done.returncode == 0, done.stderr
    assert unit.name not in done.stderr


@needs_analyze
@pytest.mark.parametrize("unit", UNITS, indirect=True)
def test_they_are_hardened_without_an_address_list(unit: Path) -> None:
    assert not re.search(r"^IPAddress", unit.read_text(), re.MULTILINE)
    done = analyze("security", "--offline=true", f"--threshold={EXPOSURE_MAX}", unit)
    assert done.returncode == 0, done.stdout[-600:]


@needs_analyze
def test_the_example_of_an_address_list_is_read(tmp_path: Path) -> None:
    text = rendered("p2pcity.service", Path("/bin/true")) + rendered(
        "p2pcity-addresses.conf", Path("/bin/true")
    )
    (tmp_path / "p2pcity.service").write_text(text)
    done = analyze("verify", "--man=no", "--recursive-errors=no", tmp_path / "p2pcity.service")
    assert (done.returncode, done.stderr) == (0, "")


def test_one_node_and_several_have_the_same_unit() -> None:
    one, several = (rendered(name, Path(SHIPPED_PROGRAM)) for name in UNITS)
    assert several.count("%i") >= 8
    assert several[several.index("[Unit]") :].replace("%i", "main") == one[one.index("[Unit]") :]


def test_what_must_hold_of_a_unit() -> None:
    lines = rendered("p2pcity@.service", Path(SHIPPED_PROGRAM)).splitlines()
    for line in (
        "Type=notify",
        "WatchdogSec=60",
        "Restart=on-failure",
        "RestartPreventExitStatus=2 10 12 13 14",
        "DynamicUser=yes",
        "StateDirectory=p2pcity/%i",
        "LoadCredential=node.key:/etc/p2pcity/%i/node.key",
        "LoadCredential=author.key:/etc/p2pcity/%i/author.key",
        "LimitCORE=0",
    ):
        assert line in lines


def test_the_directory_of_the_project_links_to_them(repository: Path) -> None:
    shipped = repository / "p2pcity" / "cli" / "systemd"
    files = {path.name for path in shipped.iterdir() if path.suffix not in (".py", "")}
    linked = {path.name for path in (repository / "systemd").iterdir() if path.is_symlink()}
    assert linked == files - {"__pycache__"}
    for name in linked:
        assert (repository / "systemd" / name).resolve() == shipped / name


class TestInstall:
    def test_it_prints_the_files_for_this_environment(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("systemd", "install", "--print") == 0
        text = capsys.readouterr().out
        program = command.find_program()
        assert f"ExecStart={program} run --config /etc/p2pcity/main.toml" in text
        assert f"ExecStart={program} run --config /etc/p2pcity/%i.toml" in text
        assert "# /etc/systemd/system/p2pcity@.service" in text
        assert SHIPPED_PROGRAM not in text

    def test_it_writes_below_a_prefix(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr(command, "hidden_parts", lambda paths: [])
        for _ in range(2):
            assert run("systemd", "install", "--prefix", str(tmp_path)) == 0
        assert "systemd-sysusers" in capsys.readouterr().out
        found = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
        assert found == [
            "etc/systemd/system/p2pcity.service",
            "etc/systemd/system/p2pcity@.service",
            "etc/sysusers.d/p2pcity.conf",
            "etc/tmpfiles.d/p2pcity.conf",
        ]
        capsys.readouterr()
        assert run("systemd", "install", "--print", "--json") == 0
        document = json.loads(capsys.readouterr().out)
        assert document["schema"] == "p2pcity/systemd-install/1"
        for path, text in document["files"].items():
            assert (tmp_path / path.removeprefix("/")).read_text() == text

    def test_an_environment_that_a_node_cannot_see_is_refused(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr(
            command, "environment_paths", lambda program: [Path(command.HIDDEN[0]) / "a"]
        )
        assert run("systemd", "install", "--prefix", str(tmp_path)) == 2
        error = capsys.readouterr().err
        assert f"{command.HIDDEN[0]}/a" in error
        assert "/opt/p2pcity" in error
        assert not list(tmp_path.iterdir())

    def test_which_places_are_hidden(self) -> None:
        hidden = [Path(place) / "a" for place in command.HIDDEN]
        seen = [Path("/opt/x"), *(Path(f"{place}s") for place in command.HIDDEN)]
        assert hidden_parts([*seen, *hidden]) == [str(path) for path in hidden]

    @pytest.mark.parametrize("path", ["/opt/a b/bin/p2pcity", "/opt/%i/p2pcity", '/opt/"/p2pcity'])
    def test_a_path_that_means_something_else_is_refused(self, path: str) -> None:
        with pytest.raises(ConfigError, match="unit"):
            rendered("p2pcity.service", Path(path))


class TestInitSystem:
    def test_it_is_where_the_units_look(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = ["--prefix", str(tmp_path), "--name", "east", "--member", "Parks"]
        assert run("init", "--system", *arguments) == 0
        etc = tmp_path / "etc" / "p2pcity"
        config = load(etc / "east.toml").config
        keys = "/etc/p2pcity/east"
        assert str(config.node.data_dir) == "/var/lib/p2pcity/east"
        assert (str(config.node.key), str(config.node.author_key)) == (
            f"{keys}/node.key",
            f"{keys}/author.key",
        )
        assert str(config.node.genesis) == f"{keys}/genesis.cbor"
        assert str(config.http.socket) == "/run/p2pcity/east.sock"
        modes = {
            path.name: path.stat().st_mode & 0o777
            for path in (etc, *etc.rglob("*"), tmp_path / "var" / "lib" / "p2pcity")
        }
        assert modes == {
            "p2pcity": 0o755,
            "east": 0o755,
            "east.toml": 0o644,
            "node.card": 0o644,
            "node.key": 0o600,
            "author.key": 0o600,
        }
        assert (tmp_path / "var" / "lib" / "p2pcity" / "east" / "log").is_dir()
        capsys.readouterr()
        assert run("init", "--system", *arguments) == 2
        assert "exists already" in capsys.readouterr().err

    @pytest.mark.parametrize(
        "arguments",
        [["--system", "--name", "A b"], ["--system", "--name", "x" * 24], ["DIR", "--system"], []],
    )
    def test_what_cannot_be_is_usage(
        self, tmp_path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        prefix = ["--prefix", str(tmp_path)] if "--system" in arguments else []
        assert run("init", *arguments, *prefix) == 2
        assert not list(tmp_path.iterdir())
