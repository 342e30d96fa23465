"""The command line as a whole: its table, its errors and exit codes, and its start-up time."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from p2pcity.cli.main import COMMANDS, main


def run(*arguments: str) -> int:
    """Run a command in this process and return its exit code."""
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    return int(caught.value.code or 0)


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("P2PCITY_NODE", "P2PCITY_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_what_the_command_says(name: str) -> None:
    target, sentence = COMMANDS[name]
    module, _, attribute = target.partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command)
    assert command.name == name
    assert (command.help or "").split("\n\n")[0].strip() == sentence


def test_help_imports_nothing_heavy(repository: Path) -> None:
    code = (
        "import sys\n"
        "from p2pcity.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'libp2p', 'trio', 'starlette', 'cryptography', 'sqlite3', 'rich', 'structlog'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=repository
    )
    assert "HEAVY []" in done.stdout
    assert "ingest" in done.stdout


def test_errors_are_one_line_with_the_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("status") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("p2pcity: ")
    assert "--node" in error


def test_an_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("statsu") == 2
    assert "status" in capsys.readouterr().err


def test_an_unknown_option_is_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("status", "--nonsense") == 2
    assert "p2pcity status --help" in capsys.readouterr().err


def test_nobody_there_is_exit_code_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("status", "--node", str(tmp_path / "no.sock")) == 4
    assert "p2pcity run" in capsys.readouterr().err


def test_version_and_config_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("version", "--json") == 0
    assert json.loads(capsys.readouterr().out)["schema"] == "p2pcity/version/1"
    assert run("config", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["settings"]["net.mdns"] == {"value": True, "source": "default"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("completion", shell) == 0
    assert "_P2PCITY_COMPLETE" in capsys.readouterr().out


class TestOneNode:
    def test_init_key_genesis(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for name in ("a", "b"):
            address = f"/ip4/127.0.0.1/tcp/471{name == 'b':d}"
            assert run("init", name, "--member", f"M {name}", "--listen", address) == 0
        node = tmp_path / "a"
        assert (node / "node.key").stat().st_mode & 0o777 == 0o600
        assert (node / "author.key").stat().st_mode & 0o777 == 0o600
        assert (node / "data" / "log").is_dir()
        assert run("key", "new", "extra.key") == 0
        capsys.readouterr()
        assert run("key", "show", "extra.key", "--json") == 0
        public = json.loads(capsys.readouterr().out)["public_key"]
        cards = ["--card", "a/node.card", "--card", "b/node.card"]
        author = f"Weather/station={public}:weather.*"
        assert run("genesis", "new", "--name", "T", *cards, "--author", author, "-o", "g") == 0
        assert run("genesis", "sign", "g", "--key", "a/node.key") == 0
        capsys.readouterr()
        assert run("genesis", "show", "g", "--json") == 0
        shown = json.loads(capsys.readouterr().out)
        assert [n["member"] for n in shown["nodes"]] == ["M a", "M b"]
        assert {a["name"]: a["types"] for a in shown["authors"]} == {
            "main": ["*"],
            "station": ["weather.*"],
        }
        assert len(shown["signed_by"]) == 1

    def test_nothing_is_overwritten(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("init", "n") == 0
        before = Path("n/node.key").read_bytes()
        assert run("init", "n") == 2
        assert run("key", "new", "n/node.key") == 2
        assert Path("n/node.key").read_bytes() == before
        assert "exists already" in capsys.readouterr().err

    def test_config_of_a_node(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("init", "n", "--member", 'A "B"', "--http", "127.0.0.1:4711") == 0
        capsys.readouterr()
        assert run("config", "--config", "n", "--json") == 0
        settings = json.loads(capsys.readouterr().out)["settings"]
        assert settings["node.member"] == {"value": 'A "B"', "source": "file"}
        assert settings["http.bind"] == {"value": "127.0.0.1:4711", "source": "file"}

    def test_a_fresh_node_is_sound_and_rebuilds(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("init", "n") == 0
        assert run("genesis", "new", "--name", "T", "--card", "n/node.card") == 0
        Path("genesis.cbor").rename("n/genesis.cbor")
        capsys.readouterr()
        assert run("check", "--config", "n", "--json") == 0
        assert json.loads(capsys.readouterr().out)["is_sound"] is True
        assert run("rebuild", "--config", "n", "--json") == 0
        assert json.loads(capsys.readouterr().out)["height"] == 0

    def test_a_genesis_with_a_wrong_signature(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("init", "n") == 0
        assert run("genesis", "new", "--name", "T", "--card", "n/node.card") == 0
        assert run("genesis", "sign", "genesis.cbor", "--key", "n/node.key") == 0
        data = bytearray(Path("genesis.cbor").read_bytes())
        data[-1] ^= 1
        Path("bad.cbor").write_bytes(data)
        capsys.readouterr()
        assert run("genesis", "show", "bad.cbor") == 5
        assert "bad.cbor" in capsys.readouterr().err

    def test_key_import_takes_a_seed_and_refuses_rubbish(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        # RFC 8032 section 7.1, test 1.
        seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
        Path("seed").write_text(seed + "\n")
        assert run("key", "import", "k", "seed", "--json") == 0
        public = json.loads(capsys.readouterr().out)["public_key"]
        assert public == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
        Path("rubbish").write_text("hello")
        assert run("key", "import", "k2", "rubbish") == 2
        assert "64 hexadecimal digits" in capsys.readouterr().err
