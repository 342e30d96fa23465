"""`python -m tests.cli_times`: how long commands take beside an interpreter that does nothing.

Three nodes under load; each command and the empty interpreter in turn, so that all of them meet
the same machine.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Final

from tests.integration.process_case import Load, running_network, wait_leader

ROUNDS: Final = 15


def main() -> None:
    """Print medians in ms, and what each command takes more than the interpreter."""
    python = sys.executable
    program = (str(Path(python).with_name("p2pcity")),)
    taken_ms: dict[str, list[float]] = defaultdict(list)
    with (
        tempfile.TemporaryDirectory() as home,
        running_network(Path(home)) as network,
        Load(network) as load,
    ):
        load.wait_more(100)
        socket = str(network.node(wait_leader(network)).socket)
        calls = {
            "python -c pass": (python, "-c", "pass"),
            "p2pcity --help": (*program, "--help"),
            "p2pcity status": (*program, "status", "--node", socket),
            "p2pcity raft status": (*program, "raft", "status", "--node", socket),
            "p2pcity peers": (*program, "peers", "--node", socket),
        }
        for _ in range(ROUNDS):
            for name, call in calls.items():
                began_s = time.perf_counter()
                subprocess.run(call, stdout=subprocess.DEVNULL, check=True)
                taken_ms[name].append((time.perf_counter() - began_s) * 1000)
        print(f"{load.count} transactions acknowledged meanwhile")
    medians = {name: statistics.median(values) for name, values in taken_ms.items()}
    [empty, *_] = medians.values()
    for name, median in medians.items():
        print(f"{name:<20} {median:6.0f} ms, {median - empty:+5.0f}, {median / empty:.1f}x")


if __name__ == "__main__":
    main()
