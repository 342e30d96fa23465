"""What this process says to systemd, or to whoever else speaks sd_notify(3).

The protocol is one datagram of `NAME=value` lines to the Unix socket that $NOTIFY_SOCKET names:
less than a library around it would be. Nothing here waits or fails: a datagram that the service
manager does not take is lost, and whoever sent it is told.
"""

import os
import socket
import threading
from collections.abc import MutableMapping
from typing import Final, Self

STATUS_BYTES_MAX: Final = 1024
_VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Notifier:
    """Sends to one notification socket; any thread may call it. Without an address it is mute."""

    def __init__(self, address: str | None = None, *, watchdog_s: float | None = None) -> None:
        """Take the socket's path (`@` in front: abstract) and the watchdog's time-out in s."""
        self._address = _address(address or "")
        self.watchdog_s = watchdog_s
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        self._lock = threading.Lock()
        self._said = ""

    @classmethod
    def take(cls, environment: MutableMapping[str, str] | None = None) -> Self:
        """Return the one that the environment names, and take it out: it is not for children."""
        variables = os.environ if environment is None else environment
        address, watchdog_us, pid = (variables.pop(name, None) for name in _VARIABLES)
        is_ours = pid is None or pid == str(os.getpid())
        watchdog_s = None
        if watchdog_us is not None and watchdog_us.isdecimal() and int(watchdog_us) and is_ours:
            watchdog_s = int(watchdog_us) / 1_000_000
        return cls(address, watchdog_s=watchdog_s)

    @property
    def is_heard(self) -> bool:
        """Whether there is anybody to tell."""
        return self._address is not None

    def send(self, *lines: str) -> bool:
        """Send `NAME=value` lines in one datagram; False when it was not taken."""
        if self._address is None:
            return True
        data = "\n".join(lines).encode("utf-8", "backslashreplace")
        try:
            self._socket.sendto(data, self._address)
        except OSError:
            # Its queue is full, or it begins anew: what matters is said again by the caller.
            return False
        return True

    def status(self, text: str, *lines: str) -> bool:
        """Send `lines` and the one line that `systemctl status` shows; as often as it changes."""
        with self._lock:
            if text == self._said and not lines:
                return True
            is_taken = self.send(*lines, f"STATUS={one_line(text)}")
            if is_taken:
                self._said = text
            return is_taken

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _address(text: str) -> str | None:
    if text.startswith("@"):
        return "\0" + text[1:]
    # Anything else, such as a VM's `vsock:`, is nothing that a service is given.
    return text if text.startswith("/") else None


def one_line(text: str) -> str:
    """Return `text` without line breaks, and not longer than a status may be."""
    line = " ".join(text.split())
    data = line.encode("utf-8", "backslashreplace")
    if len(data) <= STATUS_BYTES_MAX:
        return line
    return data[: STATUS_BYTES_MAX - 3].decode("utf-8", "ignore") + "..."
