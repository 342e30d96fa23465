"""What a command's exit code says; the daemon's own are with the errors that end it."""

from typing import Final

FAILED: Final = 1
USAGE: Final = 2
DEGRADED: Final = 3
UNREACHABLE: Final = 4
CHECK_SAYS_NO: Final = 5
INTERRUPTED: Final = 130
