"""The running network that bad input is tried on, and how wrong transactions are made for it."""

import http.client
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from p2pcity.api.client import Client
from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.cli.testnet.local_node import LocalNode
from p2pcity.cli.testnet.making import PORTS_VARIABLE, free_ports
from p2pcity.crypto import merkle
from p2pcity.crypto.keys import PrivateKey
from p2pcity.wire import cbor, cose
from p2pcity.wire import event as event_wire
from p2pcity.wire import transaction as transaction_wire
from p2pcity.wire.event import Event
from p2pcity.wire.transaction import CONTENT_TYPE, join_carried

ROOT: Final = Path(__file__).resolve().parent.parent
HOUR_MS: Final = 3_600_000
DEADLINE_S: Final = 120.0
WRITE_TOKEN: Final = "write-token-0123456789"
READ_TOKEN: Final = "read-token-01234567890"


def clean_environment() -> dict[str, str]:
    """Return the environment for a process of ours: the source tree, no settings of the caller.

    Networks that it makes keep to this test worker's ports.
    """
    found = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("P2PCITY_") or key == PORTS_VARIABLE
    }
    return found | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"}


def command_line(*arguments: str | Path) -> list[str]:
    """Return how `p2pcity` is called with this interpreter."""
    return [sys.executable, "-m", "p2pcity", *map(str, arguments)]


