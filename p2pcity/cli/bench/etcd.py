"""A cluster of three etcd on loopback, for comparison: the same values, over its HTTP gateway."""

import json
import re
import shutil
import signal
import subprocess
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Self

from p2pcity.api.client import ApiProblem, Client, Unreachable
from p2pcity.cli.bench.figures import NodeReading
from p2pcity.cli.testnet.making import free_ports
from p2pcity.errors import Unavailable

NODES: Final = 3
_READY_S: Final = 20.0
_STOP_S: Final = 5.0
_POLL_S: Final = 0.1
_PREFIX: Final = b"bench/"
_PREFIX_END: Final = b"bench0"
_SYNCS: Final = re.compile(rb"^etcd_disk_wal_fsync_duration_seconds_count (\S+)$", re.MULTILINE)
_CPU: Final = re.compile(rb"^process_cpu_seconds_total (\S+)$", re.MULTILINE)
_RSS: Final = re.compile(rb"^process_resident_memory_bytes (\S+)$", re.MULTILINE)


def is_installed() -> bool:
    """Whether etcd and etcdctl are on the path (Debian: etcd-server and etcd-client)."""
    return shutil.which("etcd") is not None and shutil.which("etcdctl") is not None


class EtcdCluster:
    """Three etcd processes; a context manager that starts and stops them."""

    def __init__(self, directory: Path) -> None:
        """Take a directory for the data; nothing is started yet."""
        ports = free_ports(2 * NODES)
        self._directory = directory
        self._peers = [f"http://127.0.0.1:{port}" for port in ports[:NODES]]
        self.addresses = tuple(f"http://127.0.0.1:{port}" for port in ports[NODES:])
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:  # stopped, then raised on
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        cluster = ",".join(f"etcd{at}={peer}" for at, peer in enumerate(self._peers))
        for at, (peer, client) in enumerate(zip(self._peers, self.addresses, strict=True)):
            arguments = {
                "name": f"etcd{at}",
                "data-dir": str(self._directory / f"etcd{at}"),
                "listen-peer-urls": peer,
                "initial-advertise-peer-urls": peer,
                "listen-client-urls": client,
                "advertise-client-urls": client,
                "initial-cluster": cluster,
                "initial-cluster-state": "new",
                "logger": "zap",
                "log-level": "error",
            }
            with (self._directory / f"etcd{at}.log").open("ab") as output:
                self._processes.append(
                    subprocess.Popen(
                        ["etcd", *(f"--{name}={value}" for name, value in arguments.items())],
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                    )
                )
        until_s = time.monotonic() + _READY_S
        for address in self.addresses:
            while not self._is_healthy(address):
                if time.monotonic() > until_s:
                    raise Unavailable(
                        f"etcd is not ready after {_READY_S:.0f} s",
                        remedy=f"Read {self._directory}/etcd0.log, or use --no-etcd.",
                    )
                time.sleep(_POLL_S)

    def _is_healthy(self, address: str) -> bool:
        with Client(address, timeout_s=2.0) as client:
            try:
                return bool(client.get_json("/health").get("health") == "true")
            except (Unreachable, ApiProblem):
                return False

    def reader(self, puts: int) -> Callable[[], Sequence[NodeReading] | None]:
        """Return what reads the counters of each etcd; it gives None when one does not answer.

        Keys stand for events, and `puts` keys that came since the reader was made for one
        transaction.
        """
        with Client(self.addresses[0]) as client:
            keys_before = _count(client)
        return lambda: self._read(puts, keys_before)

    def _read(self, puts: int, keys_before: int) -> Sequence[NodeReading] | None:
        readings = []
        for at, address in enumerate(self.addresses):
            with Client(address) as client:
                try:
                    metrics = client.get("/metrics").body
                    keys = _count(client)
                    status = client.post("/v3/maintenance/status", b"{}")
                except (Unreachable, ApiProblem):
                    return None
            readings.append(
                NodeReading(
                    name=f"etcd{at}",
                    is_leader=status["leader"] == status["header"]["member_id"],
                    height=0,
                    head="",
                    root="",
                    transactions=(keys - keys_before) // puts,
                    events=keys,
                    cpu_s=_metric(_CPU, metrics),
                    rss_bytes=int(_metric(_RSS, metrics)),
                    syncs=int(_metric(_SYNCS, metrics)),
                )
            )
        return readings

    def stop(self) -> None:
        """Stop all processes; SIGKILL for one that takes too long."""
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()


def _count(client: Client) -> int:
    """Return how many keys of the bench this etcd has by a linearizable range."""
    span = {
        "key": b64encode(_PREFIX).decode(),
        "range_end": b64encode(_PREFIX_END).decode(),
        "count_only": True,
    }
    document = client.post("/v3/kv/range", json.dumps(span).encode())
    return int(document.get("count", 0))


def _metric(pattern: re.Pattern[bytes], metrics: bytes) -> float:
    """Return a value of Prometheus' text, 0 where it is missing."""
    found = pattern.search(metrics)
    return float(found.group(1)) if found else 0.0
