"""A client process of the bench: `python -m p2pcity.cli.bench.load`.

It reads its job from standard input, makes and signs everything that it will send, says
`ready`, reads the time at which to start (time.monotonic(), which all processes of a machine
share), and writes its result as the last line. One thread a connection.
"""

import gc
import itertools
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

from p2pcity.api.client import ApiProblem, Client, Unreachable
from p2pcity.cli.bench.bodies import make_bodies
from p2pcity.cli.bench.job import REQUEST_TIMEOUT_S, Job, Result

READY: Final = "ready"
_TAKEN: Final = ("committed", "duplicate", "pending")
_WAIT_MS: Final = 10_000
_RETRY_S: Final = 0.2
_ETCD_PATHS: Final = {True: "/v3/kv/put", False: "/v3/kv/txn"}


class Load:
    """Sends the prepared bodies of one job, over several connections at a time."""

    def __init__(self, job: Job, bodies: list[bytes]) -> None:
        self._job = job
        self._bodies = bodies
        self._lock = threading.Lock()
        self._numbers: Iterator[int] = itertools.count()
        self._latencies_ms: list[float] = []
        self._counts = {"taken": 0, "refused": 0, "unanswered": 0}
        self._reasons: dict[str, int] = {}
        self._last_s = 0.0

    def run(self, start_s: float) -> Result:
        """Send from `start_s` on until the time or the bodies are over; BLOCKING."""
        cpu_s = time.process_time()
        threads = [
            threading.Thread(target=self._connection, args=(number, start_s))
            for number in range(self._job.connections)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return Result(
            tuple(self._latencies_ms),
            **self._counts,
            first_s=start_s,
            last_s=max(self._last_s, start_s),
            cpu_s=time.process_time() - cpu_s,
            reasons=self._reasons,
        )

    def _connection(self, number: int, start_s: float) -> None:
        job = self._job
        clients = [Client(address, timeout_s=REQUEST_TIMEOUT_S) for address in job.addresses]
        end_s = start_s + job.duration_s
        # A closed loop keeps to one node; connections of all clients are spread over the nodes.
        own = clients[(job.client + number * job.clients) % len(clients)]
        # Connecting is not measured.
        for client in clients if job.rate else [own]:
            self._warm_up(client)
        _sleep_until(start_s)
        while True:
            with self._lock:
                at = next(self._numbers)
            if at >= len(self._bodies):
                break
            if not job.rate:
                if time.monotonic() >= end_s:
                    break
                self._send_until_taken(own, self._bodies[at], end_s)
                continue
            # On schedule, whether or not the node keeps up: a request that had to wait for a
            # free connection has waited from its scheduled time on.
            turn = job.client + at * job.clients
            due_s = start_s + turn / job.rate
            if due_s >= end_s:
                break
            _sleep_until(due_s)
            self._send(clients[turn % len(clients)], self._bodies[at], due_s)
        for client in clients:
            client.close()

    def _warm_up(self, client: Client) -> None:
        try:
            client.get("/livez" if self._job.target == "p2pcity" else "/health")
        except (Unreachable, ApiProblem):
            # The node is not there: the requests will say so.
            return

    def _send_until_taken(self, client: Client, body: bytes, end_s: float) -> None:
        """Send a body, again after a pause while the node is full; until the phase ends."""
        while self._send(client, body, time.monotonic()) and time.monotonic() < end_s:
            time.sleep(_RETRY_S)

    def _send(self, client: Client, body: bytes, due_s: float) -> bool:
        """Send one request and note how it went; whether the node was too full to take any."""
        job = self._job
        count = job.transactions_per_request
        try:
            statuses = self._request(client, body)
        except ApiProblem as problem:
            self._note(due_s, 0, count, 0, problem.reason or str(problem.status))
            return problem.status == 429
        except Unreachable as error:
            self._note(due_s, 0, 0, count, str(error))
            return False
        taken = sum(status in _TAKEN for status in statuses)
        self._note(due_s, taken, count - taken, 0, "not taken")
        return False

    def _request(self, client: Client, body: bytes) -> list[str]:
        """Send one request; the status of each of its transactions."""
        job = self._job
        if job.target == "etcd":
            path = _ETCD_PATHS[job.events_per_transaction == 1]
            answer = client.request("POST", path, body=body, headers=_JSON)
            is_put = b'"header"' in answer.body
            return ["committed" if is_put else "rejected"]
        is_one = job.transactions_per_request == 1
        document: dict[str, Any] = client.post(
            "/v1/transactions",
            body,
            "application/cbor" if is_one else "application/cbor-seq",
            {"wait": job.wait, "timeout_ms": _WAIT_MS},
        )
        return [item["status"] for item in ([document] if is_one else document["answers"])]

    def _note(self, due_s: float, taken: int, refused: int, unanswered: int, reason: str) -> None:
        now_s = time.monotonic()
        with self._lock:
            if taken:
                self._latencies_ms.append(round((now_s - due_s) * 1000, 3))
            self._counts["taken"] += taken
            self._counts["refused"] += refused
            self._counts["unanswered"] += unanswered
            if refused or unanswered:
                self._reasons[reason] = self._reasons.get(reason, 0) + refused + unanswered
            self._last_s = max(self._last_s, now_s)


_JSON: Final = {"Content-Type": "application/json"}


def _sleep_until(time_s: float) -> None:
    left_s = time_s - time.monotonic()
    if left_s > 0:
        time.sleep(left_s)


def main() -> int:
    """Do one job, as described above."""
    job = Job.from_json(sys.stdin.readline())
    load = Load(job, make_bodies(job))
    # What is prepared stays to the end: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    print(READY, flush=True)
    line = sys.stdin.readline()
    if not line:
        # The bench ended before it began.
        return 1
    print(load.run(float(line)).to_json(), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
