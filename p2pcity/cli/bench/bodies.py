"""The bodies that a client sends, made and signed before the clock starts."""

import json
import secrets
import time
from base64 import b64encode
from pathlib import Path
from typing import Final

from p2pcity.cli.bench.job import Job
from p2pcity.cli.key_files import read_key
from p2pcity.crypto.keys import PrivateKey
from p2pcity.wire import event as event_wire
from p2pcity.wire import transaction as transaction_wire
from p2pcity.wire.event import Event

EVENT_BYTES: Final = 300
"""The encoded size of every event of the bench, salt included; etcd's values have it too."""
EVENT_TYPE: Final = "city.bench.reading"
_LIFETIME_MS: Final = 60 * 60 * 1000
_SPREAD: Final = 997


def make_bodies(job: Job) -> list[bytes]:
    """Return the bodies of the requests of one client, in the order in which they are sent."""
    if job.target == "etcd":
        return [_etcd_body(job, number) for number in range(job.requests)]
    key = read_key(Path(job.key_file), "authors")
    network = bytes.fromhex(job.network)
    padding = _padding(job)
    bodies = []
    for request in range(job.requests):
        first = request * job.transactions_per_request
        bodies.append(
            b"".join(
                _transaction(job, key, network, first + position, padding)
                for position in range(job.transactions_per_request)
            )
        )
    return bodies


def make_event(job: Job, number: int, padding: int) -> Event:
    """Return the event `number` of one client, such as a sensor on a street would send it."""
    return Event(
        salt=secrets.token_bytes(16),
        id=f"{job.run}-{number:09d}",
        type=EVENT_TYPE,
        source=f"/bench/client-{job.client:02d}",
        subject=f"sensor-{number % _SPREAD:04d}",
        time_ms=time.time_ns() // 1_000_000,
        place=(-739_800_000 - number % _SPREAD, 407_400_000 + number % _SPREAD),
        data={"level": 1000 + number % _SPREAD, "raw": secrets.token_bytes(padding)},
    )


def _padding(job: Job) -> int:
    """Return how many bytes of data bring an event to EVENT_BYTES."""
    probe = 100
    return probe + EVENT_BYTES - len(event_wire.encode(make_event(job, 0, probe)))


def _transaction(job: Job, key: PrivateKey, network: bytes, number: int, padding: int) -> bytes:
    count = job.events_per_transaction
    events = [make_event(job, number * count + at, padding) for at in range(count)]
    expires_ms = time.time_ns() // 1_000_000 + _LIFETIME_MS
    return transaction_wire.make(key, network, events, expires_ms, secrets.token_bytes(16)).data


def _etcd_body(job: Job, number: int) -> bytes:
    """Return a put of one value, or a transaction of as many puts as ours has events."""
    count = job.events_per_transaction
    puts = []
    for at in range(count):
        name = f"bench/{job.run}/{job.client:02d}/{number * count + at:09d}"
        value = secrets.token_bytes(EVENT_BYTES)
        puts.append({"key": b64encode(name.encode()).decode(), "value": b64encode(value).decode()})
    if count == 1:
        return json.dumps(puts[0]).encode()
    return json.dumps({"success": [{"requestPut": put} for put in puts]}).encode()
