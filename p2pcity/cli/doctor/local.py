"""Looks at a node from its own machine: files, disk, ports and limits, whether it runs or not."""

import errno
import os
import socket
import statistics
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from p2pcity.cli.doctor import findings
from p2pcity.cli.doctor.findings import SYNC_SLOW_MS, Finding
from p2pcity.cli.key_files import read_file, read_key
from p2pcity.crypto.keys import peer_id
from p2pcity.errors import ConfigError, DecodeError, LockedError, P2PCityError
from p2pcity.ledger.data_directory import DataDirectory, open_directory
from p2pcity.ledger.inspection import inspect
from p2pcity.ledger.lock import last_holder
from p2pcity.node.config import Config
from p2pcity.node.descriptors import check_descriptors
from p2pcity.wire import genesis as genesis_wire
from p2pcity.wire.genesis import Genesis

_SYNCS: Final = 5
_SYNC_BYTES: Final = 4096
_LOG_BYTES_MAX: Final = 256 * 1024 * 1024
_TCP_S: Final = 2.0
_TCP_AT_ONCE: Final = 16
_ADDRESSES_MAX: Final = 64


def of_error(check: str, error: P2PCityError) -> Finding:
    """An error that a command would have ended with."""
    return Finding(check, "error", str(error), error.remedy)


class Local:
    """One node's configuration and files; nothing is changed but a small file that is removed."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.found: list[Finding] = []
        self.genesis: Genesis | None = None
        self.is_running = False
        self._own_id: str | None = None
        self._directory: DataDirectory | None = None

    def look(self) -> None:
        """Run every check that this user may; what is wrong is in `found` afterwards."""
        self._read_genesis()
        if (place := self._closed_place()) is not None:
            self.found.append(
                Finding(
                    "rights",
                    "warning",
                    f"user {os.geteuid()} may not look into {place}: keys, data, disk and ports "
                    "were not looked at",
                    "Run it as root or as the node's user: `sudo p2pcity doctor`.",
                )
            )
            return
        self._read_key()
        self._open()
        if self._directory is not None:
            self._look_at_disk(self._directory)
            self._look_at_lock(self._directory)
        if self.is_running:
            return
        self.found += _ports(self.config.net.listen)
        try:
            check_descriptors(self.config)
        except ConfigError as error:
            self.found.append(of_error("descriptors", error))
        if self._directory is not None and self.genesis is not None:
            self.found += _stored(self._directory, self.genesis)

    def _closed_place(self) -> Path | None:
        """What belongs to another user, and is closed to this one; None when nothing is."""
        user = os.geteuid()
        for path in (self.config.node.key, self.config.node.data_dir):
            try:
                is_others = path.stat().st_uid != user
            except PermissionError:
                return path
            except OSError:
                continue  # It is not there: the checks say so.
            if user and is_others and not os.access(path, os.R_OK):
                return path
        return None

    def _read_key(self) -> None:
        try:
            self._own_id = peer_id(read_key(self.config.node.key, "node.key").public)
        except P2PCityError as error:
            self.found.append(of_error("key", error))

    def _read_genesis(self) -> None:
        node = self.config.node
        try:
            self.genesis = genesis_wire.decode(read_file(node.genesis, "node.genesis"))
        except ConfigError as error:
            self.found.append(of_error("genesis", error))
        except DecodeError as error:
            remedy = error.remedy or "Fetch the city's genesis.cbor anew from another node."
            self.found.append(Finding("genesis", "error", f"{node.genesis}: {error}", remedy))

    def _open(self) -> None:
        path = self.config.node.data_dir
        try:
            self._directory = open_directory(path)
        except P2PCityError as error:
            self.found.append(of_error("data", error))
            return
        owner, user = path.stat().st_uid, os.geteuid()
        if user not in (0, owner) or not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            self._directory = None
            self.found.append(
                Finding(
                    "data",
                    "error",
                    f"{path} belongs to user {owner}, and user {user} can't write to it",
                    f"Run the node as user {owner}, or: chown -R {user} {path}",
                )
            )
        elif path.stat().st_mode & 0o077:
            self.found.append(
                Finding(
                    "data",
                    "warning",
                    f"others may look into {path} (mode {path.stat().st_mode & 0o777:o})",
                    f"chmod 700 {path}",
                )
            )

    def _look_at_disk(self, directory: DataDirectory) -> None:
        free, wanted = directory.free_bytes(), self.config.ledger.disk_free_bytes_min
        if free < wanted:
            self.found.append(
                Finding(
                    "disk",
                    "error",
                    f"{free:,} bytes are free under {directory.path}, fewer than "
                    f"ledger.disk_free_bytes_min ({wanted:,}): the node takes no transactions",
                    "Make room on that disk; set ledger.keep_blocks so that old blocks go.",
                )
            )
        try:
            sync_ms = _sync_ms(directory.path)
        except OSError as error:
            self.found.append(
                Finding(
                    "disk",
                    "error",
                    f"nothing can be written to {directory.path}: {error.strerror}",
                    "Make room on that disk, or mount it for writing.",
                )
            )
            return
        if sync_ms > SYNC_SLOW_MS:
            self.found.append(
                Finding(
                    "sync",
                    "warning",
                    f"a sync of a small file in {directory.path} takes {sync_ms:.0f} ms",
                    "Put node.data_dir on a faster disk, or find who else writes to it "
                    "(`iostat -x 1`).",
                )
            )

    def _look_at_lock(self, directory: DataDirectory) -> None:
        try:
            holder = last_holder(directory.path)
        except LockedError:
            self.is_running = True
            return
        if self._own_id is not None and holder not in (None, self._own_id):
            self.found.append(
                Finding(
                    "identity",
                    "error",
                    f"{directory.path} belongs to peer id {holder}, node.key is that of "
                    f"{self._own_id}",
                    "Start the node with its own key, or with its own data directory.",
                )
            )


def _sync_ms(directory: Path) -> float:
    """The median time of a write and fsync of a small file, in ms. Raises OSError."""
    file = directory / f".doctor-{os.getpid()}"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        taken = []
        for number in range(_SYNCS):
            os.pwrite(descriptor, bytes(_SYNC_BYTES), number * _SYNC_BYTES)
            begin_s = time.perf_counter()
            os.fsync(descriptor)
            taken.append(time.perf_counter() - begin_s)
    finally:
        os.close(descriptor)
        file.unlink()
    return statistics.median(taken) * 1000


def _ports(listen: Iterable[str]) -> Iterator[Finding]:
    """Which of the ports that a stopped node wants are taken."""
    for address in listen:
        _, kind, host, _, port, *_ = address.split("/")
        family = socket.AF_INET6 if kind == "ip6" else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as own:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                own.bind((host, int(port)))
            except OSError as error:
                is_taken = error.errno == errno.EADDRINUSE
                yield Finding(
                    "port",
                    "error",
                    f"the node can't listen on {address}: {error.strerror}",
                    f"Find who has it (`ss -ltnp 'sport = :{port}'`) and stop it, or change "
                    "net.listen."
                    if is_taken
                    else "Name an address of this machine in net.listen.",
                )


def _stored(directory: DataDirectory, genesis: Genesis) -> Iterator[Finding]:
    """What a stopped node's files say: damage, another network, views that are missing."""
    size = sum(file.stat().st_size for file in directory.log.glob("*") if file.is_file())
    if size > _LOG_BYTES_MAX:
        yield Finding(
            "damage",
            "warning",
            f"the log is larger ({size:,} bytes) than is looked through here",
            "Let `p2pcity inspect` look through it.",
        )
        return
    try:
        found = inspect(directory)
    except P2PCityError as error:
        yield of_error("data" if isinstance(error, ConfigError) else "damage", error)
        return
    if found.too_old is not None:
        yield of_error("rules", found.too_old)
    yield from (Finding("damage", "error", item.what, item.remedy) for item in found.findings)
    if found.network not in (None, genesis.network):
        yield Finding(
            "genesis",
            "error",
            f"{directory.path} belongs to another network than node.genesis",
            "Give the node the genesis.cbor that it was started with.",
        )
    if not directory.views.exists():
        yield Finding(
            "views",
            "warning",
            f"{directory.views} is missing",
            "Nothing is lost: the next start makes it anew from the log (or `p2pcity rebuild`).",
        )


