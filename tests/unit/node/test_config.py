"""Settings: defaults, file, environment, flags; and a remedy in every error."""

import os
from pathlib import Path

import pytest

from p2pcity.errors import ConfigError
from p2pcity.node.config import KEYS, RAFT_PRESETS, Config
from p2pcity.node.config_reading import SOCKET_PATH_BYTES_MAX, load, read_secret


def write(directory: Path, text: str) -> Path:
    file = directory / "p2pcity.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_defaults_need_no_file() -> None:
    loaded = load(None, environment={})
    assert set(loaded.sources.values()) == {"default"}
    assert loaded.config.net.listen == ("/ip4/0.0.0.0/tcp/4710",)
    assert loaded.config.raft.times_ms == RAFT_PRESETS["lan"]


def test_the_file_then_the_environment_then_flags(tmp_path: Path) -> None:
    file = write(
        tmp_path, '[node]\nname = "a"\nmember = "M"\n[net]\nlisten = ["/ip4/1.2.3.4/tcp/1"]\n'
    )
    environment = {
        "P2PCITY_NODE_NAME": "b",
        "P2PCITY_NET_LISTEN": "/ip4/1.2.3.4/tcp/2, /ip4/1.2.3.4/tcp/3",
        "P2PCITY_NET_MDNS": "false",
        "P2PCITY_CONFIG": "elsewhere",
        "HOME": "/root",
    }
    loaded = load(file, environment=environment, flags={"node.name": "c"})
    config = loaded.config
    assert (config.node.name, config.node.member, config.net.mdns) == ("c", "M", False)
    assert config.net.listen == ("/ip4/1.2.3.4/tcp/2", "/ip4/1.2.3.4/tcp/3")
    assert loaded.sources["node.name"] == "flag"
    assert loaded.sources["node.member"] == "file"
    assert loaded.sources["net.listen"] == "env"
    assert loaded.sources["logs.level"] == "default"


def test_paths_start_at_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, '[node]\ndata_dir = "d"\nauthor_key = ""\ngenesis = "/etc/g.cbor"\n')
    config = load(file, environment={}).config
    assert config.node.data_dir == tmp_path / "d"
    assert config.node.key == tmp_path / "node.key"
    assert config.node.genesis == Path("/etc/g.cbor")
    assert config.node.author_key is None
    assert config.http.socket == tmp_path / "main.sock"


@pytest.mark.parametrize(
    ("text", "message", "remedy"),
    [
        ("[node]\nnmae = 'x'\n", "node.nmae", "name"),
        ("[nett]\n", "[nett]", "net"),
        ("zzzz = 'x'\n", "[zzzz] is unknown", "Known are"),
        ("net = 3\n", "net is a value", "[net]"),
        ("[net]\nlisten = 'x'\n", "net.listen", "a list of texts"),
        ("[net]\nlisten = ['tcp:4710']\n", "tcp:4710", "/ip4/"),
        ("[net]\nmdns = 1\n", "net.mdns", "true or false"),
        ("[net]\nsilence_ms = true\n", "net.silence_ms", "a whole number"),
        ("[net]\nsilence_ms = 5\n", "net.silence_ms", "from 200 to"),
        ("[node]\nname = 7\n", "node.name", "a text"),
        ("[node]\nrole = 'ordrer'\n", "node.role", "'orderer'"),
        ("[node]\nkey = ''\n", "node.key", "path"),
        ("[raft]\npreset = 'moon'\n", "raft.preset", "local, lan, wan"),
        ("[raft]\nelection_timeout_ms = 300\n", "election_timeout_ms", "preset"),
        ("[http]\nbind = '4711'\n", "http.bind", "HOST:PORT"),
        ("[http]\nsocket_mode = '0888'\n", "socket_mode", "0660"),
        ("[http]\ntls_key_file = 'x'\n", "tls_certificate_file", "both"),
        ("[mempool]\nauthor_bytes_max = 134217728\n", "author_bytes_max", "Lower"),
        ("[node\n", "p2pcity.toml", "TOML"),
    ],
)
def test_what_is_wrong_is_named_with_its_remedy(
    tmp_path: Path, text: str, message: str, remedy: str
) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(file, environment={})
    assert message in str(caught.value)
    assert remedy in caught.value.remedy
    assert caught.value.exit_code == 2


def test_a_file_that_is_not_there_or_not_utf8(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file") as caught:
        load(tmp_path / "none.toml", environment={})
    assert "p2pcity init" in caught.value.remedy
    file = tmp_path / "latin.toml"
    file.write_bytes(b'[node]\nname = "\xe9"\n')
    with pytest.raises(ConfigError, match=r"latin\.toml"):
        load(file, environment={})


@pytest.mark.parametrize(
    ("variable", "text", "remedy"),
    [
        ("P2PCITY_NET_LISTN", "x", "P2PCITY_NET_LISTEN"),
        ("P2PCITY_NET_MDNS", "maybe", "true or false"),
        ("P2PCITY_NET_SILENCE_MS", "3s", "a whole number"),
    ],
)
def test_a_wrong_variable_is_named(variable: str, text: str, remedy: str) -> None:
    with pytest.raises(ConfigError, match=variable) as caught:
        load(None, environment={variable: text})
    assert remedy in caught.value.remedy


def test_an_unknown_flag_names_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, environment={}, flags={"net.lisen": "x"})
    assert "net.listen" in caught.value.remedy


def test_a_socket_path_that_the_kernel_cannot_hold(tmp_path: Path) -> None:
    file = write(tmp_path, f'[http]\nsocket = "/{"s" * SOCKET_PATH_BYTES_MAX}"\n')
    with pytest.raises(ConfigError, match=r"http\.socket has 108 bytes"):
        load(file, environment={})


def test_every_key_has_a_sentence_and_a_default_of_its_type() -> None:
    config = Config()
    for path, row in KEYS.items():
        assert row.says.endswith("."), path
        assert getattr(getattr(config, row.section), row.name) == row.default
        if row.type is int:
            assert row.minimum is not None, path
            assert row.maximum is not None, path
            assert isinstance(row.default, int)
            assert row.minimum <= row.default <= row.maximum, path
            assert row.name.endswith(("_ms", "_max", "_min", "_blocks")), (
                f"{path} has no unit or bound"
            )


class TestSecrets:
    def test_a_file_that_others_can_read_is_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "node.key"
        file.write_bytes(b"secret")
        file.chmod(0o640)
        with pytest.raises(ConfigError, match="0640") as caught:
            read_secret(file, "node.key")
        assert f"chmod 600 {file}" in caught.value.remedy
        file.chmod(0o600)
        assert read_secret(file, "node.key") == b"secret"

    def test_an_absent_file_names_the_setting(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"node\.key"):
            read_secret(tmp_path / "k", "node.key")

    def test_a_systemd_credential_goes_first(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        credentials = tmp_path / "credentials"
        credentials.mkdir()
        (credentials / "node.key").write_bytes(b"from systemd")
        os.chmod(credentials / "node.key", 0o440)
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
        assert read_secret(tmp_path / "node.key", "node.key") == b"from systemd"
