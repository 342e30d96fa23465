"""Starts the client processes of a phase, all at one moment, and collects what they saw."""

import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Final

from p2pcity.cli.bench.job import REQUEST_TIMEOUT_S, Job, Result
from p2pcity.cli.bench.load import READY
from p2pcity.errors import Unavailable

PREPARE_S: Final = 180.0
_START_AHEAD_S: Final = 0.3
_END_S: Final = 10.0


def run_clients(jobs: Sequence[Job]) -> Result:
    """Run one process a job and return what they saw together; bounded in time, BLOCKING.

    Raises Unavailable when a client fails or does not end in time.
    """
    processes = [_start(job) for job in jobs]
    try:
        until_s = time.monotonic() + PREPARE_S
        for process in processes:
            _wait_ready(process, until_s)
        start_s = time.monotonic() + _START_AHEAD_S
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(f"{start_s}\n".encode())
        end_s = start_s + max(job.duration_s for job in jobs) + REQUEST_TIMEOUT_S + _END_S
        return Result.merge([_collect(process, end_s) for process in processes])
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


def _start(job: Job) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-m", "p2pcity.cli.bench.load"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    )
    assert process.stdin is not None
    process.stdin.write(job.to_json().encode() + b"\n")
    return process


def _wait_ready(process: subprocess.Popen[bytes], until_s: float) -> None:
    assert process.stdout is not None
    said = b""
    while not said.endswith(b"\n"):
        left_s = max(0.0, until_s - time.monotonic())
        is_readable, _, _ = select.select([process.stdout], [], [], left_s)
        chunk = os.read(process.stdout.fileno(), 64) if is_readable else b""
        if not chunk:
            break
        said += chunk
    if said.strip() != READY.encode():
        raise Unavailable(
            "a client of the bench did not get ready",
            remedy="Read what it says above, or measure for a shorter time.",
        )


def _collect(process: subprocess.Popen[bytes], end_s: float) -> Result:
    try:
        output, _ = process.communicate(timeout=max(0.1, end_s - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise Unavailable("a client of the bench did not end in time") from None
    if process.returncode != 0:
        raise Unavailable(f"a client of the bench ended with exit code {process.returncode}")
    return Result.from_json(output.decode())
