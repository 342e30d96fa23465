"""Runs p2pcity under a wall clock that is off by what a file says, in nanoseconds.

`python -m p2pcity.cli.chaos.shifted_clock FILE run --config ...`. No machine lets one process
have a wall clock of its own, and p2pcity has no way to be told a wrong time: so this program puts
another `time.time_ns` and `time.time` in front of the real ones before p2pcity is imported. The
file is mapped into memory: a change of it takes effect at once. Monotonic clocks stay as they are.
"""

import mmap
import struct
import sys
import time
from pathlib import Path
from typing import Final

_OFFSET: Final = struct.Struct("<q")


def make_file(path: Path) -> None:
    """Make a file that says that the clock is right."""
    path.write_bytes(_OFFSET.pack(0))


def shift(path: Path, offset_ns: int) -> None:
    """Set how far the clock of the process that has mapped this file is off."""
    with path.open("r+b") as file:
        file.write(_OFFSET.pack(offset_ns))


def main() -> None:
    """Shift the clock, then do what the rest of the command line says."""
    with open(sys.argv[1], "rb") as file:
        mapped = mmap.mmap(file.fileno(), _OFFSET.size, access=mmap.ACCESS_READ)
    real_ns, unpack = time.time_ns, _OFFSET.unpack_from

    def time_ns() -> int:
        return real_ns() + int(unpack(mapped)[0])

    time.time_ns = time_ns
    time.time = lambda: time_ns() / 1e9
    from p2pcity.cli.main import main as run

    run(sys.argv[2:])


if __name__ == "__main__":
    main()
