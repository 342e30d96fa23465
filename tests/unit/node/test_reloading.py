"""SIGHUP: what is taken over, what waits for a restart, and what a wrong file changes: nothing."""

import os
import signal
import ssl
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from p2pcity.api.service import Service
from p2pcity.api.statistics import HttpStatistics
from p2pcity.errors import ConfigError
from p2pcity.node import logs, reloading
from p2pcity.node import surface as surface_module
from p2pcity.node.config import Config, HttpSection, LogsSection, MempoolSection, NetSection
from p2pcity.node.reloading import Settings, divide, ignoring_hangups, merge, reload
from p2pcity.node.surface import Surface
from tests.memory_service import MemoryService

PEER = "/ip4/192.0.2.7/tcp/4710/p2p/12D3KooWKe4Gvpn9HLUWYJRDGDzmywJUdWxaaNocbymndSJtRxkC"
READ, WRITE = f"read {'r' * 20}\n", f"write {'w' * 20}\n"


class Configured:
    """As much of a Membership as is told."""

    def __init__(self) -> None:
        self.peers: list[tuple[str, ...]] = []

    def configure(self, peers: tuple[str, ...]) -> None:
        self.peers.append(peers)


class Case:
    """A node's surface with tokens, its settings, and what a reload does to them."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        # A logger keeps the set-up that it met first.
        monkeypatch.setattr(reloading, "_logger", structlog.get_logger("test"))
        self.levels: list[str] = []
        monkeypatch.setattr(logs, "set_level", self.levels.append)
        self.tokens = tmp_path / "tokens"
        self.tokens.write_text(READ)
        self.http = HttpSection(bind="127.0.0.1:0", tokens_file=self.tokens)
        self.wanted: Any = Config(http=self.http)
        self.settings = Settings(self.wanted, self._reread)
        service: Service = MemoryService()
        self.surface = Surface(self.wanted, service, HttpStatistics())
        self.surface.reload(self.wanted)
        self.membership: Any = Configured()

    def _reread(self) -> Config:
        if isinstance(self.wanted, Exception):
            raise self.wanted
        assert isinstance(self.wanted, Config)
        return self.wanted

    def reload(self) -> list[dict[str, Any]]:
        with capture_logs() as lines:
            reload(self.settings, self.membership, self.surface)
        return [dict(line) for line in lines]

    def tls(self) -> ssl.SSLContext | None:
        return self.surface._secrets.tls

    def right_of(self, token: str) -> str | None:
        return self.surface._secrets.tokens.right_of(token)


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    return Case(tmp_path, monkeypatch)


def test_what_can_change_does_and_the_rest_is_named(case: Case) -> None:
    case.wanted = replace(
        case.wanted,
        net=NetSection(peers=(PEER,), mdns=False),
        logs=LogsSection(level="debug", format="text"),
        mempool=MempoolSection(transactions_max=2048),
    )
    reloaded, waiting = case.reload()
    assert (reloaded["event"], reloaded["changed"]) == ("reloaded", ["logs.level", "net.peers"])
    assert waiting["event"] == "reload_needs_restart"
    assert waiting["settings"] == ["logs.format", "mempool.transactions_max", "net.mdns"]
    assert case.membership.peers == [(PEER,)]
    assert case.levels == ["debug"]
    # Only what was taken is in force, also for a node that begins again in the same process.
    assert case.settings.config.net == NetSection(peers=(PEER,), mdns=True)
    assert case.settings.config.mempool == MempoolSection()
    # What waits is named each time; what was taken is not news any more.
    again, waiting_still = case.reload()
    assert again["changed"] == []
    assert waiting_still["settings"] == waiting["settings"]


def test_files_are_read_anew_under_the_same_name(case: Case) -> None:
    assert case.right_of("r" * 20) == "read"
    case.tokens.write_text(WRITE)
    assert [line["event"] for line in case.reload()] == ["reloaded"]
    assert (case.right_of("r" * 20), case.right_of("w" * 20)) == (None, "write")


@pytest.mark.parametrize("wrong", ["settings", "tokens", "tls"])
def test_what_is_wrong_is_said_and_changes_nothing(case: Case, tmp_path: Path, wrong: str) -> None:
    before = case.settings.config
    changed = replace(case.wanted, logs=LogsSection(level="debug"))
    case.wanted = changed
    if wrong == "settings":
        case.wanted = ConfigError("it is wrong", remedy="mend it")
    elif wrong == "tokens":
        case.tokens.write_text("nonsense\n")
    else:
        absent = tmp_path / "absent.pem"
        http = replace(case.http, tls_certificate_file=absent, tls_key_file=absent)
        case.settings.config = before = replace(before, http=http)
        case.wanted = replace(changed, http=http)
    [line] = case.reload()
    assert (line["event"], line["log_level"]) == ("reload_refused", "error")
    assert line["remedy"]
    assert case.settings.config is before
    assert case.membership.peers == case.levels == []
    assert case.right_of("r" * 20) == "read"


def test_a_new_certificate_is_for_the_next_connections(case: Case, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("key.pem", "certificate.pem")]
    make = ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=x"]
    subprocess.run(
        [*make, "-keyout", str(files[0]), "-out", str(files[1])], check=True, capture_output=True
    )
    http = replace(case.http, tls_key_file=files[0], tls_certificate_file=files[1])
    case.wanted = replace(case.wanted, http=http)
    # Under a port that speaks without TLS it can't begin.
    _, waiting = case.reload()
    assert waiting["settings"] == ["http.tls_certificate_file", "http.tls_key_file"]
    assert case.tls() is None
    case.settings.config = case.wanted
    case.reload()
    first = case.tls()
    case.reload()
    second = case.tls()
    assert isinstance(first, ssl.SSLContext)
    assert isinstance(second, ssl.SSLContext)
    assert first is not second


def test_the_surface_is_told_what_the_settings_say() -> None:
    http = HttpSection(socket_mode="0600", read_by_token=True, bind="127.0.0.1:0")
    told = surface_module._api_config(Config(http=http))
    assert (told.unix_socket_mode, told.is_read_by_token, told.bind) == (0o600, True, "127.0.0.1:0")
    assert surface_module._api_config(Config()).unix_socket_mode == 0o660


def test_every_setting_is_on_one_side() -> None:
    old = Config()
    new = Config(
        net=NetSection(listen=("/ip4/0.0.0.0/tcp/1",), peers=(PEER,)),
        http=HttpSection(tokens_file=Path("/t"), tls_key_file=Path("/k")),
    )
    taken, waiting = divide(old, new)
    assert taken == {"net.peers", "http.tokens_file"}
    assert waiting == {"net.listen", "http.tls_key_file"}
    assert divide(new, new) == (frozenset(), frozenset())
    merged = merge(old, new, taken)
    assert divide(merged, new) == (frozenset(), waiting)


def test_a_hangup_during_the_start_is_no_end() -> None:
    before = signal.getsignal(signal.SIGHUP)
    with ignoring_hangups():
        os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is before
