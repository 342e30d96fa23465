"""The program that puts a shifted wall clock in front of p2pcity."""

import subprocess
import sys
from pathlib import Path

import pytest

from p2pcity.cli.chaos import shifted_clock

# Monotonic time is no wall clock: it must stay as it is.
_PROGRAM = """
import sys, time
begin_ns, begin_s, steady_ns = time.time_ns(), time.time(), time.monotonic_ns()
from p2pcity.cli.chaos import shifted_clock
try:
    shifted_clock.main()
except SystemExit:
    pass
print(time.time_ns() - begin_ns, time.time() - begin_s, time.monotonic_ns() - steady_ns)
"""


@pytest.mark.parametrize("offset_s", [-600, 0, 3600])
def test_the_clock_is_off_by_what_the_file_says(tmp_path: Path, offset_s: int) -> None:
    file = tmp_path / "offset"
    shifted_clock.make_file(file)
    shifted_clock.shift(file, offset_s * 1_000_000_000)
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(file), "version"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "p2pcity" in done.stdout
    wall_ns, wall_s, steady_ns = map(float, done.stdout.split()[-3:])
    assert abs(wall_ns / 1e9 - offset_s) < 60
    assert abs(wall_s - offset_s) < 60
    assert 0 <= steady_ns < 60e9
