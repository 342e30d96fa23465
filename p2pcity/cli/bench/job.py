"""What a client process of the bench is told to do, and what it tells back: one JSON line each."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, Self

REQUEST_TIMEOUT_S: Final = 15.0
"""How long a client waits for an answer before it counts the request as unanswered."""

Target = Literal["p2pcity", "etcd"]


@dataclass(frozen=True, slots=True)
class Job:
    """One client's part of a phase.

    `client` of `clients` counts from 0. `rate` is how many requests a second all clients
    together send on schedule (open loop); 0 means that each connection sends its next request
    when the last is answered (closed loop). At most `requests` are prepared before the start;
    nothing is sent later than `duration_s` after it. `run` makes ids unique between phases.
    `network` (hex) and `key_file` are for p2pcity alone, `wait` too.
    """

    target: Target
    run: str
    client: int
    clients: int
    addresses: tuple[str, ...]
    connections: int
    requests: int
    transactions_per_request: int
    events_per_transaction: int
    duration_s: float
    rate: float = 0.0
    wait: str = "committed"
    network: str = ""
    key_file: str = ""

    def to_json(self) -> str:
        """Return the job as one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        document = json.loads(text)
        return cls(**{**document, "addresses": tuple(document["addresses"])})


@dataclass(frozen=True, slots=True)
class Result:
    """What one client, or all of them together, saw.

    `latencies_ms` has one figure a request that was answered with success: from the scheduled
    time (open loop) or the sending (closed loop) to the answer's last byte. `taken` counts
    transactions that the node answers for, `refused` those it turned away, `unanswered` those
    of which nobody knows. `first_s` and `last_s` are the first scheduled time and the last
    answer, by time.monotonic(). `cpu_s` is what the clients themselves used meanwhile.
    `reasons` counts why transactions were refused or went unanswered.
    """

    latencies_ms: tuple[float, ...]
    taken: int
    refused: int
    unanswered: int
    first_s: float
    last_s: float
    cpu_s: float
    reasons: dict[str, int]

    def to_json(self) -> str:
        """Return the result as one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        document: dict[str, Any] = json.loads(text)
        return cls(**{**document, "latencies_ms": tuple(document["latencies_ms"])})

    @classmethod
    def merge(cls, results: list[Self]) -> Self:
        """Return what several clients saw as one."""
        reasons: dict[str, int] = {}
        for result in results:
            for reason, count in result.reasons.items():
                reasons[reason] = reasons.get(reason, 0) + count
        return cls(
            tuple(latency for result in results for latency in result.latencies_ms),
            sum(result.taken for result in results),
            sum(result.refused for result in results),
            sum(result.unanswered for result in results),
            min(result.first_s for result in results),
            max(result.last_s for result in results),
            sum(result.cpu_s for result in results),
            reasons,
        )