def p2pcity(*arguments: str | Path, cwd: Path | None = None) -> str:
    """Run a command that must end well and return what it prints."""
    done = subprocess.run(
        command_line(*arguments),
        env=clean_environment(),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, (arguments, done.stdout, done.stderr)
    return done.stdout


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of the HTTP surface; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def _port(node: LocalNode) -> int:
    return int(node.config.net.listen[0].rpartition("/")[2])


class City:
    """Three running orderers, with an author for all types and one for `permit.*` alone."""

    def __init__(self, directory: Path) -> None:
        # The genesis is made anew, with authors that may not write everything.
        made = LocalNetwork.create(directory, nodes=3, orderers=3, name="city of bad input")
        self.author, self.clerk = PrivateKey.generate(), PrivateKey.generate()
        (directory / "genesis.cbor").unlink()
        cards = [part for node in made.nodes for part in ("--card", node.directory / "node.card")]
        p2pcity(
            *("genesis", "new", "--name", "city of bad input", "-o", directory / "genesis.cbor"),
            *cards,
            *("--author", f"city/author={self.author.public.hex()}"),
            *("--author", f"city/clerk={self.clerk.public.hex()}:permit.*"),
        )
        for node in made.nodes:
            shutil.copyfile(directory / "genesis.cbor", node.directory / "genesis.cbor")
        [self.tcp_port] = free_ports(1, but=[_port(node) for node in made.nodes])
        self._open_tcp(made.nodes[0].directory)
        self.network = LocalNetwork(directory)
        self.node = self.network.nodes[0]
        self.id = self.network.network_id

    def _open_tcp(self, own: Path) -> None:
        tokens = own / "tokens"
        tokens.touch(mode=0o600)
        tokens.write_text(f"write {WRITE_TOKEN}\nread {READ_TOKEN}\n", encoding="ascii")
        file = own / "p2pcity.toml"
        lines = f'[http]\nbind = "127.0.0.1:{self.tcp_port}"\ntokens_file = "tokens"\n'
        text = file.read_text(encoding="utf-8")
        assert "[http]\n" in text
        file.write_text(text.replace("[http]\n", lines), encoding="utf-8")

    def start(self) -> None:
        """Start all nodes; a good transaction gives them a head above genesis."""
        self.network.start()
        self.network.wait_ready()
        self.commit_good()
        self.wait_equal()

    def stop(self) -> None:
        """Stop all nodes."""
        self.network.stop()

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        over_tcp: bool = False,
    ) -> Reply:
        """Send one request to the first node, over its Unix socket or TCP, and read the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.tcp_port, timeout=DEADLINE_S)
        if not over_tcp:
            connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.sock.settimeout(DEADLINE_S)
            connection.sock.connect(str(self.node.socket))
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            names = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, names, answer.read())
        finally:
            connection.close()

    def heads(self) -> set[str]:
        """Return the heads of all nodes; a node that does not answer fails."""
        found = set()
        for node in self.network.nodes:
            with Client(node.socket, timeout_s=DEADLINE_S) as client:
                found.add(client.get("/livez").head)
        return found

    def wait_equal(self) -> str:
        """Wait until all nodes have the same head and return it."""
        until_s = time.monotonic() + DEADLINE_S
        while len(heads := self.heads()) > 1:
            assert time.monotonic() < until_s, heads
            time.sleep(0.02)
        return heads.pop()

    def commit_good(self) -> None:
        """Submit a right transaction and wait until it is committed."""
        reply = self.request(
            "POST",
            "/v1/transactions?wait=committed",
            self.carried(),
            {"Content-Type": "application/cbor"},
        )
        assert reply.status == 200, reply
        assert reply.json()["status"] == "committed"

    # -- transactions, right and wrong ---------------------------------------------------------

    def event(self, **changes: Any) -> Event:
        """Return a right event, with some attributes changed."""
        given: dict[str, Any] = {
            "salt": secrets.token_bytes(16),
            "id": secrets.token_hex(8),
            "type": "city.test",
            "source": "/bad-input",
            "data": {"value": 1},
        }
        return Event(**(given | changes))

    def carried(
        self,
        events: Sequence[Event] | None = None,
        *,
        key: PrivateKey | None = None,
        network: bytes | None = None,
        expires_in_ms: int = HOUR_MS,
    ) -> bytes:
        """Return a transaction in which nothing is wrong but what the arguments say."""
        return transaction_wire.make(
            key or self.author,
            network or self.id,
            [self.event()] if events is None else events,
            time.time_ns() // 1_000_000 + expires_in_ms,
            secrets.token_bytes(16),
        ).data

    def signed(
        self,
        events: Sequence[bytes],
        payload: bytes | None = None,
        signed_events: Sequence[bytes] | None = None,
        **fields: object,
    ) -> bytes:
        """Return carried bytes around any payload, rightly signed, however wrong it is.

        The payload is `payload`, or what belongs to `signed_events` (default: `events`) with
        some fields changed.
        """
        if payload is None:
            payload = self.payload(events if signed_events is None else signed_events, **fields)
        return join_carried(cose.sign(self.author, CONTENT_TYPE, payload), events)

    def payload(self, events: Sequence[bytes], **fields: object) -> bytes:
        """Return the payload over `events`, with some fields changed."""
        given: dict[str, object] = {
            "network": self.id,
            "nonce": secrets.token_bytes(16),
            "expires": time.time_ns() // 1_000_000 + HOUR_MS,
            "root": merkle.root([merkle.leaf_hash(item) for item in events]),
            "count": len(events),
        }
        return cbor.encode(given | fields)

    def encoded(self, count: int = 1) -> list[bytes]:
        """Return the bytes of `count` right events."""
        return [event_wire.encode(self.event()) for _ in range(count)]


@dataclass(frozen=True, slots=True)
class Place:
    """Where one command is tried: a directory of its own, and what ends with the case."""

    city: City
    directory: Path
    stack: ExitStack

    def write(self, name: str, content: str | bytes, mode: int = 0o644) -> Path:
        """Write a file and return its path."""
        path = self.directory / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)
        return path

    def new_node(self) -> Path:
        """Make a network of one node, not started, and return the node's directory."""
        network = LocalNetwork.create(self.directory / "net", nodes=1, orderers=1)
        return network.nodes[0].directory


@dataclass(frozen=True, slots=True)
class Command:
    """What is run: arguments of `p2pcity`, standard input, and a program that runs it."""

    arguments: Sequence[str | Path]
    stdin: bytes = b""
    environment: Mapping[str, str] = field(default_factory=dict)
    prefix: Sequence[str] = ()


Arrange = Callable[[Place], Command]


@dataclass(frozen=True, slots=True)
class CommandCase:
    """One command, and how it must end."""

    what: str
    exit_code: int
    says: str
    remedy: str
    arrange: Arrange
