"""How many files the node may open, and how many it may need."""

import resource
from contextlib import suppress
from pathlib import Path
from typing import Final

from p2pcity.errors import ConfigError
from p2pcity.node.config import Config

_BESIDES: Final = 64
"""Files, pipes and sockets besides the connections: 25 while idle, and some for a moment."""


def check_descriptors(config: Config) -> None:
    """Raise ConfigError where this process may open too few files for the node's connections."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _BESIDES + config.net.connections_max + config.http.connections_max
    if limit not in (resource.RLIM_INFINITY, -1) and limit < wanted:
        raise ConfigError(
            f"the limit of open files is {limit}, this node may need {wanted}",
            remedy="Raise it (`ulimit -n`, LimitNOFILE= of the unit), or lower "
            "net.connections_max and http.connections_max.",
        )


def limit_of(pid: int) -> int | None:
    """How many files a process may open (proc_pid_limits(5)); None when that is not told."""
    with suppress(OSError, ValueError):
        text = Path(f"/proc/{pid}/limits").read_text(encoding="utf-8")
        for line in text.splitlines():
            if line.startswith("Max open files"):
                return int(line.split()[3])
    return None