def reach(known: Iterable[tuple[str, str]], connected: dict[str, str]) -> list[Finding]:
    """Open a TCP connection to addresses of peers, (name, multiaddr), and judge who is away.

    `connected` maps the names of connected peers to the direction of their connection.
    """
    chosen = list(dict.fromkeys(known))[:_ADDRESSES_MAX]
    with ThreadPoolExecutor(_TCP_AT_ONCE) as pool:
        errors = list(pool.map(lambda item: _dial(item[1]), chosen))
    reached = {name for (name, _), error in zip(chosen, errors, strict=True) if not error}
    found: list[Finding] = []
    for (name, address), error in zip(chosen, errors, strict=True):
        # One address of several that works is enough.
        if error and name not in reached:
            direction = connected.get(name)
            found += findings.of_reach(
                name,
                address,
                error,
                is_connected=direction is not None,
                is_inbound=direction == "in",
            )
    return found


def reach_node(addresses: Iterable[str]) -> list[Finding]:
    """Open a TCP connection to each address that a node on another machine names as its own."""
    chosen = list(dict.fromkeys(addresses))[:_ADDRESSES_MAX]
    with ThreadPoolExecutor(_TCP_AT_ONCE) as pool:
        return list(findings.of_own_reach(dict(zip(chosen, pool.map(_dial, chosen), strict=True))))


def _dial(address: str) -> str:
    """Why a multiaddr can't be reached by TCP; empty when it can."""
    parts = address.split("/")
    if len(parts) < 5 or parts[3] != "tcp":
        return ""
    try:
        socket.create_connection((parts[2], int(parts[4])), _TCP_S).close()
    except OSError as error:
        return "timed out" if isinstance(error, TimeoutError) else (error.strerror or str(error))
    return ""
